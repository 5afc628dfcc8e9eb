// The keeper: a process that keeps the lease and answers for addresses exactly as long as the lease is sure (contract N1-N3, N9).
import { deadlineIn, rest } from '../../base/clock.ts';
import { code, FailureError, messageOf } from '../../base/errors.ts';
import { monitor } from '../../host/ip.ts';
import { takeLock } from '../../host/lock.ts';
import { monitorNft } from '../../host/nft.ts';
import { publicIp } from '../../host/numbers.ts';
import type { GrpcKv } from '../../store/etcd/grpc.ts';
import type { EtcdTarget } from '../../store/target.ts';
import { Assurance } from './assurance.ts';
import { type Failed, Kernel, type Term } from './kernel.ts';
import type { KeeperConfig, Report, Request, Verb } from './protocol.ts';
import { watchSleep } from './sleep.ts';
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

/** Milliseconds for an earlier keeper of this namespace to end. */
const lockPatience = 3000;

const sleptHere = 'this machine slept: a renewal must be acknowledged first';

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
  readonly #assurance: Assurance;
  readonly #turns = new Turns();
  readonly #ending = new AbortController();
  readonly #asked: Record<Verb, Ask[]> = { permit: [], grant: [], drop: [], adopt: [] };
  /** Addresses that are answered for, and since when: a list of keys that was asked for earlier need not have them. */
  readonly #held = new Map<string, number>();
  #fence: NodeJS.Timeout | undefined;
  #heardAt = performance.now();
  /** When this machine had slept (performance.now()): the gate is shut until a renewal that was sent later (N9). */
  #sleptAt: number | undefined;
  #mending = false;
  #trouble: string | undefined;

  constructor(config: KeeperConfig, kernel: Kernel | undefined, io: KeeperIo) {
    this.#config = config;
    this.#kernel = kernel;
    this.#io = io;
    this.#assurance = new Assurance(
      {
        kv: io.openGrpc(hurried(config)),
        ttl: config.ttl,
        mainSpoke: within => performance.now() - this.#heardAt < within,
        claims: () => new Map([...this.#held].map(([address, since]) => [this.#claimKey(address), since])),
      },
      {
        leased: (id, term) => this.#sure(id, term),
        sure: (id, term) => this.#renew(id, term),
        unclaimed: keys =>
          this.#fenceOff(
            keys.map(key => this.#addressIn(key)),
            'its claim does not stand any more',
          ),
        lost: () => this.#lost(),
        trouble: (what, error) => this.#complain(what, error),
      },
    );
  }

  start(): void {
    this.#report({ ready: { gated: this.#kernel?.isGated ?? false } });
    this.#assurance.start();
    if (this.#kernel === undefined) return;
    void watchSleep(this.#config.uptime, this.#io.monotonicNow, ms => this.#woke(ms), this.#ending.signal);
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
    // A renewal that waits for its turn must not bring back what is cleared away.
    const isClear = await this.#turns.last(async () => revoke && (await this.#clear()));
    // Revoked, it would let others claim at once what is still answered for here.
    await this.#assurance.end(isClear);
  }

  // What becomes of the lease

  /** Moves the fence, which needs nobody's acknowledgement to come down. */
  #sure(id: string, term: Term): void {
    const { heldUntil, ttl } = term;
    this.#trouble = undefined;
    this.#report({ lease: { id, ttl, heldUntil: heldUntil - performance.now() + this.#io.monotonicNow() } });
    clearTimeout(this.#fence);
    const at = this.#kernel?.fence(term) ?? heldUntil;
    // The gate has shut by itself then; what stands behind it is cleared away.
    const down = () => this.#fenceOff([...this.#held.keys()], 'no renewal of the lease was acknowledged in time');
    this.#fence = setTimeout(() => void down(), Math.max(0, at - performance.now()));
  }

  async #renew(id: string, term: Term): Promise<void> {
    await this.#turns.take(urgency.goOn, () => this.#renewKernel(term));
    this.#sure(id, term);
  }

  async #renewKernel(term: Term): Promise<void> {
    const kernel = this.#kernel;
    if (kernel === undefined) return;
    const addresses = [...this.#held.keys()];
    const sleptAt = this.#sleptAt;
    // It slept while this waited for its turn.
    if (term.heldUntil - term.ttl * 1000 < (sleptAt ?? 0)) throw new FailureError(code.tryAgain, sleptHere);
    // What was shut since the last renewal, by whomever, proves nothing against the term.
    const isShut = (await kernel.restoreGate()) || sleptAt !== undefined;
    this.#gone(await (isShut ? kernel.reopen(addresses, term) : kernel.renew(addresses, term)));
    if (this.#sleptAt === sleptAt) this.#sleptAt = undefined;
    await this.#attempt('what an earlier process left cannot be removed', () => kernel.sweep(this.#held));
  }

  async #lost(): Promise<void> {
    clearTimeout(this.#fence);
    this.#kernel?.revokePermits();
    const lost = await this.#turns.take(urgency.stop, () => this.#letGo([...this.#held.keys()]));
    this.#report({ lost });
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

  /** The kernel has let go of them. */
  #gone(failed: Failed): void {
    for (const address of failed.keys()) this.#held.delete(address);
    const reasons = Map.groupBy(failed, ([, why]) => why);
    for (const [why, those] of reasons) this.#report({ fenced: those.map(([address]) => address), why });
  }

  async #drop(addresses: readonly string[]): Promise<Failed> {
    for (const address of addresses) this.#held.delete(address);
    return (await this.#kernel?.drop(addresses)) ?? new Map();
  }

  /** Whether nothing is left. */
  async #clear(): Promise<boolean> {
    try {
      const failed = (await this.#kernel?.clear()) ?? new Map();
      return failed.size === 0;
    } catch (error) {
      this.#complain('addresses cannot be removed', error);
      return false;
    }
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
    const { term } = this.#assurance;
    if (term === undefined) return failing(addresses, 'there is no lease');
    if (this.#sleptAt !== undefined) return failing(addresses, sleptHere);
    for (const address of addresses) this.#held.delete(address);
    const failed = (await this.#kernel?.[verb](addresses, term)) ?? new Map();
    for (const address of addresses) if (!failed.has(address)) this.#held.set(address, performance.now());
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
        const { term } = this.#assurance;
        if (term !== undefined) this.#gone((await this.#kernel?.mend([...this.#held.keys()], term)) ?? new Map());
      });
    });
  }

  #heardOfRules(line: string): void {
    if (line !== 'resync' && !line.includes(publicIp.gate.table)) return;
    void this.#turns.take(urgency.stop, () =>
      this.#attempt('the gate cannot be put back', async () => {
        if (!(await this.#kernel?.restoreGate())) return;
        this.#complain('somebody had removed the gate', 'it was put back');
        const { term } = this.#assurance;
        if (term === undefined || this.#sleptAt !== undefined) return;
        this.#gone((await this.#kernel?.reopen([...this.#held.keys()], term)) ?? new Map());
      }),
    );
  }

  #woke(ms: number): void {
    this.#sleptAt = performance.now();
    const shut = () => this.#kernel!.shut([...this.#held.keys()]);
    void this.#turns.take(urgency.stop, () => this.#attempt('the gate cannot be shut', shut));
    this.#complain(`this machine slept for ${Math.round(ms)} ms`, 'the gate is shut until a renewal is acknowledged');
    this.#assurance.askAnew();
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

  #claimKey(address: string): string {
    return `${this.#config.prefix}publicips/${address}`;
  }

  #addressIn(key: string): string {
    return key.slice(this.#claimKey('').length);
  }

  #report(what: Report): void {
    report(this.#io, what);
  }
}

/** A member that says nothing must not use up the time in which another one could be asked. */
function hurried({ etcd, ttl }: KeeperConfig): EtcdTarget {
  const share = (ttl * 1000) / 6;
  const { dialTimeout, requestTimeout } = etcd;
  return { ...etcd, dialTimeout: Math.min(dialTimeout, share), requestTimeout: Math.min(requestTimeout, share) };
}

function failing(addresses: readonly string[], why: string): Failed {
  return new Map(addresses.map(address => [address, why]));
}
