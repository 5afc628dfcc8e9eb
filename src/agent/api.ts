// What the agent knows of a cluster: the pods of its own node from memory, everything else by one question to a standing connection.
import { type Deadline, deadlineIn } from '../base/clock.ts';
import type { Part, PartState } from '../base/part.ts';
import { GetApi } from '../ipam/api.ts';
import type { Pod } from '../ipam/model.ts';
import type { Client } from '../kube/client.ts';
import { Informer } from '../kube/informer.ts';
import type { Pod as KubePod } from '../kube/objects.ts';
import { pathOf, pods } from '../kube/resources.ts';

/** Milliseconds for which the identity of a cluster is believed. */
const identityLife = 60_000;

/** Asks each time, over connections that stand, save who the cluster is. */
export class WarmApi extends GetApi {
  #identity: { readonly uid: string; readonly at: number } | undefined;

  override async clusterUid(deadline: Deadline): Promise<string> {
    const known = this.#identity;
    if (known !== undefined && performance.now() - known.at < identityLife) return known.uid;
    const at = performance.now();
    const uid = await super.clusterUid(deadline);
    this.#identity = { uid, at };
    return uid;
  }

  /** Another server may answer from now on. */
  forgetIdentity(): void {
    this.#identity = undefined;
  }
}

/** A pod that has not come into memory is waited for no longer than this, in milliseconds: a question costs less. */
const syncTime = 2000;

/** Keeps the pods of one node in memory, so that an ADD need not ask for its own. */
export class NodePods extends WarmApi implements Part {
  readonly name = 'pods';
  readonly #informer: Informer<KubePod>;

  constructor(client: Client, node: string, onChange: (old: KubePod | undefined, now: KubePod | undefined) => void) {
    super(client);
    this.#informer = new Informer<KubePod>(client, pathOf(pods), {
      fieldSelector: `spec.nodeName=${node}`,
      keep: essence,
      onChange,
      onState: () => this.forgetIdentity(),
    });
  }

  async start(): Promise<void> {
    this.#informer.start();
    await this.#informer.whenSynced(deadlineIn(syncTime));
  }

  state(): PartState {
    const { isSynced, size, trouble } = this.#informer;
    const known = isSynced ? `${size} pods` : 'no pods yet';
    return { ready: isSynced, detail: trouble === undefined ? known : `${known}; ${trouble}` };
  }

  stop(): Promise<void> {
    return this.#informer.close();
  }

  /**
   * What is in memory counts if its uid proves it to be the pod of this very sandbox, because annotations that are read
   * once count as they were; everything else is asked for.
   */
  override async ownPod(pod: Pod, deadline: Deadline): Promise<KubePod | undefined> {
    const known = this.#informer.get(pod.namespace, pod.name);
    if (known !== undefined && known.metadata.uid === pod.uid) return known;
    return super.ownPod(pod, deadline);
  }
}

/** Of a pod, what is looked at anywhere here: thousands of them must stay small. */
function essence({ metadata, spec, status }: KubePod): KubePod {
  const { name, namespace, uid, labels, ownerReferences, deletionTimestamp } = metadata;
  const annotations = Object.fromEntries(
    Object.entries(metadata.annotations ?? {}).filter(([key]) =>
      /^(kube-ipam\.|k8s\.v1\.cni\.cncf\.io\/networks$|kubernetes\.io\/config\.mirror$)/.test(key),
    ),
  );
  return {
    metadata: {
      name,
      ...(namespace !== undefined && { namespace }),
      uid,
      annotations,
      ...(labels && { labels }),
      ...(ownerReferences && { ownerReferences }),
      ...(deletionTimestamp !== undefined && { deletionTimestamp }),
    },
    ...(spec?.nodeName !== undefined && { spec: { nodeName: spec.nodeName, hostNetwork: spec.hostNetwork === true } }),
    ...(status?.phase !== undefined && { status: { phase: status.phase } }),
  };
}
