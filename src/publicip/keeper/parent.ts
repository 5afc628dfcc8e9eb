// The main process's side of the keeper: starts it, asks it, and hears what becomes of lease and addresses.
import { code, FailureError } from '../../base/errors.ts';
import { type Conversation, converse } from '../../host/exec.ts';
import type { KeeperConfig, LeaseState, Report, Request, Verb } from './protocol.ts';

export interface KeeperOptions extends KeeperConfig {
  /** How the keeper is started: this executable with its hidden command. */
  readonly command: readonly [file: string, ...args: string[]];
  /** Environment of the keeper: nothing else reaches it. */
  readonly env: Readonly<Record<string, string>>;
  /** CLOCK_MONOTONIC in milliseconds. */
  readonly monotonicNow: () => number;
  /** A line that the keeper wrote to its stderr: what only a bug lets it say. */
  readonly onLog?: (line: string) => void;
}

export interface Lease {
  readonly id: string;
  /** Seconds that etcd granted. */
  readonly ttl: number;
  /** Until when lease and claims are sure to stand, in milliseconds of performance.now(). */
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

/** Milliseconds for the child to say that it is ready; it waits 3 s for an earlier one to end. */
const startTime = 20_000;

/** Milliseconds for it to end when it was told to. */
const leaveTime = 5000;

/** Another process carries public addresses in this network namespace. */
export class KeeperRunningError extends FailureError {
  override name = 'KeeperRunningError';

  constructor(why: string) {
    super(code.unavailable, `public addresses are carried by another process of this host already: ${why}`);
  }
}

/** Each question ends: with an answer, or, when the keeper dies or says nothing for long, with FailureError. */
export class Keeper implements AsyncDisposable {
  readonly #options: KeeperOptions;
  readonly #on: KeeperEvents;
  readonly #child: Conversation;
  readonly #ready = Promise.withResolvers<void>();
  readonly #ended = Promise.withResolvers<void>();
  readonly #asked = new Map<
    number,
    { readonly resolve: (failures: Failures) => void; readonly reject: (why: Error) => void }
  >();
  readonly #pulse: NodeJS.Timeout;
  #asks = 0;
  #lease: LeaseState | undefined;
  #isReady = false;
  #isLeaving = false;
  #hasEnded = false;
  /** Whether this host has nft; without it addresses are fenced by their lifetimes alone, which takes a TTL of 9 s. */
  isGated = false;

  /** The keeper runs, and has a lease or will tell `leased`. Throws KeeperRunningError, or FailureError. */
  static async start(options: KeeperOptions, on: KeeperEvents): Promise<Keeper> {
    const keeper = new Keeper(options, on);
    const late = setTimeout(() => keeper.#kill('it did not get ready in time'), startTime);
    try {
      await keeper.#ready.promise;
    } finally {
      clearTimeout(late);
    }
    return keeper;
  }

  private constructor(options: KeeperOptions, on: KeeperEvents) {
    this.#options = options;
    this.#on = on;
    const { command, env, etcd, prefix, ttl, dev, lock, state, drives, uptime } = options;
    const [file, ...args] = command;
    this.#child = converse(file, args, env, {
      line: text => this.#hear(text),
      complaint: text => options.onLog?.(text),
      ended: why => this.#end(why),
    });
    this.#say({ configure: { etcd, prefix, ttl, dev, lock, state, drives, uptime } });
    // Often enough that one that comes late is no silence, however short the lease.
    this.#pulse = setInterval(() => this.#say({ alive: true }), Math.min(1000, ttl * 50));
  }

  /** Of its process. */
  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** Undefined while there is none, or it is not sure that there is. */
  lease(): Lease | undefined {
    const lease = this.#lease && this.#onOurClock(this.#lease);
    return lease !== undefined && performance.now() < lease.heldUntil ? lease : undefined;
  }

  /** Before a claim is sent: what is won within a second of this may be granted. */
  async permit(addresses: readonly string[]): Promise<void> {
    for (const [address, why] of await this.#ask('permit', addresses)) {
      throw new FailureError(code.tryAgain, `${address} cannot be answered for: ${why}`);
    }
  }

  /** Opens the gate and puts the addresses, read back. Those that failed are not there, and their gate is closed. */
  grant(addresses: readonly string[]): Promise<Failures> {
    return this.#ask('grant', addresses);
  }

  /** Closes the gate and removes the addresses, read back. Those that failed may still be there, behind a closed gate. */
  drop(addresses: readonly string[]): Promise<Failures> {
    return this.#ask('drop', addresses);
  }

  /** Takes over what an earlier process of this id left alive; what has run out fails, and was dropped. */
  adopt(addresses: readonly string[]): Promise<Failures> {
    return this.#ask('adopt', addresses);
  }

  /** Ends the keeper without touching lease, gate or addresses (`--on-exit=keep`). */
  leave(): Promise<void> {
    return this.#leave(false);
  }

  /** Takes every address and the gate away, and ends the keeper and its lease, with every key that still stands on it. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.#leave(true);
  }

  async #leave(revoke: boolean): Promise<void> {
    this.#isLeaving = true;
    this.#say({ leave: { revoke } });
    const late = setTimeout(() => this.#child[Symbol.dispose](), leaveTime);
    await this.#ended.promise;
    clearTimeout(late);
  }

  #ask(verb: Verb, addresses: readonly string[]): Promise<Failures> {
    if (this.#hasEnded) return Promise.reject(this.#gone('it has ended'));
    const ask = ++this.#asks;
    // It answers within seconds whatever etcd does; one that does not is stopped, or worse, and everything has run out.
    const late = setTimeout(() => this.#kill('it did not answer in time'), this.#options.ttl * 1000 + 5000);
    const answer = new Promise<Failures>((resolve, reject) => this.#asked.set(ask, { resolve, reject }));
    this.#say({ ask, verb, addresses });
    return answer.finally(() => clearTimeout(late));
  }

  #say(request: Request): void {
    this.#child.say(`${JSON.stringify(request)}\n`);
  }

  #hear(line: string): void {
    const report = JSON.parse(line) as Report;
    if ('lease' in report) this.#hearOfLease(report.lease);
    else if ('answer' in report) this.#hearAnswer(report.answer, report.failures);
    else if ('ready' in report) {
      this.isGated = report.ready.gated;
      this.#isReady = true;
      this.#ready.resolve();
    } else if ('refused' in report) this.#ready.reject(new KeeperRunningError(report.refused));
    else if ('lost' in report) {
      this.#lease = undefined;
      this.#on.lost(report.lost);
    } else if ('fenced' in report) this.#on.fenced(report.fenced, report.why);
    else this.#on.trouble(report.trouble);
  }

  #hearOfLease(state: LeaseState): void {
    const isNew = state.id !== this.#lease?.id;
    this.#lease = state;
    const lease = this.#onOurClock(state);
    if (isNew) this.#on.leased(lease);
    else this.#on.renewed(lease);
  }

  #hearAnswer(ask: number, failures: Readonly<Record<string, string>>): void {
    this.#asked.get(ask)?.resolve(new Map(Object.entries(failures)));
    this.#asked.delete(ask);
  }

  #kill(why: string): void {
    this.#child[Symbol.dispose]();
    this.#end(why);
  }

  #end(why: string): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    clearInterval(this.#pulse);
    this.#lease = undefined;
    this.#ended.resolve();
    const gone = this.#gone(why);
    this.#ready.reject(gone);
    for (const { reject } of this.#asked.values()) reject(gone);
    this.#asked.clear();
    if (this.#isReady && !this.#isLeaving) this.#on.failed(why);
  }

  #gone(why: string): FailureError {
    return new FailureError(code.tryAgain, `the keeper, which answers for public addresses, is not there: ${why}`);
  }

  #onOurClock({ id, ttl, heldUntil }: LeaseState): Lease {
    return { id, ttl, heldUntil: heldUntil - this.#options.monotonicNow() + performance.now() };
  }
}
