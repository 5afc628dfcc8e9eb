// Examines the records of an address space and tells which of them cannot all be true. Pure.

import { cidrContains } from '../net/cidr.ts';
import { formatIp, type Ip, orderedText, parseIp } from '../net/ip.ts';
import { type AttachmentId, type Keys, type ParsedKey, parseKey, type WorkloadName } from '../store/keys.ts';
import type { Entry } from '../store/kv.ts';
import { describeOwner } from './describe.ts';
import {
  type Holder,
  isLentTo,
  isPlainAttachment,
  namesAttachment,
  type OwnerRecord,
  outlivesAttachment,
  parseAttachment,
  parseCluster,
  parseFormat,
  parseOwner,
  usersOf,
} from './model.ts';
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
  'no-workload',
  'not-listed',
  'not-kept',
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
  /** Workloads that do. */
  keptBy: readonly string[];
}

interface Attached {
  readonly id: AttachmentId;
  readonly addresses: readonly Ip[];
  /** Its DEL frees all of them unseen. */
  readonly plain: boolean;
}

/** What no rule looks at: a million records must fit into memory. */
const forgotten = Object.freeze({ machine: '', boot: '', netns: '' });
const nothing = Object.freeze({});
const none: readonly string[] = Object.freeze([]);

/** Takes the entries of one space, in any order, all of one revision. */
export class Examination {
  readonly #keys: Keys;
  readonly #addresses = new Map<string, Held>();
  readonly #attachments = new Map<string, Attached>();
  /** The addresses that each of them keeps. */
  readonly #workloads = new Map<string, readonly Ip[]>();
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
      case 'workload':
        this.#addWorkload(parsed, entry);
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
      case 'cluster':
        if (parseCluster(entry.value) !== undefined) break;
        this.#trouble('unreadable-value', entry.key, 'no ADD of a pod of this cluster is served: delete the key');
        break;
      default:
        break;
    }
  }

  /** Everything found, trouble first. */
  findings(): readonly Finding[] {
    const ranges = [...this.#networks.values()].flatMap(({ sets }) => sets.flat());
    for (const attached of this.#attachments.values()) this.#judgeAttachment(attached);
    for (const [subject, addresses] of this.#workloads) this.#judgeWorkload(subject, addresses);
    for (const [subject, held] of this.#addresses) this.#judgeAddress(subject, held, ranges);
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
    const holders = owner.holders.map(holder => ({ ...holder, ...forgotten }));
    this.#addresses.set(subject, {
      ip,
      owner: { ...owner, ...forgotten, holders, raw: nothing },
      listedBy: none,
      keptBy: none,
    });
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
    this.#attachments.set(nameOf(id), { id, addresses, plain: isPlainAttachment(entry.value) });
    if (!isJsonObject(entry.value)) this.#trouble('unreadable-value', nameOf(id), 'the attachment cannot be read');
    else if (addresses.length === 0) this.#trouble('no-addresses', nameOf(id), 'the attachment names no address');
  }

  #addWorkload({ cluster, network, workload, ifname }: Extract<ParsedKey, { type: 'workload' }>, entry: Entry): void {
    const subject = nameOfWorkload(cluster, network, workload, ifname);
    this.#workloads.set(subject, parseAttachment(entry.value));
    if (!isJsonObject(entry.value))
      this.#trouble('unreadable-value', subject, 'what the workload keeps cannot be read');
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

  #judgeAddress(subject: string, held: Held, ranges: readonly Range[]): void {
    const { ip, owner } = held;
    if (owner.kind === 'sticky') this.#judgeSticky(subject, held);
    else if (owner.kind === 'service') this.#judgeLoans(subject, held);
    else {
      for (const holder of owner.holders) this.#judgeHolder(subject, holder, owner);
      this.#judgeNumber(subject, held, 1);
    }
    // Reservations and Services may lie anywhere, and without any recorded range there is nothing to compare with.
    if (ranges.length === 0 || ['reserved', 'service', 'unknown'].includes(owner.kind)) return;
    // A fixed one may lie anywhere in a subnet, and a hold may be what is left of it.
    const isAnywhere = owner.kind === 'fixed' || owner.kind === 'held';
    if (ranges.some(range => rangeServes(range, ip) || (isAnywhere && cidrContains(range.subnet, ip)))) return;
    this.#trouble('outside-ranges', subject, 'it lies in no recorded range of its address space');
  }

  #judgeHolder(subject: string, holder: Holder, owner: OwnerRecord): void {
    const attached = this.#attachments.get(nameOf(holder));
    if (attached === undefined) {
      // Where etcd is out of space, a DEL can take away its attachment and not change the record of the workload.
      if (owner.kind === 'sticky') {
        const mend = 'the next pod of the workload, or gc, takes the place of the one that is gone';
        this.#note(
          'no-attachment',
          subject,
          `it names an attachment that is not there: ${describeOwner(owner)}; ${mend}`,
        );
        return;
      }
      this.#trouble(
        'no-attachment',
        subject,
        `it names an attachment that is not there: ${describeOwner(owner)}; no DEL frees it`,
      );
    } else if (!attached.addresses.some(one => formatIp(one) === subject)) {
      this.#trouble('not-listed', subject, `its attachment does not list it: ${describeOwner(owner)}; no DEL frees it`);
    }
  }

  #judgeSticky(subject: string, held: Held): void {
    const { owner, keptBy } = held;
    const { workload } = owner;
    for (const holder of owner.holders) this.#judgeHolder(subject, holder, owner);
    this.#judgeNumber(subject, held, workload?.kind === 'StatefulSet' ? 1 : 2);
    if (workload === undefined) {
      this.#note('unknown-kind', subject, `it is kept for ${describeOwner(owner)}`);
    } else if (!keptBy.includes(workloadOf(owner))) {
      const text = `its workload does not list it: ${describeOwner(owner)}; the next pod is given another address`;
      this.#trouble('no-workload', subject, text);
    }
  }

  /** A pool's address is listed once for each object that uses it; one that an object names itself, by none. */
  #judgeLoans(subject: string, { owner, listedBy }: Held): void {
    const users = owner.pool === undefined ? [] : usersOf(owner);
    if (users.length <= listedBy.length) return;
    const text = `fewer attachments list it than objects use it: ${describeOwner(owner)}; it is not given back to its pool`;
    this.#trouble('not-listed', subject, text);
  }

  /** Only a VM may have its address twice, while it migrates. */
  #judgeNumber(subject: string, { owner, listedBy }: Held, most: number): void {
    if (listedBy.length > most)
      this.#trouble('two-holders', subject, `${listedBy.length} attachments list it: ${listedBy.join(' and ')}`);
    else if (owner.holders.length > most)
      this.#trouble('two-holders', subject, `more of them have it than may: ${describeOwner(owner)}`);
  }

  #judgeAttachment({ id, addresses, plain }: Attached): void {
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
      if (held.owner.kind === 'unknown') continue;
      if (!namesAttachment(held.owner, id) && !isLentTo(held.owner, id)) {
        this.#trouble(
          'other-owner',
          nameOf(id),
          `it lists ${formatIp(ip)}, which belongs to ${describeOwner(held.owner)}`,
        );
      } else if (plain && outlivesAttachment(held.owner)) {
        this.#trouble('not-kept', nameOf(id), `its DEL would free ${formatIp(ip)}, which is to be kept or held then`);
      }
    }
  }

  #judgeWorkload(subject: string, addresses: readonly Ip[]): void {
    for (const ip of addresses) {
      const held = this.#addresses.get(formatIp(ip));
      if (held === undefined) {
        this.#trouble('no-record', subject, `it keeps ${formatIp(ip)}, which has no owner: anybody may be given it`);
        continue;
      }
      held.keptBy = [...held.keptBy, subject];
      if (held.owner.kind === 'unknown' || workloadOf(held.owner) === subject) continue;
      this.#trouble('other-owner', subject, `it keeps ${formatIp(ip)}, which belongs to ${describeOwner(held.owner)}`);
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

/** Of a sticky address the workload as its key names it; "" of any other. */
function workloadOf({ cluster, network, ifname, workload }: OwnerRecord): string {
  return workload === undefined ? '' : nameOfWorkload(cluster, network, workload, ifname);
}

function nameOfWorkload(cluster: string, network: string, workload: WorkloadName, ifname: string): string {
  return `${cluster}/${network}/${workload.namespace}/${workload.kind}/${workload.name}/${ifname}`;
}

function isJsonObject(value: string): boolean {
  try {
    const parsed: unknown = JSON.parse(value);
    return typeof parsed === 'object' && parsed !== null && !Array.isArray(parsed);
  } catch {
    return false;
  }
}
