// The agent's side towards Kubernetes: one client, the pods of this node, the kubeconfig of the plugin, the election of gc, events.
import type { Log } from '../base/log.ts';
import type { Part } from '../base/part.ts';
import type { Api } from '../ipam/ports.ts';
import { type Client, openClient } from '../kube/client.ts';
import type { TargetSource } from '../kube/credentials.ts';
import { EventRecorder } from '../kube/events.ts';
import type { Pod as KubePod } from '../kube/objects.ts';
import { NodePods, WarmApi } from './api.ts';
import { GcElection } from './gc-election.ts';
import { KubeconfigKeeper, type KubeconfigOptions } from './kubeconfig.ts';

export interface ClusterOptions {
  /** How the agent itself reaches the API. */
  readonly source: TargetSource;
  /** This node's name in Kubernetes. */
  readonly node: string;
  /** Where the agents of this cluster have what they share. */
  readonly namespace: string;
  /** What is kept for the plugin; absent: nothing. */
  readonly plugin?: KubeconfigOptions;
}

export interface PodName {
  readonly namespace?: string | undefined;
  readonly name: string;
  readonly uid?: string | undefined;
}

export class Cluster implements AsyncDisposable {
  readonly client: Client;
  readonly pods: NodePods;
  readonly events: EventRecorder;
  readonly election: GcElection;
  readonly #options: ClusterOptions;
  readonly #keeper: KubeconfigKeeper | undefined;
  readonly #changes: ((old: KubePod | undefined, now: KubePod | undefined) => void)[] = [];

  /** Throws code 7 or 11 when what is needed to reach the API cannot be read. */
  static async open(options: ClusterOptions, log: Log): Promise<Cluster> {
    return new Cluster(await openClient(options.source), options, log);
  }

  private constructor(client: Client, options: ClusterOptions, log: Log) {
    this.client = client;
    this.#options = options;
    this.pods = new NodePods(client, options.node, (old, now) => {
      for (const told of this.#changes) told(old, now);
    });
    this.events = new EventRecorder(client, { component: 'kube-ipam', host: options.node });
    this.election = new GcElection(client, { namespace: options.namespace, identity: options.node });
    if (options.plugin !== undefined) this.#keeper = new KubeconfigKeeper(client, options.plugin, log);
  }

  /** Called after each change of a pod of this node. */
  onPodChange(told: (old: KubePod | undefined, now: KubePod | undefined) => void): void {
    this.#changes.push(told);
  }

  /** An event for people who look at a pod. Never throws. */
  tellPod({ namespace, name, uid }: PodName, reason: string, message: string): void {
    this.events.record({ apiVersion: 'v1', kind: 'Pod', namespace, name, uid }, 'Warning', reason, message);
  }

  get parts(): readonly Part[] {
    return [this.pods, this.election, ...(this.#keeper ? [this.#keeper] : [])];
  }

  /** Whether a plugin's kubeconfig is the one that is written here: then both mean this cluster. */
  isOurs(kubeConfig: string): boolean {
    return kubeConfig === this.#options.plugin?.file;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.events[Symbol.asyncDispose]();
    await this.client[Symbol.asyncDispose]();
  }
}

/** The APIs that plugins' configurations name: this node's own cluster from memory, others over connections that stand. */
export class Apis implements AsyncDisposable {
  readonly #cluster: Cluster | undefined;
  readonly #others = new Map<string, Promise<{ readonly client: Client; readonly api: Api }>>();

  constructor(cluster: Cluster | undefined) {
    this.#cluster = cluster;
  }

  /** Throws code 7 for a kubeconfig that cannot be used, 11 for one that is not there. */
  async open(kubeConfig: string): Promise<Api> {
    if (this.#cluster?.isOurs(kubeConfig)) return this.#cluster.pods;
    let other = this.#others.get(kubeConfig);
    if (other === undefined) {
      other = openClient({ kubeconfig: kubeConfig, env: {} }).then(client => ({ client, api: new WarmApi(client) }));
      this.#others.set(kubeConfig, other);
      // What could not be read is read again next time.
      other.catch(() => this.#others.delete(kubeConfig));
    }
    return (await other).api;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const other of this.#others.values()) {
      const opened = await other.catch(() => undefined);
      await opened?.client[Symbol.asyncDispose]();
    }
  }
}
