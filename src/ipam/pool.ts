// Pools of addresses for Services and elastic IPs: reads the AddressPool objects of the Kubernetes API. Pure.
import { code, FailureError } from '../base/errors.ts';
import { isObject, Problems, Section } from '../base/section.ts';
import { type Labels, matches, readSelector, type Selector } from '../base/selector.ts';
import type { Resource } from '../kube/resources.ts';
import type { Family, Ip } from '../net/ip.ts';
import { type Span, spanOf, subtractSpans } from '../net/span.ts';
import type { Allotment } from './config.ts';
import { poolNetwork } from './model.ts';
import {
  asName,
  checkSets,
  nameRule,
  type PlacedSet,
  type RangeSet,
  rangeServes,
  readExclude,
  readRange,
} from './range.ts';

export const addressPools: Resource = {
  apiVersion: 'kube-ipam.io/v1',
  kind: 'AddressPool',
  plural: 'addresspools',
};

export interface Pool {
  readonly name: string;
  /** The address space of its addresses. */
  readonly space: string;
  /** One for each family that it has: all ranges of a family are one ring, in the order written. */
  readonly sets: readonly RangeSet[];
  readonly exclude: readonly Span[];
  /** Labels of the namespaces that may draw from it; absent: all of them. */
  readonly namespaces?: Selector;
}

const defaultSpace = 'default';

const rangeKeys = ['name', 'subnet', 'rangeStart', 'rangeEnd', 'gateway', 'fixedStart', 'fixedEnd'];

/** Reads an AddressPool object. Throws one FailureError (code 7) that names every problem. */
export function readPool(object: unknown): Pool {
  const problems = new Problems();
  const root = new Section(isObject(object) ? object : {}, '', problems);
  const name = root.section('metadata')?.text('name') ?? '';
  const spec = root.section('spec') ?? new Section({}, 'spec', problems);
  spec.knowsOnly(['ranges', 'exclude', 'space', 'namespaces']);
  const selector = spec.section('namespaces');
  const pool: Pool = {
    name,
    space: spec.parsed('space', asName, nameRule) ?? defaultSpace,
    sets: readSets(spec),
    exclude: readExclude(spec),
    ...(selector && { namespaces: readSelector(selector) }),
  };
  if (problems.lines.length === 0) return Object.freeze(pool);
  throw new FailureError(code.config, `AddressPool ${JSON.stringify(name)}: ${problems.lines.join('; ')}`);
}

function readSets(spec: Section): RangeSet[] {
  const sections = spec.sectionList('ranges');
  if (spec.list('ranges').length === 0) spec.wrong('ranges', 'at least one range, like {"subnet": "192.0.2.0/24"}');
  const read = sections.flatMap(section => {
    section.knowsOnly(rangeKeys);
    const range = readRange(section, section.filledText('name'));
    return range === undefined ? [] : [{ path: section.path, range }];
  });
  const placed = ([4, 6] as const).flatMap((family): PlacedSet[] => {
    const own = read.filter(({ range }) => range.family === family);
    if (own.length === 0) return [];
    return [{ ranges: Object.freeze(own.map(({ range }) => range)), paths: own.map(({ path }) => path) }];
  });
  checkSets(placed, spec.problems);
  return placed.map(({ ranges }) => ranges);
}

/** The ring of ranges of a family; undefined where the pool has none. */
export function setOf({ sets }: Pool, family: Family): RangeSet | undefined {
  return sets.find(set => set[0]!.family === family);
}

/** Whether a namespace with these labels may draw from the pool. */
export function accepts({ namespaces }: Pool, labels: Labels): boolean {
  return namespaces === undefined || matches(namespaces, labels);
}

/** Whether the address lies in one of the pool's ranges, so that it may be asked for. */
export function isInPool({ sets }: Pool, ip: Ip): boolean {
  return sets.some(set => set.some(range => rangeServes(range, ip)));
}

/** All addresses of a family that the pool may give, at random or by name. */
export function spansOf({ sets, exclude }: Pool, family: Family): Span[] {
  const holes = [...exclude, ...sets.flat().map(({ gateway }) => spanOf(gateway))];
  const ranges = sets.flat().filter(range => range.family === family);
  return ranges.flatMap(range => {
    const beside = range.fixed === undefined ? [] : subtractSpans(range.fixed, [range]);
    return [range, ...beside].flatMap(span => subtractSpans(span, holes));
  });
}

/** What an allocation from the pool goes by; it may take `timeout` milliseconds. */
export function allotmentOf({ name, sets, exclude }: Pool, cluster: string, timeout: number): Allotment {
  return { network: poolNetwork(name), cluster, cooldown: 0, fixedHold: 0, timeout, sets, exclude };
}
