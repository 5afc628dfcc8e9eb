// What Services want of public addresses, read from plain Kubernetes objects: one Want for each address. Pure.
import { isObject } from '../base/section.ts';
import { type Cidr, cidrContains, formatCidr } from '../net/cidr.ts';
import { type Family, formatIp, type Ip, parseIp } from '../net/ip.ts';
import { fieldsOf, listOf, type ObjectFields } from './fields.ts';
import { Forbidden, type Locality, occupiedByNode, occupiedByService } from './forbidden.ts';

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

/** What the operator allows, and what public addresses must keep clear of. */
export interface Around extends Locality {
  /** Every Node object: their addresses and pod ranges are forbidden. */
  readonly nodes: readonly unknown[];
  /** Each public address must lie in one of them; none at all: this is not checked. */
  readonly ranges: readonly Cidr[];
  /** Namespaces whose Services may have public addresses; undefined: all. */
  readonly namespaces?: ReadonlySet<string> | undefined;
}

export interface Wants {
  /** In the order of the addresses. */
  readonly wants: readonly Want[];
  readonly refusals: readonly Refusal[];
}

/** The class of Services of type LoadBalancer that are ours. */
export const loadBalancerClass = 'kube-ipam.io/public-ip';

/** "true" on a Service: the addresses in its status count, whoever wrote them. */
export const statusAnnotation = 'kube-ipam.io/public-ip';

/** A comma list of addresses, on a Service. */
export const addressesAnnotation = 'kube-ipam.io/public-ips';

/** Reads Services once, as WantsReader does again and again. */
export function readWants(services: readonly unknown[], slices: readonly unknown[], around: Around): Wants {
  return new WantsReader().read(services, slices, around);
}

/**
 * Reads Services, and EndpointSlices for those with externalTrafficPolicy Local (contract F6, F7, F8). What is no such
 * object is left out; an object with faults spoils only itself. Objects must not be changed: what was read of one is
 * remembered for as long as it is there, as thousands of them stay the same from one reading to the next.
 */
export class WantsReader {
  readonly #wantingOf = remembering(readService);
  readonly #ofService = remembering(occupiedByService);
  readonly #ofNode = remembering(occupiedByNode);

  read(services: readonly unknown[], slices: readonly unknown[], around: Around): Wants {
    const occupied = [...services.flatMap(this.#ofService), ...around.nodes.flatMap(this.#ofNode)];
    const forbidden = new Forbidden(occupied, around);
    const refusals: Refusal[] = [];
    const byAddress = new Map<string, { readonly ip: Ip; readonly services: WantingService[] }>();
    for (const service of services.flatMap(this.#wantingOf).sort(oldestFirst)) {
      for (const { text, ip } of service.addresses) {
        const refused = whyNot(ip, text, service.ref, around, forbidden);
        if (refused !== undefined) refusals.push({ service: service.ref, ...refused });
        if (ip === undefined || refused !== undefined) continue;
        const address = formatIp(ip);
        const entry = byAddress.get(address) ?? { ip, services: [] };
        byAddress.set(address, entry);
        if (!entry.services.includes(service)) entry.services.push(service);
      }
    }
    const endpoints = new Endpoints(slices);
    const wants = [...byAddress].map(([address, { ip, services: sharing }]) => {
      const { ports, taken } = unionOfPorts(address, sharing);
      refusals.push(...taken);
      const refs = sharing.map(({ ref }) => ref);
      return Object.freeze({ ip, address, services: refs, ports, ...localOf(ip, sharing, endpoints) });
    });
    return { wants: wants.sort((a, b) => byNumber(a.ip, b.ip)), refusals };
  }
}

/** As `read`, but an object that it was given before is not read again. */
function remembering<V>(read: (object: unknown) => V): (object: unknown) => V {
  const known = new WeakMap<object, V>();
  return object => {
    if (!isObject(object)) return read(object);
    if (!known.has(object)) known.set(object, read(object));
    return known.get(object)!;
  };
}

/** A Service that wants at least one address. */
interface WantingService {
  readonly ref: ServiceRef;
  /** Each text once, as written, and the address that it is. */
  readonly addresses: readonly { readonly text: string; readonly ip: Ip | undefined }[];
  readonly ports: readonly Port[];
  readonly local: boolean;
}

function readService(service: unknown): WantingService[] {
  const ref = refOf(service);
  const { spec, metadata, status } = fieldsOf(service);
  const { type, externalTrafficPolicy, ports } = fieldsOf(spec);
  // It is an alias in DNS, which has no ports to be reached at; one that is being deleted has been asked to let go.
  if (ref === undefined || type === 'ExternalName' || fieldsOf(metadata).deletionTimestamp !== undefined) return [];
  const texts = [...new Set(addressesOf(fieldsOf(spec), fieldsOf(status), fieldsOf(fieldsOf(metadata).annotations)))];
  if (texts.length === 0) return [];
  const addresses = texts.map(text => ({ text, ip: parseIp(text) }));
  const comment = `${ref.namespace}/${ref.name}`;
  const local = externalTrafficPolicy === 'Local';
  return [{ ref, addresses, ports: listOf(ports).flatMap(port => readPort(port, comment)), local }];
}

function addressesOf(spec: ObjectFields, status: ObjectFields, annotations: ObjectFields): string[] {
  const { externalIPs, deprecatedPublicIPs, publicIPs } = spec;
  const listed = String(annotations[addressesAnnotation] ?? '').split(',');
  return [externalIPs, deprecatedPublicIPs, publicIPs, listed, balanced(spec, status, annotations)]
    .flatMap(listOf)
    .flatMap(address => (typeof address === 'string' && address.trim() !== '' ? [address.trim()] : []));
}

/** All addresses that a Service names, or that its status has, whether or not it may have them: as canonical text. */
export function namedAddresses(service: unknown): readonly string[] {
  const { spec, metadata, status } = fieldsOf(service);
  const { ingress } = fieldsOf(fieldsOf(status).loadBalancer);
  const named = addressesOf(fieldsOf(spec), {}, fieldsOf(fieldsOf(metadata).annotations));
  const published = listOf(ingress).map(entry => fieldsOf(entry).ip);
  return [...named, ...published].flatMap(text => {
    const ip = typeof text === 'string' ? parseIp(text) : undefined;
    return ip === undefined ? [] : [formatIp(ip)];
  });
}

/** The addresses of a load balancer that we are, or are asked to be. One in front of a proxy is that proxy's own. */
function balanced(spec: ObjectFields, status: ObjectFields, annotations: ObjectFields): unknown[] {
  const isOurs = spec.loadBalancerClass === loadBalancerClass || annotations[statusAnnotation] === 'true';
  if (spec.type !== 'LoadBalancer' || !isOurs) return [];
  return listOf(fieldsOf(status.loadBalancer).ingress)
    .map(fieldsOf)
    .flatMap(({ ip, ipMode }) => (ipMode === 'Proxy' ? [] : [ip]));
}

/** Undefined for what is no object of a namespace. */
export function refOf(object: unknown): ServiceRef | undefined {
  const { namespace, name, uid, creationTimestamp } = fieldsOf(fieldsOf(object).metadata);
  if (typeof namespace !== 'string' || typeof name !== 'string' || typeof uid !== 'string') return undefined;
  return { namespace, name, uid, created: typeof creationTimestamp === 'string' ? creationTimestamp : '' };
}

/** Nothing for what is no port of a protocol that we know. */
export function readPort(value: unknown, comment: string): Port[] {
  const { port, protocol = 'TCP' } = fieldsOf(value);
  const known = protocols.find(name => name === String(protocol).toLowerCase());
  if (known === undefined || !Number.isInteger(port)) return [];
  const number = port as number;
  return number > 0 && number < 65_536 ? [{ protocol: known, port: number, comment }] : [];
}

/** The API's clock has whole seconds; beyond that, any order will do that is the same on every node. */
export function oldestFirst({ ref: a }: Pick<WantingService, 'ref'>, { ref: b }: Pick<WantingService, 'ref'>): number {
  const keyOf = ({ created, namespace, name, uid }: ServiceRef) => [created, namespace, name, uid];
  const [ours, theirs] = [keyOf(a), keyOf(b)];
  const i = ours.findIndex((part, at) => part !== theirs[at]);
  return i < 0 ? 0 : ours[i]! < theirs[i]! ? -1 : 1;
}

function byNumber(a: Ip, b: Ip): number {
  if (a.family !== b.family) return a.family - b.family;
  return a.value < b.value ? -1 : a.value > b.value ? 1 : 0;
}

/** The older Service keeps a port that two of them have. */
function unionOfPorts(address: string, services: readonly WantingService[]): { ports: Port[]; taken: Refusal[] } {
  const ports = new Map<string, Port>();
  const taken: Refusal[] = [];
  for (const { ref, ports: own } of services) {
    for (const port of own) {
      const what = `${port.port}/${port.protocol}`;
      const before = ports.get(what);
      if (before === undefined) ports.set(what, port);
      if (before === undefined || before.comment === port.comment) continue;
      const message = `port ${what} of ${address} belongs to Service ${before.comment}, which is older`;
      taken.push({ service: ref, address, reason: 'PortTaken', message });
    }
  }
  return { ports: [...ports.values()], taken };
}

/** The nodes that are ready for all of the Services whose policy is Local; where there is none, for the oldest of them. */
function localOf(
  ip: Ip,
  services: readonly WantingService[],
  endpoints: Endpoints,
): { local: false } | { local: true; nodesReady: ReadonlySet<string> } {
  const ready = services.filter(({ local }) => local).map(({ ref }) => endpoints.nodesOf(ref, ip.family));
  if (ready.length === 0) return { local: false };
  const common = new Set([...ready[0]!].filter(node => ready.every(nodes => nodes.has(node))));
  return { local: true, nodesReady: common.size > 0 ? common : ready[0]! };
}

/** Which nodes have endpoints of a Service. */
class Endpoints {
  readonly #slices: ReadonlyMap<string, readonly ObjectFields[]>;

  constructor(slices: readonly unknown[]) {
    this.#slices = Map.groupBy(slices.map(fieldsOf), ({ metadata }) => {
      const { namespace, labels } = fieldsOf(metadata);
      return `${namespace}/${fieldsOf(labels)['kubernetes.io/service-name']}`;
    });
  }

  /** Those with a ready one; while there is none, those with one that still serves though it is being ended. */
  nodesOf({ namespace, name }: ServiceRef, family: Family): ReadonlySet<string> {
    const slices = this.#slices.get(`${namespace}/${name}`) ?? [];
    const endpoints = slices
      .filter(({ addressType }) => addressType === `IPv${family}`)
      .flatMap(slice => listOf(slice.endpoints).map(fieldsOf));
    const nodesWith = (fits: (conditions: ObjectFields) => boolean) =>
      new Set(
        endpoints.flatMap(({ nodeName, conditions }) =>
          typeof nodeName === 'string' && fits(fieldsOf(conditions)) ? [nodeName] : [],
        ),
      );
    // A condition that is not there means yes to ready and serving, and no to terminating.
    const ready = nodesWith(conditions => conditions.ready !== false);
    if (ready.size > 0) return ready;
    return nodesWith(({ serving, terminating }) => serving !== false && terminating === true);
  }
}

/** Why an address is not given to a Service that asks for it; undefined when it is. */
function whyNot(
  ip: Ip | undefined,
  text: string,
  { namespace }: ServiceRef,
  { ranges, namespaces }: Around,
  forbidden: Forbidden,
): Omit<Refusal, 'service'> | undefined {
  if (ip === undefined) {
    return { address: text, reason: 'AddressInvalid', message: `${JSON.stringify(text)} is no IP address` };
  }
  const address = formatIp(ip);
  if (namespaces !== undefined && !namespaces.has(namespace)) {
    const message = `${address} is left alone: Services of namespace ${namespace} are not allowed public addresses`;
    return { address, reason: 'NamespaceNotAllowed', message };
  }
  const reason = forbidden.why(ip);
  if (reason !== undefined) {
    return { address, reason: 'AddressForbidden', message: `${address} cannot be a public address: it is ${reason}` };
  }
  if (ranges.length === 0 || ranges.some(range => cidrContains(range, ip))) return undefined;
  const message = `${address} is left alone: it lies outside of ${ranges.map(formatCidr).join(', ')}`;
  return { address, reason: 'OutsideRanges', message };
}
