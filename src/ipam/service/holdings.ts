// Finds who holds what, from what a person knows: an address, the name of a pod or VM, or the beginning of a container ID.
import type { Ip } from '../../net/ip.ts';
import { parseIp, sameIp } from '../../net/ip.ts';
import { type AttachmentId, type Keys, parseKey } from '../../store/keys.ts';
import { afterPrefix, type Entry } from '../../store/kv.ts';
import { describePod } from '../describe.ts';
import { type Holder, type OwnerRecord, type Pod, parseAttachment, parseOwner, usersOf } from '../model.ts';
import { ipOfKey } from './look.ts';
import { type PatientSurroundings, scanAll } from './patience.ts';

export interface AddressRecord {
  readonly ip: Ip;
  readonly entry: Entry;
  readonly owner: OwnerRecord;
}

/** An attachment with the records of its addresses, or a record that belongs to none. */
export interface Holding {
  /** Absent where a record names no attachment: a reservation, a hold, what a workload keeps and no pod uses. */
  readonly id?: AttachmentId;
  /** Absent where a record names an attachment that is not there. */
  readonly attachment?: Entry;
  /** The records asked for first, then those of the attachment's other addresses, whoever owns them. */
  readonly records: readonly AddressRecord[];
}

/** A container ID is given by at least so many of its first characters. */
const shortestId = 6;

/** Everything that the words may mean; empty when nothing fits. */
export async function findHoldings(around: PatientSurroundings, what: string): Promise<Holding[]> {
  const ip = parseIp(what);
  if (ip !== undefined) {
    const [record] = await readRecords(around, [ip]);
    return record === undefined ? [] : holdingsOf(around, record, record.owner.holders);
  }
  const [ofPods, ofContainers] = [await recordsOfPod(around, what), await attachmentsOf(around, what)];
  const holdings = new Map<string, Holding>();
  for (const { record, holders } of ofPods) {
    for (const holding of await holdingsOf(around, record, holders)) {
      const key = holding.id === undefined ? record.entry.key : around.keys.attachment(holding.id);
      if (!holdings.has(key)) holdings.set(key, holding);
    }
  }
  for (const { id, attachment } of ofContainers) {
    if (holdings.has(attachment.key)) continue;
    holdings.set(attachment.key, {
      id,
      attachment,
      records: await readRecords(around, parseAttachment(attachment.value)),
    });
  }
  return [...holdings.values()];
}

/** The attachment that a record names; undefined for other kinds of owners, and for names that no key can have. */
export function attachmentIdOf(owner: OwnerRecord, keys: Keys): AttachmentId | undefined {
  if (!['dynamic', 'fixed', 'sticky'].includes(owner.kind)) return undefined;
  const { node, network, containerID, ifname } = owner;
  try {
    return parseKey(keys.attachment({ node, network, containerID, ifname })) && { node, network, containerID, ifname };
  } catch {
    return undefined;
  }
}

export async function readRecords(around: PatientSurroundings, ips: readonly Ip[]): Promise<AddressRecord[]> {
  const { kv, keys, deadline } = around;
  deadline.renew();
  const { answers } = await kv.read(
    ips.map(ip => ({ key: keys.address(ip) })),
    deadline,
  );
  return answers.flatMap(({ entries }) => entries.flatMap(recordOf));
}

/** An owner record with its address; nothing for any other entry. */
export function recordOf(entry: Entry): AddressRecord[] {
  const ip = ipOfKey(entry.key);
  return ip === undefined ? [] : [{ ip, entry, owner: parseOwner(entry.value) }];
}

/** One for each of the holders; where no attachment has the address, the record alone. */
async function holdingsOf(
  around: PatientSurroundings,
  record: AddressRecord,
  holders: readonly Holder[],
): Promise<Holding[]> {
  const ids = holders.flatMap(holder => attachmentIdOf({ ...record.owner, ...holder }, around.keys) ?? []);
  return ids.length === 0 ? [{ records: [record] }] : Promise.all(ids.map(id => holdingOf(around, record, id)));
}

async function holdingOf(around: PatientSurroundings, record: AddressRecord, id: AttachmentId): Promise<Holding> {
  const { kv, keys, deadline } = around;
  deadline.renew();
  const attachment = (await kv.read([{ key: keys.attachment(id) }], deadline)).answers[0]!.entries[0];
  if (attachment === undefined) return { id, records: [record] };
  const others = parseAttachment(attachment.value).filter(ip => !sameIp(ip, record.ip));
  return { id, attachment, records: [record, ...(await readRecords(around, others))] };
}

/** By `name`, `namespace/name`, or the uid of a pod; or by the name of what keeps its address. */
async function recordsOfPod(around: PatientSurroundings, what: string) {
  const prefix = around.keys.addresses();
  const found: { record: AddressRecord; holders: readonly Holder[] }[] = [];
  const isMeant = (pod: Pod | undefined) => pod !== undefined && [pod.name, describePod(pod), pod.uid].includes(what);
  for await (const entries of scanAll(around, prefix, afterPrefix(prefix))) {
    for (const record of entries.flatMap(recordOf)) {
      const { holders, pod, workload } = record.owner;
      const isUser = usersOf(record.owner).some(isMeant);
      const meant = isMeant(workload) ? holders : holders.filter(holder => isMeant(holder.pod));
      if (meant.length > 0 || isMeant(workload) || isMeant(pod) || isUser) found.push({ record, holders: meant });
    }
  }
  return found;
}

async function attachmentsOf(around: PatientSurroundings, what: string) {
  const prefix = around.keys.attachments();
  const found: { id: AttachmentId; attachment: Entry }[] = [];
  for await (const entries of scanAll(around, prefix, afterPrefix(prefix))) {
    for (const attachment of entries) {
      const parsed = parseKey(attachment.key);
      if (parsed?.type !== 'attachment') continue;
      const { containerID } = parsed.id;
      const fits = containerID === what || (what.length >= shortestId && containerID.startsWith(what));
      if (fits) found.push({ id: parsed.id, attachment });
    }
  }
  return found;
}
