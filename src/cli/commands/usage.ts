// `kube-ipam usage`: how full each recorded range is.
import { type RangeUsage, recordedNetworks, usageOf } from '../../ipam/service/usage.ts';
import { formatCidr } from '../../net/cidr.ts';
import { formatSpan } from '../../net/span.ts';
import { type Command, exit, text } from '../command.ts';
import {
  formatOf,
  isForPeople,
  outputFlags,
  type Paint,
  painter,
  plain,
  printValue,
  progressOf,
  Table,
} from '../output.ts';
import { chooseStore, openChosen, storeFlags } from '../store-access.ts';

/** Characters of a bar. */
const width = 20;

export const command: Command = {
  verb: 'usage',
  summary: 'how full each range is',
  details:
    'One line for each range of every network that is recorded in the store (by "install", or by its first ADD). ' +
    'The bar: # used, f fixed, s kept for workloads, r reserved, h held after release, . free.',
  positionals: [],
  flags: {
    ...outputFlags,
    ...storeFlags,
    network: { type: 'string', value: 'NAME', describe: 'only this network' },
  },
  examples: [
    ['kube-ipam usage', ''],
    ['kube-ipam usage --network pods -o json', 'for a program'],
  ],
  async run(args, io) {
    await using store = await openChosen(chooseStore(args, { anyNetwork: true }));
    const { networks, unreadable } = await recordedNetworks(store.around);
    const wanted = text(args, 'network');
    const chosen = networks.filter(({ name }) => wanted === undefined || name === wanted);
    const progress = progressOf(io, 'records read');
    const usages: RangeUsage[] = [];
    for (const network of chosen) usages.push(...(await usageOf(store.around, network, done => progress.step(done))));
    progress.end();
    const format = formatOf(args);
    const paint = painter(args, io);
    if (!isForPeople(format)) printValue(io, format, usages.map(usageObject));
    else {
      new Table(io, columns(format === 'wide'), paint).rows(usages);
      if (usages.length === 0) io.writeStderr(nothing(wanted, store.around.keys.space));
    }
    for (const name of unreadable) io.writeStderr(paintWarning(paint, name));
    return unreadable.length > 0 || (wanted !== undefined && chosen.length === 0) ? exit.trouble : exit.fine;
  },
};

function nothing(wanted: string | undefined, space: string): string {
  const what = wanted === undefined ? 'no network' : plain(`no network "${wanted}"`);
  return `${what} is recorded in address space ${space}: "kube-ipam install" and the first ADD of a network do that\n`;
}

function paintWarning(paint: Paint, name: string): string {
  return `${paint('yellow', 'warning')}: the recorded ranges of network ${plain(name)} cannot be read; see "kube-ipam check"\n`;
}

function columns(wide: boolean) {
  const number = (title: string, cell: (usage: RangeUsage) => bigint | number) => ({
    title,
    cell: (usage: RangeUsage) => String(cell(usage)),
    right: true,
  });
  return [
    { title: 'NETWORK', cell: ({ network }: RangeUsage) => network },
    { title: 'SUBNET', cell: ({ range }: RangeUsage) => formatCidr(range.subnet) },
    ...(wide ? [{ title: 'RANGE', cell: ({ range }: RangeUsage) => formatSpan(range) }] : []),
    ...(wide ? [{ title: 'NAME', cell: ({ range }: RangeUsage) => range.name ?? '' }] : []),
    number('SIZE', ({ size }) => size),
    number('USED', ({ used }) => used),
    number('FIXED', ({ fixed }) => fixed),
    number('STICKY', ({ sticky }) => sticky),
    number('RESERVED', ({ reserved }) => reserved),
    number('HELD', ({ held }) => held),
    number('FREE', ({ free }) => free),
    { title: 'TAKEN', cell: (usage: RangeUsage) => `${percent(usage)} %`, right: true },
    { title: '', cell: bar },
  ];
}

function taken({ used, fixed, sticky, reserved, held }: RangeUsage): number {
  return used + fixed + sticky + reserved + held;
}

/** Rounded so that 0 means none and 100 means all. */
function percent(usage: RangeUsage): number {
  if (usage.free <= 0n) return 100;
  const exact = (100 * taken(usage)) / Number(usage.size);
  return exact === 0 ? 0 : Math.min(99, Math.max(1, Math.round(exact)));
}

/** Whatever is taken at all shows, and whatever is free at all shows. */
function bar(usage: RangeUsage): string {
  const all = taken(usage);
  if (all === 0) return `[${'.'.repeat(width)}]`;
  const filled =
    usage.free <= 0n ? width : Math.min(width - 1, Math.max(1, Math.round((width * percent(usage)) / 100)));
  const shares = [usage.used, usage.fixed, usage.sticky, usage.reserved, usage.held];
  let text = '';
  let sum = 0;
  for (const [i, share] of shares.entries()) {
    sum += share;
    text = text.padEnd(Math.round((filled * sum) / all), '#fsrh'[i]);
  }
  return `[${text.padEnd(width, '.')}]`;
}

/** Numbers beyond 2^53 stand as text, which JSON readers keep exact. */
function usageObject({ network, range, size, used, fixed, sticky, reserved, held, free }: RangeUsage): object {
  const exact = (number: bigint) => (number <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(number) : String(number));
  const { name } = range;
  const [first = '', last = first] = formatSpan(range).split('-');
  return {
    network,
    subnet: formatCidr(range.subnet),
    first,
    last,
    ...(name !== undefined && { name }),
    size: exact(size),
    used,
    fixed,
    sticky,
    reserved,
    held,
    free: exact(free),
  };
}
