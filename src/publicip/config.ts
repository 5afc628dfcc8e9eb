// What `kube-ipam public-ip` was told to do: its flags, and those that users of kiwi know, read into one frozen Config. Pure.
import type { LogLevel } from '../base/log.ts';
import type { Selector } from '../base/selector.ts';
import type { TargetSource } from '../kube/credentials.ts';
import type { Cidr } from '../net/cidr.ts';
import type { Ip } from '../net/ip.ts';
import type { EtcdTarget } from '../store/target.ts';

export interface Config {
  /** Name of this node in Kubernetes. */
  readonly node: string;
  readonly cluster: string;
  /** This agent's id in the store: what stands behind each address that it owns. */
  readonly id: string;
  /** The interface that carries the public addresses. */
  readonly interface: string;
  /** Where claims are kept. */
  readonly etcd: EtcdTarget;
  /** Where owner records are kept; undefined: beside the claims. */
  readonly store: EtcdTarget | undefined;
  /** Address space of the owner records. */
  readonly space: string;
  /** Prefix of the claims' keys: begins and ends with "/". */
  readonly prefix: string;
  /** Seconds to ask etcd for, at least 5; a host without nft needs `leastTtlWithoutNft`. */
  readonly ttl: number;
  /** How the Kubernetes API is reached. */
  readonly kubernetes: TargetSource;
  /** Each public address must lie in one of them; none at all: this is not checked. */
  readonly ranges: readonly Cidr[];
  /** Further ranges of ClusterIPs and pods, which are no public addresses. */
  readonly clusterRanges: readonly Cidr[];
  /** Namespaces whose Services may have public addresses; undefined: all. */
  readonly namespaces: ReadonlySet<string> | undefined;
  /** What a node's labels must meet. */
  readonly nodeSelector: Selector;
  /** Chain of the table mangle in which packets are marked. */
  readonly chain: string;
  readonly mark: { readonly value: number; readonly mask: number | undefined };
  /** Next hops for replies that leave by our addresses, one of a family at most. */
  readonly gateways: readonly Ip[];
  /** False: no address, rule or sysctl is touched; claims are made all the same. */
  readonly drives: boolean;
  readonly probe: boolean;
  readonly sysctl: boolean;
  readonly rebalance: boolean;
  readonly onExit: 'handover' | 'keep';
  /** Milliseconds between two rounds of announcements of an address; 0: none after the first ones. */
  readonly garpInterval: number;
  /** The longest wait before something remote is tried again, in milliseconds. */
  readonly reconnect: number;
  /** Where health and metrics are served; undefined: nowhere. */
  readonly listen: { readonly host?: string; readonly port: number } | undefined;
  /** Folder of the state that outlives a restart: `public-ip/` and `ledger.json`. */
  readonly stateDir: string;
  /** Folder of the lock. */
  readonly runDir: string;
  readonly log: { /** Undefined: standard error. */ readonly file: string | undefined; readonly level: LogLevel };
}
