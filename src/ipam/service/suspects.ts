// Remembers between two scans what seemed dead, and for how long: one look never frees anything.

interface Suspect {
  /** The revisions of all its records: whoever touches one begins anew. */
  readonly mark: string;
  /** performance.now(): of no other machine, and moved by nobody. */
  readonly since: number;
}

/** What seemed dead in one part of the store. */
export class Suspects {
  #before: ReadonlyMap<string, Suspect> = new Map();
  #now = new Map<string, Suspect>();

  /** A scan that fails half-way adds nothing to what the last whole one has seen. */
  begin(): void {
    this.#now = new Map();
  }

  /** Notes it; milliseconds for which every scan has seen it dead and unchanged: 0 the first time. */
  age(key: string, mark: string): number {
    const known = this.#before.get(key);
    const now = performance.now();
    const suspect = known?.mark === mark ? known : { mark, since: now };
    this.#now.set(key, suspect);
    return now - suspect.since;
  }

  /** It lives after all. */
  clear(key: string): void {
    this.#now.delete(key);
  }

  end(): void {
    this.#before = this.#now;
  }
}
