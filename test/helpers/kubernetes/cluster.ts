// Pods, nodes and namespaces of a control plane without kubelets: made, ended and lost, as kubelets and controllers would.
import type { ControlPlane } from './control-plane.ts';

type Texts = Readonly<Record<string, string>>;

/** A pod as runtimes name it. */
export interface PodRef {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
}

/** What is absent has an ordinary value: a name of its own, the namespace `default`, node `node-a`. */
export interface PodOptions {
  readonly name?: string;
  readonly namespace?: string;
  readonly node?: string;
  readonly annotations?: Texts;
  readonly labels?: Texts;
  readonly owner?: Owner;
}

/** A controller; nobody checks that it exists. */
export interface Owner {
  readonly apiVersion: string;
  readonly kind: string;
  readonly name: string;
  readonly uid: string;
}

export function statefulSet(name: string): Owner {
  return { apiVersion: 'apps/v1', kind: 'StatefulSet', name, uid: `uid-of-${name}` };
}

export function replicaSet(name: string): Owner {
  return { apiVersion: 'apps/v1', kind: 'ReplicaSet', name, uid: `uid-of-${name}` };
}

export function vmInstance(name: string): Owner {
  return { apiVersion: 'kubevirt.io/v1', kind: 'VirtualMachineInstance', name, uid: `uid-of-${name}` };
}

/** CNI_ARGS as containerd writes them; without a uid as older runtimes do. */
export function argsOf({ namespace, name, uid }: Omit<PodRef, 'uid'> & { readonly uid?: string }): string {
  const ofUid = uid === undefined ? '' : `;K8S_POD_UID=${uid}`;
  return `IgnoreUnknown=1;K8S_POD_NAMESPACE=${namespace};K8S_POD_NAME=${name};K8S_POD_INFRA_CONTAINER_ID=c${ofUid}`;
}

interface Created {
  readonly metadata: { readonly uid: string };
}

const merge = { contentType: 'application/merge-patch+json' };

export class Cluster {
  readonly #plane: ControlPlane;
  #made = 0;

  constructor(plane: ControlPlane) {
    this.#plane = plane;
  }

  async namespace(labels: Texts = {}): Promise<string> {
    const name = `ns-${++this.#made}`;
    await this.#plane.api('POST', '/api/v1/namespaces', { metadata: { name, labels } });
    return name;
  }

  /** Ready, and with a name of its own. */
  async node(labels: Texts = {}): Promise<string> {
    const name = `node-${++this.#made}`;
    await this.#plane.api('POST', '/api/v1/nodes', { metadata: { name, labels } });
    await this.setReady(name, 'True', 0);
    return name;
  }

  /** @param seconds since it has been so */
  async setReady(node: string, status: 'True' | 'False' | 'Unknown', seconds: number): Promise<void> {
    const lastTransitionTime = `${new Date(Date.now() - seconds * 1000).toISOString().slice(0, 19)}Z`;
    const condition = { type: 'Ready', status, lastTransitionTime, reason: 'Test', message: '' };
    await this.#plane.api('PATCH', `/api/v1/nodes/${node}/status`, { status: { conditions: [condition] } }, merge);
  }

  async taint(node: string, key: string): Promise<void> {
    const taints = [{ key, value: 'nodeshutdown', effect: 'NoExecute' }];
    await this.#plane.api('PATCH', `/api/v1/nodes/${node}`, { spec: { taints } }, merge);
  }

  async removeNode(node: string): Promise<void> {
    await this.#plane.api('DELETE', `/api/v1/nodes/${node}`);
  }

  async pod(options: PodOptions = {}): Promise<PodRef> {
    const {
      name = `pod-${++this.#made}`,
      namespace = 'default',
      node = 'node-a',
      annotations,
      labels,
      owner,
    } = options;
    const ownerReferences = owner && [{ ...owner, controller: true }];
    const { metadata } = await this.#plane.api<Created>('POST', `/api/v1/namespaces/${namespace}/pods`, {
      metadata: { name, annotations, labels, ownerReferences },
      spec: { nodeName: node, containers: [{ name: 'main', image: 'localhost/none' }] },
    });
    return { namespace, name, uid: metadata.uid };
  }

  async annotate(pod: PodRef, annotations: Readonly<Record<string, string | null>>): Promise<void> {
    await this.#plane.api('PATCH', path(pod), { metadata: { annotations } }, merge);
  }

  async setPhase(pod: PodRef, phase: 'Running' | 'Succeeded' | 'Failed'): Promise<void> {
    await this.#plane.api('PATCH', `${path(pod)}/status`, { status: { phase } }, merge);
  }

  /** As `kubectl delete`: from now on it waits for a kubelet to end it. */
  async askDeletion(pod: PodRef): Promise<void> {
    await this.#plane.api('DELETE', path(pod), { gracePeriodSeconds: 3600 });
  }

  /** Gone from the API: ended by its kubelet, or deleted by force. */
  async remove(pod: PodRef): Promise<void> {
    await this.#plane.api('DELETE', path(pod), { gracePeriodSeconds: 0 });
  }

  /** Another pod of the same name. */
  async replace(pod: PodRef, options: PodOptions = {}): Promise<PodRef> {
    await this.remove(pod);
    return this.pod({ ...options, name: pod.name, namespace: pod.namespace });
  }
}

function path({ namespace, name }: PodRef): string {
  return `/api/v1/namespaces/${namespace}/pods/${name}`;
}
