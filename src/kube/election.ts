// Elects one of several processes by a Lease object, with client-go's rules: own monotonic clock, never a comparison of two.
import { randomUUID } from 'node:crypto';
import { type Deadline, deadlineIn, rest } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import type { Client } from './client.ts';
import { ApiError } from './failure.ts';
import type { KubeObject } from './objects.ts';
import { leases, pathOf } from './resources.ts';

/** In milliseconds. */
export interface ElectionTiming {
  /** A leader that is not heard of for so long is followed by another. */
  readonly lease: number;
  /** A leader that could not renew for so long stops by itself: earlier, as clocks may run at different speeds. */
  readonly renew: number;
  readonly retry: number;
}

/** Those of client-go, and so of every controller of Kubernetes. */
const usual: ElectionTiming = { lease: 15_000, renew: 10_000, retry: 2_000 };

export interface ElectionOptions {
  /** Of the Lease. */
  readonly namespace: string;
  readonly name: string;
  /** Who this is, for people; two processes of one name are told apart all the same. */
  readonly identity: string;
  /** What the leader does, until the signal. When it ends before, another may lead. */
  readonly lead: (signal: AbortSignal) => Promise<void>;
  /** Told what `lead` throws. */
  readonly onBug?: (error: unknown) => void;
  readonly timing?: Partial<ElectionTiming>;
}

interface LeaseSpec {
  readonly holderIdentity?: string;
  readonly leaseDurationSeconds?: number;
  readonly acquireTime?: string;
  readonly renewTime?: string;
  /** How often the holder has changed. */
  readonly leaseTransitions?: number;
}

interface Lease extends KubeObject {
  readonly spec?: LeaseSpec;
}

/**
 * Needs the rights to get, create and update the Lease. Two may believe to lead for an instant (a process that was
 * paused wakes up): what a leader does must be safe even then, and looks at `isLeader` where that is cheap.
 */
export class Election implements AsyncDisposable {
  readonly #client: Client;
  readonly #options: ElectionOptions;
  readonly #timing: ElectionTiming;
  readonly #identity: string;
  readonly #stopping = new AbortController();
  #running: Promise<void> | undefined;
  /** What the Lease said when it was last seen, and since when, by our own clock, it has said so. */
  #seen: { readonly spec: LeaseSpec; readonly text: string; readonly since: number } | undefined;
  /** The Lease as we wrote it ourselves: a leader writes over it without reading it again. */
  #own: Lease | undefined;
  /** Until when we lead, by our own clock. */
  #leadsUntil = 0;
  #trouble: string | undefined;

  constructor(client: Client, options: ElectionOptions) {
    this.#client = client;
    this.#options = options;
    this.#timing = { ...usual, ...options.timing };
    this.#identity = `${options.identity}_${randomUUID()}`;
  }

  start(): this {
    this.#running ??= this.#run();
    return this;
  }

  get isLeader(): boolean {
    return performance.now() < this.#leadsUntil;
  }

  /** Who led when the Lease was last read, as that process calls itself; undefined: nobody. */
  get leader(): string | undefined {
    return this.#seen?.spec.holderIdentity || undefined;
  }

  /** Why the Lease could not be read or written the last time; undefined when it could. */
  get trouble(): string | undefined {
    return this.#trouble;
  }

  /** Ends the leader's work, waits for its end, and hands over at once to whoever comes. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#running;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      if (await this.#tried(this.#timing.renew, signal)) await this.#term();
      await rest(this.#timing.retry * (1 + Math.random() / 5), signal);
    }
  }

  /** One time as leader, from the first moment to the last. */
  async #term(): Promise<void> {
    const ending = new AbortController();
    const work = this.#work(ending.signal).finally(() => ending.abort());
    await this.#hold(AbortSignal.any([ending.signal, this.#stopping.signal]));
    ending.abort();
    await work;
    if (this.isLeader) await this.#release();
    this.#leadsUntil = 0;
  }

  async #work(signal: AbortSignal): Promise<void> {
    try {
      await this.#options.lead(signal);
    } catch (error) {
      this.#options.onBug?.(error);
    }
  }

  /** Renews, until leadership is lost or `end` comes. */
  async #hold(end: AbortSignal): Promise<void> {
    for (;;) {
      await rest(Math.min(this.#timing.retry, this.#left()), end);
      if (end.aborted || !this.isLeader) return;
      await this.#tried(this.#left(), end);
    }
  }

  #left(): number {
    return Math.max(0, this.#leadsUntil - performance.now());
  }

  /** Tries once to take or to renew the Lease, for half of the time at most. What went wrong is in `trouble`. */
  async #tried(ms: number, end: AbortSignal): Promise<boolean> {
    const deadline = deadlineIn(Math.min(ms, this.#timing.renew / 2));
    try {
      const acquired = await this.#acquire(deadline, end);
      this.#trouble = undefined;
      return acquired;
    } catch (error) {
      this.#own = undefined;
      // Somebody else was faster; the next look shows who.
      this.#trouble = error instanceof ApiError && error.status === 409 ? undefined : messageOf(error);
      return false;
    }
  }

  async #acquire(deadline: Deadline, end: AbortSignal): Promise<boolean> {
    // Counted from before the request: whoever sees its effect starts to count later.
    const began = performance.now();
    const lease = this.#own ?? (await this.#look(deadline, end));
    if (lease !== undefined && this.#mustWait(lease)) {
      this.#leadsUntil = 0;
      return false;
    }
    this.#own = await this.#write(lease, this.#claim(lease?.spec), deadline, end);
    this.#notice(this.#own);
    this.#leadsUntil = began + this.#timing.renew;
    return true;
  }

  async #look(deadline: Deadline, end?: AbortSignal): Promise<Lease | undefined> {
    const { namespace, name } = this.#options;
    const found = await this.#client.get<Lease>(pathOf(leases, { namespace, name }), deadline, end);
    if (found === undefined) this.#seen = undefined;
    else this.#notice(found.object);
    return found?.object;
  }

  /** Under the condition that nobody else has written meanwhile: otherwise reason `Conflict` or `AlreadyExists`. */
  #write(lease: Lease | undefined, spec: LeaseSpec, deadline: Deadline, end?: AbortSignal): Promise<Lease> {
    const { namespace, name } = this.#options;
    const { apiVersion, kind } = leases;
    const metadata = lease?.metadata ?? { namespace, name };
    const wanted = { apiVersion, kind, metadata, spec };
    if (lease === undefined) return this.#client.create<Lease>(pathOf(leases, { namespace }), wanted, deadline, end);
    return this.#client.update<Lease>(pathOf(leases, { namespace, name }), wanted, deadline, end);
  }

  #notice({ spec = {} }: Lease): void {
    const text = JSON.stringify(spec);
    if (this.#seen?.text !== text) this.#seen = { spec, text, since: performance.now() };
  }

  /** It is somebody else's, and has changed not long ago. */
  #mustWait({ spec = {} }: Lease): boolean {
    const { holderIdentity, leaseDurationSeconds } = spec;
    if (!holderIdentity || holderIdentity === this.#identity) return false;
    const length = leaseDurationSeconds === undefined ? this.#timing.lease : leaseDurationSeconds * 1000;
    return performance.now() - this.#seen!.since < length;
  }

  #claim(before: LeaseSpec = {}): LeaseSpec {
    const now = microTime();
    const isOurs = before.holderIdentity === this.#identity;
    const changes = before.leaseTransitions ?? 0;
    return {
      holderIdentity: this.#identity,
      leaseDurationSeconds: Math.ceil(this.#timing.lease / 1000),
      acquireTime: (isOurs && before.acquireTime) || now,
      renewTime: now,
      leaseTransitions: isOurs || before.renewTime === undefined ? changes : changes + 1,
    };
  }

  /** Nobody has to wait for us. */
  async #release(): Promise<void> {
    const deadline = deadlineIn(Math.min(this.#left(), this.#timing.renew / 2));
    this.#leadsUntil = 0;
    try {
      const lease = await this.#look(deadline);
      if (lease?.spec?.holderIdentity !== this.#identity) return;
      const { leaseTransitions = 0 } = lease.spec;
      await this.#write(lease, { leaseDurationSeconds: 1, renewTime: microTime(), leaseTransitions }, deadline);
    } catch (error) {
      // It runs out by itself.
      this.#trouble = messageOf(error);
    } finally {
      this.#own = undefined;
    }
  }
}

/** The wall clock, for people: no decision is made by it. */
function microTime(): string {
  return new Date().toISOString().replace('Z', '000Z');
}
