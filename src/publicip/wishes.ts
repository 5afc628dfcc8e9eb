// What Services of our class want of pools, and which pools may give it: read from plain Kubernetes objects. Pure.
import type { Labels } from '../base/selector.ts';
import { accepts, isInPool, type Pool, setOf } from '../ipam/pool.ts';
import { type Family, formatIp, type Ip, parseIp } from '../net/ip.ts';
import { fieldsOf, listOf } from './fields.ts';
import { loadBalancerClass, readPort, refOf, type ServiceRef } from './model.ts';

/** The name of the pool that the addresses are to come from. */
export const poolAnnotation = 'kube-ipam.io/pool';

/** A comma list of addresses, one of a family at most; stronger than spec.loadBalancerIP. */
export const balancerAnnotation = 'kube-ipam.io/load-balancer-ips';

/** Services that have the same value share an address where their ports do not clash. */
export const shareAnnotation = 'kube-ipam.io/allow-shared-ip';

/** A Service that is to have addresses of pools. */
export interface Wish {
  readonly ref: ServiceRef;
  /** Of an address for each of these, in the order of the Service. */
  readonly families: readonly Family[];
  /** Those that it asks for by name, one of a family at most. */
  readonly named: readonly Ip[];
  /** Asks for addresses of this pool only. */
  readonly pool?: string;
  readonly shareKey?: string;
  /** As `80/tcp`. */
  readonly ports: ReadonlySet<string>;
  /** The addresses in its status, as they are written there. */
  readonly published: readonly string[];
  /** Why no address can be meant: what is wrong with its annotations. */
  readonly fault?: string;
}

/** Undefined for a Service that wants nothing of pools, or not any more. */
export function readWish(service: unknown): Wish | undefined {
  const ref = refOf(service);
  const { metadata, spec, status } = fieldsOf(service);
  const { type, loadBalancerClass: itsClass, ipFamilies, ports } = fieldsOf(spec);
  if (ref === undefined || type !== 'LoadBalancer' || itsClass !== loadBalancerClass) return undefined;
  if (fieldsOf(metadata).deletionTimestamp !== undefined) return undefined;
  const annotations = fieldsOf(fieldsOf(metadata).annotations);
  const text = (key: string) => (typeof annotations[key] === 'string' ? annotations[key].trim() : '');
  const families = familiesOf(ipFamilies);
  const written = text(balancerAnnotation) || String(fieldsOf(spec).loadBalancerIP ?? '').trim();
  const { named, fault } = readNamed(written, families);
  const numbers = listOf(ports).flatMap(port => readPort(port, ''));
  return {
    ref,
    families,
    named,
    ...(text(poolAnnotation) && { pool: text(poolAnnotation) }),
    ...(text(shareAnnotation) && { shareKey: text(shareAnnotation) }),
    ports: new Set(numbers.map(({ protocol, port }) => `${port}/${protocol}`)),
    published: listOf(fieldsOf(fieldsOf(status).loadBalancer).ingress)
      .map(entry => fieldsOf(entry).ip)
      .filter(ip => typeof ip === 'string'),
    ...(fault !== undefined && { fault }),
  };
}

function familiesOf(value: unknown): readonly Family[] {
  const families = listOf(value).flatMap((name): Family[] => (name === 'IPv4' ? [4] : name === 'IPv6' ? [6] : []));
  return families.length === 0 ? [4] : families;
}

function readNamed(written: string, families: readonly Family[]): { named: readonly Ip[]; fault?: string } {
  const items = written
    .split(',')
    .map(item => item.trim())
    .filter(Boolean);
  const named: Ip[] = [];
  for (const item of items) {
    const ip = parseIp(item);
    if (ip === undefined) return { named: [], fault: `${JSON.stringify(item.slice(0, 60))} is no IP address` };
    if (!families.includes(ip.family))
      return { named: [], fault: `${formatIp(ip)} is asked for, and spec.ipFamilies has no IPv${ip.family}` };
    if (named.some(({ family }) => family === ip.family))
      return {
        named: [],
        fault: `${formatIp(ip)} is the second IPv${ip.family} address that is asked for: one is given`,
      };
    named.push(ip);
  }
  return { named };
}

/** Why a Service gets no address, as reason and message of an event. */
export interface Denial {
  readonly reason:
    | 'AddressForbidden'
    | 'AddressInUse'
    | 'AddressInvalid'
    | 'NotPermitted'
    | 'PoolExhausted'
    | 'PoolUnknown';
  readonly message: string;
}

/** What pools there are, as far as they can be used. */
export interface Pools {
  /** The address space in which public addresses are recorded. */
  readonly space: string;
  readonly pools: readonly Pool[];
  /** By name, what is wrong with the others. */
  readonly faults: ReadonlyMap<string, string>;
}

/** The pools that may give the wish an address of the family, in the order of their names; at least one. */
export function poolsFor(
  wish: Wish,
  family: Family,
  namespace: Labels,
  { space, pools, faults }: Pools,
): readonly Pool[] | Denial {
  const named = wish.named.find(ip => ip.family === family);
  const may = (pool: Pool) => accepts(pool, namespace);
  const asked = wish.pool === undefined ? pools : pools.filter(({ name }) => name === wish.pool);
  if (wish.pool !== undefined && asked.length === 0) {
    const why = faults.get(wish.pool);
    return { reason: 'PoolUnknown', message: why ?? `there is no AddressPool ${wish.pool}` };
  }
  const here = asked.filter(pool => pool.space === space);
  if (wish.pool !== undefined && here.length === 0) {
    const message = `AddressPool ${asked[0]!.name} is of address space ${asked[0]!.space}; public addresses are recorded in ${space}`;
    return { reason: 'PoolUnknown', message };
  }
  const fitting = here.filter(pool =>
    named === undefined ? setOf(pool, family) !== undefined : isInPool(pool, named),
  );
  if (fitting.length === 0) return nothingFits(wish, family, named, space);
  const allowed = fitting.filter(may).sort((a, b) => (a.name < b.name ? -1 : 1));
  if (allowed.length > 0) return allowed;
  const names = fitting.map(({ name }) => name).join(', ');
  return { reason: 'NotPermitted', message: `AddressPool ${names} is not for namespace ${wish.ref.namespace}` };
}

function nothingFits({ pool }: Wish, family: Family, named: Ip | undefined, space: string): Denial {
  if (named !== undefined) {
    const where = pool === undefined ? `in no AddressPool of address space ${space}` : `outside of AddressPool ${pool}`;
    return { reason: 'AddressForbidden', message: `${formatIp(named)} lies ${where}` };
  }
  const message = pool === undefined ? `no AddressPool of address space ${space} has` : `AddressPool ${pool} has no`;
  return { reason: 'PoolUnknown', message: `${message} IPv${family} addresses` };
}

/** Why two Services cannot share an address; undefined when they can. */
export function whyNotTogether(wish: Wish, other: Wish): string | undefined {
  const name = ({ ref }: Wish) => `Service ${ref.namespace}/${ref.name}`;
  if (wish.shareKey === undefined || wish.shareKey !== other.shareKey)
    return `it is shared only where both have the same annotation ${shareAnnotation}`;
  const clash = [...wish.ports].find(port => other.ports.has(port));
  return clash && `${name(other)} has port ${clash}, too`;
}
