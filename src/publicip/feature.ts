// Public addresses on this node: brings together what Services want, who has claimed what, and what this node answers for.
import { backoff, deadlineIn, rest } from '../base/clock.ts';
import { code, FailureError, messageOf } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { Part, PartState } from '../base/part.ts';
import { version } from '../base/version.ts';
import type { EventSubject, EventType } from '../kube/events.ts';
import { Announcer } from './announcer.ts';
import type { Host } from './apply.ts';
import type { AgentInfo, Claims, ClaimsEvent, ClaimsView } from './claims.ts';
import type { Config } from './config.ts';
import type { Fitness } from './fitness.ts';
import { Here } from './here.ts';
import type { Failures, Keeper, KeeperEvents, Lease } from './keeper/parent.ts';
import type { PublicIpMetrics } from './metrics.ts';
import { type Want, type Wants, WantsReader } from './model.ts';
import type { Objects } from './objects.ts';
import { membersOf, type Plan, plan } from './plan.ts';
import { Readiness, type Settled } from './readiness.ts';
import { Refusals } from './refusals.ts';
import { type Steps, stepsOf } from './steps.ts';
import { Teller } from './teller.ts';

/** Milliseconds between two looks at everything, when nothing is heard. */
const lookInterval = 1000;

/** Milliseconds between two checks that the rules stand, which anybody may flush. */
const rulesInterval = 1500;

/** Milliseconds for one call to the store, and for reading this host. */
const callTime = 3000;

/** Milliseconds of a lease that must be left for a claim: the keeper answers for nothing in the last two seconds. */
const leastLeft = 2500;

/** For balance, in milliseconds: after the last change of membership, and between two moves. */
const steadyFor = 30_000;
const betweenMoves = 5000;

/** Failures of the kernel that may come of a lease just lost. */
const quickTries = 3;

/** Addresses about which something is under way at the same time: most of them wait for a probe. */
const mostAtOnce = 128;

/** Who this process is to others. */
export type Identity = Pick<AgentInfo, 'machine' | 'boot' | 'netns'>;

export interface FeatureOptions {
  readonly config: Config;
  readonly identity: Identity;
  readonly claims: Claims;
  readonly objects: Objects;
  readonly startKeeper: (on: KeeperEvents) => Promise<Keeper>;
  readonly host: Host;
  readonly tell: (subject: EventSubject, type: EventType, reason: string, message: string) => void;
  readonly metrics: PublicIpMetrics;
  readonly log: Log;
}

/** Why an address must not be claimed here; the reason is that of an event. */
interface Obstacle {
  readonly reason: 'ForeignAddress' | 'AddressAnsweredElsewhere';
  readonly why: string;
}

export class PublicIps implements Part {
  readonly name = 'public-ip';
  readonly #options: FeatureOptions;
  readonly #announcer: Announcer;
  readonly #stopping = new AbortController();
  #wake = new AbortController();
  #running: Promise<void> | undefined;
  #keeper: Keeper | undefined;
  #lease: Lease | undefined;
  /** The lease on which this agent's key was put, and what it says. */
  #registered: { readonly lease: string; readonly text: string } | undefined;
  /** Why it is not registered, for people. */
  #waitsFor: string | undefined;
  /** Addresses for which the keeper answers. */
  readonly #held = new Set<string>();
  readonly #busy = new Map<string, Promise<void>>();
  readonly #refusals = new Refusals();
  readonly #teller: Teller;
  readonly #here: Here;
  /** Addresses that were given up because no Service wants them, and whose owner records are still to go. */
  readonly #unwanted = new Set<string>();
  /** Since when a wanted address is seen without owner, in milliseconds: each in line waits from then on. */
  readonly #unownedSince = new Map<string, number>();
  #membersSince = performance.now();
  #members = '';
  #movedAt = 0;
  #wants: Wants = { wants: [], refusals: [] };
  /** The same, by address. */
  #wanted: ReadonlyMap<string, Want> = new Map();
  readonly #reader = new WantsReader();
  readonly #readiness = new Readiness();
  #ready: Settled = { nodes: new Map(), after: undefined };
  #plan: Plan = { lines: new Map(), moves: [], nobody: new Map() };
  #rules = '';
  #rulesAt = 0;
  /** What does not work although addresses are answered for, and why. */
  readonly #conditions = new Map<string, string>();
  #trouble: string | undefined = 'not started';

  constructor(options: FeatureOptions) {
    this.#options = options;
    const { host, config } = options;
    const announce = (address: string, signal: AbortSignal) => host.announce(address, signal);
    this.#announcer = new Announcer({ announce, interval: config.garpInterval });
    this.#teller = new Teller({ id: config.id, tell: options.tell, log: options.log });
    this.#here = new Here(host, config.interface);
  }

  get owned(): number {
    return this.#held.size;
  }

  get wanted(): number {
    return this.#wanted.size;
  }

  get unplaced(): number {
    return this.#plan.nobody.size;
  }

  get secondsSinceRenewal(): number | undefined {
    const lease = this.#lease;
    return lease && (performance.now() - (lease.heldUntil - lease.ttl * 1000)) / 1000;
  }

  async start(): Promise<void> {
    const { claims } = this.#options;
    claims.onChange((view, events) => this.#claimsChanged(view, events));
    await this.#startKeeper();
    this.#running = this.#run();
  }

  state(): PartState {
    if (this.#trouble !== undefined) return { ready: false, detail: this.#trouble };
    for (const [what, why] of this.#conditions) return { ready: false, detail: `no ${what}: ${why}` };
    const unfit = this.#fitness().why;
    return { ready: true, detail: unfit ?? `answers for ${this.#held.size} of ${this.wanted} addresses` };
  }

  /** Something that a pass should look at has changed. */
  readonly wake = (): void => this.#wake.abort();

  async stop(): Promise<void> {
    this.#stopping.abort();
    this.wake();
    await this.#running;
    await Promise.allSettled(this.#busy.values());
    if (this.#options.config.onExit === 'keep') return this.#leave();
    await this.#handOver();
  }

  async #leave(): Promise<void> {
    this.#announcer[Symbol.dispose]();
    await this.#keeper?.leave();
  }

  /** Every address is gone from here before its key is. */
  async #handOver(): Promise<void> {
    const { config, log, host } = this.#options;
    const held = [...this.#held];
    const failures = await this.#drop(held);
    const gone = held.filter(address => !failures.has(address));
    await Promise.allSettled(gone.map(address => this.#giveUp(address, this.#successor(address))));
    this.#announcer[Symbol.dispose]();
    await this.#keeper?.[Symbol.asyncDispose]();
    if (!config.drives) return;
    await host
      .clean()
      .catch((error: unknown) => log.warn('not everything was taken back', { cause: messageOf(error) }));
  }

  async #startKeeper(): Promise<void> {
    const { log, metrics, claims, startKeeper } = this.#options;
    const keeper = await startKeeper({
      leased: lease => {
        this.#lease = lease;
        log.info('has a lease', { lease: lease.id, ttl: lease.ttl });
        this.wake();
      },
      renewed: lease => {
        const wasSure = this.#isSure();
        this.#lease = lease;
        if (!wasSure) this.wake();
      },
      lost: addresses => {
        this.#lease = undefined;
        this.#letGo(addresses);
        metrics.claimsLost.add({}, addresses.length);
        log.warn('the lease is gone: nothing is answered for any more', { addresses: addresses.length });
        this.wake();
      },
      fenced: (addresses, why) => {
        this.#letGo(addresses);
        metrics.fenceClosed.add({}, addresses.length);
        log.warn('stopped answering', { addresses: addresses.length, why });
        // The claims may stand: they are read anew before anything is answered for again.
        void claims.refresh(deadlineIn(callTime)).then(this.wake, this.wake);
      },
      trouble: message => log.warn(message),
      failed: why => {
        this.#keeper = undefined;
        this.#lease = undefined;
        this.#letGo([...this.#held]);
        log.error('the keeper ended: another one is started', { why });
        this.wake();
      },
    });
    this.#keeper = keeper;
    this.#lease = keeper.lease();
  }

  /** This node does not answer for them any more; their keys are another matter. */
  #letGo(addresses: readonly string[]): void {
    for (const address of addresses) this.#held.delete(address);
    this.#announcer.end(addresses);
  }

  /** First of all work: what is not ours must not be answered for (N4). */
  #claimsChanged(view: ClaimsView, events: readonly ClaimsEvent[]): void {
    const { config, metrics, log } = this.#options;
    const lost = [...this.#held].filter(address => !this.#isOurs(view, address) && !this.#busy.has(address));
    const own = view.agents.get(config.id);
    const isForgotten = this.#registered !== undefined && own?.lease !== this.#registered.lease;
    if (isForgotten) this.#registered = undefined;
    const gone = isForgotten ? [...this.#held] : lost;
    if (gone.length > 0) {
      metrics.claimsLost.add({}, gone.length);
      log.warn('a claim was changed by somebody else: let go', { addresses: gone.slice(0, 20) });
      void this.#drop(gone);
    }
    // Whoever answered for it may have been this owner.
    const found = events.flatMap(event => (event.type === 'owner' && event.now ? [event.address] : []));
    for (const address of this.#refusals.refusedFor('AddressAnsweredElsewhere')) {
      if (found.includes(address)) this.#refusals.forget(address);
    }
    this.#trackMembers(view);
    this.wake();
  }

  #trackMembers({ agents }: ClaimsView): void {
    const members = [...agents.keys()].sort().join(' ');
    if (members === this.#members) return;
    this.#members = members;
    this.#membersSince = performance.now();
  }

  #isOurs({ owners }: ClaimsView, address: string): boolean {
    const owner = owners.get(address);
    return owner !== undefined && owner.id === this.#options.config.id && owner.lease === this.#lease?.id;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping;
    let failures = 0;
    while (!signal.aborted) {
      this.#wake = new AbortController();
      let next = lookInterval;
      try {
        next = await this.#pass();
        failures = 0;
        this.#trouble = undefined;
      } catch (error) {
        this.#trouble = messageOf(error);
        this.#options.log.warn('a look at the addresses failed', { cause: this.#trouble });
        next = backoff(++failures, 200, lookInterval);
      }
      await rest(next, this.#wake.signal);
    }
  }

  /** One look at everything; what takes time goes on behind its back. Milliseconds until the next one. */
  async #pass(): Promise<number> {
    const { objects, claims } = this.#options;
    const lookAgain = await this.#here.look();
    if (this.#keeper === undefined) await this.#startKeeper();
    this.#readWants();
    await this.#syncRules();
    const isMember = await this.#register();
    const view = claims.view();
    this.#plan = this.#planFor(view);
    if (objects.isComplete) this.#teller.report(this.#wants, this.#plan.nobody, view.agents.keys());
    const steps = stepsOf(this.#situation(view, isMember));
    if (steps.drop.length > 0) await this.#drop(steps.drop);
    // Before everything was read once, what seems unwanted may only be unknown.
    if (objects.isComplete) this.#take(steps);
    if (objects.isComplete) this.#forget(view);
    const waits = [steps.next, this.#fitness().after, this.#ready.after, lookAgain];
    return Math.min(lookInterval, ...waits.filter(wait => wait !== undefined));
  }

  #readWants(): void {
    const { objects, config } = this.#options;
    const around = {
      ranges: config.ranges,
      namespaces: config.namespaces,
      nodes: objects.nodes,
      addresses: this.#here.addresses,
      gateways: this.#here.gateways,
      clusterRanges: config.clusterRanges,
    };
    this.#wants = this.#reader.read(objects.services, objects.slices, around);
    this.#wanted = new Map(this.#wants.wants.map(want => [want.address, want]));
    // Of endpoints that were not listed yet, none is there.
    if (objects.isComplete) this.#ready = this.#readiness.settle(this.#wants.wants, performance.now());
  }

  async #syncRules(): Promise<void> {
    const { host, config, objects } = this.#options;
    if (!config.drives || !objects.isComplete) return;
    const hasReturns = config.gateways.length > 0;
    const returns = hasReturns ? [...this.#held] : [];
    const text = JSON.stringify([returns, this.#wants.wants.map(({ address, ports }) => [address, ports])]);
    const isDue = performance.now() - this.#rulesAt > rulesInterval || this.#rules !== text;
    if (!isDue) return;
    this.#rules = text;
    this.#rulesAt = performance.now();
    await this.#attempt('rules', () => host.syncRules(this.#wants.wants));
    if (hasReturns) await this.#attempt('return path', () => host.syncReturns(returns));
  }

  /** What fails here is a condition of its own: addresses are claimed and let go all the same. */
  async #attempt(what: string, work: () => Promise<void>): Promise<void> {
    try {
      await work();
      this.#conditions.delete(what);
    } catch (error) {
      const why = messageOf(error);
      if (this.#conditions.get(what) !== why) this.#options.log.warn(`no ${what}`, { cause: why });
      this.#conditions.set(what, why);
    }
  }

  #fitness(): Fitness {
    const { config, objects } = this.#options;
    return this.#here.fitness(objects.node(config.node), config.nodeSelector);
  }

  /** Whether this agent's key stands, says what is true now, and is on the lease that we have. */
  async #register(): Promise<boolean> {
    const { claims, config, identity, log } = this.#options;
    const lease = this.#lease;
    if (lease === undefined) return false;
    const { why } = this.#fitness();
    const info: AgentInfo = {
      node: config.node,
      cluster: config.cluster,
      ...identity,
      version,
      ttl: lease.ttl,
      fit: why === undefined,
      ...(why !== undefined && { why }),
      ...this.#refusals.published(),
    };
    const text = JSON.stringify(info);
    const isNew = this.#registered?.lease !== lease.id;
    if (!isNew && this.#registered?.text === text) return true;
    const outcome = await claims.register(lease.id, info, deadlineIn(callTime));
    if (outcome !== 'done') {
      const why = `id in use by ${outcome.inUseBy.node}`;
      if (this.#waitsFor !== why) log.warn(`${why}: waiting until it is gone`, { id: config.id });
      this.#waitsFor = why;
      return false;
    }
    this.#waitsFor = undefined;
    // Until it has ended well: what is adopted twice is adopted once.
    if (isNew) await this.#adopt(lease);
    this.#registered = { lease: lease.id, text };
    return true;
  }

  /** What an earlier process of this agent answered for goes on without a gap, where nothing has run out. */
  async #adopt(lease: Lease): Promise<void> {
    const { claims, log } = this.#options;
    const addresses = await claims.adopt(lease.id, deadlineIn(callTime));
    if (addresses.length === 0) return;
    const failures = await this.#ask('adopt', addresses);
    const adopted = addresses.filter(address => !failures.has(address));
    for (const address of adopted) this.#held.add(address);
    log.info('took over what an earlier process had', { adopted: adopted.length, runOut: failures.size });
  }

  #planFor(view: ClaimsView): Plan {
    const { config } = this.#options;
    return plan({
      agents: membersOf(view.agents, config.cluster),
      wants: this.#wants.wants.map(({ address }) => ({ address, nodes: this.#ready.nodes.get(address) })),
      owners: new Map([...view.owners].map(([address, { id }]) => [address, id])),
      rebalance: config.rebalance,
    });
  }

  #situation(view: ClaimsView, isMember: boolean): Parameters<typeof stepsOf>[0] {
    const now = performance.now();
    return {
      me: this.#options.config.id,
      lease: isMember ? this.#lease?.id : undefined,
      wanted: new Set(this.#wanted.keys()),
      owners: view.owners,
      handedTo: new Map([...view.released].flatMap(([address, { to }]) => (to === undefined ? [] : [[address, to]]))),
      moves: view.moves,
      plan: this.#plan,
      held: this.#held,
      busy: new Set(this.#busy.keys()),
      freeFrom: this.#freeFrom(view),
      restUntil: this.#refusals.untils,
      mayMove: now - this.#membersSince > steadyFor && now - this.#movedAt > betweenMoves,
      now,
    };
  }

  #freeFrom({ owners, freeFrom }: ClaimsView): ReadonlyMap<string, number> {
    const unowned = new Set([...this.#wanted.keys()].filter(address => !owners.has(address)));
    const now = performance.now();
    for (const address of this.#unownedSince.keys()) if (!unowned.has(address)) this.#unownedSince.delete(address);
    for (const address of unowned) if (!this.#unownedSince.has(address)) this.#unownedSince.set(address, now);
    return new Map([...this.#unownedSince].map(([address, since]) => [address, freeFrom.get(address) ?? since]));
  }

  /** Whether the lease was renewed lately enough for a grant: a claim that cannot be followed by one helps nobody. */
  #isSure(): boolean {
    return this.#lease !== undefined && this.#lease.heldUntil - performance.now() > leastLeft;
  }

  /** Begins what there is to do; each address by itself. */
  #take({ release, claim }: Steps): void {
    for (const { address, to } of release) {
      if (to !== undefined) this.#movedAt = performance.now();
      this.#begin(address, () => this.#release(address, to));
    }
    for (const address of this.#isSure() ? claim : []) {
      if (this.#busy.size >= mostAtOnce) break;
      this.#begin(address, () => this.#claim(address));
    }
  }

  #begin(address: string, work: () => Promise<void>): void {
    const { log, metrics } = this.#options;
    const done = work()
      .catch((error: unknown) => {
        metrics.failures.add({ step: 'work' });
        log.warn('an address could not be dealt with', { address, cause: messageOf(error) });
        // A store or a keeper that is away says nothing about the address.
        if (error instanceof FailureError && error.code === code.tryAgain) this.#refusals.postpone(address, false);
        else this.#refuse(address, messageOf(error));
      })
      .finally(() => {
        this.#busy.delete(address);
        this.wake();
      });
    this.#busy.set(address, done);
  }

  async #claim(address: string): Promise<void> {
    const { claims, metrics, log, host } = this.#options;
    const lease = this.#lease;
    const want = this.#wanted.get(address);
    if (lease === undefined || want === undefined) return;
    const obstacle = await this.#obstacle(address, claims.view());
    if (obstacle !== undefined) {
      // Whoever claimed it meanwhile may well answer, sooner than the watch tells of the claim.
      const { owners, released } = await claims.refresh(deadlineIn(callTime));
      if (!owners.has(address) && !released.has(address)) this.#refuse(address, obstacle.why, want, obstacle.reason);
      return;
    }
    await this.#keeper?.permit([address]);
    const [holder] = want.services;
    const { namespace, name, uid } = holder!;
    const service = { feature: 'public-ip', group: '', kind: 'Service', namespace, name, uid } as const;
    const claimed = await claims.claim(address, lease.id, service, deadlineIn(callTime));
    if (!claimed.won) {
      if (claimed.reason === 'taken') this.#refuse(address, claimed.lost, want, 'AddressTaken');
      return;
    }
    const why = (await this.#ask('grant', [address])).get(address);
    // Somebody may have deleted the claim while the kernel was being told.
    if (why === undefined && this.#isOurs(claims.view(), address)) {
      this.#held.add(address);
      this.#refusals.forget(address);
      this.#announcer.begin([address]);
      metrics.claimsWon.add();
      log.info('answers for an address', { address, service: `${namespace}/${name}` });
      await host.forgetFlows(address).catch(() => {});
      return;
    }
    metrics.failures.add({ step: 'grant' });
    await this.#release(address);
    const cause = why ?? 'the claim was changed by somebody else';
    // A lease that was renewed too late, or anew, is no fault of this node.
    if (this.#refusals.tries(address) < quickTries) this.#refusals.postpone(address, true);
    else this.#refuse(address, cause, want, 'AddressNotSet');
  }

  /** Why this node must not answer for the address although it may claim it. */
  async #obstacle(address: string, view: ClaimsView): Promise<Obstacle | undefined> {
    const { config, host } = this.#options;
    const stranger = this.#here.stranger(address);
    if (stranger !== undefined) return { reason: 'ForeignAddress', why: stranger };
    if (!config.probe || !config.drives || view.released.has(address) || this.#isOurs(view, address)) return undefined;
    const mac = await host.probe(address);
    const reason = 'AddressAnsweredElsewhere';
    return mac === undefined ? undefined : { reason, why: `${mac} answers for it, and is no agent of ours` };
  }

  #refuse(address: string, why: string, want?: Want, reason?: string): void {
    this.#refusals.refuse(address, why, reason);
    this.#options.log.warn('leaves an address alone for a while', { address, why });
    if (reason === undefined) return;
    for (const service of want?.services ?? []) this.#teller.service(service, reason, `${address}: ${why}`);
  }

  /** Gate, address, key, in this order; a key never goes while its address may still be there (N6). */
  async #release(address: string, to?: string): Promise<void> {
    const failure = (await this.#drop([address])).get(address);
    if (failure !== undefined) throw new Error(`it cannot be removed: ${failure}`);
    await this.#giveUp(address, to);
  }

  /** The key of an address that is verified to be gone from here. */
  async #giveUp(address: string, to?: string): Promise<void> {
    const { claims, metrics, log } = this.#options;
    const done = await claims.release(address, to === undefined ? {} : { to }, deadlineIn(callTime));
    if (!done) return;
    metrics.released.add();
    if (!this.#wanted.has(address)) this.#unwanted.add(address);
    log.info('gave an address up', { address, ...(to !== undefined && { to }) });
  }

  async #drop(addresses: readonly string[]): Promise<Failures> {
    this.#letGo(addresses);
    const failures = await this.#ask('drop', addresses);
    for (const [address, why] of failures) this.#options.log.error('an address cannot be removed', { address, why });
    return failures;
  }

  /** A keeper that is not there leaves everything to run out. */
  async #ask(verb: 'grant' | 'drop' | 'adopt', addresses: readonly string[]): Promise<Failures> {
    const all = (why: string) => new Map(addresses.map(address => [address, why]));
    try {
      return (await this.#keeper?.[verb](addresses)) ?? all('the keeper is not running');
    } catch (error) {
      return all(messageOf(error));
    }
  }

  #successor(address: string): string | undefined {
    const me = this.#options.config.id;
    return this.#plan.lines.get(address)?.find(id => id !== me);
  }

  /** Owner records of what this agent gave up because nobody wants it: as soon as its release mark is gone. */
  #forget({ owners, released }: ClaimsView): void {
    for (const address of this.#unwanted) {
      if (owners.has(address) || this.#wanted.has(address)) this.#unwanted.delete(address);
      else if (!released.has(address) && !this.#busy.has(address)) this.#begin(address, () => this.#forgetOne(address));
    }
  }

  async #forgetOne(address: string): Promise<void> {
    await this.#options.claims.forget(address, deadlineIn(callTime));
    this.#unwanted.delete(address);
  }
}
