// How owners and ranges are told to people, in messages and logs.

import { formatCidr } from '../net/cidr.ts';
import { formatIp } from '../net/ip.ts';
import { formatSpan } from '../net/span.ts';
import type { OwnerRecord, Pod } from './model.ts';
import type { Range, RangeSet } from './range.ts';

export function describePod(pod: Pod): string {
  return pod.namespace === '' ? pod.name : `${pod.namespace}/${pod.name}`;
}

/** One clause: kind, pod or container, node, network, since when. */
export function describeOwner(owner: OwnerRecord): string {
  const since = owner.since === '' ? '' : ` since ${owner.since}`;
  switch (owner.kind) {
    case 'reserved':
      return `a reservation${owner.reason ? ` (${owner.reason})` : ''}${since}`;
    case 'held':
      return `a hold until ${owner.until ?? 'its lease ends'} for its former owner, ${attachmentOf(owner)}`;
    case 'unknown':
      return `an owner of a kind that this version does not know${since}`;
    default:
      return `${attachmentOf(owner)}${since}`;
  }
}

function attachmentOf(owner: OwnerRecord): string {
  const pod = owner.pod ? `pod ${describePod(owner.pod)}, ` : '';
  return `${pod}container ${owner.containerID.slice(0, 13)} ${owner.ifname} of network ${owner.network} on node ${owner.node}`;
}

/** By its name, if it has one, and its subnet. */
export function describeRange({ name, subnet }: Range): string {
  return name === undefined ? `range ${formatCidr(subnet)}` : `range ${name} (${formatCidr(subnet)})`;
}

export function describeSet(set: RangeSet): string {
  return set.map(range => `${formatCidr(range.subnet)} (${formatSpan(range)})`).join(' and ');
}

export function describeAddresses(addresses: readonly { readonly family: 4 | 6; readonly value: bigint }[]): string {
  return addresses.map(formatIp).join(', ');
}
