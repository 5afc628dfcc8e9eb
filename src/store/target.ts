// Which store a network uses and how to reach it: what the configuration says, ready to open.

export interface EmbeddedTarget {
  readonly kind: 'embedded';
  /** Folder of `store.db`. */
  readonly dataDir: string;
}

export interface EtcdTarget {
  readonly kind: 'etcd';
  /** URLs, in the order configured, at least one. */
  readonly endpoints: readonly string[];
  readonly certFile?: string;
  readonly keyFile?: string;
  readonly caFile?: string;
  readonly username?: string;
  readonly passwordFile?: string;
  /** Connect and TLS to one endpoint, in milliseconds. */
  readonly dialTimeout: number;
  /** One call to one endpoint, in milliseconds. */
  readonly requestTimeout: number;
  /** State folder of this node, where the endpoint that answered last is remembered. */
  readonly dataDir: string;
}

export type StoreTarget = EmbeddedTarget | EtcdTarget;
