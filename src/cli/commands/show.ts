// `kube-ipam show`: everything that is known of an address, a pod or a container.
import { describePod, describeWorkload } from '../../ipam/describe.ts';
import { networkOf, parseAttachment, sameAttachment, usersOf } from '../../ipam/model.ts';
import { rangeServes } from '../../ipam/range.ts';
import type { RecordedNetwork } from '../../ipam/recorded.ts';
import { findHoldings, type Holding } from '../../ipam/service/holdings.ts';
import { recordedNetworks } from '../../ipam/service/usage.ts';
import { cidrContains, formatCidr } from '../../net/cidr.ts';
import { formatIp, type Ip, parseIp, sameIp } from '../../net/ip.ts';
import { spanContains } from '../../net/span.ts';
import { addressObject } from '../address-rows.ts';
import { type Command, exit, required } from '../command.ts';
import { formatOf, isForPeople, outputFlags, type Paint, painter, plain, printValue } from '../output.ts';
import { chooseStore, openChosen, storeFlags } from '../store-access.ts';

export const command: Command = {
  verb: 'show',
  summary: 'all that is known of an address, a pod or a container',
  details:
    'A pod is named as name or namespace/name, a container by its ID or at least six characters of its beginning, a ' +
    'workload that keeps addresses by the name of its VM or StatefulSet pod.',
  positionals: [{ name: 'what', describe: 'an address, a pod or VM, or a container ID', required: true }],
  flags: { ...outputFlags, ...storeFlags },
  examples: [
    ['kube-ipam show 10.1.0.17', 'who has this address?'],
    ['kube-ipam show default/web-0', 'which addresses has this pod?'],
    ['kube-ipam show 4f0c1a9be2d4 -o json', 'a container, for a program'],
  ],
  async run(args, io) {
    const what = required(args, 'what');
    await using store = await openChosen(chooseStore(args));
    const { around } = store;
    const holdings = await findHoldings(around, what);
    const { networks } = await recordedNetworks(around);
    const format = formatOf(args);
    const ip = parseIp(what);
    if (!isForPeople(format)) {
      const space = around.keys.space;
      const placed = ip === undefined ? {} : { places: placesOf(ip, networks) };
      printValue(io, format, {
        what,
        space,
        ...placed,
        holdings: holdings.map(holding => holdingObject(holding, space)),
      });
    } else if (holdings.length > 0) {
      const paint = painter(args, io);
      io.writeStdout(holdings.map(holding => describe(holding, networks, paint)).join('\n'));
    } else {
      const where = ip === undefined ? [] : placesOf(ip, networks);
      const places = where.length === 0 ? '' : `: ${where.join('; ')}`;
      io.writeStderr(plain(`${what}: nobody holds it in address space ${around.keys.space}${places}`).concat('\n'));
    }
    return holdings.length > 0 ? exit.fine : exit.trouble;
  },
};

function holdingObject({ id, attachment, records }: Holding, space: string): object {
  return {
    ...(id && { attachment: id }),
    ...(attachment && {
      revision: attachment.revision,
      created: attachment.created,
      listed: parseAttachment(attachment.value).map(formatIp),
    }),
    addresses: records.map(record => addressObject({ ...record, space })),
  };
}

type Line = readonly [label: string, value: string | undefined];

function describe(holding: Holding, networks: readonly RecordedNetwork[], paint: Paint): string {
  const { id, attachment, records } = holding;
  const listed = attachment === undefined ? [] : parseAttachment(attachment.value);
  const lost = listed.filter(ip => !records.some(record => sameIp(record.ip, ip)));
  const lines = records.flatMap(({ ip, owner, entry }): Line[] => {
    // Of two pods that have the address of a VM, the one whose attachment this is.
    const holder = owner.holders.find(one => id !== undefined && sameAttachment(one, id)) ?? owner;
    return [
      ['address', paint('bold', formatIp(ip))],
      ...placesOf(ip, networks).map((place): Line => ['  place', place]),
      ['  kind', owner.kind],
      ['  kept for', owner.workload && describeWorkload(owner.workload)],
      ['  pod', holder.pod && describePod(holder.pod)],
      ['  pod uid', holder.pod?.uid],
      ['  reason', owner.reason],
      ['  until', owner.until],
      ['  for', owner.kind !== 'held' ? undefined : owner.byName ? 'whoever asks for it by name' : 'its former owner'],
      ['  since', owner.since],
      ['  lent to', usersOf(owner).map(describeWorkload).join(', ')],
      ['  network', networkOf(owner)],
      ['  node', holder.node],
      ['  machine', holder.machine],
      ['  boot', holder.boot],
      ['  netns', holder.netns],
      ['  cluster', owner.cluster],
      ['  revision', `${entry.revision}, created at ${entry.created}`],
      ['  value', owner.kind === 'unknown' ? entry.value : undefined],
    ];
  });
  if (id !== undefined) {
    lines.push(['container', id.containerID], ['  interface', id.ifname]);
    lines.push([
      '  attachment',
      attachment ? `revision ${attachment.revision}` : paint('red', 'not there; see "kube-ipam check"'),
    ]);
    for (const ip of lost) lines.push(['  lost', paint('red', `${formatIp(ip)} has no owner; see "kube-ipam check"`)]);
  }
  const shown = lines.filter(([, value]) => value !== undefined && value !== '');
  return shown.map(([label, value]) => `${label.padEnd(13)} ${escaped(value!)}\n`).join('');
}

/** Colours are ours; other control characters are not. */
function escaped(value: string): string {
  return value.startsWith('\u001b[') ? value : plain(value);
}

/** Where an address lies: `range 10.1.0.0/24 of network pods`, and what it is there. */
function placesOf(ip: Ip, networks: readonly RecordedNetwork[]): string[] {
  return networks.flatMap(({ name, sets, exclude }) => {
    const ranges = sets.flat();
    const serving = ranges.find(one => rangeServes(one, ip)) ?? ranges.find(({ gateway }) => sameIp(gateway, ip));
    const range = serving ?? ranges.find(({ subnet }) => cidrContains(subnet, ip));
    if (range === undefined) return [];
    const what = sameIp(range.gateway, ip)
      ? 'gateway'
      : exclude.some(span => spanContains(span, ip))
        ? 'excluded address'
        : range.fixed && spanContains(range.fixed, ip)
          ? 'fixed address'
          : serving === undefined
            ? 'address outside the range'
            : 'address';
    return [`${what} of ${formatCidr(range.subnet)}, network ${name}`];
  });
}
