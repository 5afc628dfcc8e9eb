// What an ADD reads: first its own keys and the cursors, then a window of each set; and how the answers are understood.

import type { Deadline } from '../../base/clock.ts';
import { code, FailureError } from '../../base/errors.ts';
import { type Ip, parseIp, sameIp } from '../../net/ip.ts';
import type { Span } from '../../net/span.ts';
import { type AttachmentId, formatKey, type Keys, parseKey } from '../../store/keys.ts';
import { type Answer, type Entry, groupAnswers, type Kv, type Query, type Snapshot } from '../../store/kv.ts';
import { freeIn, windowAfter } from '../candidates.ts';
import { currentFormat, parseAttachment, parseFormat } from '../model.ts';
import type { CursorMemory } from '../ports.ts';
import { endsOf } from '../records.ts';
import type { SetPlan } from './plan.ts';

/** The first read: who asks, and where each set stands. */
export interface Seen {
  /** performance.now() before the read: cursors grow old. */
  readonly at: number;
  /** The store's revision then. */
  readonly revision: number;
  readonly attachment: Entry | undefined;
  readonly fence: Entry | undefined;
  readonly format: Entry | undefined;
  readonly network: Entry | undefined;
  /** Which cluster the cluster's name stands for; undefined also where nobody asked. */
  readonly cluster: Entry | undefined;
  /** What the workload keeps; undefined also where there is none. */
  readonly workload: Entry | undefined;
  readonly cursors: readonly (Ip | undefined)[];
}

/** The second read, one item for each set: the requested address's record, or the free addresses of a window. */
export interface SetLook {
  readonly record?: Entry | undefined;
  readonly free: readonly Ip[];
}

/** All that an ADD reads before it chooses. */
export interface Found {
  readonly seen: Seen;
  /** The addresses that the attachment holds already, or that its workload keeps for it. */
  readonly held: readonly Ip[];
  /** Their records. */
  readonly owned: readonly Entry[];
  readonly windows: readonly (readonly Span[])[];
  readonly looks: readonly SetLook[];
  /** The store's revision when the windows were read. */
  readonly revision: number;
}

/** Keys that only an ADD of a known pod reads. */
export interface PodKeys {
  readonly cluster?: string;
  readonly workload?: string;
}

export class Looker {
  readonly #keys: Keys;
  readonly #id: AttachmentId;
  readonly #plans: readonly SetPlan[];
  readonly #podKeys: PodKeys;

  constructor(keys: Keys, id: AttachmentId, plans: readonly SetPlan[], podKeys: PodKeys = {}) {
    this.#keys = keys;
    this.#id = id;
    this.#plans = plans;
    this.#podKeys = podKeys;
  }

  cursorKey(plan: SetPlan): string {
    const { first, last } = endsOf(plan.set);
    return this.#keys.cursor(this.#id.network, first, last);
  }

  seenQueries(): Query[] {
    const own = [this.#keys.attachment(this.#id), this.#keys.fence(this.#id), formatKey];
    const { cluster, workload } = this.#podKeys;
    const ofPod = [cluster, workload].filter(key => key !== undefined);
    const cursors = this.#plans.map(plan => this.cursorKey(plan));
    return [...own, this.#keys.network(this.#id.network), ...ofPod, ...cursors].map(key => ({ key }));
  }

  /** Understands the answers to `seenQueries`. Throws code 101 for a store that only newer programs may write. */
  seen({ revision, answers }: Snapshot, at: number): Seen {
    const [attachment, fence, format, network, ...rest] = answers.map(({ entries }) => entries[0]);
    refuseNewerFormat(format);
    const cluster = this.#podKeys.cluster === undefined ? undefined : rest.shift();
    const workload = this.#podKeys.workload === undefined ? undefined : rest.shift();
    return { at, revision, attachment, fence, format, network, cluster, workload, cursors: rest.map(cursorOf) };
  }

  async readSeen(kv: Kv, deadline: Deadline): Promise<Seen> {
    const at = performance.now();
    return this.seen(await kv.read(this.seenQueries(), deadline), at);
  }

  /**
   * Both reads. They are one where no window depends on a cursor, or where the cursors are as `memory` expects them, and
   * the attachment holds nothing.
   */
  async find(kv: Kv, deadline: Deadline, memory: CursorMemory | undefined): Promise<Found> {
    const at = performance.now();
    const expected = this.#plans.map(plan => (plan.requested ? undefined : memory?.expected(this.cursorKey(plan))));
    const isKnown = (i: number, cursor: Ip | undefined) => this.#plans[i]!.requested || cursor !== undefined;
    const guessed = expected.every((cursor, i) => isKnown(i, cursor)) ? this.windows(expected, 0) : undefined;
    const seenQueries = this.seenQueries();
    const first = await kv.read([...seenQueries, ...(guessed ? this.lookQueries(guessed) : [])], deadline);
    const seen = this.seen({ ...first, answers: first.answers.slice(0, seenQueries.length) }, at);
    for (const [i, plan] of this.#plans.entries()) memory?.saw(this.cursorKey(plan), seen.cursors[i]);
    const held = this.held(seen);
    const isRight = (cursor: Ip | undefined, i: number) =>
      this.#plans[i]!.requested || sameCursor(cursor, seen.cursors[i]);
    if (guessed !== undefined && held.length === 0 && expected.every(isRight)) {
      const looks = this.look(guessed, first.answers.slice(seenQueries.length));
      return { seen, held, owned: [], windows: guessed, looks, revision: first.revision };
    }
    const windows = this.windows(seen.cursors, held.length);
    const lookQueries = this.lookQueries(windows);
    const heldQueries = held.map(ip => ({ key: this.#keys.address(ip) }));
    const { answers, revision } = await kv.read([...lookQueries, ...heldQueries], deadline);
    const owned = answers.slice(lookQueries.length).flatMap(({ entries }) => entries);
    return { seen, held, owned, windows, looks: this.look(windows, answers.slice(0, lookQueries.length)), revision };
  }

  /** The spans to read of each set, behind its cursor; none where an address was requested. */
  windows(cursors: readonly (Ip | undefined)[], held: number): Span[][] {
    // All queries of a lost commit's `otherwise` must fit into one transaction of etcd.
    const room = 120 - 6 - this.#plans.length - held;
    const mostSpans = Math.max(1, Math.min(16, Math.floor(room / this.#plans.length)));
    return this.#plans.map((plan, i) => (plan.requested ? [] : windowAfter(plan.ring, cursors[i], mostSpans)));
  }

  lookQueries(windows: readonly (readonly Span[])[]): Query[] {
    return this.#plans.flatMap((plan, i): Query[] =>
      plan.requested
        ? [{ key: this.#keys.address(plan.requested) }]
        : windows[i]!.map(span => ({ ...this.#keys.addressSpan(span), keysOnly: true })),
    );
  }

  look(windows: readonly (readonly Span[])[], answers: readonly Answer[]): SetLook[] {
    const sizes = this.#plans.map((plan, i) => (plan.requested ? 1 : windows[i]!.length));
    return groupAnswers(answers, sizes).map((own, i) => {
      const entries = own.flatMap(answer => answer.entries);
      if (this.#plans[i]!.requested) return { record: entries[0], free: [] };
      return { free: freeIn(windows[i]!, takenOf(entries)) };
    });
  }

  /** The addresses that the attachment holds already, or that its workload keeps for it. */
  held({ attachment, workload }: Seen): Ip[] {
    const listed = [attachment, workload].flatMap(entry => parseAttachment(entry?.value ?? '{}'));
    return listed.filter((ip, i) => listed.findIndex(other => sameIp(other, ip)) === i);
  }
}

function sameCursor(a: Ip | undefined, b: Ip | undefined): boolean {
  return a !== undefined && b !== undefined && sameIp(a, b);
}

export function refuseNewerFormat(entry: Entry | undefined): void {
  if (entry === undefined) return;
  const format = parseFormat(entry.value);
  if (format !== undefined && format.minReader <= currentFormat.format) return;
  throw new FailureError(
    code.newerFormat,
    `the store's format (${entry.value.slice(0, 100)}) is newer than this kube-ipam, which knows format ${currentFormat.format}: install the newer release on this node`,
  );
}

/** The addresses that the keys of some entries stand for. */
export function takenOf(entries: readonly Entry[]): Set<bigint> {
  const taken = new Set<bigint>();
  for (const { key } of entries) {
    const ip = ipOfKey(key);
    if (ip !== undefined) taken.add(ip.value);
  }
  return taken;
}

/** The address that an owner record is for. */
export function ipOfKey(key: string): Ip | undefined {
  const parsed = parseKey(key);
  return parsed?.type === 'address' ? parsed.ip : undefined;
}

/** A cursor's value is the address in plain text; one that cannot be read counts as none. */
function cursorOf(entry: Entry | undefined): Ip | undefined {
  return entry && parseIp(entry.value);
}
