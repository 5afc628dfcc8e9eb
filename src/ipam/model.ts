// What the store's values mean: owner records, attachments, recorded networks, the format mark.
import { isObject } from '../base/section.ts';
import { formatIp, type Ip, parseIp } from '../net/ip.ts';
import type { AttachmentId } from '../store/keys.ts';

/** Kinds of owners that this version knows. A record of any other kind is taken, and left alone. */
export const kinds = ['dynamic', 'fixed', 'sticky', 'reserved', 'held', 'service'] as const;
export type Kind = (typeof kinds)[number];

export interface Pod {
  readonly namespace: string;
  readonly name: string;
  readonly uid?: string;
}

/** The owner of an address, as far as this version understands it; `raw` is the whole value. */
export interface OwnerRecord {
  readonly kind: Kind | 'unknown';
  readonly cluster: string;
  /** Time of the allocation, for people only: no decision is made by it. */
  readonly since: string;
  readonly node: string;
  readonly machine: string;
  readonly boot: string;
  readonly network: string;
  readonly containerID: string;
  readonly ifname: string;
  readonly netns: string;
  readonly pod?: Pod;
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

/** Reads an owner record. A value that cannot be read is an owner of unknown kind: the address is taken. */
export function parseOwner(value: string): OwnerRecord {
  const raw = parseObject(value) ?? {};
  const pod = isObject(raw.pod) ? raw.pod : undefined;
  const uid = pod && textOf(pod, 'uid');
  const { reason, until } = raw;
  return {
    kind: kinds.find(kind => kind === raw.kind) ?? 'unknown',
    cluster: textOf(raw, 'cluster'),
    since: textOf(raw, 'since'),
    node: textOf(raw, 'node'),
    machine: textOf(raw, 'machine'),
    boot: textOf(raw, 'boot'),
    network: textOf(raw, 'network'),
    containerID: textOf(raw, 'containerID'),
    ifname: textOf(raw, 'ifname'),
    netns: textOf(raw, 'netns'),
    ...(pod && { pod: { namespace: textOf(pod, 'namespace'), name: textOf(pod, 'name'), ...(uid && { uid }) } }),
    ...(typeof reason === 'string' && { reason }),
    ...(typeof until === 'string' && { until }),
    raw,
  };
}

/** Whether an attachment owns the record: a dynamic one that names exactly it. */
export function namesAttachment(owner: OwnerRecord, id: AttachmentId): boolean {
  return (
    ['dynamic', 'fixed'].includes(owner.kind) &&
    owner.node === id.node &&
    owner.network === id.network &&
    owner.containerID === id.containerID &&
    owner.ifname === id.ifname
  );
}

/** The addresses of an attachment, as stored: `{"addresses": ["10.1.0.2", "fd00::2"]}`. */
export function parseAttachment(value: string): Ip[] {
  const addresses = parseObject(value)?.addresses;
  if (!Array.isArray(addresses)) return [];
  return addresses.flatMap(text => (typeof text === 'string' ? (parseIp(text) ?? []) : []));
}

/**
 * Whether the value says nothing but addresses. Only then do all its records surely belong to it alone: a version that
 * writes other kinds of owners beside an attachment adds a field to it, so that this one looks before it deletes.
 */
export function isPlainAttachment(value: string): boolean {
  const fields = Object.keys(parseObject(value) ?? {});
  return fields.length === 1 && fields[0] === 'addresses';
}

/** The value of an attachment; what a later version added to the old value stays. */
export function renderAttachment(addresses: readonly Ip[], old = '{}'): string {
  return JSON.stringify({ ...parseObject(old), addresses: addresses.map(formatIp) });
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
