// The agent's gc: scans what this node's networks keep in their stores, again and again, and tells what it may not free.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { renewableDeadline } from '../base/clock.ts';
import { code, FailureError, messageOf } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { Counter, Histogram, Metrics } from '../base/metrics.ts';
import { nodeNameOf } from '../base/node-name.ts';
import type { Part, PartState } from '../base/part.ts';
import type { AccessConfig } from '../ipam/config.ts';
import { describeAddresses, describePod } from '../ipam/describe.ts';
import { nodeOf } from '../ipam/open.ts';
import type { GcApi, Surroundings } from '../ipam/ports.ts';
import { whyBlind } from '../ipam/service/namespace.ts';
import { type Finding, type SweepOptions, sweepEarlierBoots } from '../ipam/service/sweep.ts';
import { type Reach, Sweeper } from '../ipam/service/sweeper.ts';

export interface GcTimes {
  /** Milliseconds between the end of a scan and the beginning of the next. */
  readonly interval: number;
  /** Milliseconds for which something must seem dead. */
  readonly grace: number;
  /** Milliseconds for which a node may be not ready before what ran there counts as lost. */
  readonly nodeGrace: number;
}

export interface GcSurroundings {
  /** Networks of this node, as they are configured now; several may share a store. */
  networks(): readonly AccessConfig[];
  /** The caller disposes of `kv`. */
  open(access: AccessConfig, deadline: Surroundings['deadline']): Promise<Surroundings>;
  /** This node's name in the API, where it is another than in the store. */
  readonly kubeNode?: string;
  /** Absent where the agent knows no Kubernetes API: only what earlier boots left is freed then. */
  readonly api?: GcApi;
  /** Whether this agent judges, beside its own node, what has no living agent. */
  leads(): boolean;
  /** For people who look at the node in the API. Never throws. */
  tellNode(node: string, reason: string, message: string): void;
  readonly log: Log;
  readonly metrics: Metrics;
}

/** Dead on another node for so long (ms), although its own agent should have freed it. */
const patienceWithOthers = 600_000;

/** One in so many scans of a leader looks at all, the first one too. */
const allEvery = 10;

/** A stop waits so long (ms) for the scan that is under way. */
const stopTimeout = 5000;

/** All networks that one scan is for: they share a store, an address space and a cluster. */
interface Target {
  readonly key: string;
  readonly access: AccessConfig;
  readonly cooldowns: ReadonlyMap<string, number>;
}

/** What the last scan of a target left alone. */
type Remaining = ReadonlyMap<string, Finding>;

export class GcLoop implements Part {
  readonly name = 'gc';
  readonly #around: GcSurroundings;
  readonly #times: GcTimes;
  readonly #sweepers = new Map<string, Sweeper>();
  readonly #remaining = new Map<string, Remaining>();
  readonly #faults = new Map<string, FailureError>();
  readonly #scansOf = new Map<string, number>();
  readonly #scans: Counter;
  readonly #freed: Counter;
  readonly #durations: Histogram;
  #whyRefused: string | undefined;
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> | undefined;
  #stopped = false;

  constructor(around: GcSurroundings, times: GcTimes) {
    this.#around = around;
    this.#times = times;
    const { metrics } = around;
    this.#scans = metrics.counter('kube_ipam_gc_scans_total', 'Scans of a store, by how they ended.');
    this.#freed = metrics.counter(
      'kube_ipam_gc_freed_total',
      'Attachments and workloads whose addresses gc gave back.',
    );
    this.#durations = metrics.histogram('kube_ipam_gc_scan_duration_seconds', 'How long whole scans took.');
    const count = (outcome: Finding['outcome']) => () =>
      [...this.#remaining.values()].flatMap(all => [...all.values()]).filter(one => one.outcome === outcome).length;
    const gauges = [
      ['orphans', 'orphan', 'Attachments on this node whose pod is gone and whose network namespace is not.'],
      ['left', 'left', 'Attachments whose pod is gone, on nodes that are not: their own agents free them.'],
      ['suspects', 'suspect', 'Attachments and workloads that seemed dead in the last scan for the first time.'],
    ] as const;
    for (const [name, outcome, help] of gauges) metrics.gauge(`kube_ipam_gc_${name}`, help, count(outcome));
    const help = 'Whether this agent judges what has no living agent.';
    metrics.gauge('kube_ipam_gc_leader', help, () => Number(around.leads()));
  }

  async start(): Promise<void> {
    this.#next(0);
  }

  state(): PartState {
    if (this.#whyRefused !== undefined) return { ready: false, detail: `refused: ${this.#whyRefused}` };
    const faults = [...this.#faults.values()];
    const detail = faults.map(({ message }) => message).join('; ');
    // A store or an API that is away is told by those who need it; a wrong configuration is told by nobody else.
    if (faults.some(fault => fault.code === code.config)) return { ready: false, detail };
    return { ready: true, detail: detail === '' ? this.#task() : detail };
  }

  #task(): string {
    if (this.#around.api === undefined)
      return 'frees what earlier boots left; no Kubernetes API is known to judge pods';
    return this.#around.leads() ? 'leads' : 'scans its own node';
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>(resolve => {
      timer = setTimeout(resolve, stopTimeout);
    });
    await Promise.race([this.#running, late]);
    clearTimeout(timer);
  }

  #next(wait: number): void {
    if (this.#stopped) return;
    this.#timer = setTimeout(() => {
      const failed = (error: unknown) => this.#around.log.error('gc failed', { message: messageOf(error) });
      const scan = this.#scanAll().catch(failed);
      this.#running = scan.finally(() => {
        // Agents that were started together must not ask together for ever.
        this.#next(this.#times.interval * (0.9 + Math.random() * 0.2));
      });
    }, wait);
  }

  async #scanAll(): Promise<void> {
    this.#whyRefused = whyBlind();
    if (this.#whyRefused !== undefined) {
      this.#around.log.error('gc refused', { why: this.#whyRefused });
      return;
    }
    const targets = targetsOf(this.#around.networks());
    for (const target of targets) if (!this.#stopped) await this.#scan(target);
    const keys = new Set(targets.map(({ key }) => key));
    for (const map of [this.#sweepers, this.#remaining, this.#faults, this.#scansOf]) {
      for (const key of map.keys()) if (!keys.has(key)) map.delete(key);
    }
  }

  async #scan(target: Target): Promise<void> {
    const { log } = this.#around;
    const begun = performance.now();
    const counts: Partial<Record<Finding['outcome'], number>> = {};
    const remaining = new Map<string, Finding>();
    const reach = this.#reachOf(target);
    try {
      for await (const finding of this.#findings(target, reach)) {
        counts[finding.outcome] = (counts[finding.outcome] ?? 0) + 1;
        if (finding.outcome === 'freed') this.#freed.add();
        if (['orphan', 'left', 'suspect'].includes(finding.outcome)) remaining.set(nameOf(finding), finding);
        if (this.#stopped) return;
      }
      this.#faults.delete(target.key);
    } catch (error) {
      const fault =
        error instanceof FailureError ? error : new FailureError(code.bug, messageOf(error), { cause: error });
      this.#faults.set(target.key, fault);
      this.#scans.add({ result: 'failed' });
      log.error('gc failed', { space: target.access.space, message: fault.message });
      return;
    }
    const ms = performance.now() - begun;
    this.#scans.add({ result: 'done' });
    this.#durations.observe(ms / 1000);
    if (reach !== 'all') this.#carryOver(target, remaining);
    this.#tell(target, remaining);
    this.#remaining.set(target.key, remaining);
    const common = { space: target.access.space, ms: Math.round(ms) };
    if (Object.keys(counts).length > 0) log.info('gc scan', { ...common, ...counts });
    else log.debug('gc scan', common);
  }

  async *#findings({ key, access, cooldowns }: Target, reach: Reach): AsyncIterable<Finding> {
    const { api } = this.#around;
    const embedded = access.store.kind === 'embedded';
    // Nothing was ever given out here, and a look must not make a store.
    if (access.store.kind === 'embedded' && !existsSync(join(access.store.dataDir, 'store.db'))) return;
    const deadline = renewableDeadline(access.timeout);
    const around = { ...(await this.#around.open(access, deadline)), deadline };
    const { grace, nodeGrace } = this.#times;
    const options: SweepOptions = {
      cluster: access.cluster,
      mayClaim: true,
      cooldownOf: network => cooldowns.get(network) ?? 0,
      grace,
      nodeGrace,
      embedded,
      dryRun: false,
    };
    const node = nodeOf(access);
    try {
      if (api === undefined) yield* sweepEarlierBoots(around, node, options);
      else {
        const sweeper = this.#sweepers.get(key) ?? new Sweeper();
        this.#sweepers.set(key, sweeper);
        const scope = { node, kubeNode: this.#kubeNode(access), reach };
        yield* sweeper.scan({ around, api, options }, scope);
      }
    } finally {
      await around.kv[Symbol.asyncDispose]();
    }
  }

  /** An embedded store has a name of its own for this node. */
  #kubeNode(access: AccessConfig): string {
    return this.#around.kubeNode ?? nodeNameOf(access.nodeName);
  }

  #reachOf({ key, access }: Target): Reach {
    if (access.store.kind !== 'embedded' && !this.#around.leads()) return 'node';
    const scans = this.#scansOf.get(key) ?? 0;
    this.#scansOf.set(key, scans + 1);
    return scans % allEvery === 0 ? 'all' : 'cluster';
  }

  /** What only a scan of all can see stays as that saw it. */
  #carryOver({ key }: Target, remaining: Map<string, Finding>): void {
    if (!this.#around.leads()) return;
    for (const [name, finding] of this.#remaining.get(key) ?? []) {
      if (finding.outcome === 'left' && !remaining.has(name)) remaining.set(name, finding);
    }
  }

  /** Once for each, for as long as it stays. */
  #tell({ key, access }: Target, remaining: Remaining): void {
    const { log } = this.#around;
    const before = this.#remaining.get(key);
    for (const [name, { outcome, id, addresses, pod, why, age }] of remaining) {
      const isKnown = before?.get(name)?.outcome === outcome;
      const isLate = (ms: number) => outcome === 'left' && ms > patienceWithOthers;
      const isNews = outcome === 'orphan' ? !isKnown : isLate(age) && !isLate(before?.get(name)?.age ?? 0);
      if (!isNews || id === undefined) continue;
      const whose = pod === undefined ? '' : ` of pod ${describePod(pod)}`;
      const what = `${describeAddresses(addresses)}${whose}, container ${id.containerID} ${id.ifname}`;
      const reason = outcome === 'orphan' ? 'OrphanedAddress' : 'AddressLeft';
      log.warn(reason, { ...id, ...(pod && { pod: describePod(pod) }), address: describeAddresses(addresses), why });
      const node = id.node === nodeOf(access) ? this.#kubeNode(access) : id.node;
      this.#around.tellNode(node, reason, `address ${what}, is not freed: ${why}`);
    }
  }
}

function targetsOf(networks: readonly AccessConfig[]): Target[] {
  const groups = Map.groupBy(networks, access =>
    JSON.stringify([access.store, access.space, access.cluster, access.nodeName]),
  );
  return [...groups].map(([key, some]) => ({
    key,
    access: some[0]!,
    cooldowns: new Map(some.map(({ network, cooldown }) => [network, cooldown])),
  }));
}

function nameOf({ id, workload }: Finding): string {
  return JSON.stringify([id, workload]);
}
