// The main process's side of the keeper: starts it, asks it, and hears what becomes of lease and addresses.
import { code, FailureError } from '../../base/errors.ts';
import type { KeeperConfig } from './protocol.ts';

export interface KeeperOptions extends KeeperConfig {
  /** How the keeper is started: this executable with its hidden command. */
  readonly command: readonly [file: string, ...args: string[]];
  /** Environment of the keeper: nothing else reaches it. */
  readonly env: Readonly<Record<string, string>>;
  /** CLOCK_MONOTONIC in milliseconds. */
  readonly monotonicNow: () => number;
  /** A line that the keeper wrote to its stderr: a line of the log. */
  readonly onLog?: (line: string) => void;
}

export interface Lease {
  readonly id: string;
  /** Seconds that etcd granted. */
  readonly ttl: number;
  /** Until when etcd cannot have let it expire, in milliseconds of performance.now(). */
  readonly heldUntil: number;
}

/** What befalls lease and addresses without having been asked for. None of them may throw. */
export interface KeeperEvents {
  /** There is a lease, the first or a new one after a loss. */
  leased(lease: Lease): void;
  /** The lease was renewed. */
  renewed(lease: Lease): void;
  /** The lease is gone, its keys too: everything was dropped. */
  lost(addresses: readonly string[]): void;
  /** These were dropped because no renewal was acknowledged in time; the claims may stand: read, claim afresh, grant. */
  fenced(addresses: readonly string[], why: string): void;
  /** For the log and a condition. */
  trouble(message: string): void;
  /** The child ended: lease, gate and addresses run out by themselves. Start another one. */
  failed(why: string): void;
}

/** Addresses that failed, each with the reason for people. */
export type Failures = ReadonlyMap<string, string>;

/** Each question ends: with an answer, or, when the keeper dies, with FailureError. */
export class Keeper implements AsyncDisposable {
  /** The keeper runs, and has a lease or will tell `leased`. Throws FailureError when it cannot be started. */
  static async start(_options: KeeperOptions, _on: KeeperEvents): Promise<Keeper> {
    throw new FailureError(code.unavailable, 'the keeper cannot be started');
  }

  /** Undefined while there is none, or it is not sure that there is. */
  lease(): Lease | undefined {
    return undefined;
  }

  /** Before a claim is sent: within a second of this, what it wins may be granted. */
  async permit(_addresses: readonly string[]): Promise<void> {}

  /** Opens the gate and puts the addresses, read back. Those that failed are not there, and their gate is closed. */
  async grant(_addresses: readonly string[]): Promise<Failures> {
    return new Map();
  }

  /** Closes the gate and removes the addresses, read back. Those that failed may still be there, behind a closed gate. */
  async drop(_addresses: readonly string[]): Promise<Failures> {
    return new Map();
  }

  /** Takes over what an earlier process of this id left alive; what has run out fails, and was dropped. */
  async adopt(_addresses: readonly string[]): Promise<Failures> {
    return new Map();
  }

  /** Ends the keeper without touching lease, gate or addresses (`--on-exit=keep`). */
  async leave(): Promise<void> {}

  /** Ends the keeper and its lease, with every key that still stands on it. What was granted must have been dropped. */
  async [Symbol.asyncDispose](): Promise<void> {}
}
