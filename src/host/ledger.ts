// What each feature changed on this host, with what was there before, so that it can be put back.
import { readFileSync } from 'node:fs';
import { backoff, type Deadline, pause } from '../base/clock.ts';
import { code, FailureError, messageOf, systemCode } from '../base/errors.ts';
import { putFile } from './files.ts';
import { takeLock } from './lock.ts';

export const ledgerFile = '/var/lib/kube-ipam/ledger.json';

/** One thing that was changed. */
export interface Change {
  /** What was there before any of the users came. */
  readonly old: string;
  /** What we put there. */
  readonly set: string;
  /** The boot in which that was: a kernel forgets such things. */
  readonly boot: string;
  /** Features that need it: they share it, and the last one puts the old value back. */
  readonly users: readonly string[];
}

export type Sysctls = Readonly<Record<string, Change>>;

interface Content {
  readonly sysctls?: Sysctls;
}

export class Ledger {
  readonly #path: string;
  /** Of the machine: what was changed in an earlier one holds no longer. */
  readonly boot: string;

  constructor(path: string, boot: string) {
    this.#path = path;
    this.boot = boot;
  }

  /** Sysctls that were changed, by their path below /proc/sys. Throws FailureError. */
  sysctls(): Sysctls {
    return this.#read().sysctls ?? {};
  }

  /** Holds the ledger alone while `change` runs; what it gives is on disk when this resolves. Throws FailureError. */
  async update(change: (sysctls: Sysctls) => Sysctls, deadline: Deadline): Promise<void> {
    using _lock = await this.#lock(deadline);
    const content = this.#read();
    // What a later version keeps here stays.
    const changed: Content = { ...content, sysctls: change(content.sysctls ?? {}) };
    putFile(this.#path, `${JSON.stringify(changed, undefined, 2)}\n`, 0o600);
  }

  #read(): Content {
    try {
      return JSON.parse(readFileSync(this.#path, 'utf8'));
    } catch (error) {
      if (systemCode(error) === 'ENOENT') return {};
      const advice = 'it holds the values that this program replaced; restore it, or remove it and lose them';
      throw new FailureError(code.io, `${this.#path} cannot be read: ${messageOf(error)}; ${advice}`, { cause: error });
    }
  }

  async #lock(deadline: Deadline): Promise<Disposable> {
    for (let tries = 1; ; tries++) {
      const lock = takeLock(`${this.#path}.lock`);
      if (lock !== undefined) return lock;
      if (deadline.passed) throw new FailureError(code.tryAgain, `${this.#path} is held by another process`);
      await pause(backoff(tries, 10, 100), deadline);
    }
  }
}
