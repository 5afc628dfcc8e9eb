// Gives Services of our class addresses of pools and writes their status: one process of a cluster does, by election (contract S6).
import { backoff, deadlineIn, renewableDeadline, rest } from '../base/clock.ts';
import { code, FailureError, messageOf } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { Counter, Metrics } from '../base/metrics.ts';
import type { Part, PartState } from '../base/part.ts';
import type { Labels } from '../base/selector.ts';
import { addressPools } from '../ipam/pool.ts';
import { proveCluster } from '../ipam/service/identity.ts';
import type { Unclaimed } from '../ipam/service/lend.ts';
import { recordNetwork } from '../ipam/service/networks.ts';
import type { PatientSurroundings } from '../ipam/service/patience.ts';
import { Suspects } from '../ipam/service/suspects.ts';
import { type Objects, sweepLoans, sweepNamed } from '../ipam/service/sweep-loans.ts';
import type { Client } from '../kube/client.ts';
import { Election, type ElectionTiming } from '../kube/election.ts';
import type { EventSubject, EventType } from '../kube/events.ts';
import { ApiError } from '../kube/failure.ts';
import { Informer } from '../kube/informer.ts';
import type { KubeObject } from '../kube/objects.ts';
import { namespaces, nodes, pathOf, services } from '../kube/resources.ts';
import { formatIp, parseIp } from '../net/ip.ts';
import { type Span, spanOf } from '../net/span.ts';
import type { Keys } from '../store/keys.ts';
import type { Condition, Kv } from '../store/kv.ts';
import { Allocation, feature } from './allocation.ts';
import { fieldsOf, listOf } from './fields.ts';
import { namedAddresses, type ServiceRef } from './model.ts';
import { countPool, type PoolCounts, type PoolObject, readPools, statusOf } from './pool-status.ts';
import { type Denial, type Pools, readWish, type Wish } from './wishes.ts';

export interface AllocatorTimes {
  /** Milliseconds between two scans for what vanished while nobody watched. */
  readonly scan: number;
  /** Milliseconds for which something must seem gone. */
  readonly grace: number;
  readonly election?: Partial<ElectionTiming>;
}

export const usualTimes: AllocatorTimes = { scan: 60_000, grace: 30_000 };

export interface AllocatorOptions {
  readonly client: Client;
  /** Where owner records are kept, beside the claims. */
  readonly kv: Kv;
  readonly keys: Keys;
  /** Name of this cluster in the store. */
  readonly cluster: string;
  /** What is claimed: see Claims. */
  readonly claims: {
    unclaimed(address: string): readonly Condition[] | undefined;
    forget(address: string): Promise<boolean>;
  };
  /** Of the Lease. */
  readonly namespace: string;
  /** Who this is, for people. */
  readonly identity: string;
  /** Told to whoever looks at the object; never throws. */
  readonly tell: (subject: EventSubject, type: EventType, reason: string, message: string) => void;
  readonly metrics: Metrics;
  readonly log: Log;
  readonly times?: AllocatorTimes;
}

/** Milliseconds for which store and API may be silent. */
const patience = 10_000;

/** Milliseconds between two tries to take back what is still answered for. */
const waitForRelease = 1000;

/** Changes that come so close together (ms) are one. */
const together = 50;

/** One in so many scans looks at every record of the space, the second one too. */
const allEvery = 10;

interface KeptService {
  readonly ref: { readonly uid: string; readonly version: string | undefined };
  readonly wish: Wish | undefined;
}

interface KeptNamespace {
  readonly name: string;
  readonly labels: Labels;
}

export class Allocator implements Part {
  readonly name = 'allocator';
  readonly #options: AllocatorOptions;
  readonly #election: Election;
  readonly #denials: Counter;
  readonly #lent: Counter;
  readonly #freed: Counter;
  #trouble: string | undefined;

  constructor(options: AllocatorOptions) {
    this.#options = options;
    const { client, namespace, identity, log, metrics, times } = options;
    this.#election = new Election(client, {
      namespace,
      name: 'kube-ipam-public-ip',
      identity,
      lead: signal => this.#lead(signal),
      onBug: error => log.error('the allocator failed', { cause: messageOf(error) }),
      ...(times?.election && { timing: times.election }),
    });
    const name = (what: string) => `kube_ipam_public_ip_${what}`;
    this.#lent = metrics.counter(name('allocated_total'), 'Addresses of pools that Services were given.');
    this.#freed = metrics.counter(name('freed_total'), 'Addresses of pools that Services gave back.');
    this.#denials = metrics.counter(name('denied_total'), 'Addresses of pools that Services were denied, by reason.');
    const help = 'Whether this process gives Services their addresses.';
    metrics.gauge(name('allocator_leader'), help, () => Number(this.#election.isLeader));
  }

  async start(): Promise<void> {
    this.#election.start();
  }

  state(): PartState {
    const { isLeader, leader, trouble } = this.#election;
    const who = isLeader ? 'this process leads' : leader === undefined ? 'nobody leads' : `${leader} leads`;
    const why = trouble ?? (isLeader ? this.#trouble : undefined);
    return { ready: why === undefined, detail: why === undefined ? who : `${who}; ${why}` };
  }

  stop(): Promise<void> {
    return this.#election.stop();
  }

  async #lead(signal: AbortSignal): Promise<void> {
    const { log } = this.#options;
    this.#trouble = 'it has just begun';
    for (let failures = 0; !signal.aborted; ) {
      await using term = new Term(this.#options, {
        lent: count => this.#lent.add({}, count),
        freed: count => this.#freed.add({}, count),
        denied: ({ reason }) => this.#denials.add({ reason }),
        trouble: why => {
          this.#trouble = why;
          if (why === undefined) failures = 0;
        },
        leads: () => this.#election.isLeader,
      });
      try {
        await term.run(signal);
      } catch (error) {
        if (!(error instanceof FailureError)) throw error;
        if (signal.aborted) return;
        this.#trouble = error.message;
        log.warn('addresses of pools cannot be given now', { cause: error.message });
        await rest(backoff(++failures, 500, 30_000), signal);
      }
    }
  }
}

/** Between a term and what it is one of. */
interface Reports {
  lent(count: number): void;
  freed(count: number): void;
  denied(denial: Denial): void;
  /** Why nothing can be given now; undefined: it can. */
  trouble(why: string | undefined): void;
  leads(): boolean;
}

/** What a leader knows and does, until its time is over or something fails that only beginning anew mends. */
class Term implements AsyncDisposable {
  readonly #options: AllocatorOptions;
  readonly #times: AllocatorTimes;
  readonly #reports: Reports;
  readonly #services: Informer<KubeObject, KeptService>;
  readonly #pools: Informer<PoolObject>;
  readonly #namespaces: Informer<KubeObject, KeptNamespace>;
  readonly #nodes: Informer<KubeObject, readonly Span[]>;
  /** Services that were deleted while this process watched. */
  readonly #gone = new Set<string>();
  readonly #lentTo = new Suspects();
  readonly #namedBy = new Suspects();
  #version = 0;
  #wake = new AbortController();

  constructor(options: AllocatorOptions, reports: Reports) {
    this.#options = options;
    this.#times = options.times ?? usualTimes;
    this.#reports = reports;
    const { client, log } = options;
    const changed = () => this.#wake.abort();
    const moved = () => {
      this.#version++;
      changed();
    };
    const common = {
      onState: changed,
      onBug: (error: unknown) => log.error('a change cannot be dealt with', { cause: messageOf(error) }),
    };
    this.#services = new Informer<KubeObject, KeptService>(client, pathOf(services), {
      ...common,
      keep: object => ({
        ref: { uid: object.metadata.uid, version: object.metadata.resourceVersion },
        wish: readWish(object),
      }),
      onChange: (old, now) => {
        if (now === undefined) this.#gone.add(old!.ref.uid);
        if (old?.wish !== undefined || now?.wish !== undefined) changed();
      },
    });
    this.#pools = new Informer<PoolObject>(client, pathOf(addressPools), {
      ...common,
      keep: ({ metadata, spec, status }) => ({ metadata, spec, status }),
      onChange: (old, now) => {
        if (JSON.stringify(old?.spec) !== JSON.stringify(now?.spec)) moved();
      },
    });
    this.#namespaces = new Informer<KubeObject, KeptNamespace>(client, pathOf(namespaces), {
      ...common,
      keep: ({ metadata: { name, labels = {} } }) => ({ name, labels }),
      onChange: (old, now) => {
        if (JSON.stringify(old?.labels) !== JSON.stringify(now?.labels)) moved();
      },
    });
    this.#nodes = new Informer<KubeObject, readonly Span[]>(client, pathOf(nodes), { ...common, keep: addressesOf });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#informers.map(informer => informer.close()));
  }

  get #informers() {
    return [this.#services, this.#pools, this.#namespaces, this.#nodes] as const;
  }

  async run(signal: AbortSignal): Promise<void> {
    const clusterUid = await this.#readClusterUid();
    const around = this.#surroundings();
    const { cluster } = this.#options;
    const api = { clusterUid: async () => clusterUid };
    await proveCluster(around, api, { cluster, mayClaim: true, dryRun: false });
    for (const informer of this.#informers) informer.start();
    while (!signal.aborted && !this.#informers.every(({ isSynced }) => isSynced)) {
      this.#reports.trouble(this.#informers.map(({ trouble }) => trouble).find(Boolean));
      await this.#sleep(1000, signal);
    }
    const allocation = new Allocation({
      around,
      cluster,
      clusterUid,
      unclaimed: ip => this.#options.claims.unclaimed(formatIp(ip)),
      publish: (wish, addresses) => this.#publish(wish, addresses),
      deny: (service, denial) => this.#deny(service, denial),
    });
    const leads = () => !signal.aborted && this.#reports.leads();
    let scanned = Number.NEGATIVE_INFINITY;
    let told: number | undefined;
    for (let scans = 0; !signal.aborted; ) {
      const isDue = performance.now() - scanned >= this.#times.scan;
      const [version, gone] = [this.#version, [...this.#gone]];
      const { lent, freed, waiting, retryIn } = await allocation.pass(this.#demand(), isDue, leads);
      this.#reports.lent(lent);
      this.#reports.freed(freed);
      if (!leads()) return;
      if (waiting === 0) for (const uid of gone) this.#gone.delete(uid);
      if (isDue) {
        await this.#scan(around, ++scans);
        scanned = performance.now();
      }
      if (isDue || lent + freed > 0 || told !== version) await this.#tellPools(around, signal);
      told = version;
      this.#reports.trouble(undefined);
      const untilScan = scanned + this.#times.scan - performance.now();
      const next = Math.min(untilScan, retryIn ?? untilScan, waiting > 0 ? waitForRelease : untilScan);
      await this.#sleep(Math.max(together, next), signal);
    }
  }

  async #readClusterUid(): Promise<string> {
    const path = pathOf(namespaces, { name: 'kube-system' });
    const found = await this.#options.client.get(path, deadlineIn(patience));
    if (found !== undefined) return found.object.metadata.uid;
    throw new FailureError(
      code.tryAgain,
      'the Kubernetes API has no namespace kube-system: is the cluster still being set up?',
    );
  }

  #surroundings(): PatientSurroundings {
    const { kv, keys, log } = this.#options;
    const deadline = renewableDeadline(patience);
    return { kv, keys, deadline, machine: { machine: '', boot: '' }, doubts: noDoubts, log, now: Date.now };
  }

  #demand() {
    const kept = this.#services.list();
    const wishes = new Map(kept.flatMap(({ ref, wish }) => (wish === undefined ? [] : [[ref.uid, wish] as const])));
    const living = new Set(kept.map(({ ref }) => ref.uid));
    return {
      wishes,
      isOver: (uid: string) => this.#gone.has(uid) || (living.has(uid) && !wishes.has(uid)),
      pools: this.#readPools(),
      version: this.#version,
      labelsOf: (namespace: string) => this.#namespaces.get(undefined, namespace)?.labels ?? {},
      keptClear: this.#nodes.list().flat(),
    };
  }

  #readPools(): Pools {
    return readPools(this.#pools.list(), this.#options.keys.space);
  }

  /** Only over what was read: what has changed since is dealt with in the next pass. */
  async #publish({ ref }: Wish, addresses: readonly string[]): Promise<void> {
    const { client, log } = this.#options;
    const { namespace, name, uid } = ref;
    const resourceVersion = this.#services.get(namespace, name)?.ref.version;
    const ingress = addresses.map(ip => ({ ip, ipMode: 'VIP' }));
    const patch = { metadata: { uid, resourceVersion }, status: { loadBalancer: { ingress } } };
    try {
      await client.patch(
        pathOf(services, { namespace, name, subresource: 'status' }),
        'merge',
        patch,
        deadlineIn(patience),
      );
      log.info('published', { service: `${namespace}/${name}`, address: addresses });
    } catch (error) {
      if (!(error instanceof ApiError) || ![404, 409].includes(error.status)) throw error;
    }
  }

  #deny(service: ServiceRef, denial: Denial): void {
    const { log, tell } = this.#options;
    const { namespace, name, uid } = service;
    this.#reports.denied(denial);
    log.warn(denial.reason, { service: `${namespace}/${name}`, why: denial.message });
    const { apiVersion, kind } = services;
    tell({ apiVersion, kind, namespace, name, uid }, 'Warning', denial.reason, denial.message);
  }

  /** What vanished while nobody watched. */
  async #scan(around: PatientSurroundings, scans: number): Promise<void> {
    const { claims, cluster, log } = this.#options;
    const unclaimed: Unclaimed = ip => claims.unclaimed(formatIp(ip));
    const options = { feature, cluster, grace: this.#times.grace, unclaimed } as const;
    const objects = this.#objects();
    for await (const { object, freed } of sweepLoans(around, objects, this.#lentTo, options)) {
      this.#reports.freed(freed.length);
      log.info('gc', {
        service: `${object.namespace}/${object.name}`,
        address: freed.map(formatIp),
        why: 'it is gone',
      });
    }
    if (scans % allEvery > 2) return;
    const freed = await sweepNamed(around, objects, this.#namedBy, options, address => claims.forget(address));
    if (freed.length > 0) log.info('gc', { address: freed, why: 'no Service names it any more' });
  }

  #objects(): Objects {
    const { client } = this.#options;
    return {
      list: async () => {
        const keep = (object: KubeObject) => ({ uid: object.metadata.uid, named: namedAddresses(object) });
        const { items } = await client.list(pathOf(services), {}, deadlineIn(6 * patience), keep);
        return { uids: new Set(items.map(({ uid }) => uid)), named: new Set(items.flatMap(({ named }) => named)) };
      },
      uidOf: async ({ namespace, name }, deadline) =>
        (await client.get(pathOf(services, { namespace, name }), deadline))?.object.metadata.uid,
    };
  }

  /** What is used and free of each pool, for people. */
  async #tellPools(around: PatientSurroundings, signal: AbortSignal): Promise<void> {
    const { client, keys } = this.#options;
    const { pools, faults } = this.#readPools();
    for (const object of this.#pools.list()) {
      if (signal.aborted) return;
      const { name } = object.metadata;
      const pool = pools.find(one => one.name === name);
      const isHere = pool?.space === keys.space;
      let counts: PoolCounts = {};
      if (pool !== undefined && isHere) {
        around.deadline.renew();
        await recordNetwork(around, { ...pool, network: `pool.${name}` }, feature);
        around.deadline.renew();
        counts = await countPool(around, pool);
      }
      const fault = faults.get(name);
      const elsewhere = `its address space ${pool?.space} is not that of this cluster's public addresses, ${keys.space}`;
      const why =
        fault !== undefined
          ? { reason: 'Invalid', message: fault }
          : isHere
            ? undefined
            : { reason: 'OtherSpace', message: elsewhere };
      const status = statusOf(object, counts, why, Date.now());
      if (status === undefined) continue;
      const { uid } = object.metadata;
      await this.#patchPool(client, name, { metadata: { uid }, status });
    }
  }

  async #patchPool(client: Client, name: string, patch: object): Promise<void> {
    try {
      await client.patch(pathOf(addressPools, { name, subresource: 'status' }), 'merge', patch, deadlineIn(patience));
    } catch (error) {
      if (!(error instanceof ApiError) || ![404, 409].includes(error.status)) throw error;
    }
  }

  /** Ends early when something changes, a moment later. */
  async #sleep(ms: number, signal: AbortSignal): Promise<void> {
    await rest(ms, AbortSignal.any([signal, this.#wake.signal]));
    if (!this.#wake.signal.aborted) return;
    await rest(together, signal);
    this.#wake = new AbortController();
  }
}

/** Of a commit whose fate nobody knows the attachment tells, to the next pass and to gc: no runtime will send a DEL. */
const noDoubts: PatientSurroundings['doubts'] = { has: () => false, leave: () => {}, clear: () => {} };

function addressesOf({ status }: KubeObject & { readonly status?: unknown }): readonly Span[] {
  const addresses = listOf(fieldsOf(status).addresses).map(entry => fieldsOf(entry).address);
  return addresses.flatMap(text => {
    const ip = typeof text === 'string' ? parseIp(text) : undefined;
    return ip === undefined ? [] : [spanOf(ip)];
  });
}
