// The Kubernetes objects that we read, as narrow as we need them; everything else in them passes by unseen.

export interface OwnerReference {
  readonly apiVersion: string;
  readonly kind: string;
  readonly name: string;
  readonly uid: string;
  readonly controller?: boolean;
}

export interface ObjectMeta {
  readonly name: string;
  readonly namespace?: string;
  readonly uid: string;
  readonly resourceVersion?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly ownerReferences?: readonly OwnerReference[];
  /** RFC 3339, of the API server's clock. */
  readonly creationTimestamp?: string;
  /** Present once somebody asked for the deletion. */
  readonly deletionTimestamp?: string;
}

export interface KubeObject {
  readonly apiVersion?: string;
  readonly kind?: string;
  readonly metadata: ObjectMeta;
}

export interface Pod extends KubeObject {
  readonly spec?: { readonly nodeName?: string; readonly hostNetwork?: boolean };
  readonly status?: { readonly phase?: string };
}

export interface NodeCondition {
  readonly type: string;
  readonly status: string;
  readonly lastTransitionTime?: string;
}

export interface Node extends KubeObject {
  readonly spec?: {
    readonly taints?: readonly { readonly key: string; readonly value?: string; readonly effect: string }[];
  };
  readonly status?: {
    readonly conditions?: readonly NodeCondition[];
    /** What the kubelet read in /etc/machine-id and in /proc/sys/kernel/random/boot_id. */
    readonly nodeInfo?: { readonly machineID?: string; readonly bootID?: string };
  };
}

export type Namespace = KubeObject;

export interface StatefulSet extends KubeObject {
  readonly spec?: { readonly replicas?: number; readonly ordinals?: { readonly start?: number } };
}

/** One object as the API server had it, with that server's clock. */
export interface Found<T> {
  readonly object: T;
  /** The server's time of the answer, in milliseconds. */
  readonly at: number;
}
