// What this node does next about each address, from what is wanted, who owns what, and what it answers for itself. Pure.
import type { Plan } from './plan.ts';

/** Milliseconds between the claims of two agents in line: one wrong or slow view costs a delay, not an address. */
const stepInLine = 200;

/** Milliseconds for which others leave an address to whom it was handed. */
const directedFor = 1000;

export interface Owner {
  readonly id: string;
  readonly lease: string;
}

export interface Situation {
  /** This agent's id. */
  readonly me: string;
  /** The lease on which this agent's claims stand; undefined while it has none. */
  readonly lease: string | undefined;
  /** Addresses that Services want. */
  readonly wanted: ReadonlySet<string>;
  /** Who has claimed what, also what nobody wants any more. */
  readonly owners: ReadonlyMap<string, Owner>;
  /** To whom an address without owner was handed, where it was. */
  readonly handedTo: ReadonlyMap<string, string>;
  /** Addresses whose owner somebody asked to hand them over: to that agent, or with "" to the next in line. */
  readonly moves: ReadonlyMap<string, string>;
  readonly plan: Plan;
  /** Addresses for which this node answers. */
  readonly held: ReadonlySet<string>;
  /** Addresses about which something is under way here. */
  readonly busy: ReadonlySet<string>;
  /** From when on an address without owner may be claimed, in milliseconds; absent: by anybody in line, at once. */
  readonly freeFrom: ReadonlyMap<string, number>;
  /** Until when this node leaves an address alone that it could not hold, in milliseconds. */
  readonly restUntil: ReadonlyMap<string, number>;
  /** Whether one address may move for balance now. */
  readonly mayMove: boolean;
  /** Milliseconds, on the clock of the two maps above. */
  readonly now: number;
}

export interface Steps {
  /** Answered for here without a claim of ours: these go first of all. */
  readonly drop: readonly string[];
  /** Ours, and to be given up; `to` is who shall have it next. */
  readonly release: readonly { readonly address: string; readonly to?: string }[];
  /** To be claimed now; ours already where a renewal came too late, which is claimed afresh. */
  readonly claim: readonly string[];
  /** Milliseconds until there may be something to do although nothing changed; undefined: never. */
  readonly next: number | undefined;
}

export function stepsOf(situation: Situation): Steps {
  const { wanted, owners, held, busy } = situation;
  const ours = (address: string) => isOurs(situation, address);
  const drop = [...held].filter(address => !ours(address));
  const release: { address: string; to?: string }[] = [];
  const claim: string[] = [];
  let next = Number.POSITIVE_INFINITY;
  for (const address of new Set([...wanted, ...owners.keys()])) {
    if (busy.has(address) || situation.lease === undefined) continue;
    if (ours(address)) {
      const leaving = leavingOf(situation, address);
      if (leaving !== undefined) release.push(leaving);
      else if (!held.has(address)) claim.push(address);
    } else if (wanted.has(address) && !owners.has(address)) {
      const wait = claimableAt(situation, address) - situation.now;
      if (wait <= 0) claim.push(address);
      else next = Math.min(next, wait);
    }
  }
  return { drop, release, claim, next: next === Number.POSITIVE_INFINITY ? undefined : next };
}

/** Ownership is the lease, not the id: an earlier process of this id may have left claims behind. */
function isOurs({ me, lease, owners }: Situation, address: string): boolean {
  const owner = owners.get(address);
  return owner !== undefined && lease !== undefined && owner.lease === lease && owner.id === me;
}

function leavingOf(situation: Situation, address: string): { address: string; to?: string } | undefined {
  const { me, wanted, plan, mayMove, moves } = situation;
  if (!wanted.has(address)) return { address };
  const line = plan.lines.get(address) ?? [];
  if (!line.includes(me)) return line[0] === undefined ? { address } : { address, to: line[0] };
  const wish = moves.get(address);
  const asked = line.find(id => id !== me && (wish === '' || wish === id));
  if (asked !== undefined) return { address, to: asked };
  if (!mayMove) return undefined;
  // Only the first move that the plan asks of anybody: balance is never worth two gaps at once.
  const [move] = plan.moves;
  return move?.address === address && move.from === me ? { address, to: move.to } : undefined;
}

function claimableAt(situation: Situation, address: string): number {
  const { me, plan, handedTo, freeFrom, restUntil } = situation;
  const place = plan.lines.get(address)?.indexOf(me) ?? -1;
  if (place < 0) return Number.POSITIVE_INFINITY;
  const to = handedTo.get(address);
  const directed = to === undefined || to === me ? 0 : directedFor;
  const turn = to === me ? 0 : place * stepInLine;
  const free = freeFrom.get(address) ?? Number.NEGATIVE_INFINITY;
  return Math.max(free + directed + turn, restUntil.get(address) ?? 0);
}
