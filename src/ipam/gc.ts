// Who counts as dead, from what the Kubernetes API says of a holder's pod and node. Pure: nothing is asked here.
import type { Machine } from '../base/node.ts';
import type { Found, Pod as KubePod, Node, NodeCondition, StatefulSet } from '../kube/objects.ts';
import type { AttachmentId } from '../store/keys.ts';
import { featureNodes, type Holder, type OwnerRecord, sameAttachment } from './model.ts';

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

/** All of a pod that these rules look at: lists of pods are long. */
export function outlineOf({ metadata, status }: KubePod): KubePod {
  const { namespace, name, uid, annotations } = metadata;
  const mirror = annotations?.[mirrorAnnotation];
  return {
    metadata: {
      name,
      uid,
      ...(namespace !== undefined && { namespace }),
      ...(mirror !== undefined && { annotations: { [mirrorAnnotation]: mirror } }),
    },
    ...(status?.phase !== undefined && { status: { phase: status.phase } }),
  };
}

/** What gc judges: an attachment, and the records that name it. */
export interface Subject {
  readonly id: AttachmentId;
  /** The store's revision at which it was made: that of its records where these got it back later. */
  readonly created: number;
  readonly owners: readonly OwnerRecord[];
}

/** The kinds whose owners live and die with a container; a hold goes by its lease, the others by whoever made them. */
const mortal: readonly OwnerRecord['kind'][] = ['dynamic', 'fixed', 'sticky'];

/** Why no rule may touch this record, whoever names it; undefined when one may. */
export function whyImmortal({ kind, cluster: theirs }: OwnerRecord, cluster: string): string | undefined {
  if (!mortal.includes(kind)) return `it is of kind ${kind}`;
  return theirs === cluster ? undefined : `it belongs to cluster ${theirs}`;
}

/** Why no rule may touch this attachment; undefined when one may. */
export function whyUntouchable({ id, owners }: Subject, cluster: string): string | undefined {
  if (featureNodes.includes(id.node)) return `${id.node} is no node`;
  if (owners.length === 0) return 'no record names it';
  return owners.map(owner => whyImmortal(owner, cluster)).find(why => why !== undefined);
}

/** The holders of its addresses that are this attachment, one for each record. */
export function holdersOf({ id, owners }: Subject): readonly Holder[] {
  return owners.flatMap(owner => owner.holders.find(holder => sameAttachment(holder, id)) ?? []);
}

/** What an object of Kubernetes can be called (RFC 1123): about anything else the API cannot say whether it lives. */
const kubeName = /^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/;

/**
 * The holder by whose pod the API can judge the attachment; undefined where there is none: a container of podman has no
 * namespace, and records that disagree prove nothing.
 */
export function holderOfPod(subject: Subject): Holder | undefined {
  const [first, ...others] = holdersOf(subject);
  const { namespace = '', name = '', uid } = first?.pod ?? {};
  if (!kubeName.test(namespace) || !kubeName.test(name)) return undefined;
  const isSame = ({ pod }: Holder) => pod?.namespace === namespace && pod.name === name && pod.uid === uid;
  return others.every(isSame) ? first : undefined;
}

/** Whether a newer sandbox of the same pod, among these, has taken the place of this one. */
export function isReplaced(subject: Subject, among: readonly Subject[]): boolean {
  const uid = holderOfPod(subject)?.pod?.uid;
  if (uid === undefined) return false;
  const { network, ifname } = subject.id;
  return among.some(
    other =>
      other.created > subject.created &&
      other.id.network === network &&
      other.id.ifname === ifname &&
      holderOfPod(other)?.pod?.uid === uid,
  );
}

/** Whether this machine wrote it before it was started again: no network namespace outlives that. */
export function isOfEarlierBoot(subject: Subject, { machine, boot }: Machine): boolean {
  if (machine === '' || boot === '') return false;
  const holders = holdersOf(subject);
  return holders.length > 0 && holders.every(one => one.machine === machine && one.boot !== '' && one.boot !== boot);
}

/** Why a StatefulSet has no pod of this ordinal any more; undefined while it may have one. */
export function whyUnclaimed(set: StatefulSet | undefined, ordinal: number): string | undefined {
  if (set === undefined) return 'its StatefulSet is gone';
  if (set.spec === undefined) return undefined;
  const { replicas = 1, ordinals: { start = 0 } = {} } = set.spec;
  if (ordinal >= start && ordinal < start + replicas) return undefined;
  const has = replicas === 0 ? 'no pods' : `the ordinals ${start} to ${start + replicas - 1}`;
  return `its StatefulSet has ${has} now`;
}

/** Milliseconds for which something must seem dead, unchanged, before it is freed. */
export const defaultGrace = 30_000;

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

/** Whether a node's being gone is worth a question: so it is when it may be by any grace. */
export function mayBeGone({ spec, status }: Node): boolean {
  const ready = status?.conditions?.find(({ type }) => type === 'Ready');
  return ready?.status !== 'True' || spec?.taints?.some(({ key }) => key === outOfService) === true;
}

/** All of a node that these rules look at. */
export function outlineOfNode({ metadata: { name, uid }, spec, status }: Node): Node {
  const conditions = status?.conditions?.filter(({ type }) => type === 'Ready') ?? [];
  return {
    metadata: { name, uid },
    ...(spec?.taints && { spec: { taints: spec.taints } }),
    status: { conditions, ...(status?.nodeInfo && { nodeInfo: status.nodeInfo }) },
  };
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
