// Whether this node may own addresses at all: its interface, its Node object, and what an administrator has said. Pure.
import type { Link } from '../host/ip.ts';

/** Milliseconds for which the interface must have had carrier: a plug that is being put in bounces. */
const steadyCarrier = 1000;

/** On a Node: this node gives its addresses of all features away, and takes none. */
export const drainAnnotation = 'kube-ipam.io/drain';

/** Kubernetes' own label, which load balancers of every kind heed. */
export const excludeLabel = 'node.kubernetes.io/exclude-from-external-load-balancers';

export interface NodeFacts {
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
}

export interface FitnessInput {
  readonly dev: string;
  readonly link: Link | undefined;
  /** Since when the link has had carrier without a break, in milliseconds; undefined: it has none. */
  readonly carrierSince: number | undefined;
  /** Absent: this node is none of the cluster's, or the API did not answer yet. */
  readonly node: NodeFacts | undefined;
  /** Whether the node's labels are those that were asked for. */
  readonly isSelected: boolean;
  /** Why the last look at the kernel found something else than was written; undefined: all was as it should be. */
  readonly kernelTrouble?: string | undefined;
  readonly now: number;
}

export interface Fitness {
  /** Undefined: it is fit. Else why not, for people. */
  readonly why: string | undefined;
  /** Milliseconds until time alone makes it fit; undefined: it takes more than time, or nothing. */
  readonly after?: number;
}

export function fitnessOf(input: FitnessInput): Fitness {
  const { dev, link, carrierSince, node, isSelected, kernelTrouble, now } = input;
  if (link === undefined) return { why: `there is no interface ${dev}` };
  if (!link.up) return { why: `interface ${dev} is down` };
  if (!link.carrier || carrierSince === undefined) return { why: `interface ${dev} has no carrier` };
  if (node?.annotations[drainAnnotation] === 'true') return { why: `the node is drained (${drainAnnotation})` };
  if (node !== undefined && excludeLabel in node.labels) return { why: `the node has the label ${excludeLabel}` };
  if (!isSelected) return { why: 'the node does not have the labels that were asked for' };
  if (kernelTrouble !== undefined) return { why: kernelTrouble };
  const after = carrierSince + steadyCarrier - now;
  return after > 0 ? { why: `interface ${dev} has had carrier for less than a second`, after } : { why: undefined };
}
