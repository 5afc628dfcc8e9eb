// Which node is to carry which public address: the same answer on every node that sees the same. Pure.
import { type Load, spread } from './balance.ts';

/** A node's agent, as its key in the store describes it. */
export interface PlanAgent {
  readonly id: string;
  /** Name of its node in Kubernetes. */
  readonly node: string;
  /** Whether it may own addresses at all; if not, `why`. */
  readonly fit: boolean;
  readonly why?: string | undefined;
  /** Addresses that it cannot put, or must leave alone. */
  readonly refuses: ReadonlySet<string>;
  /** Why, for people; not of all of them. */
  readonly reasons?: Readonly<Record<string, string>> | undefined;
}

/** What an agent's key says of it. */
interface Announced extends Omit<PlanAgent, 'id' | 'refuses'> {
  readonly cluster: string;
  readonly refuses?: readonly string[];
}

/** The agents of a cluster, by their ids. */
export function membersOf(agents: ReadonlyMap<string, Announced>, cluster: string): PlanAgent[] {
  return [...agents]
    .filter(([, agent]) => agent.cluster === cluster)
    .map(([id, { node, fit, why, refuses, reasons }]) => ({ id, node, fit, why, refuses: new Set(refuses), reasons }));
}

export interface PlanInput {
  /** The live agents of this cluster, fit or not. */
  readonly agents: readonly PlanAgent[];
  /** `nodes`: the only nodes that may carry the address (externalTrafficPolicy Local); absent: all. */
  readonly wants: readonly { readonly address: string; readonly nodes?: ReadonlySet<string> | undefined }[];
  /** Address -> id of the agent that has claimed it. */
  readonly owners: ReadonlyMap<string, string>;
  /** Whether a fit owner may be asked to hand an address over for the sake of balance. */
  readonly rebalance: boolean;
}

/** One address that its fit owner is to hand over, for balance alone. */
export interface Move {
  readonly address: string;
  /** Ids of agents. */
  readonly from: string;
  readonly to: string;
}

export interface Plan {
  /**
   * Address -> ids of the agents that may own it: the planned one first, then those that step in, in turn. An owner that
   * is not in its line has ceased to be eligible and lets go; one that is merely not the first keeps the address unless
   * `moves` names it. Only addresses that somebody may own.
   */
  readonly lines: ReadonlyMap<string, readonly string[]>;
  /** Only the first is to be made, and the next one by the plan that is made anew then: that comes to an end. */
  readonly moves: readonly Move[];
  /** Address -> why nobody may own it, agent by agent. */
  readonly nobody: ReadonlyMap<string, string>;
}

export function plan({ agents, wants, owners, rebalance }: PlanInput): Plan {
  const known = [...agents].sort((a, b) => byteOrder(a.id, b.id));
  const wanted = [...new Map(wants.map(want => [want.address, want])).values()].sort((a, b) =>
    byteOrder(a.address, b.address),
  );
  const nobody = new Map<string, string>();
  const loads: Load[] = [];
  for (const want of wanted) {
    const able = known.filter(agent => objection(agent, want) === undefined).map(({ id }) => id);
    if (able.length === 0) nobody.set(want.address, objections(known, want));
    else loads.push({ address: want.address, able: preferred(able, want.address), owner: ownerOf(want, able, owners) });
  }
  const fit = known.filter(agent => agent.fit).map(({ id }) => id);
  const { carriers, moved } = spread(loads, fit, rebalance);
  const lineOf = ({ address, able }: Load) => {
    const first = carriers.get(address)!;
    return [first, ...able.filter(id => id !== first)];
  };
  return {
    lines: new Map(loads.map(load => [load.address, lineOf(load)])),
    moves: moved.map(address => ({ address, from: owners.get(address)!, to: carriers.get(address)! })),
    nobody,
  };
}

type PlanWant = PlanInput['wants'][number];

/** An owner that may not own it any more is none. */
function ownerOf({ address }: PlanWant, able: readonly string[], owners: PlanInput['owners']): string | undefined {
  const owner = owners.get(address);
  return owner !== undefined && able.includes(owner) ? owner : undefined;
}

/** Why this agent may not own the address; undefined when it may. */
export function objection(agent: PlanAgent, { address, nodes }: PlanWant): string | undefined {
  const { node, fit, why, refuses, reasons } = agent;
  if (!fit) return why ?? 'not fit';
  if (nodes !== undefined && !nodes.has(node)) return 'no endpoint there is ready';
  return refuses.has(address) ? (reasons?.[address] ?? 'cannot have this address') : undefined;
}

/** `eth0 is down (worker-1, worker-2); no endpoint there is ready (worker-3)` */
function objections(agents: readonly PlanAgent[], want: PlanWant): string {
  if (agents.length === 0) return 'no agent is alive';
  const nodesBy = Map.groupBy(agents, agent => objection(agent, want)!);
  return [...nodesBy].map(([why, those]) => `${why} (${those.map(({ node }) => node).join(', ')})`).join('; ');
}

/** Each address has an order of its own: what one agent cannot take falls on all the others, not on the next one. */
function preferred(ids: readonly string[], address: string): string[] {
  return ids
    .map(id => ({ id, rank: hash(`${address} ${id}`) }))
    .sort((a, b) => a.rank - b.rank || byteOrder(a.id, b.id))
    .map(({ id }) => id);
}

/** 32 bits: FNV-1a, stirred as MurmurHash3 ends, since texts that differ in the last letter must lie far apart. */
function hash(text: string): number {
  let h = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** The same on every node, whatever its language. */
function byteOrder(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
