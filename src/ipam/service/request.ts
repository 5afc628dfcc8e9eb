// What an ADD asks for: the sets that serve this pod, the addresses that it names, and the workload that keeps them.
import { code, FailureError } from '../../base/errors.ts';
import type { Pod as KubePod } from '../../kube/objects.ts';
import type { Ip } from '../../net/ip.ts';
import type { NetworkConfig } from '../config.ts';
import { describePod } from '../describe.ts';
import { isPod } from '../gc.ts';
import type { OwnerRecord, ServiceHolder } from '../model.ts';
import type { Surroundings } from '../ports.ts';
import type { Owner } from '../records.ts';
import { narrow, type PodLabels } from '../serving.ts';
import { readWishes } from '../wishes.ts';
import { type Sticky, stickyOf } from '../workload.ts';
import { planSets, type SetPlan } from './plan.ts';
import type { Heir } from './succession.ts';

/** An ADD, with all that the API had to say about its pod. */
export interface Request extends Heir {
  readonly plans: readonly SetPlan[];
  /** The workload that keeps what is not fixed. */
  readonly sticky?: Sticky;
  /** Whom the addresses are lent to, where they are those of a pool. */
  readonly loan?: Loan;
  /** Who the API is: names of pods mean nothing outside its cluster. */
  readonly clusterUid?: string;
}

/** An object of Kubernetes that is given a pool's address in the place of a container. */
export interface Loan {
  readonly object: ServiceHolder;
  readonly pool: string;
  /** Why the object may not have an address that has an owner, as the end of a sentence; undefined: they share it. */
  whyNotShared(owner: OwnerRecord): string | undefined;
}

/**
 * Looks the pod up where the configuration has a kubeconfig. `requested`: addresses of ips, args or CNI_ARGS.
 * Errors: 7 (annotations, requested addresses), 11 (the API did not answer, or this pod is gone), 103.
 */
export async function readRequest(
  around: Surroundings,
  config: NetworkConfig,
  owner: Owner,
  requested: readonly Ip[],
): Promise<Request> {
  const { api, deadline } = around;
  const knownByUid = owner.pod?.uid !== undefined;
  // A container of podman has a name and no namespace: it is no pod of a cluster.
  if (api === undefined || owner.pod === undefined || owner.pod.namespace === '') {
    return { owner, knownByUid, plans: planSets(config, narrow(config, undefined, undefined), requested) };
  }
  const pod = await readPod(around, owner);
  const clusterUid = await api.clusterUid(deadline);
  const wishes = readWishes(pod, owner.id.ifname);
  const sets = narrow(config, wishes, await readLabels(around, config, pod));
  const sticky = stickyOf(pod, config.sticky, wishes.sticky);
  return {
    owner: { ...owner, pod: { ...owner.pod, uid: owner.pod.uid ?? pod.metadata.uid } },
    plans: planSets(config, sets, requested, wishes),
    pod,
    knownByUid,
    clusterUid,
    ...(sticky && { sticky }),
  };
}

/** The pod of this very sandbox: what another one of its name wishes is not its business. */
async function readPod({ api, deadline }: Surroundings, { pod }: Owner): Promise<KubePod> {
  const found = await api!.ownPod(pod!, deadline);
  const refuse = (why: string) => {
    throw new FailureError(code.tryAgain, `pod ${describePod(pod!)}: ${why}`);
  };
  if (found === undefined) {
    return refuse('the Kubernetes API does not know it, so its annotations cannot be read; nothing is held');
  }
  if (pod!.uid !== undefined && !isPod(found, pod!.uid)) {
    return refuse(`this sandbox's pod (uid ${pod!.uid}) is gone: the Kubernetes API has another one of its name`);
  }
  return found;
}

/** Only what a selector asks for is read. */
async function readLabels({ api, deadline }: Surroundings, config: NetworkConfig, pod: KubePod): Promise<PodLabels> {
  const ranges = config.sets.flat();
  const { labels = {} } = pod.metadata;
  const wantsNamespaces = ranges.some(({ accepts }) => accepts?.namespaces);
  const wantsNodes = ranges.some(({ accepts }) => accepts?.nodes);
  // What the API does not know has no labels that a selector could be held against, not even a negative one.
  const namespace = wantsNamespaces ? await api!.namespaceLabels(pod.metadata.namespace ?? '', deadline) : undefined;
  const nodeName = pod.spec?.nodeName;
  const node = wantsNodes && nodeName !== undefined ? await api!.nodeLabels(nodeName, deadline) : undefined;
  return { pod: labels, ...(namespace && { namespace }), ...(node && { node }) };
}
