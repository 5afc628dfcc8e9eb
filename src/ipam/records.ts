// Makes the values that are written to the store. Pure: the time is given.

import { formatCidr } from '../net/cidr.ts';
import { formatIp, type Ip } from '../net/ip.ts';
import { formatSpan } from '../net/span.ts';
import type { AttachmentId } from '../store/keys.ts';
import type { AccessConfig, NetworkConfig } from './config.ts';
import type { OwnerRecord, Pod } from './model.ts';
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

export function renderDynamic(owner: Owner, now: number): string {
  return JSON.stringify({
    cluster: owner.cluster,
    kind: 'dynamic',
    since: timestamp(now),
    node: owner.id.node,
    machine: owner.machine,
    boot: owner.boot,
    network: owner.id.network,
    containerID: owner.id.containerID,
    ifname: owner.id.ifname,
    netns: owner.netns,
    ...(owner.pod && { pod: owner.pod }),
  });
}

/** The same owner asked again: what may have changed is renewed, fields of later versions stay. */
export function renewOwner(old: OwnerRecord, owner: Owner): string {
  const { machine, boot, netns, pod } = owner;
  return JSON.stringify({ ...old.raw, machine, boot, netns, ...(pod && { pod }) });
}

/** A released address that only its former owner may take until the hold ends by its lease. */
export function renderHold(former: OwnerRecord, seconds: number, now: number): string {
  const { cluster, node, network, containerID, ifname, pod } = former;
  return JSON.stringify({
    cluster,
    kind: 'held',
    since: timestamp(now),
    until: timestamp(now + seconds * 1000),
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

/** Whether a hold is for this owner: the same pod, or without pods the same container. */
export function holdIsFor(hold: OwnerRecord, owner: Owner): boolean {
  if (hold.kind !== 'held' || hold.cluster !== owner.cluster) return false;
  if (hold.pod?.uid !== undefined) return hold.pod.uid === owner.pod?.uid;
  return hold.node === owner.id.node && hold.containerID === owner.id.containerID;
}

/** The ranges of a network as people and tools read them. */
export function renderNetwork(config: NetworkConfig, node: string, now: number): string {
  return JSON.stringify({ ...describeRanges(config), node, since: timestamp(now) });
}

/** What two configurations of one network must have in common. */
export function describeRanges(config: Pick<NetworkConfig, 'sets' | 'exclude'>) {
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
