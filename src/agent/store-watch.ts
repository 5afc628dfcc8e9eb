// Keeps the stores of this node's networks open before a pod needs them, and knows which of them answer.
import { deadlineIn } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import type { Metrics } from '../base/metrics.ts';
import type { Part, PartState } from '../base/part.ts';
import type { AccessConfig } from '../ipam/config.ts';
import { formatKey } from '../store/keys.ts';
import type { EtcdTarget } from '../store/target.ts';
import type { WarmStores } from './stores.ts';

/** Milliseconds between two looks, well below the time after which an idle store is closed. */
const interval = 60_000;

/** Milliseconds for one store to answer. */
const patience = 5000;

export class StoreWatch implements Part {
  readonly name = 'stores';
  readonly #networks: () => readonly AccessConfig[];
  readonly #stores: WarmStores;
  /** Why a store did not answer, by its endpoints; undefined when it did. */
  #found: ReadonlyMap<string, string | undefined> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #look: Promise<void> = Promise.resolve();
  #stopped = false;

  constructor(networks: () => readonly AccessConfig[], stores: WarmStores, metrics: Metrics) {
    this.#networks = networks;
    this.#stores = stores;
    metrics.gauge(
      'kube_ipam_agent_stores_away',
      'Stores of the networks on this node that did not answer when they were last asked.',
      () => this.#away.length,
    );
  }

  /** Connecting, and loading the code for it, takes longer than an ADD: the first pod must not wait for that. */
  async start(): Promise<void> {
    this.#next(0);
  }

  state(): PartState {
    if (this.#found === undefined) return { ready: false, detail: 'not asked yet' };
    const trouble = this.#away.map(([, why]) => why).join('; ');
    return { ready: trouble === '', detail: trouble || `${this.#found.size} of etcd, all answer` };
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    await this.#look;
  }

  get #away(): [string, string | undefined][] {
    return [...(this.#found ?? [])].filter(([, why]) => why !== undefined);
  }

  #next(ms: number): void {
    this.#timer = setTimeout(() => {
      this.#look = this.#lookAtAll().finally(() => {
        if (!this.#stopped) this.#next(interval);
      });
    }, ms);
  }

  async #lookAtAll(): Promise<void> {
    const targets = new Map<string, EtcdTarget>();
    for (const { store } of this.#networks()) if (store.kind === 'etcd') targets.set(JSON.stringify(store), store);
    const looks = [...targets.values()].map(
      async target => [target.endpoints.join(','), await this.#whyAway(target)] as const,
    );
    this.#found = new Map(await Promise.all(looks));
  }

  async #whyAway(target: EtcdTarget): Promise<string | undefined> {
    try {
      await using kv = await this.#stores.open(target);
      await kv.read([{ key: formatKey }], deadlineIn(patience));
      return undefined;
    } catch (error) {
      return messageOf(error);
    }
  }
}
