// What one command found out about a set without a free address, for all that ask at the same moment or just after.
import { FailureError } from '../base/errors.ts';
import type { Verdicts } from '../ipam/ports.ts';

/** Milliseconds for which "full" holds: runtimes ask again sooner than an address comes free. */
const lasting = 1000;

export class VerdictBooks {
  /** Undefined: whoever looked has found an address, or could not look. */
  readonly #failures = new Map<string, Promise<FailureError | undefined>>();

  /** Those of one store. */
  of(place: string): Verdicts {
    return { share: (key, look) => this.#share(JSON.stringify([place, key]), look) };
  }

  async #share<T>(key: string, look: () => Promise<T | FailureError>): Promise<T | FailureError> {
    const known = await this.#failures.get(key);
    if (known !== undefined) return known;
    const own = look();
    const failure = own.then(
      found => (found instanceof FailureError ? found : undefined),
      () => undefined,
    );
    this.#failures.set(key, failure);
    const forget = () => {
      if (this.#failures.get(key) === failure) this.#failures.delete(key);
    };
    void failure.then(found => (found === undefined ? forget() : setTimeout(forget, lasting).unref()));
    return own;
  }
}
