// For how long it is sure that the lease stands, and with it the claims: the term for which addresses may be answered for.
import { backoff, deadlineIn, rest } from '../../base/clock.ts';
import { FailureError } from '../../base/errors.ts';
import type { GrpcKv, KeptLease } from '../../store/etcd/grpc.ts';
import type { Term } from './kernel.ts';

export interface AssuranceOptions {
  readonly kv: GrpcKv;
  /** Seconds to ask etcd for. */
  readonly ttl: number;
  /** Whether main has been heard of within that many milliseconds: whoever cannot be told must not go on (N3). */
  mainSpoke(within: number): boolean;
  /** Keys that must stand on the lease, each with the time (performance.now()) from which on they must. */
  claims(): ReadonlyMap<string, number>;
}

/** Those that return a promise are awaited; a FailureError from `sure` has it tried again. */
export interface AssuranceEvents {
  /** There is a lease: nothing stands on it yet. */
  leased(id: string, term: Term): void;
  /** Lease and claims stand for longer. */
  sure(id: string, term: Term): Promise<void>;
  /** Keys that do not stand on the lease any more, though nobody has said so. */
  unclaimed(keys: readonly string[]): Promise<void>;
  /** The lease is gone, and all keys on it. */
  lost(): Promise<void>;
  trouble(what: string, error: unknown): void;
}

/** Milliseconds for a lease to be granted or revoked. */
const leaseTime = 3000;

/** Milliseconds from one look at claims or at main to the next, where the first brought nothing. */
const lookAgain = 200;

export class Assurance {
  readonly #options: AssuranceOptions;
  readonly #on: AssuranceEvents;
  readonly #ending = new AbortController();
  #lease: KeptLease | undefined;
  #term: Term | undefined;
  #verifying = false;
  /** Only a renewal that was sent later than this proves anything (performance.now()). */
  #notBefore = 0;

  constructor(options: AssuranceOptions, on: AssuranceEvents) {
    this.#options = options;
    this.#on = on;
  }

  /** Undefined while there is no lease. */
  get term(): Term | undefined {
    return this.#term;
  }

  start(): void {
    void this.#run();
  }

  /** What was sure until now is not any more: a renewal is sent at once, and nothing earlier than it counts. */
  askAnew(): void {
    this.#notBefore = performance.now();
    this.#lease?.renewNow();
  }

  /** Ends renewing; with `revoke` also the lease. Never throws. */
  async end(revoke: boolean): Promise<void> {
    this.#ending.abort();
    if (revoke) await this.#lease?.revoke(deadlineIn(leaseTime)).catch(() => {});
    else await this.#lease?.[Symbol.asyncDispose]();
  }

  async #run(): Promise<void> {
    const { signal } = this.#ending;
    for (let tries = 1; !signal.aborted; tries++) {
      // Nobody would know of a lease that is granted while main is silent.
      if (!this.#mayRenew()) await rest(lookAgain, signal);
      else if (await this.#leaseForALife(signal)) tries = 0;
      else await rest(backoff(tries, 100, 1000), signal);
    }
  }

  /** From its granting to its loss; false when none was granted. */
  async #leaseForALife(signal: AbortSignal): Promise<boolean> {
    const { kv, ttl } = this.#options;
    let lease: KeptLease;
    try {
      const renewal = { mayRenew: () => this.#mayRenew(), onRenewed: () => void this.#verify() };
      lease = await kv.keepLease(ttl, deadlineIn(leaseTime), renewal);
    } catch (error) {
      this.#on.trouble('no lease is granted', error);
      return false;
    }
    this.#lease = lease;
    this.#term = { heldUntil: lease.heldUntil, ttl: lease.ttl };
    this.#on.leased(lease.id, this.#term);
    await new Promise<void>(resolve => {
      for (const over of [lease.lost, signal]) over.addEventListener('abort', () => resolve(), { once: true });
    });
    if (signal.aborted) return true;
    this.#lease = undefined;
    this.#term = undefined;
    await this.#on.lost();
    return true;
  }

  #mayRenew(): boolean {
    return this.#options.mainSpoke((this.#lease?.ttl ?? this.#options.ttl) * 1000);
  }

  /** A renewal was acknowledged. Each is verified, and all that came meanwhile are one. */
  async #verify(): Promise<void> {
    if (this.#verifying) return;
    this.#verifying = true;
    while (!this.#ending.signal.aborted) {
      try {
        if (!(await this.#verifyOnce())) break;
      } catch (error) {
        if (!(error instanceof FailureError)) throw error;
        this.#on.trouble('the claims cannot be verified, or the kernel not be told', error);
        await rest(lookAgain, this.#ending.signal);
      }
    }
    this.#verifying = false;
  }

  /**
   * That the lease lives is not enough: a claim that somebody deleted must end by the clock even where main's watch is too
   * slow to tell, as others wait for just one TTL (N4). False when there is nothing to verify.
   */
  async #verifyOnce(): Promise<boolean> {
    const lease = this.#lease;
    const until = lease?.heldUntil ?? 0;
    if (lease === undefined || until <= this.#term!.heldUntil) return false;
    if (until - lease.ttl * 1000 < this.#notBefore) return false;
    const limit = deadlineIn((lease.ttl * 1000) / 6);
    const asked = performance.now();
    const claims = this.#options.claims();
    const keys = claims.size === 0 ? new Set<string>() : await this.#options.kv.leaseKeys(lease.id, limit);
    // The next renewal tells that it is gone.
    if (keys === undefined) lease.renewNow();
    if (keys === undefined) return false;
    const missing = [...claims].flatMap(([key, since]) => (since < asked && !keys.has(key) ? [key] : []));
    const gone = await this.#confirm(missing, lease.id);
    if (gone.length > 0) await this.#on.unclaimed(gone);
    if (this.#lease !== lease) return false;
    const term = { heldUntil: until, ttl: lease.ttl };
    await this.#on.sure(lease.id, term);
    if (this.#lease !== lease) return false;
    this.#term = term;
    return true;
  }

  /** A member that has just become the leader may not have applied all that was written before. */
  async #confirm(keys: readonly string[], lease: string): Promise<readonly string[]> {
    if (keys.length === 0) return [];
    const { answers } = await this.#options.kv.read(
      keys.map(key => ({ key })),
      deadlineIn(leaseTime),
    );
    return keys.filter((_, place) => answers[place]!.entries[0]?.lease !== lease);
  }
}
