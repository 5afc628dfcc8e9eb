// Deployments and StatefulSets of pods that do nothing, as real controllers run them, and the pods that they have now.
import { setTimeout as sleep } from 'node:timers/promises';
import type { ControlPlane } from './control-plane.ts';
import { type Pod, sleeper } from './pods.ts';

export type WorkloadKind = 'deployments' | 'statefulsets';

export interface WorkloadOptions {
  readonly name: string;
  /** Absent: 1. */
  readonly replicas?: number;
  /** Of its pods. */
  readonly annotations?: Readonly<Record<string, string>>;
  /** Absent: wherever the scheduler likes. */
  readonly node?: string;
  /** Keys of the workload's own specification: `strategy`, for example. */
  readonly spec?: object;
}

/** As cluster users have them, but quick: off a node that is lost after a second, and not on one that is cordoned. */
const tolerations = ['not-ready', 'unreachable'].map(state => ({
  key: `node.kubernetes.io/${state}`,
  operator: 'Exists',
  effect: 'NoExecute',
  tolerationSeconds: 1,
}));

const merge = { contentType: 'application/merge-patch+json' };

export async function createWorkload(plane: ControlPlane, kind: WorkloadKind, options: WorkloadOptions): Promise<void> {
  const { name, replicas = 1, annotations, node, spec } = options;
  const labels = { app: name };
  const metadata = { labels, ...(annotations && { annotations }) };
  await plane.api('POST', pathOf(kind), {
    metadata: { name },
    spec: {
      replicas,
      selector: { matchLabels: labels },
      template: { metadata, spec: { ...sleeper(), tolerations, nodeSelector: selectorOf(node) } },
      ...spec,
    },
  });
}

/** A merge patch. */
export async function patchWorkload(plane: ControlPlane, kind: WorkloadKind, name: string, spec: object) {
  await plane.api('PATCH', pathOf(kind, name), { spec }, merge);
}

/** Pods that start from now on go to that node. */
export async function moveWorkload(plane: ControlPlane, kind: WorkloadKind, name: string, node: string) {
  await patchWorkload(plane, kind, name, { template: { spec: { nodeSelector: selectorOf(node) } } });
}

/** As `kubectl rollout restart`: every pod is replaced. */
export async function restartWorkload(plane: ControlPlane, kind: WorkloadKind, name: string) {
  const annotations = { 'kubectl.kubernetes.io/restartedAt': new Date().toISOString() };
  await patchWorkload(plane, kind, name, { template: { metadata: { annotations } } });
}

export async function deleteWorkload(plane: ControlPlane, kind: WorkloadKind, name: string) {
  await plane.api('DELETE', pathOf(kind, name), { propagationPolicy: 'Background' });
}

/** All of them, also those that are being deleted. */
export async function podsOf(plane: ControlPlane, name: string): Promise<readonly Pod[]> {
  const path = `/api/v1/namespaces/default/pods?labelSelector=app%3D${name}`;
  return (await plane.api<{ readonly items: readonly Pod[] }>('GET', path)).items;
}

/**
 * Waits until the workload has that many pods, all running, none of them among `former`; gives them in the order of their
 * names. An error says what stands in the way.
 */
export async function runningPods(
  plane: ControlPlane,
  name: string,
  { count = 1, former = [] }: { readonly count?: number; readonly former?: readonly Pod[] } = {},
): Promise<readonly Pod[]> {
  const gone = new Set(former.map(({ metadata }) => metadata.uid));
  for (const until = performance.now() + 120_000; ; await sleep(50)) {
    const pods = (await podsOf(plane, name)).filter(({ metadata }) => !gone.has(metadata.uid));
    const alive = pods.filter(({ metadata }) => metadata.deletionTimestamp === undefined);
    if (alive.length === count && alive.every(isRunning)) {
      return alive.toSorted((a, b) => a.metadata.name.localeCompare(b.metadata.name));
    }
    if (performance.now() > until) {
      const events = await plane.kubectl(['get', 'events', '--sort-by', '.lastTimestamp']);
      throw new Error(`${name} has ${JSON.stringify(pods.map(({ status }) => status))}\n${events}`);
    }
  }
}

/** The address of its only pod, once that runs. */
export async function onlyPod(plane: ControlPlane, name: string, ...former: readonly Pod[]): Promise<Pod> {
  const [pod] = await runningPods(plane, name, { former });
  return pod!;
}

function isRunning({ status }: Pod): boolean {
  return status.phase === 'Running' && status.podIP !== undefined;
}

function selectorOf(node: string | undefined): object {
  return node === undefined ? {} : { 'kubernetes.io/hostname': node };
}

function pathOf(kind: WorkloadKind, name = ''): string {
  return `/apis/apps/v1/namespaces/default/${kind}/${name}`;
}
