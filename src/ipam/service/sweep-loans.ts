// gc of what is lent to objects of Kubernetes that vanished while nobody watched: two scans, a grace apart, and a last look.
import type { Deadline } from '../../base/clock.ts';
import { formatIp, type Ip } from '../../net/ip.ts';
import { type AttachmentId, parseKey } from '../../store/keys.ts';
import { afterPrefix, type Entry } from '../../store/kv.ts';
import {
  type Feature,
  featureNode,
  isLentTo,
  parseAttachment,
  poolPrefix,
  type ServiceHolder,
  usersOf,
} from '../model.ts';
import { isOfFeature } from '../records.ts';
import { type AddressRecord, readRecords, recordOf } from './holdings.ts';
import { type Reclaimed, reclaim, type Unclaimed } from './lend.ts';
import { giveWay, type PatientSurroundings, scanAll } from './patience.ts';
import type { Suspects } from './suspects.ts';

/** What is lent to one object from one pool. */
export interface Lent {
  readonly id: AttachmentId;
  readonly entry: Entry;
  /** The one in use first; the others are to be taken back. */
  readonly addresses: readonly Ip[];
}

/** Everything that a feature has lent, whatever cluster it belongs to. */
export async function readLent(around: PatientSurroundings, feature: Feature): Promise<Lent[]> {
  const prefix = around.keys.attachments(featureNode(feature));
  const lent: Lent[] = [];
  for await (const entries of scanAll(around, prefix, afterPrefix(prefix))) {
    for (const entry of entries) {
      const parsed = parseKey(entry.key);
      if (parsed?.type !== 'attachment' || !parsed.id.network.startsWith(poolPrefix)) continue;
      lent.push({ id: parsed.id, entry, addresses: parseAttachment(entry.value) });
    }
  }
  return lent;
}

/** The objects that may have addresses, as the API has them now: by quorum, no cache. Throws when it does not answer. */
export interface Objects {
  /** The uids of all of them, and all addresses that they name themselves, as canonical text. */
  list(): Promise<{ readonly uids: ReadonlySet<string>; readonly named: ReadonlySet<string> }>;
  /** The uid of the object that has this name now. */
  uidOf(object: ServiceHolder, deadline: Deadline): Promise<string | undefined>;
}

export interface LoanSweepOptions {
  readonly feature: Feature;
  readonly cluster: string;
  /** Milliseconds between the first look and the one that frees. */
  readonly grace: number;
  readonly unclaimed: Unclaimed;
}

export interface LoanFinding extends Reclaimed {
  readonly id: AttachmentId;
  readonly object: ServiceHolder;
}

/** Takes back what objects have that are gone. What the API does not answer ends it, by its error, with nothing freed. */
export async function* sweepLoans(
  around: PatientSurroundings,
  objects: Objects,
  suspects: Suspects,
  { feature, cluster, grace, unclaimed }: LoanSweepOptions,
): AsyncIterable<LoanFinding> {
  suspects.begin();
  // The loans are read before the objects: whatever came in between is in the second list only.
  const lent = await readLent(around, feature);
  const { uids } = await objects.list();
  for (const { id, entry, addresses } of lent) {
    if (uids.has(id.containerID)) continue;
    const object = await borrowerOf(around, id, addresses, cluster);
    if (object === undefined) continue;
    const age = suspects.age(entry.key, String(entry.revision));
    if (age === 0 || age < grace) continue;
    around.deadline.renew();
    if ((await objects.uidOf(object, around.deadline)) === id.containerID) {
      suspects.clear(entry.key);
      continue;
    }
    around.deadline.renew();
    yield { id, object, ...(await reclaim(around, id, [], unclaimed)) };
  }
  suspects.end();
}

/** Undefined where no record of this cluster says that the object has the address: nobody knows whose it is. */
async function borrowerOf(around: PatientSurroundings, id: AttachmentId, addresses: readonly Ip[], cluster: string) {
  const records = await readRecords(around, addresses);
  const own = records.filter(({ owner }) => owner.cluster === cluster && isLentTo(owner, id));
  return own.flatMap(({ owner }) => usersOf(owner)).find(({ uid }) => uid === id.containerID);
}

/**
 * Addresses that objects named themselves, and no object names any more. `forget` deletes the record unless somebody may
 * answer for it. Reads every record of the space, so it is for a scan that comes seldom.
 */
export async function sweepNamed(
  around: PatientSurroundings,
  objects: Objects,
  suspects: Suspects,
  { feature, cluster, grace }: LoanSweepOptions,
  forget: (address: string) => Promise<boolean>,
): Promise<readonly string[]> {
  const records: AddressRecord[] = [];
  const prefix = around.keys.addresses();
  let begun = performance.now();
  for await (const entries of scanAll(around, prefix, afterPrefix(prefix))) {
    const own = ({ owner }: AddressRecord) => isOfFeature(owner, feature, cluster) && owner.pool === undefined;
    records.push(...entries.flatMap(recordOf).filter(own));
    await giveWay(around, begun);
    begun = performance.now();
  }
  suspects.begin();
  const { named } = await objects.list();
  const freed: string[] = [];
  for (const { ip, entry } of records) {
    const address = formatIp(ip);
    if (named.has(address)) continue;
    const age = suspects.age(entry.key, String(entry.revision));
    if (age > 0 && age >= grace && (await forget(address))) freed.push(address);
  }
  suspects.end();
  return freed;
}
