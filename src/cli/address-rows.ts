// How an owner record is listed: as a row of a table for people, as an object for programs.
import { describePod } from '../ipam/describe.ts';
import type { AddressRecord } from '../ipam/service/holdings.ts';
import { formatIp } from '../net/ip.ts';
import type { Column } from './output.ts';

export interface Listed extends AddressRecord {
  readonly space: string;
}

const address: Column<Listed> = { title: 'ADDRESS', cell: ({ ip }) => formatIp(ip) };
const space: Column<Listed> = { title: 'SPACE', cell: row => row.space };
const middle: readonly Column<Listed>[] = [
  { title: 'KIND', cell: ({ owner }) => owner.kind },
  { title: 'NETWORK', cell: ({ owner }) => owner.network },
  { title: 'NODE', cell: ({ owner }) => owner.node },
  { title: 'POD', cell: ({ owner }) => (owner.pod ? describePod(owner.pod) : '') },
];

/** Columns for a table, with all there is for a wide one. */
export function addressColumns(wide: boolean, spaces: boolean): readonly Column<Listed>[] {
  const container: Column<Listed> = {
    title: 'CONTAINER',
    cell: ({ owner }) => (wide ? owner.containerID : owner.containerID.slice(0, 13)),
  };
  const tail: readonly Column<Listed>[] = [
    { title: 'IF', cell: ({ owner }) => owner.ifname },
    { title: 'SINCE', cell: ({ owner }) => owner.since },
    { title: 'REMARK', cell: ({ owner }) => owner.reason ?? (owner.until === undefined ? '' : `until ${owner.until}`) },
  ];
  const more: readonly Column<Listed>[] = [
    { title: 'CLUSTER', cell: ({ owner }) => owner.cluster },
    { title: 'MACHINE', cell: ({ owner }) => owner.machine },
    { title: 'BOOT', cell: ({ owner }) => owner.boot },
    { title: 'NETNS', cell: ({ owner }) => owner.netns },
    { title: 'REVISION', cell: ({ entry }) => String(entry.revision), right: true },
  ];
  return [...(spaces ? [space] : []), address, ...middle, container, ...tail, ...(wide ? more : [])];
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
