// The port to the store on top of calls to etcd, the same for the JSON gateway and for gRPC.
import { type Deadline, deadlineIn } from '../../base/clock.ts';
import {
  type Answer,
  type CommitResult,
  type Condition,
  type Kv,
  type Page,
  type Query,
  type Snapshot,
  UnreachableError,
  type Write,
} from '../kv.ts';
import { type Calls, LeaseGoneError } from './calls.ts';
import { RelistError } from './errors.ts';
import {
  BrokenAnswerError,
  commitAnswer,
  commitRequest,
  decode,
  headerRevision,
  integer,
  type LeasedWrite,
  list,
  type Message,
  readAnswer,
  readRequest,
} from './wire.ts';

/** etcd takes 128 operations a transaction unless told otherwise; a little room is left for clusters told less. */
const queriesPerTransaction = 120;
const firstPage = 1000;
const largestPage = 10_000;
/** Far below what a gRPC client takes by default (4 MiB). */
const pageBytes = 2_000_000;

/** A put on a lease that someone keeps alive, or a write as the port knows it. */
export type KeptWrite = Write | { readonly put: string; readonly value: string; readonly lease: string };

export interface KeptCommit {
  readonly conditions: readonly Condition[];
  readonly writes: readonly KeptWrite[];
  readonly otherwise?: readonly Query[];
}

export class EtcdKv implements Kv {
  readonly #calls: Calls;
  readonly #afterwards = new Set<Promise<void>>();

  constructor(calls: Calls) {
    this.#calls = calls;
  }

  async read(queries: readonly Query[], deadline: Deadline): Promise<Snapshot> {
    for (;;) {
      try {
        return await this.#readPinned(queries, deadline);
      } catch (error) {
        // The first part's revision was compacted before the last part was read: begin again at a newer one.
        if (!(error instanceof RelistError)) throw error;
        if (deadline.passed)
          throw new UnreachableError('etcd compacted its history during a long read: no time was left to repeat it');
      }
    }
  }

  async commit(commit: KeptCommit, deadline: Deadline): Promise<CommitResult> {
    for (let tries = 1; ; tries++) {
      const leases = await this.#grantLeases(commit.writes, deadline);
      try {
        return await this.#commitOn(leases, commit, deadline);
      } catch (error) {
        if (!(error instanceof LeaseGoneError)) throw error;
        // A lease granted here may run out on the way, a kept one is gone for good.
        if (deadline.passed || leases.size === 0 || tries === 3) {
          throw new UnreachableError(`nothing was written, because the lease had run out (${error.message})`);
        }
      }
    }
  }

  async *scan(from: string, to: string, deadline: Deadline): AsyncIterable<Page> {
    let next = from;
    let limit = firstPage;
    let revision: number | undefined;
    for (;;) {
      const body = readRequest([{ from: next, to }], { limit, revision });
      const page = await this.#calls.call('txn', body, 'safe', deadline, answer => readAnswer(answer, 1));
      // Later pages answer with the revision of their time, not with the one they were read at.
      revision ??= page.revision;
      // `count` is that of the whole range, so a page with fewer has more behind it.
      const { entries, count } = page.answers[0]!;
      if (entries.length > 0) yield { revision, entries };
      if (entries.length === count || entries.length === 0) return;
      next = `${entries.at(-1)!.key}\0`;
      limit = nextPage(entries);
    }
  }

  /** Grants a lease of `ttl` seconds and returns its ID and the time to live that etcd chose (never less). */
  grant(ttl: number, deadline: Deadline): Promise<{ id: string; ttl: number }> {
    return this.#calls.call(
      'leaseGrant',
      { TTL: String(Math.max(1, Math.ceil(ttl))), ID: '0' },
      'safe',
      deadline,
      answer => {
        headerRevision(answer);
        if (typeof answer.ID !== 'string' || !/^\d+$/.test(answer.ID)) throw new BrokenAnswerError('lease expected');
        return { id: answer.ID, ttl: Number(answer.TTL) };
      },
    );
  }

  leaseKeys(lease: string, deadline: Deadline): Promise<ReadonlySet<string> | undefined> {
    return this.#calls.call('leaseTimeToLive', { ID: lease, keys: true }, 'safe', deadline, answer => {
      headerRevision(answer);
      return integer(answer.TTL) < 0 ? undefined : new Set(list(answer.keys).map(decode));
    });
  }

  async revoke(lease: string, deadline: Deadline): Promise<void> {
    try {
      await this.#calls.call('leaseRevoke', { ID: lease }, 'safe', deadline, (answer: Message) =>
        headerRevision(answer),
      );
    } catch (error) {
      if (!(error instanceof LeaseGoneError)) throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#afterwards);
    await this.#calls[Symbol.asyncDispose]();
  }

  async #readPinned(queries: readonly Query[], deadline: Deadline): Promise<Snapshot> {
    let revision: number | undefined;
    const answers: Answer[] = [];
    for (let start = 0; start === 0 || start < queries.length; start += queriesPerTransaction) {
      const part = queries.slice(start, start + queriesPerTransaction);
      const body = readRequest(part, { revision });
      const read = await this.#calls.call('txn', body, 'safe', deadline, answer => readAnswer(answer, part.length));
      revision ??= read.revision;
      answers.push(...read.answers);
    }
    return { revision: revision!, answers };
  }

  async #commitOn(leases: ReadonlyMap<number, string>, commit: KeptCommit, deadline: Deadline): Promise<CommitResult> {
    const writes = commit.writes.map(write => leased(write, leases));
    const otherwise = commit.otherwise ?? [];
    const body = commitRequest(commit.conditions, writes, otherwise);
    const result = await this.#calls.call('txn', body, 'never', deadline, answer =>
      commitAnswer(answer, writes, otherwise.length),
    );
    if (!result.won) this.#revokeLater(leases);
    return result;
  }

  /** One lease for each length; granted before anything is written, so that a refusal leaves nothing half done. */
  async #grantLeases(writes: readonly KeptWrite[], deadline: Deadline): Promise<ReadonlyMap<number, string>> {
    const lengths = new Set(writes.flatMap(write => ('ttl' in write && write.ttl !== undefined ? [write.ttl] : [])));
    const leases = new Map<number, string>();
    for (const ttl of lengths) leases.set(ttl, (await this.grant(ttl, deadline)).id);
    return leases;
  }

  /** A lease of a commit that lost holds no key; it goes at once rather than at its end, but nobody waits for that. */
  #revokeLater(leases: ReadonlyMap<number, string>): void {
    for (const lease of leases.values()) {
      const revoked: Promise<void> = this.revoke(lease, deadlineIn(1000))
        .catch(() => {})
        .finally(() => this.#afterwards.delete(revoked));
      this.#afterwards.add(revoked);
    }
  }
}

function leased(write: KeptWrite, leases: ReadonlyMap<number, string>): LeasedWrite {
  if ('delete' in write) return write;
  if ('lease' in write) return write;
  return { put: write.put, value: write.value, lease: write.ttl === undefined ? undefined : leases.get(write.ttl) };
}

/** As many keys as make a page of good size, going by the size of the entries just read. */
function nextPage(entries: readonly { readonly key: string; readonly value: string }[]): number {
  const bytes = entries.reduce((sum, entry) => sum + entry.key.length + entry.value.length + 64, 0);
  return Math.max(100, Math.min(largestPage, Math.floor((pageBytes * entries.length) / bytes)));
}
