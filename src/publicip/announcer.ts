// Tells the neighbours who has an address now: several rounds, the first of every address before the second of any.

/** When the rounds come after an address was won, in milliseconds: neighbours ignore what comes within a second. */
const rounds = [0, 1100, 2200, 3300, 5000];

/** Processes at the same time: a round of 100 addresses must not starve what renews them. */
const atOnce = 64;

export interface AnnouncerOptions {
  /** Says once that this node has the address; must never throw. */
  readonly announce: (address: string, signal: AbortSignal) => Promise<void>;
  /** Milliseconds between later announcements of an address, for switches that forget sooner than routers; 0: none. */
  readonly interval: number;
}

interface Due {
  readonly address: string;
  readonly round: number;
  readonly at: number;
}

export class Announcer implements Disposable {
  readonly #options: AnnouncerOptions;
  readonly #current = new Map<string, AbortController>();
  #due: Due[] = [];
  #running = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: AnnouncerOptions) {
    this.#options = options;
  }

  /** This node has won them just now. */
  begin(addresses: readonly string[]): void {
    const now = performance.now();
    for (const address of addresses) {
      this.end([address]);
      this.#current.set(address, new AbortController());
      this.#due.push(...rounds.map((wait, round) => ({ address, round, at: now + wait })));
    }
    this.#sort();
    this.#go();
  }

  /** This node has let go of them: nothing more is said, not even what is being said. */
  end(addresses: readonly string[]): void {
    const gone = new Set(addresses.filter(address => this.#current.has(address)));
    if (gone.size === 0) return;
    for (const address of gone) {
      this.#current.get(address)?.abort();
      this.#current.delete(address);
    }
    this.#due = this.#due.filter(({ address }) => !gone.has(address));
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    this.end([...this.#current.keys()]);
  }

  #sort(): void {
    this.#due.sort((a, b) => a.round - b.round || a.at - b.at);
  }

  #go(): void {
    clearTimeout(this.#timer);
    const now = performance.now();
    while (this.#running < atOnce) {
      const index = this.#due.findIndex(({ at }) => at <= now);
      if (index < 0) break;
      const [due] = this.#due.splice(index, 1);
      void this.#say(due!);
    }
    const soonest = Math.min(...this.#due.map(({ at }) => at));
    if (this.#running < atOnce && Number.isFinite(soonest)) {
      this.#timer = setTimeout(() => this.#go(), Math.max(1, soonest - now));
    }
  }

  async #say({ address, round }: Due): Promise<void> {
    const current = this.#current.get(address);
    if (current === undefined) return;
    this.#running++;
    await this.#options.announce(address, current.signal);
    this.#running--;
    const isLast = round >= rounds.length - 1;
    if (isLast && this.#options.interval > 0 && !current.signal.aborted) {
      // Spread, so that not every address of a node is announced in the same second for ever.
      const wait = this.#options.interval * (0.75 + Math.random() / 2);
      this.#due.push({ address, round: rounds.length, at: performance.now() + wait });
    }
    this.#go();
  }
}
