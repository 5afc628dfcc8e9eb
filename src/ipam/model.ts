// What the store's values mean: owner records, attachments, recorded networks, the format mark.
import { isObject } from '../base/section.ts';
import { type Family, formatIp, type Ip, parseIp } from '../net/ip.ts';
import type { AttachmentId, WorkloadName } from '../store/keys.ts';

/** Kinds of owners that this version knows. A record of any other kind is taken, and left alone. */
export const kinds = ['dynamic', 'fixed', 'sticky', 'reserved', 'held', 'service'] as const;
export type Kind = (typeof kinds)[number];

export interface Pod {
  readonly namespace: string;
  readonly name: string;
  readonly uid?: string;
}

/** The owner of a sticky address: what Kubernetes names the same when it makes it again. */
export interface Workload {
  readonly namespace: string;
  readonly kind: 'StatefulSet' | 'VirtualMachine';
  /** Of a StatefulSet the name with the ordinal, which is the pod's name. */
  readonly name: string;
}

/** Features that hold addresses for objects of Kubernetes. */
export const features = ['public-ip', 'eip'] as const;
export type Feature = (typeof features)[number];

/** The object for which a feature holds an address: it wants it, and which node carries it stands elsewhere. */
export interface ServiceHolder {
  readonly feature: Feature;
  /** Of the API; the core's is "". */
  readonly group: string;
  readonly kind: string;
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
}

/** An attachment that uses an address, and where it lives. */
export interface Holder extends AttachmentId {
  readonly machine: string;
  readonly boot: string;
  readonly netns: string;
  readonly pod?: Pod;
}

/**
 * The owner of an address, as far as this version understands it; `raw` is the whole value. The fields of a holder are
 * those of the first one, or of the former one of a hold.
 */
export interface OwnerRecord extends Holder {
  readonly kind: Kind | 'unknown';
  readonly cluster: string;
  /** Time of the allocation, for people only: no decision is made by it. */
  readonly since: string;
  /** One for an address of an attachment; any number for one of a workload; none for the other kinds. */
  readonly holders: readonly Holder[];
  /** Of a sticky address. */
  readonly workload?: Workload;
  /** Of kind service: who wants the address, of several objects the oldest; absent: a feature that this version does not know. */
  readonly holder?: ServiceHolder;
  /** Of kind service: the pool that gave the address. */
  readonly pool?: string;
  /** Of kind service: who shares the pool's address with the holder, in the order in which they came. */
  readonly sharers?: readonly ServiceHolder[];
  /** Of a fixed address: seconds for which it is held, after its release, for whoever names it. */
  readonly hold?: number;
  /** Of a hold: whether anybody who names the address may have it, or only its former owner. */
  readonly byName?: boolean;
  /** Of a reservation: why. */
  readonly reason?: string;
  /** Of a hold: when its lease ends, for people only. */
  readonly until?: string;
  readonly raw: Readonly<Record<string, unknown>>;
}

function parseObject(text: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return isObject(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

function textOf(raw: Readonly<Record<string, unknown>>, key: string): string {
  const value = raw[key];
  return typeof value === 'string' ? value : '';
}

function parseHolder(raw: Readonly<Record<string, unknown>>): Holder {
  const pod = isObject(raw.pod) ? raw.pod : undefined;
  const uid = pod && textOf(pod, 'uid');
  return {
    node: textOf(raw, 'node'),
    machine: textOf(raw, 'machine'),
    boot: textOf(raw, 'boot'),
    network: textOf(raw, 'network'),
    containerID: textOf(raw, 'containerID'),
    ifname: textOf(raw, 'ifname'),
    netns: textOf(raw, 'netns'),
    ...(pod && { pod: { namespace: textOf(pod, 'namespace'), name: textOf(pod, 'name'), ...(uid && { uid }) } }),
  };
}

/** Network and interface stand beside the holders: they are the same for all. */
function parseHolders({ holders, network, ifname }: Readonly<Record<string, unknown>>): Holder[] {
  return (Array.isArray(holders) ? holders : [])
    .filter(isObject)
    .map(holder => parseHolder({ ...holder, network, ifname }));
}

function parseWorkload(value: unknown): Workload | undefined {
  if (!isObject(value)) return undefined;
  const kind = (['StatefulSet', 'VirtualMachine'] as const).find(one => one === value.kind);
  return kind && { namespace: textOf(value, 'namespace'), kind, name: textOf(value, 'name') };
}

function parseService(value: unknown): ServiceHolder | undefined {
  if (!isObject(value)) return undefined;
  const feature = features.find(one => one === value.feature);
  const text = (key: string) => textOf(value, key);
  return (
    feature && {
      feature,
      group: text('group'),
      kind: text('kind'),
      namespace: text('namespace'),
      name: text('name'),
      uid: text('uid'),
    }
  );
}

/** Feature, group and kind stand with the holder: they are the same for all. */
function parseSharers(holder: ServiceHolder, sharers: unknown): ServiceHolder[] {
  return (Array.isArray(sharers) ? sharers : []).filter(isObject).map(one => ({
    ...holder,
    namespace: textOf(one, 'namespace'),
    name: textOf(one, 'name'),
    uid: textOf(one, 'uid'),
  }));
}

function parseServiceFields(raw: Readonly<Record<string, unknown>>): Pick<OwnerRecord, 'holder' | 'pool' | 'sharers'> {
  const holder = parseService(raw.holder);
  const sharers = holder === undefined ? [] : parseSharers(holder, raw.sharers);
  const pool = textOf(raw, 'pool');
  return { ...(holder && { holder }), ...(pool && { pool }), ...(sharers.length > 0 && { sharers }) };
}

/** Reads an owner record. A value that cannot be read is an owner of unknown kind: the address is taken. */
export function parseOwner(value: string): OwnerRecord {
  const raw = parseObject(value) ?? {};
  const kind = kinds.find(one => one === raw.kind) ?? 'unknown';
  const flat = parseHolder(raw);
  const holders = kind === 'dynamic' || kind === 'fixed' ? [flat] : kind === 'sticky' ? parseHolders(raw) : [];
  const { reason, until, hold, byName } = raw;
  const workload = kind === 'sticky' ? parseWorkload(raw.workload) : undefined;
  return {
    ...(holders[0] ?? flat),
    kind,
    cluster: textOf(raw, 'cluster'),
    since: textOf(raw, 'since'),
    holders,
    ...(workload && { workload }),
    ...(kind === 'service' && parseServiceFields(raw)),
    ...(typeof hold === 'number' && hold > 0 && { hold }),
    ...(byName === true && { byName }),
    ...(typeof reason === 'string' && { reason }),
    ...(typeof until === 'string' && { until }),
    raw,
  };
}

export function sameAttachment(a: AttachmentId, b: AttachmentId): boolean {
  return a.node === b.node && a.network === b.network && a.containerID === b.containerID && a.ifname === b.ifname;
}

/** Whether an attachment holds the address. */
export function namesAttachment(owner: OwnerRecord, id: AttachmentId): boolean {
  return owner.holders.some(holder => sameAttachment(holder, id));
}

/** Where a feature keeps its attachments: in the place of a node's name. */
export function featureNode(feature: Feature): string {
  return `kube-ipam.${feature}`;
}

export const featureNodes: readonly string[] = features.map(featureNode);

/** The network that addresses of a pool belong to. No network configuration may have such a name. */
export function poolNetwork(pool: string): string {
  return `${poolPrefix}${pool}`;
}

export const poolPrefix = 'pool.';

/** The network that the address belongs to, as far as its owner has one. */
export function networkOf({ network, pool }: OwnerRecord): string {
  return pool === undefined ? network : poolNetwork(pool);
}

/** The attachment through which an object uses an address of a pool. */
export function lendingId(object: ServiceHolder, pool: string, family: Family): AttachmentId {
  const ifname = `${object.feature === 'eip' ? 'eip' : 'lb'}${family}`;
  return { node: featureNode(object.feature), network: poolNetwork(pool), containerID: object.uid, ifname };
}

/** The objects that use a feature's address: the holder first. */
export function usersOf({ holder, sharers = [] }: OwnerRecord): readonly ServiceHolder[] {
  return holder === undefined ? [] : [holder, ...sharers];
}

/** Whether a pool's address is lent through the attachment: to the holder, or to one who shares it. */
export function isLentTo(owner: OwnerRecord, id: AttachmentId): boolean {
  const { holder, pool } = owner;
  if (holder === undefined || pool === undefined) return false;
  const isOfPool = id.node === featureNode(holder.feature) && id.network === poolNetwork(pool);
  return isOfPool && usersOf(owner).some(({ uid }) => uid === id.containerID);
}

/** Whether the address goes on when an attachment has given it back: a workload keeps it, or a hold follows. */
export function outlivesAttachment({ kind, hold }: OwnerRecord): boolean {
  return kind === 'sticky' || hold !== undefined;
}

export function sameWorkload(a: WorkloadName | undefined, b: WorkloadName | undefined): boolean {
  return a !== undefined && a.namespace === b?.namespace && a.kind === b.kind && a.name === b.name;
}

/** The addresses of an attachment, as stored: `{"addresses": ["10.1.0.2", "fd00::2"]}`. */
export function parseAttachment(value: string): Ip[] {
  const addresses = parseObject(value)?.addresses;
  if (!Array.isArray(addresses)) return [];
  return addresses.flatMap(text => (typeof text === 'string' ? (parseIp(text) ?? []) : []));
}

/**
 * Whether the value says nothing but addresses. Only then does a release simply delete all its records; a version that
 * writes other kinds of owners beside an attachment adds a field to it, so that this one looks before it deletes.
 */
export function isPlainAttachment(value: string): boolean {
  const fields = Object.keys(parseObject(value) ?? {});
  return fields.length === 1 && fields[0] === 'addresses';
}

/**
 * The value of an attachment; what a later version added to the old value stays. `kept`: some of its addresses outlive
 * it, as a workload's or on a hold.
 */
export function renderAttachment(addresses: readonly Ip[], kept: boolean, old = '{}'): string {
  const { kept: _, ...before } = parseObject(old) ?? {};
  return JSON.stringify({ ...before, addresses: addresses.map(formatIp), ...(kept && { kept }) });
}

/** The value of a workload's key, which `parseAttachment` reads. */
export function renderWorkload(addresses: readonly Ip[]): string {
  return JSON.stringify({ addresses: addresses.map(formatIp) });
}

/** The cluster that a name of clusters stands for: `{"uid": "<uid of its namespace kube-system>"}`. */
export function parseCluster(value: string): string | undefined {
  const uid = parseObject(value)?.uid;
  return typeof uid === 'string' && uid !== '' ? uid : undefined;
}

export function renderCluster(uid: string): string {
  return JSON.stringify({ uid });
}

/** The store's format. A program below `minReader` must not write. */
export interface Format {
  readonly format: number;
  readonly minReader: number;
}

/** The format this program writes. */
export const currentFormat: Format = { format: 1, minReader: 1 };

/** Reads the format mark; undefined when it cannot be understood, which is newer than anything we know. */
export function parseFormat(value: string): Format | undefined {
  const raw = parseObject(value);
  if (raw === undefined || typeof raw.format !== 'number' || typeof raw.minReader !== 'number') return undefined;
  return { format: raw.format, minReader: raw.minReader };
}
