// Who owns which public address: the keys of agents, claims and release marks, watched and written (contract N4-N6).
import { type Deadline, deadlineIn, rest } from '../base/clock.ts';
import { code, FailureError, messageOf } from '../base/errors.ts';
import { type OwnerRecord, parseOwner, type ServiceHolder } from '../ipam/model.ts';
import { isOfFeature, renderService, renewService } from '../ipam/records.ts';
import { parseIp } from '../net/ip.ts';
import { RelistError } from '../store/etcd/errors.ts';
import type { GrpcKv, KeptWrite } from '../store/etcd/grpc.ts';
import { Keys } from '../store/keys.ts';
import { afterPrefix, type Condition, type Entry, OutOfSpaceError } from '../store/kv.ts';
import {
  type AgentInfo,
  agentOf,
  ClaimKeys,
  type ClaimsEvent,
  ClaimsState,
  type ClaimsView,
  type Owner,
  ownerOf,
} from './claims-state.ts';
import { describeRecord } from './describe.ts';

export type { AgentInfo, ClaimsEvent, ClaimsView, Owner } from './claims-state.ts';

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

/** Milliseconds until a watch that was refused, or a list that failed, is tried again. */
const tryAgainAfter = 1000;

/** Milliseconds for one list. */
const listTime = 5000;

/** Tries of a commit that loses to changes of keys which are ours all the same. */
const mostTries = 4;

/** Seconds for which an owner is asked to hand an address over. */
const wishTime = 30;

/** Claims put on a new lease in one commit. */
const batchOfAdoption = 50;

export class Claims implements AsyncDisposable {
  readonly #kv: GrpcKv;
  readonly #options: ClaimsOptions;
  readonly #keys: ClaimKeys;
  /** Of the owner records. */
  readonly #recordKeys: Keys | undefined;
  readonly #state: ClaimsState;
  readonly #closing = new AbortController();
  readonly #listeners: ((view: ClaimsView, events: readonly ClaimsEvent[]) => void)[] = [];
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
    this.#keys = new ClaimKeys(options.prefix);
    this.#recordKeys = options.records && new Keys(options.records.space);
    this.#state = new ClaimsState(this.#keys, owner => this.#isOwn(owner));
  }

  view(): ClaimsView {
    return this.#state.view;
  }

  /** Called after each change, with the view that has it. Must not throw. */
  onChange(listener: (view: ClaimsView, events: readonly ClaimsEvent[]) => void): void {
    this.#listeners.push(listener);
  }

  /** Everything read again, now, from a quorum: what a view is worth after a fence. */
  async refresh(deadline: Deadline): Promise<ClaimsView> {
    const { found, revision } = await this.#list(deadline);
    // The watch may have been quicker, and knows all that the list does.
    if (revision >= this.#state.revision) this.#tell(this.#state.replace(found, revision));
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
    const key = this.#keys.agent(this.#options.id);
    const value = JSON.stringify(info);
    let there = this.#state.agent(this.#options.id);
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
    const wait = this.#state.waitFor(address);
    if (wait > 0) {
      const lost = `its claim was deleted under its owner, who may answer for ${Math.ceil(wait / 1000)} s more`;
      return { won: false, lost, reason: 'waiting' };
    }
    const { id } = this.#options;
    const key = this.#keys.claim(address);
    const recordKey = this.#recordKey(address);
    const otherwise = [key, ...(recordKey === undefined ? [] : [recordKey])].map(one => ({ key: one }));
    let owner = this.#state.owner(address);
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
      const writes: KeptWrite[] = [{ put: key, value: id, lease }, { delete: this.#keys.mark(address) }];
      if (recordKey !== undefined) {
        conditions.push(asSeen(recordKey, record?.revision));
        const value = recordFor(kept, holder, cluster);
        if (value !== undefined) writes.push({ put: recordKey, value });
      }
      const result = await this.#kv.commit({ conditions, writes, otherwise }, deadline);
      if (result.won) {
        const { revision } = result;
        this.#wrote([{ key, value: id, lease, revision, created: revision }], [this.#keys.mark(address)], revision);
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
    const key = this.#keys.claim(address);
    const mark = this.#keys.mark(address);
    const value = to === undefined ? id : `${id}>${to}`;
    let owner = this.#state.owner(address);
    for (let tries = 1; ; tries++) {
      if (owner === undefined || !this.#isOwn(owner)) return false;
      const lease = await this.#leaseOfMarks(deadline);
      const result = await this.#kv.commit(
        {
          conditions: [asSeen(key, owner.revision)],
          writes: [
            { delete: key },
            { delete: this.#keys.move(address) },
            ...(lease === undefined ? [] : [{ put: mark, value, lease }]),
          ],
          otherwise: [{ key }],
        },
        deadline,
      );
      if (result.won) {
        const { revision } = result;
        const put = lease === undefined ? [] : [{ key: mark, value, lease, revision, created: revision }];
        this.#wrote(put, [key, this.#keys.move(address)], revision);
        return true;
      }
      if (tries === mostTries) throw busy(`the claim of ${address}`);
      const [claim] = result.answers[0]!.entries;
      owner = claim && ownerOf(claim);
    }
  }

  /**
   * Asks the owner to hand the address over: to the agent of that id, or to whichever is next in line. The wish goes with
   * the hand-over, or after half a minute. False: nobody owns the address, or that agent does.
   */
  async askToMove(address: string, to: string | undefined, deadline: Deadline): Promise<boolean> {
    const key = this.#keys.claim(address);
    const [claim] = (await this.#kv.read([{ key }], deadline)).answers[0]!.entries;
    if (claim === undefined || claim.value === to) return false;
    const conditions = [asSeen(key, claim.revision)];
    const writes = [{ put: this.#keys.move(address), value: to ?? '', ttl: wishTime }];
    return (await this.#kv.commit({ conditions, writes }, deadline)).won;
  }

  /**
   * Conditions of a commit that lets others have the address: nobody claims it, and nobody has just let it go (N6).
   * Undefined while somebody may answer for it still, and where the owner records stand in another store.
   */
  unclaimed(address: string): readonly Condition[] | undefined {
    if (this.#recordKeys === undefined || this.#state.waitFor(address) > 0) return undefined;
    return [{ absent: this.#keys.claim(address) }, { absent: this.#keys.mark(address) }];
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
    const left = [...this.view().owners].filter(([, owner]) => owner.id === id && owner.lease === former);
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
    const conditions = claims.map(([address, owner]) => asSeen(this.#keys.claim(address), owner.revision));
    const writes = claims.map(([address]) => ({ put: this.#keys.claim(address), value: id, lease }));
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
    const { prefix } = this.#keys;
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
    for await (const batch of this.#kv.watch(this.#keys.prefix, this.#state.revision + 1, { signal, onState })) {
      this.#tell(this.#state.take(batch));
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
      this.#tell(this.#state.replace(found, revision));
    } catch (failure) {
      if (!(failure instanceof FailureError)) throw failure;
      this.#tell([{ type: 'connection', trouble: messageOf(failure) }]);
      await rest(tryAgainAfter, signal);
    }
  }

  #recordKey(address: string): string | undefined {
    return this.#recordKeys?.address(parseIp(address)!);
  }

  /** Of this process: what stands on another lease is another process's, whatever its id. */
  #isOwn({ id, lease }: Owner): boolean {
    return id === this.#options.id && lease === this.#lease;
  }

  /** What this process has just written itself is known before the watch tells. */
  #wrote(puts: readonly Entry[], deleted: readonly string[], revision: number): void {
    this.#tell(this.#state.wrote(puts, deleted, revision));
  }

  #tell(events: readonly ClaimsEvent[]): void {
    if (events.length === 0) return;
    const view = this.view();
    for (const listener of this.#listeners) listener(view, events);
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

/** The record to be written with a claim; undefined: it stays as it is. A pool's record is its allocator's to change. */
function recordFor(kept: OwnerRecord | undefined, holder: ServiceHolder, cluster: string): string | undefined {
  if (kept === undefined) return renderService(holder, { cluster }, Date.now());
  return kept.pool !== undefined || kept.holder?.uid === holder.uid ? undefined : renewService(kept, holder);
}
