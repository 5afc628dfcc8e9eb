// The judge that sees what a client sees: broadcast requests each few milliseconds, and all who answer each of them.
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Machine } from '../machine.ts';
import { monotonic } from './clock.ts';
import { Piped } from './piped.ts';

/** Somebody said that an address is theirs. */
export interface Answer {
  /** Milliseconds of CLOCK_MONOTONIC. */
  readonly at: number;
  readonly mac: string;
}

/** One request that several nodes answered. */
export interface Double {
  readonly address: string;
  readonly at: number;
  readonly macs: readonly string[];
}

interface Round {
  readonly at: number;
  readonly answers: Map<string, Answer[]>;
}

const program = join(import.meta.dirname, 'who-has.pl');

export class SeenJudge implements AsyncDisposable {
  readonly #rounds: Round[] = [];
  readonly #announced: (Answer & { readonly address: string })[] = [];
  #asker: Piped | undefined;

  /** Asks from the machine's eth0, whose network is 192.168.0.0/16 and fd00:53::/64, for each address `every` milliseconds. */
  static async start(machine: Machine, addresses: readonly string[], every = 10): Promise<SeenJudge> {
    const judge = new SeenJudge();
    const argv = ['perl', program, 'eth0', String(every), ...addresses];
    judge.#asker = new Piped(machine, argv, { urgent: true, onLine: line => judge.hear(line) });
    for (const until = monotonic() + 30_000; judge.#rounds.length === 0; await sleep(5)) {
      judge.#asker.check();
      if (monotonic() > until) throw new Error('who-has.pl does not ask');
    }
    return judge;
  }

  /** A line of who-has.pl. */
  hear(line: string): void {
    const [what, time, ...rest] = line.split(' ');
    const at = Number(time) / 1000;
    if (what === 'asked') {
      this.#rounds[Number(rest[0]) - 1] = { at, answers: new Map() };
    } else if (what === 'answer') {
      const { answers } = this.#rounds[Number(rest[0]) - 1]!;
      const of = answers.get(rest[1]!) ?? [];
      if (of.length === 0) answers.set(rest[1]!, of);
      of.push({ at, mac: rest[2]! });
    } else {
      this.#announced.push({ at, address: rest[0]!, mac: rest[1]! });
    }
  }

  /** How often each address was asked for. */
  get requests(): number {
    return this.#rounds.length;
  }

  /** Requests that more than one node answered: there must never be one. */
  doubles(): Double[] {
    this.#asker?.check();
    return this.#rounds.flatMap(({ at, answers }) =>
      [...answers].flatMap(([address, of]) => {
        const macs = [...new Set(of.map(({ mac }) => mac))];
        return macs.length > 1 ? [{ address, at, macs }] : [];
      }),
    );
  }

  /** Who answered last of all that were asked within the last `ms` milliseconds; undefined when nobody did. */
  holder(address: string, ms = 200): string | undefined {
    return this.answers(address, monotonic() - ms).at(-1)?.mac;
  }

  /** Answers from then on, one a request. */
  answers(address: string, from = 0, to: number = Number.POSITIVE_INFINITY): Answer[] {
    return this.#between(from, to).flatMap(({ answers }) => answers.get(address)?.slice(0, 1) ?? []);
  }

  /** The first request from then on that was answered, by that node if one is named; waits for it. */
  async firstAnswer(address: string, from: number, options: { by?: string; within?: number } = {}): Promise<Answer> {
    const { by, within = 60_000 } = options;
    for (const until = monotonic() + within; ; await sleep(10)) {
      this.#asker?.check();
      const found = this.answers(address, from).find(({ mac }) => by === undefined || mac === by);
      if (found !== undefined) return found;
      if (monotonic() > until) throw new Error(`nobody${by ? ` with ${by}` : ''} answers for ${address}`);
    }
  }

  /** The longest time without an answer, in milliseconds: from one answered request (or `from`) to the next (or `to`). */
  silence(address: string, from: number, to: number = monotonic()): number {
    const times = this.#between(from, to).flatMap(({ at, answers }) => (answers.has(address) ? [at] : []));
    const marks = [from, ...times, to];
    return Math.max(...marks.slice(1).map((at, place) => at - marks[place]!));
  }

  /** What was said without a request: gratuitous ARP, unsolicited neighbour advertisements. */
  announced(address: string, from = 0): Answer[] {
    return this.#announced.filter(each => each.address === address && each.at >= from);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#asker?.[Symbol.asyncDispose]();
  }

  #between(from: number, to: number): readonly Round[] {
    return this.#rounds.filter(({ at }) => at >= from && at < to);
  }
}
