// A configured range and set of ranges, with host-local's rules and defaults.
import type { Problems, Section } from '../base/section.ts';
import { readSelector, type Selector } from '../base/selector.ts';
import { type Cidr, cidrContains, cidrOf, formatCidr, holdsMapped, lastOf, parseIpWithPrefix } from '../net/cidr.ts';
import { bits, type Ip, parseIp } from '../net/ip.ts';
import { parseSpan, type Span, spansOverlap } from '../net/span.ts';
import { namePattern } from '../store/keys.ts';

/** One range: addresses `first` to `last` of a subnet are handed out, less the gateway. */
export interface Range extends Span {
  readonly subnet: Cidr;
  readonly gateway: Ip;
  /** Never handed out at random, but to whoever asks for one of them. */
  readonly fixed?: Span;
  readonly name?: string;
  /** Which pods may have its addresses, fixed and requested ones included; absent: every container. */
  readonly accepts?: Acceptance;
}

/** Selectors on the labels of a pod's namespace, of its node and of itself. All that are given must match. */
export interface Acceptance {
  readonly namespaces?: Selector;
  readonly nodes?: Selector;
  readonly pods?: Selector;
}

export const selectorKeys = ['namespaces', 'nodes', 'pods'] as const;

/** One address of every set is given to each interface; its ranges are one ring, in the order listed. */
export type RangeSet = readonly Range[];

export const mostSets = 32;

export const nameRule = 'must start with a letter or digit and hold only letters, digits, "_", "." and "-"';

export function asName(value: unknown): string | undefined {
  return typeof value === 'string' && namePattern.test(value) ? value : undefined;
}

/** Reads one range; undefined, with at least one problem noted, when it cannot be used. */
export function readRange(section: Section, name: string | undefined): Range | undefined {
  const before = section.problems.lines.length;
  const subnet = readSubnet(section);
  if (subnet === undefined) return undefined;
  const address = (key: string) => readAddressIn(section, key, subnet);
  const gateway = address('gateway') ?? { family: subnet.family, value: subnet.base + 1n };
  const first = address('rangeStart')?.value ?? subnet.base + 1n;
  const last = address('rangeEnd')?.value ?? (subnet.family === 4 ? lastOf(subnet) - 1n : lastOf(subnet));
  if (first > last) section.wrong(section.has('rangeStart') ? 'rangeStart' : 'rangeEnd', 'start lies behind the end');
  const fixed = readFixedSpan(section, address('fixedStart'), address('fixedEnd'));
  const accepts = readAcceptance(section);
  if (section.problems.lines.length > before) return undefined;
  return {
    family: subnet.family,
    subnet,
    gateway,
    first,
    last,
    ...(fixed && { fixed }),
    ...(name !== undefined && { name }),
    ...(accepts && { accepts }),
  };
}

function readAcceptance(section: Section): Acceptance | undefined {
  const selectors = selectorKeys.flatMap(key => {
    const selector = section.section(key);
    return selector === undefined ? [] : [[key, readSelector(selector)]];
  });
  return selectors.length === 0 ? undefined : Object.freeze(Object.fromEntries(selectors));
}

function readSubnet(section: Section): Cidr | undefined {
  const rule = 'must be a subnet like "10.1.0.0/16"';
  if (!section.has('subnet')) return section.wrong('subnet', `is missing: ${rule}`);
  const text = section.text('subnet');
  if (text === undefined) return undefined;
  const parsed = parseIpWithPrefix(text);
  if (parsed === undefined) return section.wrong('subnet', rule);
  const subnet = cidrOf(parsed.ip, parsed.prefix);
  // Noted and gone on with: what else is wrong inside this subnet belongs into the same message.
  if (subnet.base !== parsed.ip.value) section.wrong('subnet', `has host bits set: write ${formatCidr(subnet)}`);
  const smallest = bits(subnet.family) - 2;
  if (subnet.prefix > smallest) {
    return section.wrong('subnet', `is too small to give out addresses: /${smallest} is the smallest`);
  }
  if (holdsMapped(subnet)) {
    return section.wrong(
      'subnet',
      'contains ::ffff:0:0/96, whose addresses stand for IPv4 ones: take a smaller subnet',
    );
  }
  return subnet;
}

function readAddressIn(section: Section, key: string, subnet: Cidr): Ip | undefined {
  const text = section.filledText(key);
  if (text === undefined) return undefined;
  const ip = parseIp(text);
  if (ip === undefined) return section.wrong(key, 'must be an IP address');
  return cidrContains(subnet, ip) ? ip : section.wrong(key, `must lie inside subnet ${formatCidr(subnet)}`);
}

function readFixedSpan(section: Section, start: Ip | undefined, end: Ip | undefined): Span | undefined {
  const given = ['fixedStart', 'fixedEnd'].filter(key => section.has(key) && section.get(key) !== '');
  if (given.length === 1) return section.wrong(given[0]!, 'needs both fixedStart and fixedEnd');
  if (start === undefined || end === undefined) return undefined;
  if (start.value > end.value) return section.wrong('fixedStart', 'lies behind fixedEnd');
  return { family: start.family, first: start.value, last: end.value };
}

/** What a network or a pool never hands out. */
export function readExclude(section: Section): Span[] {
  return section.list('exclude').flatMap((item, i) => {
    const span = typeof item === 'string' ? parseSpan(item) : undefined;
    if (span !== undefined) return [span];
    section.problems.add(`${section.pathOf('exclude')}[${i}]`, item, 'must be an address, a subnet, or "first-last"');
    return [];
  });
}

/** Whether an address may be asked for by name: it lies in the range or in its fixed span. */
export function rangeServes(range: Range, ip: Ip): boolean {
  return [range, range.fixed].some(
    span => span && span.family === ip.family && span.first <= ip.value && ip.value <= span.last,
  );
}

/** A set with the places of its ranges in the configuration. */
export interface PlacedSet {
  readonly ranges: RangeSet;
  readonly paths: readonly string[];
}

/** Notes what is wrong between ranges: overlaps, mixed families in a set, names given twice. */
export function checkSets(sets: readonly PlacedSet[], problems: Problems): void {
  const all = sets.flatMap(({ ranges, paths }) =>
    ranges.map((range, i) => ({ range, path: paths[i]!, family: ranges[0]!.family })),
  );
  for (const [i, a] of all.entries()) {
    if (a.range.family !== a.family) {
      problems.add(a.path, formatCidr(a.range.subnet), 'mixes IPv4 and IPv6 in one set: one set gives one address');
    }
    for (const b of all.slice(i + 1)) {
      if (spansOverlap(a.range, b.range)) problems.add(b.path, formatCidr(b.range.subnet), `overlaps ${a.path}`);
      if (a.range.name !== undefined && a.range.name === b.range.name) {
        problems.add(`${b.path}.name`, b.range.name, `is the name of ${a.path} too: names must be unique`);
      }
    }
  }
}
