// Addresses that this node leaves alone for a while, because it could not hold them: for how long, and why.
import { backoff } from '../base/clock.ts';

/** Milliseconds: when what an address needs was away; when this node could not hold it. */
const shortRest = 300;
const firstRest = 10_000;
const longestRest = 300_000;

/** An agent's key is written anew when one of its reasons changes: it must stay small. */
const mostReasons = 20;
const longestReason = 200;

interface Refusal {
  /** In a row. */
  readonly tries: number;
  /** In milliseconds of performance.now(). */
  readonly until: number;
  /** Absent while it lasts too short for another node to act on it. */
  readonly told?: { readonly reason: string | undefined; readonly why: string };
}

export class Refusals {
  readonly #known = new Map<string, Refusal>();

  /** How often in a row the address could not be held. */
  tries(address: string): number {
    return this.#known.get(address)?.tries ?? 0;
  }

  /** For a moment: nobody need hear of it. `counts`: as one try. */
  postpone(address: string, counts: boolean): void {
    const tries = this.tries(address) + (counts ? 1 : 0);
    this.#known.set(address, { tries, until: performance.now() + shortRest });
  }

  /** For longer with each try. `reason`: that of the event which tells people of it. */
  refuse(address: string, why: string, reason?: string): void {
    const tries = this.tries(address) + 1;
    const until = performance.now() + backoff(tries, firstRest, longestRest);
    this.#known.set(address, { tries, until, told: { reason, why } });
  }

  /** It is held now. */
  forget(address: string): void {
    this.#known.delete(address);
  }

  /** Those that were refused for this reason, whether their time is over or not. */
  refusedFor(reason: string): readonly string[] {
    return [...this.#known].filter(([, { told }]) => told?.reason === reason).map(([address]) => address);
  }

  /** Until when each is left alone. */
  get untils(): ReadonlyMap<string, number> {
    return new Map([...this.#known].map(([address, { until }]) => [address, until]));
  }

  /** What other agents and people should know, as an agent's key has it. */
  published(): { readonly refuses?: readonly string[]; readonly reasons?: Readonly<Record<string, string>> } {
    const now = performance.now();
    const current = [...this.#known].flatMap(([address, { until, told }]) =>
      told !== undefined && until > now ? [[address, words(told)] as const] : [],
    );
    if (current.length === 0) return {};
    const reasons = current.slice(0, mostReasons).map(([address, why]) => [address, why.slice(0, longestReason)]);
    return { refuses: current.map(([address]) => address), reasons: Object.fromEntries(reasons) };
  }
}

function words({ reason, why }: NonNullable<Refusal['told']>): string {
  return reason === undefined ? why : `${reason}: ${why}`;
}
