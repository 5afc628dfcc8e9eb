// Deadlines on the monotonic clock: every remote call and every command ends by one of these.

/** A point in time that no step of the wall clock can move. */
export interface Deadline {
  /** Milliseconds left, never below 0. */
  left(): number;
  readonly passed: boolean;
  /** The earlier of this deadline and one `ms` milliseconds from now. */
  within(ms: number): Deadline;
}

class MonotonicDeadline implements Deadline {
  readonly #at: number;

  constructor(at: number) {
    this.#at = at;
  }

  left(): number {
    return Math.max(0, this.#at - performance.now());
  }

  get passed(): boolean {
    return this.left() === 0;
  }

  within(ms: number): Deadline {
    return new MonotonicDeadline(Math.min(this.#at, performance.now() + ms));
  }
}

/** A deadline `ms` milliseconds from now. */
export function deadlineIn(ms: number): Deadline {
  return new MonotonicDeadline(performance.now() + ms);
}

/** A deadline `ms` milliseconds after this process started (performance.now() counts from there). */
export function deadlineSinceStart(ms: number): Deadline {
  return new MonotonicDeadline(ms);
}

/** Waits `ms` milliseconds, but not beyond the deadline. */
export function pause(ms: number, deadline: Deadline): Promise<void> {
  return new Promise(resolve => setTimeout(resolve, Math.min(ms, deadline.left())));
}

/** Waits, but ends at once when the signal comes. */
export function rest(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise(resolve => {
    if (signal?.aborted) return resolve();
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal?.addEventListener('abort', done);
  });
}

/** A wait before try number `tries` (from 1): doubles from `first` to `most` milliseconds, half of it random. */
export function backoff(tries: number, first: number, most: number): number {
  const full = Math.min(most, first * 2 ** (tries - 1));
  return full / 2 + (Math.random() * full) / 2;
}

/** A deadline for work of any length that must go on: it passes when nothing renewed it for `ms` milliseconds. */
export interface RenewableDeadline extends Deadline {
  renew(): void;
}

export function renewableDeadline(ms: number): RenewableDeadline {
  let current = deadlineIn(ms);
  return {
    left: () => current.left(),
    get passed() {
      return current.passed;
    },
    within: limit => current.within(limit),
    renew: () => {
      current = deadlineIn(ms);
    },
  };
}
