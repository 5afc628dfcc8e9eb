// Gives back what a container holds that can never ask for it itself, and says first whether that can be proven.
import { formatIp, type Ip } from '../../net/ip.ts';
import type { Condition, Write } from '../../store/kv.ts';
import { describeOwner } from '../describe.ts';
import { featureNodes, type Holder, namesAttachment, sameAttachment } from '../model.ts';
import { afterRelease } from '../records.ts';
import type { AddressRecord, Holding } from './holdings.ts';
import { isBound, lookAtNamespace } from './namespace.ts';
import type { PatientSurroundings } from './patience.ts';
import { asRead } from './writes.ts';

export interface Verdict {
  readonly dead: boolean;
  readonly why: string;
}

/** Whether this machine itself can prove that the container of a record is gone. */
export function verdictOn(around: PatientSurroundings, node: string, owner: Holder): Verdict {
  const { machine, boot } = around.machine;
  const alive = (why: string): Verdict => ({ dead: false, why });
  if (owner.node !== node) return alive(`it belongs to node ${owner.node}, and this is node ${node}`);
  if (machine === '') return alive('this machine has no /etc/machine-id, so its records cannot be told from others');
  if (owner.machine !== machine) return alive(`another machine that is called ${node} too wrote it`);
  if (boot !== '' && owner.boot !== '' && owner.boot !== boot && !isBound(owner.netns)) {
    return { dead: true, why: 'it was written before this machine was started again' };
  }
  if (!owner.netns.startsWith('/')) return alive('its record names no network namespace to look at');
  const { gone, why } = lookAtNamespace(owner.netns);
  return { dead: gone, why };
}

/** Why nobody may release this holding, not even by force; undefined when it may be released. */
export function neverReleased(holding: Holding): string | undefined {
  const { id } = holding;
  if (id !== undefined && featureNodes.includes(id.node))
    return `what ${id.node} keeps is lent to Services or elastic IPs: remove those, and it is given back`;
  const isOwn = ({ owner }: AddressRecord) => id === undefined || sameAttachment(owner, id);
  for (const { ip, owner } of holding.records.filter(isOwn)) {
    if (owner.kind === 'reserved')
      return `${formatIp(ip)} is reserved: end that with "kube-ipam unreserve ${formatIp(ip)}"`;
    if (owner.kind === 'service')
      return `${formatIp(ip)} belongs to ${describeOwner(owner)}: remove that, or the address from it`;
    const isUnknown = owner.kind === 'unknown' || (owner.kind === 'sticky' && owner.workload === undefined);
    if (isUnknown) return `the owner of ${formatIp(ip)} is of a kind that this version does not know`;
  }
  return undefined;
}

/** The records that the holding gives up: those that name its attachment, and a hold that was asked for. */
export function recordsToFree(holding: Holding): AddressRecord[] {
  const { id } = holding;
  return holding.records.filter(({ owner }) => (id === undefined ? owner.kind === 'held' : namesAttachment(owner, id)));
}

/**
 * Gives up the whole holding as it was read, in one commit: what a workload keeps stays its own, everything else is free
 * at once. Returns the addresses given up; undefined when something changed since: then nothing was done, and whoever
 * asked must look again. Errors: those of the store.
 */
export async function withdraw(around: PatientSurroundings, holding: Holding): Promise<Ip[] | undefined> {
  const { kv, keys, deadline, log } = around;
  const freed = recordsToFree(holding);
  const conditions: Condition[] = freed.map(({ entry }) => asRead(entry.key, entry));
  const writes = freed.map(({ entry, owner }): Write => {
    if (owner.kind !== 'sticky') return { delete: entry.key };
    return { put: entry.key, ...afterRelease(owner, holding.id!, 0, around.now())! };
  });
  if (holding.id !== undefined) {
    const key = keys.attachment(holding.id);
    conditions.push(asRead(key, holding.attachment));
    if (holding.attachment !== undefined) writes.push({ delete: key });
  }
  deadline.renew();
  if (writes.length > 0 && !(await kv.commit({ conditions, writes }, deadline)).won) return undefined;
  const { network = '', containerID = '', ifname = '' } = holding.id ?? {};
  log.info('released by hand', { network, containerID, ifname, address: freed.map(({ ip }) => formatIp(ip)) });
  return freed.map(({ ip }) => ip);
}
