// Examines the records of an address space and tells which of them cannot all be true. Pure.

import { cidrContains } from '../net/cidr.ts';
import { formatIp, type Ip, orderedText, parseIp } from '../net/ip.ts';
import { type AttachmentId, type Keys, type ParsedKey, parseKey } from '../store/keys.ts';
import type { Entry } from '../store/kv.ts';
import { describeOwner } from './describe.ts';
import { namesAttachment, type OwnerRecord, parseAttachment, parseFormat, parseOwner } from './model.ts';
import { type Range, type RangeSet, rangeServes } from './range.ts';
import { parseRecordedNetwork, type RecordedNetwork } from './recorded.ts';
import { endsOf } from './records.ts';

export interface Finding {
  /** A note is no trouble: something that this version does not know, or that mends itself. */
  readonly level: 'trouble' | 'note';
  readonly rule: Rule;
  /** The address, attachment or key that it is about. */
  readonly subject: string;
  readonly text: string;
}

export const rules = [
  'unreadable-value',
  'unknown-kind',
  'unknown-key',
  'no-attachment',
  'not-listed',
  'no-record',
  'other-owner',
  'two-holders',
  'no-addresses',
  'outside-ranges',
  'unknown-set',
] as const;
export type Rule = (typeof rules)[number];

interface Held {
  readonly ip: Ip;
  readonly owner: OwnerRecord;
  /** Attachments that list the address. */
  listedBy: readonly string[];
}

/** What no rule looks at: a million records must fit into memory. */
const forgotten = Object.freeze({ machine: '', boot: '', netns: '', raw: Object.freeze({}) });
const none: readonly string[] = Object.freeze([]);

/** Takes the entries of one space, in any order, all of one revision. */
export class Examination {
  readonly #keys: Keys;
  readonly #addresses = new Map<string, Held>();
  readonly #attachments = new Map<string, { readonly id: AttachmentId; readonly addresses: readonly Ip[] }>();
  readonly #cursors: { readonly key: string; readonly network: string; readonly set: string }[] = [];
  readonly #networks = new Map<string, RecordedNetwork>();
  readonly #findings: Finding[] = [];

  constructor(keys: Keys) {
    this.#keys = keys;
  }

  add(entry: Entry): void {
    const parsed = parseKey(entry.key);
    switch (parsed?.type) {
      case undefined:
        this.#unknownKey(entry.key);
        break;
      case 'address':
        this.#addAddress(parsed, entry);
        break;
      case 'attachment':
        this.#addAttachment(parsed.id, entry);
        break;
      case 'cursor':
        this.#addCursor(parsed, entry);
        break;
      case 'network':
        this.#addNetwork(parsed.network, entry);
        break;
      case 'format':
        if (parseFormat(entry.value) !== undefined) break;
        this.#trouble('unreadable-value', entry.key, 'the format mark cannot be read: no ADD is served');
        break;
      default:
        break;
    }
  }

  /** Everything found, trouble first. */
  findings(): readonly Finding[] {
    const ranges = [...this.#networks.values()].flatMap(({ sets }) => sets.flat());
    for (const [subject, held] of this.#addresses) this.#judgeAddress(subject, held, ranges);
    for (const { id, addresses } of this.#attachments.values()) this.#judgeAttachment(id, addresses);
    for (const [subject, { listedBy }] of this.#addresses) {
      if (listedBy.length > 1)
        this.#trouble('two-holders', subject, `${listedBy.length} attachments list it: ${listedBy.join(' and ')}`);
    }
    this.#judgeCursors();
    const rank = ({ level }: Finding) => (level === 'trouble' ? 0 : 1);
    return this.#findings.toSorted((a, b) => rank(a) - rank(b));
  }

  #trouble(rule: Rule, subject: string, text: string): void {
    this.#findings.push({ level: 'trouble', rule, subject, text });
  }

  #note(rule: Rule, subject: string, text: string): void {
    this.#findings.push({ level: 'note', rule, subject, text });
  }

  #unknownKey(key: string): void {
    const sections = ['addresses', 'attachments', 'workloads', 'cursors', 'networks'];
    const isOurs = sections.includes(key.slice(this.#keys.prefix.length).split('/')[0]!);
    if (isOurs) this.#trouble('unknown-key', key, 'the key is none that kube-ipam writes there');
    else this.#note('unknown-key', key, 'this version does not know this key; a newer one may');
  }

  #addAddress({ ip }: Extract<ParsedKey, { type: 'address' }>, entry: Entry): void {
    const owner = parseOwner(entry.value);
    const subject = formatIp(ip);
    this.#addresses.set(subject, { ip, owner: { ...owner, ...forgotten }, listedBy: none });
    if (owner.kind !== 'unknown') return;
    if (typeof owner.raw.kind === 'string') {
      const kind = JSON.stringify(owner.raw.kind);
      this.#note(
        'unknown-kind',
        subject,
        `its owner is of kind ${kind}, which this version does not know; the address counts as taken`,
      );
    } else {
      this.#trouble(
        'unreadable-value',
        subject,
        'its owner record cannot be read; the address counts as taken, and no DEL frees it',
      );
    }
  }

  #addAttachment(id: AttachmentId, entry: Entry): void {
    const addresses = parseAttachment(entry.value);
    this.#attachments.set(nameOf(id), { id, addresses });
    if (!isJsonObject(entry.value)) this.#trouble('unreadable-value', nameOf(id), 'the attachment cannot be read');
    else if (addresses.length === 0) this.#trouble('no-addresses', nameOf(id), 'the attachment names no address');
  }

  #addCursor({ network, set }: Extract<ParsedKey, { type: 'cursor' }>, { key, value }: Entry): void {
    this.#cursors.push({ key, network, set });
    if (parseIp(value) !== undefined) return;
    this.#note('unreadable-value', key, 'the cursor is no address; the next ADD begins at the start of its set');
  }

  #addNetwork(name: string, entry: Entry): void {
    const network = parseRecordedNetwork(name, entry.value);
    if (network !== undefined) this.#networks.set(name, network);
    else
      this.#trouble(
        'unreadable-value',
        `network ${name}`,
        'its recorded ranges cannot be read; "kube-ipam install" or the next ADD on an absent record writes them',
      );
  }

  #judgeAddress(subject: string, { ip, owner }: Held, ranges: readonly Range[]): void {
    if (owner.kind === 'dynamic' || owner.kind === 'fixed') this.#judgeOwner(subject, owner);
    // Reservations and Services may lie anywhere, and without any recorded range there is nothing to compare with.
    if (ranges.length === 0 || ['reserved', 'service', 'unknown'].includes(owner.kind)) return;
    // A fixed one may lie anywhere in a subnet, and a hold may be what is left of it.
    const isAnywhere = owner.kind === 'fixed' || owner.kind === 'held';
    if (ranges.some(range => rangeServes(range, ip) || (isAnywhere && cidrContains(range.subnet, ip)))) return;
    this.#trouble('outside-ranges', subject, 'it lies in no recorded range of its address space');
  }

  #judgeOwner(subject: string, owner: OwnerRecord): void {
    const attachment = this.#attachments.get(nameOf(owner));
    if (attachment === undefined) {
      this.#trouble(
        'no-attachment',
        subject,
        `it names an attachment that is not there: ${describeOwner(owner)}; no DEL frees it`,
      );
    } else if (!attachment.addresses.some(one => formatIp(one) === subject)) {
      this.#trouble('not-listed', subject, `its attachment does not list it: ${describeOwner(owner)}; no DEL frees it`);
    }
  }

  #judgeAttachment(id: AttachmentId, addresses: readonly Ip[]): void {
    for (const ip of addresses) {
      const held = this.#addresses.get(formatIp(ip));
      if (held === undefined) {
        this.#trouble(
          'no-record',
          nameOf(id),
          `it lists ${formatIp(ip)}, which has no owner: another container may be given it`,
        );
        continue;
      }
      held.listedBy = [...held.listedBy, nameOf(id)];
      if (['unknown', 'sticky'].includes(held.owner.kind) || namesAttachment(held.owner, id)) continue;
      this.#trouble(
        'other-owner',
        nameOf(id),
        `it lists ${formatIp(ip)}, which belongs to ${describeOwner(held.owner)}`,
      );
    }
  }

  #judgeCursors(): void {
    for (const { key, network, set } of this.#cursors) {
      if (this.#networks.get(network)?.sets.some(ranges => hasCursor(ranges, set))) continue;
      this.#note(
        'unknown-set',
        key,
        'the cursor of a set that is not recorded: left behind by a change of ranges, and harmless',
      );
    }
  }
}

/** Pods that only some ranges of a set serve have a cursor that is named by the ends of those. */
function hasCursor(ranges: RangeSet, name: string): boolean {
  const ends = ranges.map(range => endsOf([range]));
  const [from, to] = name.split('-');
  const start = ends.findIndex(({ first }) => orderedText(first) === from);
  return start >= 0 && ends.slice(start).some(({ last }) => orderedText(last) === to);
}

function nameOf({ node, network, containerID, ifname }: AttachmentId): string {
  return `${node}/${network}/${containerID}/${ifname}`;
}

function isJsonObject(value: string): boolean {
  try {
    const parsed: unknown = JSON.parse(value);
    return typeof parsed === 'object' && parsed !== null && !Array.isArray(parsed);
  } catch {
    return false;
  }
}
