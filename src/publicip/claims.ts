// Who owns which public address: the keys of agents, claims and release marks, watched and written (contract N4-N6).
import { type Deadline, deadlineIn, rest } from '../base/clock.ts';
import { code, FailureError, messageOf } from '../base/errors.ts';
import { isObject } from '../base/section.ts';
import { type OwnerRecord, parseOwner, type ServiceHolder } from '../ipam/model.ts';
import { isOfFeature, renderService, renewService } from '../ipam/records.ts';
import { parseIp } from '../net/ip.ts';
import { RelistError } from '../store/etcd/errors.ts';
import type { GrpcKv, KeptWrite, WatchBatch, WatchEvent } from '../store/etcd/grpc.ts';
import { Keys } from '../store/keys.ts';
import { afterPrefix, type Condition, type Entry, OutOfSpaceError } from '../store/kv.ts';
import { describeRecord } from './describe.ts';

/** What an agent says of itself under `<prefix>agents/<id>`. */
export interface AgentInfo {
  /** Name of its node in Kubernetes. */
  readonly node: string;
  readonly cluster: string;
  readonly machine: string;
  readonly boot: string;
  /** `<device>:<inode>` of its network namespace. */
  readonly netns: string;
  readonly version: string;
  /** Seconds of its lease. */
  readonly ttl: number;
  /** Whether its node may own addresses at all; if not, why. */
  readonly fit: boolean;
  readonly why?: string;
  /** Addresses that it cannot carry now. */
  readonly refuses?: readonly string[];
  /** Why, for people; not of all of them, as there may be many. */
  readonly reasons?: Readonly<Record<string, string>>;
}

export interface Owner {
  /** Id of the agent. */
  readonly id: string;
  readonly lease: string;
  readonly revision: number;
}

/** All that is claimed, at one revision. Times are milliseconds of performance.now(). */
export interface ClaimsView {
  readonly revision: number;
  /** By id. */
  readonly agents: ReadonlyMap<string, AgentInfo & { readonly lease: string; readonly revision: number }>;
  /** By address, as canonical text. */
  readonly owners: ReadonlyMap<string, Owner>;
  /** Addresses that were let go in order, by whom and, when directed, to whom; with the time at which that was seen. */
  readonly released: ReadonlyMap<string, Released>;
  /**
   * Addresses whose claim was seen to vanish: from when on another may claim it. At once, unless its former owner may
   * still answer for it (N4).
   */
  readonly freeFrom: ReadonlyMap<string, number>;
}

export type ClaimsEvent =
  /** Another agent, another state of one, or one that is gone. */
  | { readonly type: 'agent'; readonly id: string }
  /** Undefined: as it was or is not claimed. */
  | {
      readonly type: 'owner';
      readonly address: string;
      readonly before: Owner | undefined;
      readonly now: Owner | undefined;
    }
  | { readonly type: 'released'; readonly address: string }
  /** The watch is interrupted (why), or events flow again (undefined). */
  | { readonly type: 'connection'; readonly trouble: string | undefined };

export interface ClaimsOptions {
  /** Begins and ends with "/". */
  readonly prefix: string;
  /** This agent's id. */
  readonly id: string;
  /** Seconds for which a release mark stands. */
  readonly ttl: number;
  /** Where the owner records stand; undefined: in another store than the claims, so they are left alone. */
  readonly records?: { readonly space: string; readonly cluster: string } | undefined;
}

export type Claimed =
  | { readonly won: true; readonly revision: number }
  /** `lost`: why, for people. */
  | { readonly won: false; readonly lost: string; readonly reason: 'owned' | 'waiting' | 'taken' };

/** What is known at one revision. */
interface State {
  readonly agents: Map<string, AgentState>;
  readonly owners: Map<string, Owner>;
  readonly released: Map<string, Released>;
}

type AgentState = AgentInfo & { readonly lease: string; readonly revision: number };
type Released = { readonly id: string; readonly to?: string; readonly at: number; readonly revision: number };

/** Milliseconds until a watch that was refused, or a list that failed, is tried again. */
const tryAgainAfter = 1000;

/** Milliseconds for one list. */
const listTime = 5000;

/** Tries of a commit that loses to changes of keys which are ours all the same. */
const mostTries = 4;

/** Claims put on a new lease in one commit. */
const batchOfAdoption = 50;

export class Claims implements AsyncDisposable {
  readonly #kv: GrpcKv;
  readonly #options: ClaimsOptions;
  readonly #keys: Keys | undefined;
  readonly #closing = new AbortController();
  readonly #listeners: ((view: ClaimsView, events: readonly ClaimsEvent[]) => void)[] = [];
  readonly #freeFrom = new Map<string, number>();
  /** Keys that this process wrote, and the revision: the watch brings what is older later. */
  readonly #ahead = new Map<string, number>();
  #state: State = { agents: new Map(), owners: new Map(), released: new Map() };
  #revision = 0;
  #view: ClaimsView | undefined;
  #watching: Promise<void> = Promise.resolve();
  /** The lease on which this agent's key stands, and the one of the earlier process that it was taken over from. */
  #lease: string | undefined;
  #formerLease: string | undefined;
  #markLease: { readonly id: Promise<string>; readonly until: number } | undefined;

  /** Reads everything, then watches. Throws what the store throws. */
  static async open(kv: GrpcKv, options: ClaimsOptions, deadline: Deadline): Promise<Claims> {
    const claims = new Claims(kv, options);
    await claims.refresh(deadline);
    claims.#watching = claims.#watch();
    return claims;
  }

  private constructor(kv: GrpcKv, options: ClaimsOptions) {
    this.#kv = kv;
    this.#options = options;
    this.#keys = options.records && new Keys(options.records.space);
  }

  view(): ClaimsView {
    this.#view ??= {
      revision: this.#revision,
      agents: new Map(this.#state.agents),
      owners: new Map(this.#state.owners),
      released: new Map(this.#state.released),
      freeFrom: new Map(this.#freeFrom),
    };
    return this.#view;
  }

  /** Called after each change, with the view that has it. Must not throw. */
  onChange(listener: (view: ClaimsView, events: readonly ClaimsEvent[]) => void): void {
    this.#listeners.push(listener);
  }

  /** Everything read again, now, from a quorum: what a view is worth after a fence. */
  async refresh(deadline: Deadline): Promise<ClaimsView> {
    const { found, revision } = await this.#list(deadline);
    // The watch may have been quicker, and knows all that the list does.
    if (revision >= this.#revision) this.#replace(found, revision);
    return this.view();
  }
  /**
   * Puts this agent's key on the lease, or renews what it says. An agent of the same machine, boot and network namespace
   * is an earlier process of this one (its lock is ours) and is replaced; any other that lives has the id.
   */
  async register(
    lease: string,
    info: AgentInfo,
    deadline: Deadline,
  ): Promise<'done' | { readonly inUseBy: AgentInfo }> {
    const key = this.#agentKey(this.#options.id);
    const value = JSON.stringify(info);
    let there = this.#state.agents.get(this.#options.id);
    for (let tries = 1; ; tries++) {
      if (there !== undefined && there.lease !== lease && !isSamePlace(there, info)) return { inUseBy: there };
      const result = await this.#kv.commit(
        { conditions: [asSeen(key, there?.revision)], writes: [{ put: key, value, lease }], otherwise: [{ key }] },
        deadline,
      );
      if (result.won) {
        if (there !== undefined && there.lease !== lease) this.#formerLease = there.lease;
        this.#lease = lease;
        this.#wrote([{ key, value, lease, revision: result.revision, created: result.revision }], [], result.revision);
        return 'done';
      }
      if (tries === mostTries) throw busy(`the key of agent ${this.#options.id}`);
      const [entry] = result.answers[0]!.entries;
      there = entry && agentOf(entry);
    }
  }

  /**
   * One transaction: the claim is absent, or ours on this lease; the address belongs to nobody else (design 5). A claim
   * of unknown fate throws UnknownFateError: the watch tells what became of it.
   */
  async claim(address: string, lease: string, holder: ServiceHolder, deadline: Deadline): Promise<Claimed> {
    const wait = (this.#freeFrom.get(address) ?? 0) - performance.now();
    if (wait > 0) {
      const lost = `its claim was deleted under its owner, who may answer for ${Math.ceil(wait / 1000)} s more`;
      return { won: false, lost, reason: 'waiting' };
    }
    const { id } = this.#options;
    const key = this.#claimKey(address);
    const recordKey = this.#recordKey(address);
    const otherwise = [key, ...(recordKey === undefined ? [] : [recordKey])].map(one => ({ key: one }));
    let owner = this.#state.owners.get(address);
    let record: Entry | undefined;
    for (let tries = 1; ; tries++) {
      if (owner !== undefined && (owner.id !== id || owner.lease !== lease)) {
        return { won: false, lost: `agent ${owner.id} owns it`, reason: 'owned' };
      }
      const kept = record && parseOwner(record.value);
      const { cluster = '' } = this.#options.records ?? {};
      if (kept !== undefined && !isOfFeature(kept, 'public-ip', cluster)) {
        return { won: false, lost: `it belongs to ${describeRecord(kept)}`, reason: 'taken' };
      }
      const conditions = [asSeen(key, owner?.revision)];
      // The mark of an earlier release must not pass for one of this claim.
      const writes: KeptWrite[] = [{ put: key, value: id, lease }, { delete: this.#markKey(address) }];
      if (recordKey !== undefined) {
        conditions.push(asSeen(recordKey, record?.revision));
        const value = recordFor(kept, holder, cluster);
        if (value !== undefined) writes.push({ put: recordKey, value });
      }
      const result = await this.#kv.commit({ conditions, writes, otherwise }, deadline);
      if (result.won) {
        const { revision } = result;
        this.#wrote([{ key, value: id, lease, revision, created: revision }], [this.#markKey(address)], revision);
        return { won: true, revision };
      }
      if (tries === mostTries) throw busy(`the claim of ${address}`);
      const [claim] = result.answers[0]!.entries;
      owner = claim && ownerOf(claim);
      record = result.answers[1]?.entries[0];
    }
  }

  /**
   * Deletes this agent's claim, and says in the same commit that it was let go. False: it was not ours any more. The
   * address must have been verified to be gone from here.
   */
  async release(address: string, { to }: { readonly to?: string }, deadline: Deadline): Promise<boolean> {
    const { id } = this.#options;
    const key = this.#claimKey(address);
    const mark = this.#markKey(address);
    const value = to === undefined ? id : `${id}>${to}`;
    let owner = this.#state.owners.get(address);
    for (let tries = 1; ; tries++) {
      // What stands on another lease is another process's, whatever its id.
      if (owner === undefined || owner.id !== id || owner.lease !== this.#lease) return false;
      const lease = await this.#leaseOfMarks(deadline);
      const result = await this.#kv.commit(
        {
          conditions: [asSeen(key, owner.revision)],
          writes: [{ delete: key }, ...(lease === undefined ? [] : [{ put: mark, value, lease }])],
          otherwise: [{ key }],
        },
        deadline,
      );
      if (result.won) {
        const { revision } = result;
        const put = lease === undefined ? [] : [{ key: mark, value, lease, revision, created: revision }];
        this.#wrote(put, [key], revision);
        return true;
      }
      if (tries === mostTries) throw busy(`the claim of ${address}`);
      const [claim] = result.answers[0]!.entries;
      owner = claim && ownerOf(claim);
    }
  }

  /**
   * Conditions of a commit that lets others have the address: nobody claims it, and nobody has just let it go (N6).
   * Undefined while somebody may answer for it still, and where the owner records stand in another store.
   */
  unclaimed(address: string): readonly Condition[] | undefined {
    if (this.#keys === undefined || (this.#freeFrom.get(address) ?? 0) > performance.now()) return undefined;
    return [{ absent: this.#claimKey(address) }, { absent: this.#markKey(address) }];
  }

  /**
   * Deletes the owner record of an address that no Service wants. False: it is claimed, just released, or not ours to
   * delete (a pool's allocator frees what the pool gave).
   */
  async forget(address: string, deadline: Deadline): Promise<boolean> {
    const recordKey = this.#recordKey(address);
    const unclaimed = this.unclaimed(address);
    if (recordKey === undefined || unclaimed === undefined) return false;
    const [record] = (await this.#kv.read([{ key: recordKey }], deadline)).answers[0]!.entries;
    const owner = record && parseOwner(record.value);
    if (record === undefined || owner === undefined || owner.pool !== undefined) return false;
    if (!isOfFeature(owner, 'public-ip', this.#options.records!.cluster)) return false;
    const conditions = [...unclaimed, { unchanged: recordKey, revision: record.revision }];
    return (await this.#kv.commit({ conditions, writes: [{ delete: recordKey }] }, deadline)).won;
  }

  /**
   * Puts what an earlier process of this agent had claimed on this lease; returns those addresses (N5). To be called
   * after `register`, and before anything is done to gate or addresses.
   */
  async adopt(lease: string, deadline: Deadline): Promise<readonly string[]> {
    const { id } = this.#options;
    const former = this.#formerLease;
    // Only what stood on the lease of the agent that was replaced was claimed on this machine, by that process.
    const left = [...this.#state.owners].filter(([, owner]) => owner.id === id && owner.lease === former);
    const adopted: string[] = [];
    for (let start = 0; start < left.length; start += batchOfAdoption) {
      const batch = left.slice(start, start + batchOfAdoption);
      if (await this.#adoptBatch(batch, lease, deadline)) adopted.push(...batch.map(([address]) => address));
      // One of them was changed by somebody: the others are adopted all the same.
      else for (const one of batch) if (await this.#adoptBatch([one], lease, deadline)) adopted.push(one[0]);
    }
    this.#formerLease = undefined;
    return adopted;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort();
    await this.#watching;
  }

  async #adoptBatch(
    claims: readonly (readonly [string, Owner])[],
    lease: string,
    deadline: Deadline,
  ): Promise<boolean> {
    const { id } = this.#options;
    const conditions = claims.map(([address, owner]) => asSeen(this.#claimKey(address), owner.revision));
    const writes = claims.map(([address]) => ({ put: this.#claimKey(address), value: id, lease }));
    const result = await this.#kv.commit({ conditions, writes }, deadline);
    if (!result.won) return false;
    const { revision } = result;
    this.#wrote(
      writes.map(({ put }) => ({ key: put, value: id, lease, revision, created: revision })),
      [],
      revision,
    );
    return true;
  }

  /** One lease for the marks of many releases; undefined where etcd is too full for marks: deletes pass even then. */
  async #leaseOfMarks(deadline: Deadline): Promise<string | undefined> {
    const { ttl } = this.#options;
    if (this.#markLease === undefined || this.#markLease.until < performance.now()) {
      const id = this.#kv.grant(2 * ttl, deadline).then(granted => granted.id);
      this.#markLease = { id, until: performance.now() + ttl * 1000 };
    }
    try {
      return await this.#markLease.id;
    } catch (error) {
      this.#markLease = undefined;
      if (error instanceof OutOfSpaceError) return undefined;
      throw error;
    }
  }

  async #list(deadline: Deadline): Promise<{ found: Entry[]; revision: number }> {
    const { prefix } = this.#options;
    const found: Entry[] = [];
    let revision = 0;
    for await (const page of this.#kv.scan(prefix, afterPrefix(prefix), deadline)) {
      revision = page.revision;
      found.push(...page.entries);
    }
    // A prefix without keys has no page, and so no revision.
    if (revision === 0) revision = (await this.#kv.read([{ key: prefix }], deadline)).revision;
    return { found, revision };
  }

  async #watch(): Promise<void> {
    const { signal } = this.#closing;
    while (!signal.aborted) {
      try {
        return await this.#follow(signal);
      } catch (error) {
        if (signal.aborted) return;
        if (!(error instanceof FailureError)) throw error;
        await this.#recover(error, signal);
      }
    }
  }

  async #follow(signal: AbortSignal): Promise<void> {
    const onState = (state: { readonly connected: boolean; readonly reason?: string }) =>
      this.#tell([{ type: 'connection', trouble: state.connected ? undefined : (state.reason ?? 'not connected') }]);
    for await (const batch of this.#kv.watch(this.#options.prefix, this.#revision + 1, { signal, onState })) {
      this.#take(batch);
    }
  }

  /** The watch cannot go on from where it was: everything is read anew, however long it takes to be able to. */
  async #recover(error: FailureError, signal: AbortSignal): Promise<void> {
    if (!(error instanceof RelistError)) {
      this.#tell([{ type: 'connection', trouble: messageOf(error) }]);
      await rest(tryAgainAfter, signal);
    }
    try {
      // Whatever its revision: a store that was restored from a backup counts from an earlier one.
      const { found, revision } = await this.#list(deadlineIn(listTime));
      this.#replace(found, revision);
    } catch (failure) {
      if (!(failure instanceof FailureError)) throw failure;
      this.#tell([{ type: 'connection', trouble: messageOf(failure) }]);
      await rest(tryAgainAfter, signal);
    }
  }

  /** A batch of the watch; each commit as a whole, so that a deleted claim is judged with what was written beside it. */
  #take({ events, revision }: WatchBatch): void {
    const told: ClaimsEvent[] = [];
    for (const commit of byRevision(events)) {
      const news = commit.filter(
        event => revisionOf(event) > Math.max(this.#revision, this.#ahead.get(keyOf(event)) ?? 0),
      );
      told.push(...this.#apply(news));
    }
    this.#revision = Math.max(this.#revision, revision);
    for (const [key, written] of this.#ahead) if (written <= this.#revision) this.#ahead.delete(key);
    this.#tell(told);
  }

  /** What this process has just written itself is known before the watch tells. */
  #wrote(puts: readonly Entry[], deleted: readonly string[], revision: number): void {
    const keys = [...puts.map(({ key }) => key), ...deleted];
    // The watch, or a list, was quicker.
    const late = keys.filter(key => revision > Math.max(this.#revision, this.#ahead.get(key) ?? 0));
    for (const key of late) this.#ahead.set(key, revision);
    const events = [
      ...puts.map(entry => ({ type: 'put', entry }) as const),
      ...deleted.map(key => ({ type: 'delete', key, revision }) as const),
    ];
    this.#tell(this.#apply(events.filter(event => late.includes(keyOf(event)))));
  }

  /** A list: what is not in it is gone. */
  #replace(found: readonly Entry[], revision: number): void {
    if (revision < this.#revision) this.#ahead.clear();
    const there = new Set(found.map(({ key }) => key));
    const known = [
      ...[...this.#state.agents.keys()].map(id => this.#agentKey(id)),
      ...[...this.#state.owners.keys()].map(address => this.#claimKey(address)),
      ...[...this.#state.released.keys()].map(address => this.#markKey(address)),
    ];
    const events: WatchEvent[] = [
      ...found.map(entry => ({ type: 'put', entry }) as const),
      ...known.filter(key => !there.has(key)).map(key => ({ type: 'delete', key, revision }) as const),
    ];
    const told = this.#apply(events.filter(event => revision >= (this.#ahead.get(keyOf(event)) ?? 0)));
    this.#revision = revision;
    this.#tell(told);
  }

  /** Events of one commit, or the difference between two lists: agents and marks first, by which claims are judged. */
  #apply(events: readonly WatchEvent[]): ClaimsEvent[] {
    const parsed = events.flatMap(event => {
      const [kind, name] = this.#parse(keyOf(event));
      return kind === undefined ? [] : [{ kind, name, entry: event.type === 'put' ? event.entry : undefined }];
    });
    const of = (kind: string) => parsed.filter(one => one.kind === kind);
    if (parsed.length > 0) this.#view = undefined;
    return [
      ...of('agents').map(({ name, entry }) => this.#setAgent(name, entry)),
      ...of('released').map(({ name, entry }) => this.#setReleased(name, entry)),
      ...of('publicips').flatMap(({ name, entry }) => this.#setOwner(name, entry)),
    ];
  }

  #setAgent(id: string, entry: Entry | undefined): ClaimsEvent {
    const agent = entry && agentOf(entry);
    if (agent === undefined) this.#state.agents.delete(id);
    else this.#state.agents.set(id, agent);
    return { type: 'agent', id };
  }

  #setReleased(address: string, entry: Entry | undefined): ClaimsEvent {
    if (entry === undefined) this.#state.released.delete(address);
    else {
      const [id = '', to] = entry.value.split('>');
      const at = this.#state.released.get(address)?.at ?? performance.now();
      this.#state.released.set(address, { id, ...(to && { to }), at, revision: entry.revision });
    }
    return { type: 'released', address };
  }

  #setOwner(address: string, entry: Entry | undefined): ClaimsEvent[] {
    const before = this.#state.owners.get(address);
    const now = entry && ownerOf(entry);
    if (now === undefined) {
      if (before === undefined) return [];
      this.#state.owners.delete(address);
      this.#freeFrom.set(address, performance.now() + this.#mayAnswerFor(address, before));
    } else {
      if (before?.revision === now.revision) return [];
      this.#state.owners.set(address, now);
      this.#freeFrom.delete(address);
    }
    return [{ type: 'owner', address, before, now }];
  }

  /**
   * For how many milliseconds the owner of a claim that vanished may go on answering. Not at all where it let the address
   * go in order, or where its lease has ended, which it counts from an earlier moment than etcd; else somebody deleted
   * the claim under a living owner, who stops at the latest when its next renewal shows that the claim is not there.
   */
  #mayAnswerFor(address: string, former: Owner): number {
    const mark = this.#state.released.get(address);
    // Its own drop is this agent's own work, which comes before any new claim.
    if (former.id === this.#options.id && former.lease === this.#lease) return 0;
    if (mark?.id === former.id && mark.revision > former.revision) return 0;
    const agent = this.#state.agents.get(former.id);
    return agent?.lease === former.lease ? agent.ttl * 1000 : 0;
  }

  #tell(events: readonly ClaimsEvent[]): void {
    if (events.length === 0) return;
    const view = this.view();
    for (const listener of this.#listeners) listener(view, events);
  }

  #agentKey(id: string): string {
    return `${this.#options.prefix}agents/${id}`;
  }

  #claimKey(address: string): string {
    return `${this.#options.prefix}publicips/${address}`;
  }

  #markKey(address: string): string {
    return `${this.#options.prefix}released/${address}`;
  }

  #recordKey(address: string): string | undefined {
    return this.#keys?.address(parseIp(address)!);
  }

  /** Keys of others under the prefix are none of this program's business. */
  #parse(key: string): ['agents' | 'publicips' | 'released' | undefined, string] {
    const [kind = '', name = '', ...more] = key.slice(this.#options.prefix.length).split('/');
    const known = (['agents', 'publicips', 'released'] as const).find(one => one === kind);
    return name === '' || more.length > 0 ? [undefined, name] : [known, name];
  }
}

function asSeen(key: string, revision: number | undefined): Condition {
  return revision === undefined ? { absent: key } : { unchanged: key, revision };
}

function busy(what: string): FailureError {
  return new FailureError(code.tryAgain, `${what} is changed by others all the time: it is tried again`);
}

/** Whether both can only be processes of one place, one after the other: its lock keeps the second one out. */
function isSamePlace(a: AgentInfo, b: AgentInfo): boolean {
  return a.machine !== '' && a.machine === b.machine && a.boot === b.boot && a.netns === b.netns;
}

function ownerOf({ value, lease = '', revision }: Entry): Owner {
  return { id: value, lease, revision };
}

/** A value that cannot be read is an agent of which nothing is known but that it lives: it may own nothing. */
function agentOf({ value, lease = '', revision }: Entry): AgentState {
  const { node, cluster, machine, boot, netns, version, ttl, fit, why, refuses, reasons } = fieldsOf(value);
  const text = (field: unknown): string => (typeof field === 'string' ? field : '');
  return {
    node: text(node),
    cluster: text(cluster),
    machine: text(machine),
    boot: text(boot),
    netns: text(netns),
    version: text(version),
    ttl: typeof ttl === 'number' && ttl > 0 ? ttl : unknownTtl,
    fit: fit === true,
    ...(typeof why === 'string' && { why }),
    ...(Array.isArray(refuses) && { refuses: refuses.filter(one => typeof one === 'string') }),
    ...(isObject(reasons) && {
      reasons: Object.fromEntries(Object.entries(reasons).map(([address, reason]) => [address, text(reason)])),
    }),
    lease,
    revision,
  };
}

/** Seconds that an agent may need to stop, when it does not say. */
const unknownTtl = 60;

function fieldsOf(value: string): Readonly<Record<string, unknown>> {
  try {
    const parsed: unknown = JSON.parse(value);
    return isObject(parsed) ? parsed : {};
  } catch {
    return {};
  }
}

/** The record to be written with a claim; undefined: it stays as it is. A pool's record is its allocator's to change. */
function recordFor(kept: OwnerRecord | undefined, holder: ServiceHolder, cluster: string): string | undefined {
  if (kept === undefined) return renderService(holder, { cluster }, Date.now());
  return kept.pool !== undefined || kept.holder?.uid === holder.uid ? undefined : renewService(kept, holder);
}

function byRevision(events: readonly WatchEvent[]): WatchEvent[][] {
  return [...Map.groupBy(events, revisionOf).values()];
}

function revisionOf(event: WatchEvent): number {
  return event.type === 'put' ? event.entry.revision : event.revision;
}

function keyOf(event: WatchEvent): string {
  return event.type === 'put' ? event.entry.key : event.key;
}
