// Addresses that no Service may have, whoever asks: to answer for them would harm a node, a subnet or the cluster. Pure.
import { type Cidr, cidrOf, formatCidr, lastOf, parseIpWithPrefix } from '../net/cidr.ts';
import { bits, type Family, type Ip, parseIp } from '../net/ip.ts';
import { fieldsOf, listOf } from './fields.ts';

/** What public addresses must keep clear of, beside what Services and nodes occupy. */
export interface Locality {
  /** Addresses of this node's interfaces. A /32 or /128 forbids nothing: public addresses themselves are such. */
  readonly addresses: readonly { readonly ip: Ip; readonly prefix: number }[];
  /** Next hops of this node's routes. */
  readonly gateways: readonly Ip[];
  /** Further ranges of ClusterIPs and of pods, as far as they are known. */
  readonly clusterRanges: readonly Cidr[];
}

/** A range, often of one address, and what it is. */
export interface Occupied {
  readonly range: Cidr;
  readonly what: string;
}

/** Ranges that mean something of their own everywhere (RFC 6890). */
const special: readonly Occupied[] = [
  ['0.0.0.0/8', 'no address of a machine'],
  ['127.0.0.0/8', 'a loopback address'],
  ['169.254.0.0/16', 'a link-local address'],
  ['224.0.0.0/4', 'a multicast address'],
  ['255.255.255.255/32', 'the broadcast address'],
  ['::/128', 'no address of a machine'],
  ['::1/128', 'a loopback address'],
  ['fe80::/10', 'a link-local address'],
  ['ff00::/8', 'a multicast address'],
].map(([range, what]) => ({ range: rangeOf(range)!, what: what! }));

/** All that is forbidden. A cluster has a range for each node and each Service, and only a few lengths of ranges. */
export class Forbidden {
  readonly #byLength = new Map<string, { family: Family; prefix: number; whatAt: Map<bigint, string> }>();

  /** @param occupied what Services and nodes occupy */
  constructor(occupied: readonly Occupied[], { addresses, gateways, clusterRanges }: Locality) {
    for (const one of special) this.#add(one);
    for (const range of clusterRanges)
      this.#add({ range, what: `in ${formatCidr(range)}, which belongs to the cluster` });
    for (const gateway of gateways) this.#add(alone(gateway, 'a gateway of this node'));
    for (const one of addresses.flatMap(occupiedByAddress)) this.#add(one);
    for (const one of occupied) this.#add(one);
  }

  /** What the address is instead of a public one, by the smallest range that holds it; undefined: nothing else. */
  why(ip: Ip): string | undefined {
    const lengths = [...this.#byLength.values()].sort((a, b) => b.prefix - a.prefix);
    const found = lengths
      .filter(({ family }) => family === ip.family)
      .map(({ prefix, whatAt }) => whatAt.get(cidrOf(ip, prefix).base));
    return found.find(what => what !== undefined);
  }

  #add({ range: { family, prefix, base }, what }: Occupied): void {
    const key = `${family}/${prefix}`;
    const length = this.#byLength.get(key) ?? { family, prefix, whatAt: new Map() };
    this.#byLength.set(key, length);
    length.whatAt.set(base, what);
  }
}

/** The ClusterIPs of a Service. */
export function occupiedByService(service: unknown): Occupied[] {
  const { metadata, spec } = fieldsOf(service);
  const { clusterIP, clusterIPs } = fieldsOf(spec);
  const { namespace, name } = fieldsOf(metadata);
  const texts = new Set([clusterIP, ...listOf(clusterIPs)]);
  return [...texts].flatMap(ipOf).map(ip => alone(ip, `the ClusterIP of Service ${namespace}/${name}`));
}

/** The addresses and pod ranges of a node. */
export function occupiedByNode(node: unknown): Occupied[] {
  const { metadata, spec, status } = fieldsOf(node);
  const { name } = fieldsOf(metadata);
  const { podCIDR, podCIDRs } = fieldsOf(spec);
  const addresses = listOf(fieldsOf(status).addresses).flatMap(one => ipOf(fieldsOf(one).address));
  const ranges = [...new Set([podCIDR, ...listOf(podCIDRs)])].flatMap(text => rangeOf(text) ?? []);
  return [
    ...ranges.map(range => ({ range, what: `a pod address of node ${name}` })),
    ...addresses.map(ip => alone(ip, `an address of node ${name}`)),
  ];
}

/** The address itself, and those that mean its whole subnet. */
function occupiedByAddress({ ip, prefix }: Locality['addresses'][number]): Occupied[] {
  const left = bits(ip.family) - prefix;
  if (left < 1) return [];
  const own = alone(ip, "an address of this node's interfaces");
  // Subnets of two addresses have no others (RFC 3021, RFC 6164).
  if (left === 1) return [own];
  const subnet = cidrOf(ip, prefix);
  const first = alone({ family: ip.family, value: subnet.base }, `the network address of ${formatCidr(subnet)}`);
  if (ip.family === 6) return [first, own];
  return [first, alone({ family: 4, value: lastOf(subnet) }, `the broadcast address of ${formatCidr(subnet)}`), own];
}

function alone(ip: Ip, what: string): Occupied {
  return { range: cidrOf(ip, bits(ip.family)), what };
}

function ipOf(value: unknown): Ip[] {
  const ip = typeof value === 'string' ? parseIp(value) : undefined;
  return ip === undefined ? [] : [ip];
}

function rangeOf(text: unknown): Cidr | undefined {
  const parsed = typeof text === 'string' ? parseIpWithPrefix(text) : undefined;
  return parsed && cidrOf(parsed.ip, parsed.prefix);
}
