// How owners and ranges are told to people, in messages and logs.

import { formatCidr } from '../net/cidr.ts';
import { formatIp } from '../net/ip.ts';
import { formatSpan } from '../net/span.ts';
import type { WorkloadName } from '../store/keys.ts';
import { type Holder, type OwnerRecord, type Pod, usersOf } from './model.ts';
import type { Range, RangeSet } from './range.ts';

export function describePod(pod: Pod): string {
  return pod.namespace === '' ? pod.name : `${pod.namespace}/${pod.name}`;
}

/** `StatefulSet shop/web-0` */
export function describeWorkload({ kind, namespace, name }: WorkloadName): string {
  return `${kind} ${namespace}/${name}`;
}

/** One clause: kind, workload, pods or containers, node, network, since when. */
export function describeOwner(owner: OwnerRecord): string {
  const since = owner.since === '' ? '' : ` since ${owner.since}`;
  switch (owner.kind) {
    case 'reserved':
      return `a reservation${owner.reason ? ` (${owner.reason})` : ''}${since}`;
    case 'held':
      return `a hold until ${owner.until ?? 'its lease ends'} for ${owner.byName ? 'whoever asks for it by name, formerly' : 'its former owner,'} ${attachmentOf(owner)}`;
    case 'sticky':
      return `${workloadOf(owner)} (${owner.holders.map(attachmentOf).join(' and ') || 'no pod uses it now'})${since}`;
    case 'service':
      return `${servedBy(owner)}${since}`;
    case 'unknown':
      return `an owner of a kind that this version does not know${since}`;
    default:
      return `${attachmentOf(owner)}${since}`;
  }
}

function servedBy(owner: OwnerRecord): string {
  const users = usersOf(owner).map(describeWorkload).join(' and ');
  if (users === '') return 'a feature that this version does not know';
  return owner.pool === undefined ? users : `${users} (pool ${owner.pool})`;
}

function workloadOf({ workload }: OwnerRecord): string {
  return workload === undefined ? 'a workload of a kind that this version does not know' : describeWorkload(workload);
}

function attachmentOf(holder: Holder): string {
  const pod = holder.pod ? `pod ${describePod(holder.pod)}, ` : '';
  return `${pod}container ${holder.containerID.slice(0, 13)} ${holder.ifname} of network ${holder.network} on node ${holder.node}`;
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
