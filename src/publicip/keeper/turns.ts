// One piece of work at a time, the most urgent first: what writes to the kernel must not be interleaved.

/** What must stop is before what must go on, and that before what is new. */
export const urgency = { stop: 0, goOn: 1, prepare: 2, begin: 3 } as const;
export type Urgency = (typeof urgency)[keyof typeof urgency];

interface Waiting {
  readonly urgency: Urgency;
  run(): Promise<void>;
}

export class Turns {
  #waiting: Waiting[] = [];
  #running = false;
  #isOver = false;

  /** Settles as the work does, which begins when everything more urgent has ended. */
  take<T>(urgency: Urgency, work: () => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      if (this.#isOver) return;
      this.#waiting.push({ urgency, run: () => work().then(resolve, reject) });
      void this.#run();
    });
  }

  /** The last piece of work, after the one that runs: what waits, and what comes later, is never begun nor settled. */
  last<T>(work: () => Promise<T>): Promise<T> {
    this.#waiting = [];
    const done = this.take(urgency.stop, work);
    this.#isOver = true;
    return done;
  }

  async #run(): Promise<void> {
    if (this.#running) return;
    this.#running = true;
    while (this.#waiting.length > 0) {
      const next = this.#waiting.reduce((best, one) => (one.urgency < best.urgency ? one : best));
      this.#waiting = this.#waiting.filter(one => one !== next);
      await next.run();
    }
    this.#running = false;
  }
}
