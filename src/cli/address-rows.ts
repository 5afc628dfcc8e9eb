// How an owner record is listed: as a row of a table for people, as an object for programs.
import { describePod, describeWorkload } from '../ipam/describe.ts';
import { type Holder, networkOf, type OwnerRecord, type Pod, usersOf } from '../ipam/model.ts';
import type { AddressRecord } from '../ipam/service/holdings.ts';
import { formatIp } from '../net/ip.ts';
import type { Column } from './output.ts';

export interface Listed extends AddressRecord {
  readonly space: string;
}

type Cells = Column<Listed>;

const address: Cells = { title: 'ADDRESS', cell: ({ ip }) => formatIp(ip) };
const space: Cells = { title: 'SPACE', cell: row => row.space };
const kind: Cells = { title: 'KIND', cell: ({ owner }) => owner.kind };
const network: Cells = { title: 'NETWORK', cell: ({ owner }) => networkOf(owner) };
const node = ofHolders('NODE', holder => holder.node);
const interfaceName: Cells = { title: 'IF', cell: ({ owner }) => owner.ifname };
const told: readonly Cells[] = [
  { title: 'SINCE', cell: ({ owner }) => owner.since },
  { title: 'REMARK', cell: ({ owner }) => remarkOn(owner) },
];
const more: readonly Cells[] = [
  { title: 'CLUSTER', cell: ({ owner }) => owner.cluster },
  ofHolders('MACHINE', ({ machine }) => machine),
  ofHolders('BOOT', ({ boot }) => boot),
  ofHolders('NETNS', ({ netns }) => netns),
  { title: 'REVISION', cell: ({ entry }) => String(entry.revision), right: true },
];

/** Columns for a table by addresses, with all there is for a wide one. */
export function addressColumns(wide: boolean, spaces: boolean): readonly Cells[] {
  const pod = ofHolders('POD', holder => holder.pod && describePod(holder.pod));
  const names = [address, kind, network, node, pod, container(wide), interfaceName];
  return [...(spaces ? [space] : []), ...names, ...told, ...(wide ? more : [])];
}

/** Columns for a table by pods; its rows are those of `byPod`. */
export function podColumns(wide: boolean, spaces: boolean): readonly Cells[] {
  const pod: readonly Cells[] = [
    { title: 'NAMESPACE', cell: ({ owner }) => podOf(owner).namespace },
    { title: 'POD', cell: ({ owner }) => podOf(owner).name },
  ];
  const names = [...pod, node, interfaceName, address, kind, network];
  return [...(spaces ? [space] : []), ...names, ...told, ...(wide ? [container(true), ...more] : [])];
}

function container(wide: boolean): Cells {
  return ofHolders('CONTAINER', ({ containerID }) => (wide ? containerID : containerID.slice(0, 13)));
}

/** A VM that migrates has two holders; an address that nobody uses is told with what is known of its former one. */
function ofHolders(title: string, pick: (holder: Holder) => string | undefined): Cells {
  return { title, cell: ({ owner }) => [...new Set(holdersOf(owner).map(pick))].filter(Boolean).join(',') };
}

function holdersOf(owner: OwnerRecord): readonly Holder[] {
  return owner.holders.length > 0 ? owner.holders : [owner];
}

function remarkOn(owner: OwnerRecord): string {
  const { reason, until, byName, workload, holder } = owner;
  if (holder !== undefined) return `for ${usersOf(owner).map(describeWorkload).join(', ')}`;
  if (workload !== undefined) return `kept for ${describeWorkload(workload)}`;
  if (until !== undefined) return `until ${until}${byName ? ', for whoever asks for it by name' : ''}`;
  return reason ?? '';
}

/** One row for each pod that has the address. */
export function eachHolder(row: Listed): Listed[] {
  const { pod: _, holders, ...owner } = row.owner;
  if (holders.length === 0) return [row];
  return holders.map(holder => ({ ...row, owner: { ...owner, ...holder, holders: [holder] } }));
}

/** In the order of namespaces, pods and interfaces; what belongs to no pod comes last. */
export function byPod(rows: readonly Listed[]): Listed[] {
  const place = ({ owner }: Listed) => {
    const { namespace, name } = podOf(owner);
    return [namespace || '\uffff', name, owner.ifname] as const;
  };
  const placed = rows.map(row => ({ row, place: place(row) }));
  const order = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0);
  placed.sort((a, b) => a.place.reduce((sum, part, i) => sum || order(part, b.place[i]!), 0));
  return placed.map(({ row }) => row);
}

/** The pod that has the address, had it, or will have it as the next one of its workload. */
function podOf({ pod, workload }: OwnerRecord): Pod {
  const next = workload?.kind === 'StatefulSet' ? workload.name : '';
  return pod ?? { namespace: workload?.namespace ?? '', name: next };
}

/** All names by which people know the owner. */
export function knownAs(owner: OwnerRecord): Pod[] {
  return [owner.pod, owner.workload, ...usersOf(owner)].filter(one => one !== undefined);
}

/** The record as it is stored, with the address and what the store knows of it. */
export function addressObject({ space: inSpace, ip, entry, owner }: Listed): object {
  const known = owner.kind === 'unknown' ? { kind: 'unknown', value: entry.value } : {};
  return {
    address: formatIp(ip),
    space: inSpace,
    revision: entry.revision,
    created: entry.created,
    ...owner.raw,
    ...known,
  };
}
