// Which ranges serve a pod, by their selectors and by the pod's own choice, and why the others do not. Pure.
import { code, FailureError } from '../base/errors.ts';
import { describeSelector, type Labels, unmet } from '../base/selector.ts';
import type { NetworkConfig } from './config.ts';
import { describeRange } from './describe.ts';
import { type Range, type RangeSet, selectorKeys } from './range.ts';
import type { Wishes } from './wishes.ts';

/** The labels that selectors are matched against; of namespace and node only where a range asks for them. */
export interface PodLabels {
  readonly pod: Labels;
  readonly namespace?: Labels;
  readonly node?: Labels;
}

/** A range that is, for this pod, not there. */
export interface RefusedRange {
  readonly range: Range;
  readonly why: string;
}

export interface Serving {
  /** One for each configured set, in their order: its ranges that serve the pod, at least one. */
  readonly sets: readonly RangeSet[];
  readonly refused: readonly RefusedRange[];
}

/** All ranges, as for nobody in particular. */
export function everyRange({ sets }: NetworkConfig): Serving {
  return { sets, refused: [] };
}

/** A message names no more ranges than this. */
const mostNamed = 16;

/**
 * The ranges that serve a pod; without labels, a container that is no pod of Kubernetes. Throws code 7 for the name of a
 * range that does not exist, and code 103, with the reason for each range, where a set has none left.
 */
export function narrow(config: NetworkConfig, wishes: Wishes | undefined, labels: PodLabels | undefined): Serving {
  const names = namesHere(config, wishes);
  const whyNot = (set: RangeSet, range: Range) => refusal(range, labels) ?? notNamed(set, range, names);
  const judged = config.sets.map(set => set.map(range => ({ range, why: whyNot(set, range) })));
  const empty = judged.find(ranges => ranges.every(({ why }) => why !== undefined));
  if (empty !== undefined) {
    const reasons = empty.slice(0, mostNamed).map(({ range, why }) => `${describeRange(range)}: ${why}`);
    const more = empty.length > mostNamed ? ` (and ${empty.length - mostNamed} more ranges)` : '';
    throw new FailureError(
      code.noRange,
      `network ${config.network}: no range accepts this pod: ${reasons.join('; ')}${more}`,
    );
  }
  const all = judged.flat();
  const refused = all.flatMap(({ range, why }) => (why === undefined ? [] : [{ range, why }]));
  if (refused.length === 0) return { sets: config.sets, refused };
  const sets = judged.map(ranges => ranges.flatMap(({ range, why }) => (why === undefined ? [range] : [])));
  return { sets, refused };
}

/** Why a range's selectors refuse; undefined when they accept. */
function refusal({ accepts }: Range, labels: PodLabels | undefined): string | undefined {
  if (accepts === undefined) return undefined;
  if (labels === undefined) return 'it is for pods of Kubernetes, and this container is none';
  const of = { namespaces: labels.namespace, nodes: labels.node, pods: labels.pod };
  const what = { namespaces: 'namespace', nodes: 'node', pods: 'pod' };
  const unmetParts = selectorKeys.flatMap(key => {
    const selector = accepts[key];
    if (selector === undefined) return [];
    const found = of[key];
    if (found === undefined) return [`the labels of its ${what[key]} are not known`];
    const lacking = unmet(selector, found);
    return lacking.length === 0 ? [] : [`the ${what[key]}'s labels do not match ${describeSelector(lacking)}`];
  });
  return unmetParts.length === 0 ? undefined : unmetParts.join(' and ');
}

/** The names that the pod chose among this network's ranges. */
function namesHere(config: NetworkConfig, wishes: Wishes | undefined): readonly string[] {
  const known = config.sets.flat().flatMap(({ name }) => name ?? []);
  const chosen = wishes?.rangeNames ?? [];
  for (const { name, own } of chosen) {
    // As with addresses: what names no interface may be meant for another network of the pod.
    if (known.includes(name) || (!own && wishes?.otherNetworks)) continue;
    const has = known.length === 0 ? 'its ranges have no names' : `it has ${known.slice(0, mostNamed).join(', ')}`;
    throw new FailureError(
      code.config,
      `annotation kube-ipam.range: network ${config.network} has no range ${JSON.stringify(name)}: ${has}`,
    );
  }
  return chosen.flatMap(({ name }) => (known.includes(name) ? [name] : []));
}

/** A name narrows its own set only: the others give an address as ever. */
function notNamed(set: RangeSet, range: Range, names: readonly string[]): string | undefined {
  const isNamed = ({ name }: Range) => name !== undefined && names.includes(name);
  return set.some(isNamed) && !isNamed(range) ? 'annotation kube-ipam.range names another' : undefined;
}
