// Every key of the store is built and parsed here (design: docs/architecture.md, "Keys").
import { code, FailureError } from '../base/errors.ts';
import { type Family, type Ip, orderedText, parseOrderedText } from '../net/ip.ts';
import type { Span } from '../net/span.ts';

export const root = '/kube-ipam/v1/';
export const formatKey = `${root}format`;

/** Who asks for an address: a container's interface in a network on a node (a container ID is unique on its host only). */
export interface AttachmentId {
  readonly node: string;
  readonly network: string;
  readonly containerID: string;
  readonly ifname: string;
}

/** Who keeps an address whatever becomes of its pods: names of a cluster, the kind as Kubernetes spells it. */
export interface WorkloadName {
  readonly namespace: string;
  readonly kind: string;
  readonly name: string;
}

export const clustersPrefix = `${root}clusters/`;

/** Where the identity of a cluster is recorded. */
export function clusterKey(name: string): string {
  return `${clustersPrefix}${part('cluster', name)}`;
}

/** Key parts that stand beside the spaces. */
export const reservedSpaces: readonly string[] = ['clusters', 'format'];

/** Names in keys: what CNI allows for network names and container IDs. */
export const namePattern = /^[A-Za-z0-9][A-Za-z0-9_.-]*$/;

function part(what: string, value: string): string {
  if (!namePattern.test(value)) {
    throw new FailureError(
      code.config,
      `${what} ${JSON.stringify(value)} cannot be used: it must start with a letter or digit and hold only letters, digits, "_", "." and "-"`,
    );
  }
  return value;
}

function ifnamePart(value: string): string {
  if (value === '' || value === '.' || value === '..' || /[/:\s\u0085\ufffd]/u.test(value)) {
    throw new FailureError(code.environment, `interface name ${JSON.stringify(value)} cannot be used`);
  }
  return value;
}

export interface AddressKey {
  readonly space: string;
  readonly ip: Ip;
}

/** The keys of one address space. */
export class Keys {
  readonly space: string;
  readonly prefix: string;

  constructor(space: string) {
    if (reservedSpaces.includes(space))
      throw new FailureError(code.config, `addressSpace "${space}" is a name of kube-ipam's own`);
    this.space = part('addressSpace', space);
    this.prefix = `${root}${this.space}/`;
  }

  /** All owner records, or those of one family. */
  addresses(family?: Family): string {
    return family === undefined ? `${this.prefix}addresses/` : `${this.prefix}addresses/${family}/`;
  }

  address(ip: Ip): string {
    return `${this.addresses(ip.family)}${orderedText(ip)}`;
  }

  /** Bounds of a query for every record in the span: `from <= key < to`. */
  addressSpan(span: Span): { from: string; to: string } {
    return {
      from: this.address({ family: span.family, value: span.first }),
      // "!" sorts before every character that can follow in a key, so this bound takes in `last` and nothing behind it.
      to: `${this.address({ family: span.family, value: span.last })}!`,
    };
  }

  /** All attachments, or those of a node, or of a network on a node. */
  attachments(node?: string, network?: string): string {
    const all = `${this.prefix}attachments/`;
    if (node === undefined) return all;
    const ofNode = `${all}${part('nodeName', node)}/`;
    return network === undefined ? ofNode : `${ofNode}${part('network name', network)}/`;
  }

  attachment(id: AttachmentId): string {
    return `${this.attachments(id.node, id.network)}${identity(id)}`;
  }

  fences(): string {
    return `${this.prefix}fences/`;
  }

  fence(id: AttachmentId): string {
    return `${this.fences()}${part('nodeName', id.node)}/${part('network name', id.network)}/${identity(id)}`;
  }

  cursors(): string {
    return `${this.prefix}cursors/`;
  }

  /** The cursor of a range set, which is named by its first and last address in the order configured. */
  cursor(network: string, first: Ip, last: Ip): string {
    return `${this.cursors()}${part('network name', network)}/${orderedText(first)}-${orderedText(last)}`;
  }

  /** All workloads' keys, or those of a cluster, or of a network in a cluster. */
  workloads(cluster?: string, network?: string): string {
    const all = `${this.prefix}workloads/`;
    if (cluster === undefined) return all;
    const ofCluster = `${all}${part('cluster', cluster)}/`;
    return network === undefined ? ofCluster : `${ofCluster}${part('network name', network)}/`;
  }

  /** The addresses that a workload keeps on one interface. */
  workload(cluster: string, network: string, { namespace, kind, name }: WorkloadName, ifname: string): string {
    const owner = `${part('namespace', namespace)}/${part('kind', kind)}/${part('workload', name)}`;
    return `${this.workloads(cluster, network)}${owner}/${ifnamePart(ifname)}`;
  }

  networks(): string {
    return `${this.prefix}networks/`;
  }

  network(name: string): string {
    return `${this.networks()}${part('network name', name)}`;
  }
}

function identity(id: AttachmentId): string {
  return `${part('container ID', id.containerID)}/${ifnamePart(id.ifname)}`;
}

/** A key of the store, taken apart. Undefined for a key that this program does not know. */
export type ParsedKey =
  | { readonly type: 'format' }
  | { readonly type: 'cluster'; readonly name: string }
  | { readonly type: 'address'; readonly space: string; readonly ip: Ip }
  | { readonly type: 'attachment' | 'fence'; readonly space: string; readonly id: AttachmentId }
  | {
      readonly type: 'workload';
      readonly space: string;
      readonly cluster: string;
      readonly network: string;
      readonly workload: WorkloadName;
      readonly ifname: string;
    }
  | { readonly type: 'cursor'; readonly space: string; readonly network: string; readonly set: string }
  | { readonly type: 'network'; readonly space: string; readonly network: string };

export function parseKey(key: string): ParsedKey | undefined {
  if (!key.startsWith(root)) return undefined;
  const [space, section, ...rest] = key.slice(root.length).split('/');
  if (space === undefined) return undefined;
  if (section === undefined) return space === 'format' ? { type: 'format' } : undefined;
  const [a, b, c, d, e, f] = rest;
  if (space === 'clusters') return rest.length === 0 ? { type: 'cluster', name: section } : undefined;
  if (section === 'addresses' && rest.length === 2 && (a === '4' || a === '6')) {
    const ip = parseOrderedText(a === '4' ? 4 : 6, b!);
    return ip && { type: 'address', space, ip };
  }
  if ((section === 'attachments' || section === 'fences') && rest.length === 4) {
    const id = { node: a!, network: b!, containerID: c!, ifname: d! };
    return { type: section === 'fences' ? 'fence' : 'attachment', space, id };
  }
  if (section === 'workloads' && rest.length === 6) {
    const workload = { namespace: c!, kind: d!, name: e! };
    return { type: 'workload', space, cluster: a!, network: b!, workload, ifname: f! };
  }
  if (section === 'cursors' && rest.length === 2) return { type: 'cursor', space, network: a!, set: b! };
  if (section === 'networks' && rest.length === 1) return { type: 'network', space, network: a! };
  return undefined;
}
