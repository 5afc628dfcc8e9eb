// Takes addresses away from the workload that keeps them.
import { sameIp } from '../../net/ip.ts';
import type { Write } from '../../store/kv.ts';
import { parseAttachment, renderWorkload } from '../model.ts';
import type { AddressRecord } from './holdings.ts';
import type { PatientSurroundings } from './patience.ts';
import { asRead } from './writes.ts';

/**
 * Deletes the records as they were read, and their place in the workload's key, in one commit. False when one of them
 * moved since, so that a pod that came in between keeps what it was given.
 */
export async function takeFromWorkload(
  { kv, deadline }: PatientSurroundings,
  key: string,
  records: readonly AddressRecord[],
): Promise<boolean> {
  deadline.renew();
  const entry = (await kv.read([{ key }], deadline)).answers[0]!.entries[0];
  const others = parseAttachment(entry?.value ?? '{}').filter(ip => !records.some(record => sameIp(record.ip, ip)));
  const conditions = [asRead(key, entry), ...records.map(record => asRead(record.entry.key, record.entry))];
  const writes: Write[] = records.map(record => ({ delete: record.entry.key }));
  if (entry !== undefined)
    writes.push(others.length > 0 ? { put: key, value: renderWorkload(others) } : { delete: key });
  return (await kv.commit({ conditions, writes }, deadline)).won;
}
