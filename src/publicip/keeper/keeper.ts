// The keeper: a process that keeps the lease and answers for addresses exactly as long as the lease is sure (contract N1-N3, N9).
import { readFileSync } from 'node:fs';
import { backoff, deadlineIn, rest } from '../../base/clock.ts';
import { FailureError, messageOf } from '../../base/errors.ts';
import { monitor } from '../../host/ip.ts';
import { takeLock } from '../../host/lock.ts';
import { monitorNft } from '../../host/nft.ts';
import { publicIp } from '../../host/numbers.ts';
import type { GrpcKv, KeptLease } from '../../store/etcd/grpc.ts';
import type { EtcdTarget } from '../../store/target.ts';
import { type Failed, Kernel, type Term } from './kernel.ts';
import type { KeeperConfig, Report, Request, Verb } from './protocol.ts';
import { Turns, urgency } from './turns.ts';

/** What the keeper needs of the world. */
export interface KeeperIo {
  /** Lines from main; ends when main is gone. */
  readonly requests: AsyncIterable<string>;
  readonly report: (line: string) => void;
  /** CLOCK_MONOTONIC in milliseconds. */
  readonly monotonicNow: () => number;
  readonly openGrpc: (target: EtcdTarget) => GrpcKv;
}

/** Milliseconds for a lease to be granted. */
const grantTime = 3000;

/** How often the two clocks of the kernel are compared, and by how much they may come apart, in milliseconds (N9). */
const clockInterval = 200;
const clockTolerance = 500;

/** Milliseconds for an earlier keeper of this namespace to end. */
const lockPatience = 3000;

const urgencyOf = { drop: urgency.stop, permit: urgency.prepare, grant: urgency.begin, adopt: urgency.begin } as const;

/** Serves main until it is gone or says so; touches neither gate nor addresses then, which run out by themselves. */
export async function runKeeper(io: KeeperIo): Promise<void> {
  const lines = io.requests[Symbol.asyncIterator]();
  const first = await lines.next();
  if (first.done === true) return;
  const { configure: config } = JSON.parse(first.value) as { readonly configure: KeeperConfig };
  using lock = await lockOf(config.lock);
  if (lock === undefined) return report(io, { refused: `another process holds ${config.lock}` });
  const kernel = config.drives ? await Kernel.open(config.dev, config.state) : undefined;
  const keeper = new Keeper(config, kernel, io);
  keeper.start();
  for (let line = await lines.next(); line.done !== true; line = await lines.next()) {
    const request = JSON.parse(line.value) as Exclude<Request, { readonly configure: KeeperConfig }>;
    if ('leave' in request) return await keeper.leave(request.leave.revoke);
    keeper.hear(request);
  }
}

/** An earlier keeper whose main was killed ends when it reads that: then the kernel has one writer again. */
async function lockOf(file: string): Promise<Disposable | undefined> {
  const deadline = deadlineIn(lockPatience);
  for (;;) {
    const lock = takeLock(file);
    if (lock !== undefined || deadline.passed) return lock;
    await rest(50);
  }
}

function report({ report }: KeeperIo, what: Report): void {
  report(`${JSON.stringify(what)}\n`);
}

interface Ask {
  readonly ask: number;
  readonly addresses: readonly string[];
}

class Keeper {
  readonly #config: KeeperConfig;
  /** Undefined: nothing is put into the kernel. */
  readonly #kernel: Kernel | undefined;
  readonly #io: KeeperIo;
  readonly #kv: GrpcKv;
  readonly #turns = new Turns();
  readonly #ending = new AbortController();
  readonly #asked: Record<Verb, Ask[]> = { permit: [], grant: [], drop: [], adopt: [] };
  /** Addresses that are answered for, and since when: a key list that was asked for earlier need not have them. */
  readonly #held = new Map<string, number>();
  #lease: KeptLease | undefined;
  /** Until when lease *and* claims are sure to stand, in milliseconds of performance.now(). */
  #sureUntil = 0;
  #fence: NodeJS.Timeout | undefined;
  #verifying = false;
  #heardAt = performance.now();
  /** Since when the gate is shut because this machine slept; a renewal that was sent later opens it. */
  #sleptAt: number | undefined;
  #mending = false;
  #trouble: string | undefined;

  constructor(config: KeeperConfig, kernel: Kernel | undefined, io: KeeperIo) {
    this.#config = config;
    this.#kernel = kernel;
    this.#io = io;
    // A member that says nothing must not use up the time in which another one could be asked.
    const share = (config.ttl * 1000) / 6;
    const { dialTimeout, requestTimeout } = config.etcd;
    const times = { dialTimeout: Math.min(dialTimeout, share), requestTimeout: Math.min(requestTimeout, share) };
    this.#kv = io.openGrpc({ ...config.etcd, ...times });
  }

  start(): void {
    this.#report({ ready: { gated: this.#kernel?.isGated ?? false } });
    void this.#keepLease();
    if (this.#kernel === undefined) return;
    void this.#watchClocks();
    monitor(line => this.#heardOfAddress(line), this.#ending.signal);
    if (this.#kernel.isGated) monitorNft(line => this.#heardOfRules(line), this.#ending.signal);
  }

  hear(request: Exclude<Request, { readonly configure: KeeperConfig }>): void {
    this.#heardAt = performance.now();
    if (!('ask' in request)) return;
    const { verb } = request;
    this.#asked[verb].push(request);
    // All that was asked of one kind until its turn comes is one step: a hundred addresses cost little more than one.
    if (this.#asked[verb].length === 1) void this.#turns.take(urgencyOf[verb], () => this.#answerAll(verb));
  }

  async leave(revoke: boolean): Promise<void> {
    this.#ending.abort();
    clearTimeout(this.#fence);
    // Revoked, it would let others claim at once what is still answered for here.
    const mayRevoke = revoke && (await this.#turns.take(urgency.stop, () => this.#dropAll()));
    if (mayRevoke) await this.#lease?.revoke(deadlineIn(grantTime)).catch(() => {});
    else await this.#lease?.[Symbol.asyncDispose]();
  }

  /** Whether nothing is left. */
  async #dropAll(): Promise<boolean> {
    const addresses = [...this.#held.keys()];
    if (addresses.length === 0) return true;
    try {
      return (await this.#drop(addresses)).size === 0;
    } catch (error) {
      this.#complain('addresses cannot be removed', error);
      return false;
    }
  }

  // Lease

  async #keepLease(): Promise<void> {
    const { signal } = this.#ending;
    for (let tries = 1; !signal.aborted; tries++) {
      // Nobody would know of a lease that is granted while main is silent.
      if (!this.#mainSpeaks()) await rest(clockInterval, signal);
      else if (await this.#leaseForALife(signal)) tries = 0;
      else await rest(backoff(tries, 100, 1000), signal);
    }
  }

  /** From its granting to its loss; false when none was granted. */
  async #leaseForALife(signal: AbortSignal): Promise<boolean> {
    let lease: KeptLease;
    try {
      lease = await this.#kv.keepLease(this.#config.ttl, deadlineIn(grantTime), {
        mayRenew: () => this.#mainSpeaks(),
        onRenewed: () => void this.#verify(),
      });
    } catch (error) {
      this.#complain('no lease is granted', error);
      return false;
    }
    this.#trouble = undefined;
    this.#lease = lease;
    this.#sure(lease.heldUntil);
    await new Promise<void>(resolve => {
      for (const over of [lease.lost, signal]) over.addEventListener('abort', () => resolve(), { once: true });
    });
    if (signal.aborted) return true;
    this.#lease = undefined;
    this.#kernel?.revokePermits();
    const lost = await this.#turns.take(urgency.stop, () => this.#letGo([...this.#held.keys()]));
    this.#report({ lost });
    return true;
  }

  /** N3: whoever cannot be told must not go on. */
  #mainSpeaks(): boolean {
    return performance.now() - this.#heardAt < (this.#lease?.ttl ?? this.#config.ttl) * 1000;
  }

  /**
   * A renewal was acknowledged: the lease stands. That the claims still stand on it is asked as well, so that a claim
   * which somebody deleted ends by the clock even where main's watch is too slow to tell.
   */
  async #verify(): Promise<void> {
    if (this.#verifying) return;
    this.#verifying = true;
    while (this.#lease !== undefined && this.#sureUntil < this.#lease.heldUntil && !this.#ending.signal.aborted) {
      try {
        if (!(await this.#verifyOnce(this.#lease))) break;
      } catch (error) {
        if (!(error instanceof FailureError)) throw error;
        this.#complain('claims cannot be verified, or the kernel not be renewed', error);
        await rest(clockInterval, this.#ending.signal);
      }
    }
    this.#verifying = false;
  }

  /** False when the lease turns out to be gone, which its next renewal tells. */
  async #verifyOnce(lease: KeptLease): Promise<boolean> {
    const until = lease.heldUntil;
    const asked = performance.now();
    const keys =
      this.#held.size === 0 ? new Set() : await this.#kv.leaseKeys(lease.id, deadlineIn((lease.ttl * 1000) / 6));
    if (keys === undefined) lease.renewNow();
    if (keys === undefined || this.#lease !== lease) return false;
    const unclaimed = [...this.#held].filter(([address, since]) => since < asked && !keys.has(this.#claimKey(address)));
    if (unclaimed.length > 0) {
      await this.#fenceOff(
        unclaimed.map(([address]) => address),
        'their claims do not stand any more',
      );
    }
    // What was sent before the machine slept proves nothing about now.
    if (this.#sleptAt !== undefined && until - lease.ttl * 1000 < this.#sleptAt) return false;
    await this.#turns.take(urgency.goOn, () => this.#renewKernel({ heldUntil: until, ttl: lease.ttl }));
    this.#trouble = undefined;
    this.#sure(until);
    return true;
  }

  async #renewKernel(term: Term): Promise<void> {
    const kernel = this.#kernel;
    if (kernel === undefined) return;
    const addresses = [...this.#held.keys()];
    const failed = await (this.#sleptAt === undefined ? kernel.renew(addresses, term) : kernel.reopen(addresses, term));
    this.#sleptAt = undefined;
    this.#gone(failed);
    await kernel.sweep(this.#held);
  }

  /** The kernel has let go of them. */
  #gone(failed: Failed): void {
    for (const address of failed.keys()) this.#held.delete(address);
    const reasons = Map.groupBy(failed, ([, why]) => why);
    for (const [why, those] of reasons) this.#report({ fenced: those.map(([address]) => address), why });
  }

  #claimKey(address: string): string {
    return `${this.#config.prefix}publicips/${address}`;
  }

  /** Moves the fence, which needs no acknowledgement of anybody to come down. */
  #sure(until: number): void {
    const lease = this.#lease!;
    this.#sureUntil = until;
    this.#report({ lease: { id: lease.id, ttl: lease.ttl, heldUntil: this.#monotonic(until) } });
    clearTimeout(this.#fence);
    const at = this.#kernel?.fence({ heldUntil: until, ttl: lease.ttl }) ?? until;
    this.#fence = setTimeout(() => void this.#fenceDown(), Math.max(0, at - performance.now()));
  }

  /** The gate has shut by itself; what stands behind it is cleared away. */
  async #fenceDown(): Promise<void> {
    await this.#fenceOff([...this.#held.keys()], 'no renewal of the lease was acknowledged in time');
  }

  async #fenceOff(addresses: readonly string[], why: string): Promise<void> {
    const fenced = await this.#turns.take(urgency.stop, () => this.#letGo(addresses));
    if (fenced.length > 0) this.#report({ fenced, why });
  }

  /** Returns those of them that were answered for. */
  async #letGo(addresses: readonly string[]): Promise<readonly string[]> {
    const held = addresses.filter(address => this.#held.delete(address));
    if (held.length > 0) await this.#attempt('addresses cannot be removed', () => this.#drop(held));
    return held;
  }

  async #drop(addresses: readonly string[]): Promise<Failed> {
    for (const address of addresses) this.#held.delete(address);
    return (await this.#kernel?.drop(addresses)) ?? new Map();
  }

  // Questions of main's

  async #answerAll(verb: Verb): Promise<void> {
    const asks = this.#asked[verb];
    this.#asked[verb] = [];
    const addresses = [...new Set(asks.flatMap(ask => ask.addresses))];
    const failed = await this.#do(verb, addresses).catch((error: unknown) => {
      if (!(error instanceof FailureError)) throw error;
      return new Map(addresses.map(address => [address, messageOf(error)]));
    });
    for (const ask of asks) {
      const failures = ask.addresses.flatMap(address => (failed.has(address) ? [[address, failed.get(address)!]] : []));
      this.#report({ answer: ask.ask, failures: Object.fromEntries(failures) as Record<string, string> });
    }
  }

  async #do(verb: Verb, addresses: readonly string[]): Promise<Failed> {
    if (verb === 'drop') return this.#drop(addresses);
    if (verb === 'permit') {
      await this.#kernel?.permit(addresses);
      return new Map();
    }
    const lease = this.#lease;
    if (lease === undefined) return failing(addresses, 'there is no lease');
    if (this.#sleptAt !== undefined)
      return failing(addresses, 'this machine slept: a renewal must be acknowledged first');
    const term = { heldUntil: this.#sureUntil, ttl: lease.ttl };
    const failed = (await this.#kernel?.[verb](addresses, term)) ?? new Map();
    for (const address of addresses) {
      if (failed.has(address)) this.#held.delete(address);
      else this.#held.set(address, performance.now());
    }
    return failed;
  }

  // What others do to this host

  #heardOfAddress(line: string): void {
    const deleted = /^Deleted .*\binet6? ([0-9a-f.:]+)\//.exec(line)?.[1];
    if (line !== 'resync' && (deleted === undefined || !this.#held.has(deleted))) return;
    if (this.#mending || this.#held.size === 0) return;
    this.#mending = true;
    void this.#turns.take(urgency.goOn, async () => {
      this.#mending = false;
      await this.#attempt('addresses that somebody removed cannot be put back', async () => {
        if (this.#lease === undefined) return;
        await this.#kernel?.mend([...this.#held.keys()], { heldUntil: this.#sureUntil, ttl: this.#lease.ttl });
      });
    });
  }

  #heardOfRules(line: string): void {
    if (line !== 'resync' && !line.includes(publicIp.gate.table)) return;
    void this.#turns.take(urgency.stop, () =>
      this.#attempt('the gate cannot be put back', async () => {
        if (!(await this.#kernel?.restoreGate())) return;
        this.#complain('somebody had removed the gate', 'it was put back');
        if (this.#lease === undefined || this.#sleptAt !== undefined) return;
        const term = { heldUntil: this.#sureUntil, ttl: this.#lease.ttl };
        this.#gone((await this.#kernel?.reopen([...this.#held.keys()], term)) ?? new Map());
      }),
    );
  }

  /** N9: while a machine sleeps no clock of it runs, so that nothing runs out, however long that is. */
  async #watchClocks(): Promise<void> {
    const { signal } = this.#ending;
    for (let before = this.#slept(); !signal.aborted; await rest(clockInterval, signal)) {
      const slept = this.#slept();
      if (slept - before > clockTolerance) this.#woke(slept - before);
      // A pause between the two readings makes it less than it is.
      before = Math.max(before, slept);
    }
  }

  /** Milliseconds for which this machine has slept since it was started, on a scale of its own. */
  #slept(): number {
    return Number(readFileSync(this.#config.uptime, 'utf8').split(' ')[0]) * 1000 - this.#io.monotonicNow();
  }

  #woke(ms: number): void {
    this.#sleptAt = performance.now();
    const shut = () => this.#kernel!.shut([...this.#held.keys()]);
    void this.#turns.take(urgency.stop, () => this.#attempt('the gate cannot be shut', shut));
    this.#complain(`this machine slept for ${Math.round(ms)} ms`, 'the gate is shut until a renewal is acknowledged');
    this.#lease?.renewNow();
  }

  async #attempt(what: string, work: () => Promise<unknown>): Promise<void> {
    try {
      await work();
    } catch (error) {
      if (!(error instanceof FailureError)) throw error;
      this.#complain(what, error);
    }
  }

  /** Once, however often it happens. */
  #complain(what: string, error: unknown): void {
    const trouble = `${what}: ${messageOf(error)}`;
    if (trouble !== this.#trouble) this.#report({ trouble });
    this.#trouble = trouble;
  }

  #monotonic(at: number): number {
    return at - performance.now() + this.#io.monotonicNow();
  }

  #report(what: Report): void {
    report(this.#io, what);
  }
}

function failing(addresses: readonly string[], why: string): Failed {
  return new Map(addresses.map(address => [address, why]));
}
