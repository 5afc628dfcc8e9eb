// gc of what has no place: addresses that a workload keeps and no pod uses, and records that have lost their attachment.
import { FailureError, messageOf } from '../../base/errors.ts';
import { formatIp } from '../../net/ip.ts';
import type { AttachmentId, Keys } from '../../store/keys.ts';
import { afterPrefix, type Condition, type Write } from '../../store/kv.ts';
import { whyImmortal, whyUnclaimed } from '../gc.ts';
import { outlivesAttachment, renderAttachment, type Workload } from '../model.ts';
import { placeOf } from '../workload.ts';
import { type AddressRecord, attachmentIdOf, recordOf } from './holdings.ts';
import { takeFromWorkload } from './keeping.ts';
import { giveWay, scanAll } from './patience.ts';
import type { Suspects } from './suspects.ts';
import type { Finding, Sweep } from './sweep.ts';
import { asRead } from './writes.ts';

/** What a look at all owner records of the space brought to light. */
export interface Survey {
  /** Nodes, by their names in the store, where an address of this cluster is held. */
  readonly nodes: readonly string[];
  readonly strays: readonly Stray[];
  readonly unheld: readonly Unheld[];
}

/** A record that names an attachment which is not there, so that no DEL would free it. */
interface Stray {
  /** Of the attachment. */
  readonly key: string;
  readonly id: AttachmentId;
  readonly record: AddressRecord;
}

/** An address that a workload keeps for its next pod. */
interface Unheld {
  /** Of the workload. */
  readonly key: string;
  readonly workload: Workload;
  readonly record: AddressRecord;
}

/** Reads every owner record of the space, page by page; `withStrays`: their attachments too. */
export async function survey({ around, options }: Sweep, withStrays: boolean): Promise<Survey> {
  const { keys } = around;
  const nodes = new Set<string>();
  const strays: Stray[] = [];
  const unheld: Unheld[] = [];
  let begun = performance.now();
  for await (const entries of scanAll(around, keys.addresses(), afterPrefix(keys.addresses()))) {
    const records = entries.flatMap(recordOf).filter(({ owner }) => whyImmortal(owner, options.cluster) === undefined);
    const named = records.flatMap(record => attachmentsOf(record, keys));
    for (const { id } of named) nodes.add(id.node);
    if (withStrays) strays.push(...(await missing({ around }, named)));
    unheld.push(...records.flatMap(record => keptBy(record, options.cluster, keys)));
    await giveWay(around, begun);
    begun = performance.now();
  }
  return { nodes: [...nodes].sort(), strays, unheld };
}

function attachmentsOf(record: AddressRecord, keys: Keys): Stray[] {
  return record.owner.holders.flatMap(holder => {
    const id = attachmentIdOf({ ...record.owner, ...holder }, keys);
    return id === undefined ? [] : [{ key: keys.attachment(id), id, record }];
  });
}

async function missing({ around }: Pick<Sweep, 'around'>, named: readonly Stray[]): Promise<Stray[]> {
  const { answers } = await around.kv.read(
    named.map(({ key }) => ({ key })),
    around.deadline,
  );
  return named.filter((_, i) => answers[i]!.count === 0);
}

/** Nothing while a pod holds it, a dead one too: that goes first, by the rules for its attachment. */
function keptBy(record: AddressRecord, cluster: string, keys: Keys): Unheld[] {
  const { workload, holders, network, ifname } = record.owner;
  if (workload === undefined || holders.length > 0) return [];
  try {
    return [{ key: keys.workload(cluster, network, workload, ifname), workload, record }];
  } catch (error) {
    // Names that no key can have: nobody can ask for this address again, and nobody can say whose it was.
    if (error instanceof FailureError) return [];
    throw error;
  }
}

/**
 * Gives stray records their attachments back, so that a DEL finds them, and gc where their containers live. A DEL that
 * came while they were read has moved or removed the record, and wins.
 */
export async function* mend({ around, options }: Sweep, strays: readonly Stray[]): AsyncIterable<Finding> {
  for (const [key, some] of Map.groupBy(strays, ({ key }) => key)) {
    const records = some.map(({ record }) => record);
    const addresses = records.map(({ ip }) => ip);
    const kept = records.some(({ owner }) => outlivesAttachment(owner));
    const conditions: Condition[] = [{ absent: key }, ...records.map(({ entry }) => asRead(entry.key, entry))];
    const writes: Write[] = [{ put: key, value: renderAttachment(addresses, kept) }];
    around.deadline.renew();
    if (!options.dryRun && !(await around.kv.commit({ conditions, writes }, around.deadline)).won) continue;
    const { id } = some[0]!;
    if (!options.dryRun) around.log.info('gc: attachment restored', { ...id, address: addresses.map(formatIp) });
    yield { outcome: 'mended', id, addresses, why: 'no attachment listed it, so no DEL would have freed it', age: 0 };
  }
}

/** Frees what a workload keeps once the API has shown in two scans that there is no such workload any more. */
export async function* sweepWorkloads(
  sweep: Sweep,
  unheld: readonly Unheld[],
  suspects: Suspects,
): AsyncIterable<Finding> {
  const { options } = sweep;
  /** By kind: what the API refuses once it is not asked again and again. */
  const refused = new Map<string, string>();
  suspects.begin();
  for (const [key, some] of Map.groupBy(unheld, ({ key }) => key)) {
    const { workload } = some[0]!;
    const records = some.map(({ record }) => record);
    const common = { workload, addresses: records.map(({ ip }) => ip) };
    const why = refused.has(workload.kind) ? undefined : await whyWorkloadGone(sweep, workload, refused);
    const refusal = refused.get(workload.kind);
    if (refusal !== undefined) yield { ...common, outcome: 'unanswered', why: refusal, age: 0 };
    if (why === undefined) continue;
    const age = suspects.age(key, records.map(({ entry }) => entry.revision).join(' '));
    if (age === 0 || age < options.grace) yield { ...common, outcome: 'suspect', why, age };
    else if (options.dryRun) yield { ...common, outcome: 'dead', why, age };
    else yield { ...common, outcome: (await free(sweep, key, records, why)) ? 'freed' : 'changed', why, age };
  }
  suspects.end();
}

/** Undefined while it is there, and where the API does not say: that is noted in `refused`, and stops nothing else. */
async function whyWorkloadGone(
  { around, api }: Sweep,
  { namespace, kind, name }: Workload,
  refused: Map<string, string>,
): Promise<string | undefined> {
  const { deadline } = around;
  deadline.renew();
  try {
    if (kind === 'VirtualMachine') return (await api.hasVm(namespace, name, deadline)) ? undefined : 'its VM is gone';
    const place = placeOf(name);
    return place && whyUnclaimed(await api.statefulSet(namespace, place.set, deadline), place.ordinal);
  } catch (error) {
    if (!(error instanceof FailureError)) throw error;
    refused.set(kind, messageOf(error));
    return undefined;
  }
}

/** False when one of the records moved since. */
async function free({ around }: Sweep, key: string, records: readonly AddressRecord[], why: string): Promise<boolean> {
  if (!(await takeFromWorkload(around, key, records))) return false;
  around.log.info('gc', { workload: key, address: records.map(({ ip }) => formatIp(ip)), why });
  return true;
}
