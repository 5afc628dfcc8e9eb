// Lends addresses of pools to objects of Kubernetes, one commit each, and takes them back when nobody answers for them.
import { code, FailureError } from '../../base/errors.ts';
import { type Family, formatIp, type Ip, sameIp } from '../../net/ip.ts';
import { type Span, spanContains } from '../../net/span.ts';
import type { AttachmentId } from '../../store/keys.ts';
import type { Condition, Entry, Write } from '../../store/kv.ts';
import { ringOf } from '../candidates.ts';
import {
  isLentTo,
  lendingId,
  type OwnerRecord,
  parseAttachment,
  parseOwner,
  renderAttachment,
  type ServiceHolder,
  usersOf,
} from '../model.ts';
import { allotmentOf, type Pool, setOf } from '../pool.ts';
import type { Surroundings } from '../ports.ts';
import { isOfFeature, unshareService } from '../records.ts';
import { allocateFor } from './allocate.ts';
import { refusalOf } from './named.ts';
import { planSets } from './plan.ts';
import { asRead } from './writes.ts';

export interface LendOptions {
  readonly object: ServiceHolder;
  readonly pool: Pool;
  readonly family: Family;
  readonly cluster: string;
  /** Whose objects are spoken of: the uid of namespace kube-system. */
  readonly clusterUid: string;
  /** The address that the object asks for by name. */
  readonly wanted?: Ip;
  /** Addresses that are in use without the store's knowing, such as those of nodes. */
  readonly keptClear: readonly Span[];
  /** Why the object may not share the address of these others; undefined: it may. Asked of the same pool only. */
  whyNotShared(others: readonly ServiceHolder[]): string | undefined;
}

/**
 * Gives the object one address of the pool's family. Asked again it answers the same; where it asks for another one, the
 * former stays lent, behind the new one in the attachment, until it is taken back.
 * Errors: 7 (the address asked for cannot be given, or the cluster's name is another's), 11 (it has an owner; the store is
 * away), 100 (exhausted), 101, 103 (no range of this family), 104, 105.
 */
export async function lend(around: Surroundings, options: LendOptions): Promise<Ip> {
  const { object, pool, family, cluster, clusterUid, wanted, keptClear } = options;
  const set = setOf(pool, family);
  if (set === undefined) throw new FailureError(code.noRange, `AddressPool ${pool.name} has no range of IPv${family}`);
  const allotment = allotmentOf(pool, cluster, around.deadline.left());
  const refuse = (ip: Ip) => refusalOf(allotment, 'requested address', ip);
  if (wanted !== undefined && keptClear.some(span => spanContains(span, wanted)))
    refuse(wanted)('it is an address of a node');
  const [plan] = planSets(allotment, { sets: [set], refused: [] }, wanted === undefined ? [] : [wanted]);
  const ring = ringOf(set, pool.sets, [...pool.exclude, ...keptClear]);
  const id = lendingId(object, pool.name, family);
  const { addresses } = await allocateFor(around, allotment, {
    owner: { id, cluster, machine: '', boot: '', netns: '' },
    knownByUid: true,
    plans: [{ ...plan!, ring }],
    clusterUid,
    loan: { object, pool: pool.name, whyNotShared: owner => whyNotShared(options, owner) },
  });
  return addresses[0]!.ip;
}

function whyNotShared({ object, pool, cluster, ...options }: LendOptions, owner: OwnerRecord): string | undefined {
  if (!isOfFeature(owner, object.feature, cluster)) return '';
  const others = usersOf(owner).filter(({ uid }) => uid !== object.uid);
  if (others.length === 0) return undefined;
  if (owner.pool !== pool.name) return ', and not from this pool';
  const why = options.whyNotShared(others);
  return why && `: ${why}`;
}

/** Conditions of a commit under which nobody answers for an address; undefined: somebody may, now. */
export type Unclaimed = (ip: Ip) => readonly Condition[] | undefined;

export interface Reclaimed {
  readonly freed: readonly Ip[];
  /** Somebody may answer for them still, or things have changed meanwhile: ask again. */
  readonly waiting: readonly Ip[];
}

/**
 * Takes back what is lent through the attachment, except `keep`. An address that others share stays theirs; any other is
 * free only when nobody answers for it. Safe to repeat whatever became of the last try.
 */
export async function reclaim(
  around: Surroundings,
  id: AttachmentId,
  keep: readonly Ip[],
  unclaimed: Unclaimed,
): Promise<Reclaimed> {
  const { kv, keys, deadline } = around;
  const key = keys.attachment(id);
  let attachment = (await kv.read([{ key }], deadline)).answers[0]!.entries[0];
  const freed: Ip[] = [];
  const waiting: Ip[] = [];
  const listed = parseAttachment(attachment?.value ?? '{}');
  for (const ip of listed.filter(one => !keep.some(kept => sameIp(kept, one)))) {
    const stay = parseAttachment(attachment!.value).filter(one => !sameIp(one, ip));
    const value = renderAttachment(stay, true, attachment!.value);
    const record = (await kv.read([{ key: keys.address(ip) }], deadline)).answers[0]!.entries[0];
    const commit = takeFrom(id, ip, record, unclaimed);
    const result =
      commit &&
      (await kv.commit(
        {
          conditions: [asRead(key, attachment), ...commit.conditions],
          writes: [stay.length > 0 ? { put: key, value } : { delete: key }, ...commit.writes],
        },
        deadline,
      ));
    if (!result?.won) {
      waiting.push(ip);
      continue;
    }
    freed.push(ip);
    attachment = { ...attachment!, value, revision: result.revision };
  }
  if (freed.length > 0) around.log.info('taken back', { ...id, address: freed.map(formatIp) });
  return { freed, waiting };
}

/** What takes the address from the attachment, beside the attachment itself; undefined while somebody may answer for it. */
function takeFrom(id: AttachmentId, ip: Ip, record: Entry | undefined, unclaimed: Unclaimed) {
  const owner = parseOwner(record?.value ?? '');
  if (record === undefined || !isLentTo(owner, id)) return { conditions: [], writes: [] };
  const shared = unshareService(owner, id.containerID);
  const nobody: readonly Condition[] | undefined = shared === undefined ? unclaimed(ip) : [];
  if (nobody === undefined) return undefined;
  const write: Write = shared === undefined ? { delete: record.key } : { put: record.key, value: shared };
  return { conditions: [asRead(record.key, record), ...nobody], writes: [write] };
}
