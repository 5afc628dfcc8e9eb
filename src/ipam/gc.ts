// Who counts as dead, from what the Kubernetes API says of a holder's pod and node. Pure: nothing is asked here.
import type { Found, Pod as KubePod, Node, NodeCondition } from '../kube/objects.ts';
import type { Holder } from './model.ts';

/** The kubelet writes the uid of a static pod into this annotation of the mirror that the API shows. */
const mirrorAnnotation = 'kubernetes.io/config.mirror';

/** Whether the API's pod is the one with this uid: its own, or that of the static pod which it mirrors. */
export function isPod(pod: KubePod, uid: string): boolean {
  return pod.metadata.uid === uid || pod.metadata.annotations?.[mirrorAnnotation] === uid;
}

/** Why the pod of a holder is dead; undefined while it lives. `pod` is what the API has under its name now. */
export function whyDead(holder: Holder, pod: KubePod | undefined): string | undefined {
  if (holder.pod === undefined || holder.pod.namespace === '') return undefined;
  if (pod === undefined) return 'its pod is gone';
  if (holder.pod.uid !== undefined && !isPod(pod, holder.pod.uid)) return 'another pod has its name now';
  const { phase } = pod.status ?? {};
  return phase === 'Succeeded' || phase === 'Failed' ? `its pod has ended (${phase})` : undefined;
}

/** Milliseconds for which a node may be not ready before what ran there counts as lost. */
export const defaultNodeGrace = 300_000;

const outOfService = 'node.kubernetes.io/out-of-service';

/** Why a node is gone; undefined while it may still run something. Both times are the API server's. */
export function whyGone(node: Found<Node> | undefined, grace: number): string | undefined {
  if (node === undefined) return 'its node is gone';
  const { spec, status } = node.object;
  if (spec?.taints?.some(({ key }) => key === outOfService)) return 'its node is out of service';
  const since = notReadySince(status?.conditions?.find(({ type }) => type === 'Ready'));
  return since !== undefined && node.at - since > grace ? 'its node is not ready for too long' : undefined;
}

function notReadySince(ready: NodeCondition | undefined): number | undefined {
  if (ready === undefined || ready.status === 'True') return undefined;
  const since = Date.parse(ready.lastTransitionTime ?? '');
  return Number.isNaN(since) ? undefined : since;
}

/** Whether one controller made both pods: the same owner, or two ReplicaSets of one Deployment. */
export function shareController(a: KubePod, b: KubePod): boolean {
  const [ours, theirs] = [controllerOf(a), controllerOf(b)];
  return ours !== undefined && a.metadata.namespace === b.metadata.namespace && ours === theirs;
}

function controllerOf({ metadata }: KubePod): string | undefined {
  const owner = metadata.ownerReferences?.find(({ controller }) => controller === true);
  if (owner === undefined) return undefined;
  // A Deployment's ReplicaSets are named after it and the hash of their template, which is a label of the pods.
  const hash = metadata.labels?.['pod-template-hash'];
  const isRollout = owner.kind === 'ReplicaSet' && hash !== undefined && owner.name.endsWith(`-${hash}`);
  return isRollout ? `Deployment ${owner.name.slice(0, -hash.length - 1)}` : `${owner.kind} ${owner.uid}`;
}
