// Pods as tests use them: made from an image that every node of a test has, waited for, and deleted.
import { setTimeout as sleep } from 'node:timers/promises';
import { sandboxImage } from '../containerd.ts';
import { ApiRefusal } from './api.ts';
import type { ControlPlane } from './control-plane.ts';

/** A pod as far as tests read it. */
export interface Pod {
  readonly metadata: {
    readonly name: string;
    readonly namespace: string;
    readonly uid: string;
    /** It is being deleted. */
    readonly deletionTimestamp?: string;
    readonly annotations?: Readonly<Record<string, string>>;
    readonly ownerReferences?: readonly { readonly kind: string; readonly name: string; readonly uid: string }[];
  };
  readonly spec: { readonly nodeName?: string };
  readonly status: {
    readonly phase: string;
    readonly podIP?: string;
    readonly podIPs?: readonly { readonly ip: string }[];
  };
}

export interface PodOptions {
  readonly name: string;
  /** Absent: "default". */
  readonly namespace?: string;
  /** Absent: for the scheduler to say. */
  readonly node?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
  /** More of the specification, over what is there. */
  readonly spec?: object;
}

/** The specification of a pod that does nothing and ends as soon as it is told; for templates of workloads too. */
export function sleeper(node?: string): object {
  return {
    ...(node !== undefined && { nodeName: node }),
    automountServiceAccountToken: false,
    terminationGracePeriodSeconds: 1,
    tolerations: [{ operator: 'Exists' }],
    containers: [{ name: 'main', image: sandboxImage, imagePullPolicy: 'Never' }],
  };
}

export function createPod(plane: ControlPlane, options: PodOptions): Promise<Pod> {
  const { name, namespace = 'default', node, labels, annotations, spec } = options;
  const metadata = { name, ...(labels && { labels }), ...(annotations && { annotations }) };
  const body = { apiVersion: 'v1', kind: 'Pod', metadata, spec: { ...sleeper(node), ...spec } };
  return plane.api<Pod>('POST', `/api/v1/namespaces/${namespace}/pods`, body);
}

/** Makes it and waits until its containers run, and so until it has an address. */
export async function runPod(plane: ControlPlane, options: PodOptions): Promise<Pod> {
  await createPod(plane, options);
  return running(plane, options.name, options.namespace);
}

/** Waits until the pod runs; an error says what stands in the way. */
export async function running(plane: ControlPlane, name: string, namespace = 'default'): Promise<Pod> {
  for (const until = performance.now() + 90_000; ; await sleep(50)) {
    const pod = await podNamed(plane, name, namespace);
    if (pod?.status.phase === 'Running' && pod.status.podIP !== undefined) return pod;
    if (performance.now() > until) {
      const events = await plane.kubectl(['get', 'events', '-n', namespace, '--sort-by', '.lastTimestamp']);
      throw new Error(`pod ${namespace}/${name} does not run: ${JSON.stringify(pod?.status)}\n${events}`);
    }
  }
}

/** Deletes it and waits until it is gone, which takes its node; `force` asks nobody. */
export async function deletePod(plane: ControlPlane, name: string, namespace = 'default', force = false) {
  const options = force ? { gracePeriodSeconds: 0 } : {};
  const { metadata } = await plane.api<Pod>('DELETE', `/api/v1/namespaces/${namespace}/pods/${name}`, options);
  // A StatefulSet makes another one of this name.
  const uid = async () => (await podNamed(plane, name, namespace))?.metadata.uid;
  for (const until = performance.now() + 90_000; (await uid()) === metadata.uid; await sleep(50)) {
    if (performance.now() > until) throw new Error(`pod ${namespace}/${name} is still there`);
  }
}

/** The pod; undefined when there is none. */
export async function podNamed(plane: ControlPlane, name: string, namespace = 'default'): Promise<Pod | undefined> {
  try {
    return await plane.api<Pod>('GET', `/api/v1/namespaces/${namespace}/pods/${name}`);
  } catch (error) {
    if (error instanceof ApiRefusal && error.status === 404) return undefined;
    throw error;
  }
}
