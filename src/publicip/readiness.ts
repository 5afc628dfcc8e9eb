// Which nodes count as ready for an address, when endpoints come and go: slowly, as each change of owner costs more. Pure.
import type { Want } from './model.ts';

/** Milliseconds for which a node must have been ready, or not, before that counts (contract S1). */
const risesAfter = 1000;
const fallsAfter = 3000;

interface Standing {
  readonly counts: boolean;
  /** Since when it has been otherwise than it counts; undefined: it is not. */
  readonly otherwiseSince: number | undefined;
}

type Standings = ReadonlyMap<string, Standing>;

export interface Settled {
  /** Address -> names of the nodes that count as ready; only addresses that ask for ready nodes. */
  readonly nodes: ReadonlyMap<string, ReadonlySet<string>>;
  /** Milliseconds until time alone changes that; undefined: it does not. */
  readonly after: number | undefined;
}

export class Readiness {
  #standings: ReadonlyMap<string, Standings> = new Map();

  /** @param now milliseconds of a clock that only moves on. An address that is new counts as it is found. */
  settle(wants: readonly Pick<Want, 'address' | 'nodesReady'>[], now: number): Settled {
    const asking = wants.flatMap(({ address, nodesReady }) => (nodesReady ? [{ address, nodesReady }] : []));
    this.#standings = new Map(
      asking.map(({ address, nodesReady }) => [address, standingsOf(nodesReady, this.#standings.get(address), now)]),
    );
    const waits = [...this.#standings.values()].flatMap(standings =>
      [...standings.values()].map(one => leftOf(one, now)),
    );
    const after = Math.min(...waits);
    return {
      nodes: new Map([...this.#standings].map(([address, standings]) => [address, counting(standings)])),
      after: Number.isFinite(after) ? after : undefined,
    };
  }
}

function standingsOf(ready: ReadonlySet<string>, before: Standings | undefined, now: number): Standings {
  const nodes = [...new Set([...ready, ...(before?.keys() ?? [])])];
  const standings = nodes.map(node => {
    const is = ready.has(node);
    const was = before === undefined ? { counts: is, otherwiseSince: undefined } : before.get(node);
    return [node, standingOf(is, was ?? { counts: false, otherwiseSince: undefined }, now)] as const;
  });
  // Of a node that neither is ready nor counts, nothing is to be remembered.
  return new Map(standings.filter(([node, { counts }]) => counts || ready.has(node)));
}

function standingOf(is: boolean, { counts, otherwiseSince }: Standing, now: number): Standing {
  if (is === counts) return { counts, otherwiseSince: undefined };
  const since = otherwiseSince ?? now;
  if (leftOf({ counts, otherwiseSince: since }, now) > 0) return { counts, otherwiseSince: since };
  return { counts: is, otherwiseSince: undefined };
}

/** Milliseconds until what is otherwise counts. */
function leftOf({ counts, otherwiseSince }: Standing, now: number): number {
  if (otherwiseSince === undefined) return Number.POSITIVE_INFINITY;
  return otherwiseSince + (counts ? fallsAfter : risesAfter) - now;
}

function counting(standings: Standings): ReadonlySet<string> {
  return new Set([...standings].filter(([, { counts }]) => counts).map(([node]) => node));
}
