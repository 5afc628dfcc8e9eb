// Addresses that no Service may have, whoever asks: to answer for them would harm a node, a subnet or the cluster. Pure.
import { type Cidr, cidrContains, cidrOf, formatCidr, lastOf, parseIpWithPrefix } from '../net/cidr.ts';
import { bits, formatIp, type Ip, parseIp } from '../net/ip.ts';
import { fieldsOf, listOf, type ObjectFields } from './fields.ts';

/** What public addresses must keep clear of. */
export interface Surroundings {
  /** Every Node object: their addresses and pod ranges. */
  readonly nodes: readonly unknown[];
  /** Addresses of this node's interfaces. A /32 or /128 forbids nothing: public addresses themselves are such. */
  readonly addresses: readonly { readonly ip: Ip; readonly prefix: number }[];
  /** Next hops of this node's routes. */
  readonly gateways: readonly Ip[];
  /** Further ranges of ClusterIPs and of pods, as far as they are known. */
  readonly clusterRanges: readonly Cidr[];
}

interface ForbiddenRange {
  readonly range: Cidr;
  readonly what: string;
}

/** Ranges that mean something of their own everywhere (RFC 6890). */
const special: readonly ForbiddenRange[] = [
  ['0.0.0.0/8', 'no address of a machine'],
  ['127.0.0.0/8', 'a loopback address'],
  ['169.254.0.0/16', 'a link-local address'],
  ['224.0.0.0/4', 'a multicast address'],
  ['255.255.255.255/32', 'the broadcast address'],
  ['::/128', 'no address of a machine'],
  ['::1/128', 'a loopback address'],
  ['fe80::/10', 'a link-local address'],
  ['ff00::/8', 'a multicast address'],
].map(([range, what]) => ({ range: rangeOf(range!)!, what: what! }));

export class Forbidden {
  readonly #single = new Map<string, string>();
  readonly #ranges: readonly ForbiddenRange[];

  /** @param services every Service: ClusterIPs are forbidden too. */
  constructor(services: readonly unknown[], { nodes, addresses, gateways, clusterRanges }: Surroundings) {
    for (const service of services) this.#addClusterIPs(service);
    for (const gateway of gateways) this.#add(gateway, 'a gateway of this node');
    for (const address of addresses) this.#addLocal(address);
    for (const node of nodes) this.#addNode(node);
    this.#ranges = [
      ...special,
      ...nodes.flatMap(podRangesOf),
      ...clusterRanges.map(range => ({ range, what: `in ${formatCidr(range)}, which belongs to the cluster` })),
    ];
  }

  /** What the address is instead of a public one; undefined when it is nothing else. */
  why(ip: Ip): string | undefined {
    return this.#single.get(formatIp(ip)) ?? this.#ranges.find(({ range }) => cidrContains(range, ip))?.what;
  }

  #add(ip: Ip | undefined, what: string): void {
    if (ip !== undefined) this.#single.set(formatIp(ip), what);
  }

  #addClusterIPs(service: unknown): void {
    const { metadata, spec } = fieldsOf(service);
    const { clusterIP, clusterIPs } = fieldsOf(spec);
    const { namespace, name } = fieldsOf(metadata);
    for (const ip of [clusterIP, ...listOf(clusterIPs)]) {
      this.#add(ipOf(ip), `the ClusterIP of Service ${namespace}/${name}`);
    }
  }

  /** The address itself, and those that mean its whole subnet. */
  #addLocal({ ip, prefix }: Surroundings['addresses'][number]): void {
    const left = bits(ip.family) - prefix;
    if (left < 1) return;
    const subnet = cidrOf(ip, prefix);
    // Subnets of two addresses have no others (RFC 3021, RFC 6164).
    if (left > 1) {
      this.#add({ family: ip.family, value: subnet.base }, `the network address of ${formatCidr(subnet)}`);
      if (ip.family === 4) {
        this.#add({ family: 4, value: lastOf(subnet) }, `the broadcast address of ${formatCidr(subnet)}`);
      }
    }
    this.#add(ip, "an address of this node's interfaces");
  }

  #addNode(node: unknown): void {
    const { metadata, status } = fieldsOf(node);
    for (const address of listOf(fieldsOf(status).addresses)) {
      this.#add(ipOf(fieldsOf(address).address), `an address of node ${fieldsOf(metadata).name}`);
    }
  }
}

function podRangesOf(node: unknown): ForbiddenRange[] {
  const { metadata, spec } = fieldsOf(node);
  const { podCIDR, podCIDRs }: ObjectFields = fieldsOf(spec);
  return [...new Set([podCIDR, ...listOf(podCIDRs)])].flatMap(text => {
    const range = typeof text === 'string' ? rangeOf(text) : undefined;
    return range === undefined ? [] : [{ range, what: `a pod address of node ${fieldsOf(metadata).name}` }];
  });
}

function ipOf(value: unknown): Ip | undefined {
  return typeof value === 'string' ? parseIp(value) : undefined;
}

function rangeOf(text: string): Cidr | undefined {
  const parsed = parseIpWithPrefix(text);
  return parsed && cidrOf(parsed.ip, parsed.prefix);
}
