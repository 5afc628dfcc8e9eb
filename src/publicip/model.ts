// What Services want of public addresses, read from plain Kubernetes objects: one Want for each address. Pure.
import type { Cidr } from '../net/cidr.ts';
import type { Ip } from '../net/ip.ts';

/** A public address that at least one Service wants and that may be given to it. */
export interface Want {
  readonly ip: Ip;
  /** Canonical text of `ip`. */
  readonly address: string;
  /** Oldest first: the first is the holder of the address. At least one. */
  readonly services: readonly ServiceRef[];
  /** The union of what the Services listen on, each protocol and port once. */
  readonly ports: readonly Port[];
  /** Whether one of the Services has externalTrafficPolicy Local. */
  readonly local: boolean;
  /** When local: names of the nodes that may carry it, as they have an endpoint of their own. */
  readonly nodesReady?: ReadonlySet<string>;
}

export interface ServiceRef {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  /** RFC 3339, of the API server's clock; "" when the object does not say. */
  readonly created: string;
}

export const protocols = ['tcp', 'udp', 'sctp'] as const;

export interface Port {
  readonly protocol: (typeof protocols)[number];
  readonly port: number;
  /** `<namespace>/<name>` of the Service that has it. */
  readonly comment: string;
}

/** Why a refusal, as the reason of an event. */
export const refusalReasons = [
  'AddressInvalid',
  'AddressForbidden',
  'NamespaceNotAllowed',
  'OutsideRanges',
  'PortTaken',
] as const;

/** What a Service asked for and does not get. The message is for people: an event, a line of `public-ip ls`. */
export interface Refusal {
  readonly service: ServiceRef;
  /** Canonical where it is an address at all, else as written. */
  readonly address: string;
  readonly reason: (typeof refusalReasons)[number];
  readonly message: string;
}

/** What public addresses must keep clear of, and what the operator allows. */
export interface Around {
  /** Each public address must lie in one of them; none at all: this is not checked. */
  readonly ranges: readonly Cidr[];
  /** Namespaces whose Services may have public addresses; undefined: all. */
  readonly namespaces?: ReadonlySet<string> | undefined;
  /** Every Node object: their addresses and pod ranges are forbidden. */
  readonly nodes: readonly unknown[];
  /** Addresses of this node's interfaces. A /32 or /128 forbids nothing: public addresses themselves are such. */
  readonly addresses: readonly { readonly ip: Ip; readonly prefix: number }[];
  /** Next hops of this node's routes. */
  readonly gateways: readonly Ip[];
  /** Further ranges that are forbidden: those of ClusterIPs and of pods, as far as they are known. */
  readonly clusterRanges: readonly Cidr[];
}

export interface Wants {
  /** In the order of the addresses. */
  readonly wants: readonly Want[];
  readonly refusals: readonly Refusal[];
}
