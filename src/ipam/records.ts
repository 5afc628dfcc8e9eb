// Makes the values that are written to the store. Pure: the time is given.

import { formatCidr } from '../net/cidr.ts';
import { formatIp, type Ip } from '../net/ip.ts';
import { formatSpan } from '../net/span.ts';
import type { AttachmentId } from '../store/keys.ts';
import type { AccessConfig, Allotment } from './config.ts';
import {
  type Feature,
  type Holder,
  type OwnerRecord,
  type Pod,
  type ServiceHolder,
  sameAttachment,
  usersOf,
  type Workload,
} from './model.ts';
import type { RangeSet } from './range.ts';

/** Whom an address is given to. */
export interface Owner {
  readonly id: AttachmentId;
  readonly cluster: string;
  readonly machine: string;
  readonly boot: string;
  readonly netns: string;
  readonly pod?: Pod;
}

function timestamp(now: number): string {
  return `${new Date(now).toISOString().slice(0, 19)}Z`;
}

/** An address of one attachment. `hold`: seconds for which it is held by name after its release. */
export function renderOwner(owner: Owner, kind: 'dynamic' | 'fixed', hold: number, now: number): string {
  return JSON.stringify({
    cluster: owner.cluster,
    kind,
    since: timestamp(now),
    ...holderOf(owner),
    ...(hold > 0 && { hold }),
  });
}

/** The same owner asked again: what may have changed is renewed, fields of later versions stay. */
export function renewOwner(old: OwnerRecord, owner: Owner): string {
  const { machine, boot, netns, pod } = owner;
  return JSON.stringify({ ...old.raw, machine, boot, netns, ...(pod && { pod }) });
}

/** An address of a workload; `holders` are its living holders, the new one last. */
export function renderSticky(
  owner: Owner,
  workload: Workload,
  holders: readonly Holder[],
  old: OwnerRecord | undefined,
  now: number,
): string {
  const { network, ifname } = owner.id;
  return JSON.stringify({
    ...(old?.raw ?? { cluster: owner.cluster, kind: 'sticky', since: timestamp(now) }),
    network,
    ifname,
    workload: { namespace: workload.namespace, kind: workload.kind, name: workload.name },
    holders: holders.map(stickyHolder),
  });
}

/** As a holder of an address, with network and interface left to the record. */
function stickyHolder({ node, machine, boot, containerID, netns, pod }: Holder) {
  return { node, machine, boot, containerID, netns, ...(pod && { pod }) };
}

export interface ServiceOptions {
  readonly cluster: string;
  /** The pool that gives the address; absent for one that the object names itself. */
  readonly pool?: string;
}

/** An address that a feature holds for an object of Kubernetes. It is on no lease. */
export function renderService(holder: ServiceHolder, { cluster, pool }: ServiceOptions, now: number): string {
  return JSON.stringify({
    cluster,
    kind: 'service',
    since: timestamp(now),
    holder: { ...namesOf(holder), feature: holder.feature, group: holder.group, kind: holder.kind },
    ...(pool !== undefined && { pool }),
  });
}

/**
 * The same record with another holder, or with other sharers: since when, its pool and fields of later versions stay. A
 * pool's address goes by its loans: only who lends it may change them.
 */
export function renewService(old: OwnerRecord, holder: ServiceHolder, sharers = old.sharers ?? []): string {
  const { sharers: _, ...raw } = old.raw;
  const { feature, group, kind } = holder;
  const value = { ...raw, holder: { ...namesOf(holder), feature, group, kind } };
  return JSON.stringify(sharers.length === 0 ? value : { ...value, sharers: sharers.map(namesOf) });
}

/** A feature's record with one more object that uses the address, which is the pool's from now on. */
export function shareService(old: OwnerRecord, object: ServiceHolder, pool: string): string {
  const raw = { ...old.raw, pool };
  const users = usersOf(old);
  if (users.some(({ uid }) => uid === object.uid)) return JSON.stringify(raw);
  return renewService({ ...old, raw }, users[0] ?? object, [...users.slice(1), object]);
}

/** A pool's record without one of its users; undefined when it was the last. */
export function unshareService(old: OwnerRecord, uid: string): string | undefined {
  const [holder, ...sharers] = usersOf(old).filter(user => user.uid !== uid);
  return holder && renewService(old, holder, sharers);
}

/** Feature, group and kind are the holder's: they are the same for all. */
function namesOf({ namespace, name, uid }: ServiceHolder) {
  return { namespace, name, uid };
}

/** Whether the record is a feature's own in this cluster: only then may that feature write or delete it. */
export function isOfFeature(
  { kind, cluster: theirs, holder }: OwnerRecord,
  feature: Feature,
  cluster: string,
): boolean {
  return kind === 'service' && theirs === cluster && holder?.feature === feature;
}

/** In the order in which records are written. */
export function holderOf({ id, machine, boot, netns, pod }: Owner): Holder {
  const { node, network, containerID, ifname } = id;
  return { node, machine, boot, network, containerID, ifname, netns, ...(pod && { pod }) };
}

/** What an address becomes when one of its attachments goes. */
export interface Afterwards {
  readonly value: string;
  /** Seconds until it is free; without, it stays. */
  readonly ttl?: number;
}

/**
 * The record after a release: a workload keeps its address, a fixed one inside a random range is held for whoever names
 * it, and with `cooldown` (seconds) any other is held for its former owner. Undefined: the address is free at once.
 */
export function afterRelease(
  owner: OwnerRecord,
  id: AttachmentId,
  cooldown: number,
  now: number,
): Afterwards | undefined {
  if (owner.kind === 'sticky') {
    const holders = owner.holders.filter(holder => !sameAttachment(holder, id)).map(stickyHolder);
    return { value: JSON.stringify({ ...owner.raw, holders }) };
  }
  // Whoever names an address does not come upon it by chance, which is what a cooldown guards against.
  const seconds = owner.kind === 'fixed' ? (owner.hold ?? 0) : cooldown;
  return seconds > 0 ? { value: renderHold(owner, seconds, now), ttl: seconds } : undefined;
}

/** A released address that waits, until the hold ends by its lease, for its former owner or for whoever names it. */
function renderHold(former: OwnerRecord, seconds: number, now: number): string {
  const { kind, cluster, node, network, containerID, ifname, pod } = former;
  return JSON.stringify({
    cluster,
    kind: 'held',
    since: timestamp(now),
    until: timestamp(now + seconds * 1000),
    ...(kind === 'fixed' && { byName: true }),
    node,
    network,
    containerID,
    ifname,
    ...(pod && { pod }),
  });
}

export function renderReservation(access: AccessConfig, node: string, reason: string, now: number): string {
  return JSON.stringify({
    cluster: access.cluster,
    kind: 'reserved',
    since: timestamp(now),
    node,
    network: access.network,
    reason,
  });
}

/** Whether an owner who names the address may take the hold over: its own one, or any that is held by name. */
export function holdIsFor(hold: OwnerRecord, owner: Owner): boolean {
  if (hold.kind !== 'held' || hold.cluster !== owner.cluster) return false;
  if (hold.byName) return true;
  if (hold.pod?.uid !== undefined) return hold.pod.uid === owner.pod?.uid;
  return hold.node === owner.id.node && hold.containerID === owner.id.containerID;
}

/** The ranges of a network as people and tools read them. */
export function renderNetwork(config: Pick<Allotment, 'sets' | 'exclude'>, node: string, now: number): string {
  return JSON.stringify({ ...describeRanges(config), node, since: timestamp(now) });
}

/** What two configurations of one network must have in common. */
export function describeRanges(config: Pick<Allotment, 'sets' | 'exclude'>) {
  return { ranges: config.sets.map(describeSet), exclude: config.exclude.map(formatSpan) };
}

function describeSet(set: RangeSet) {
  const text = (family: 4 | 6, value: bigint): string => formatIp({ family, value });
  return set.map(range => ({
    subnet: formatCidr(range.subnet),
    rangeStart: text(range.family, range.first),
    rangeEnd: text(range.family, range.last),
    gateway: formatIp(range.gateway),
    ...(range.fixed && {
      fixedStart: text(range.family, range.fixed.first),
      fixedEnd: text(range.family, range.fixed.last),
    }),
    ...(range.name !== undefined && { name: range.name }),
  }));
}

/** The first and last address of a set, in the order configured: what its cursor is named by. */
export function endsOf(set: RangeSet): { first: Ip; last: Ip } {
  const first = set[0]!;
  const last = set.at(-1)!;
  return { first: { family: first.family, value: first.first }, last: { family: last.family, value: last.last } };
}
