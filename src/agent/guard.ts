// A store through which nothing is written for somebody who is not there any more.
import type { Deadline } from '../base/clock.ts';
import { type AttachmentId, parseKey } from '../store/keys.ts';
import {
  type Commit,
  type CommitResult,
  type Kv,
  type Page,
  type Query,
  type Snapshot,
  UnknownFateError,
  UnreachableError,
} from '../store/kv.ts';

/** An attachment that a commit made where there was none. */
export interface Made {
  readonly id: AttachmentId;
  /** Of that commit; undefined when its fate is unknown. */
  readonly revision: number | undefined;
  /** What it was to write for the attachment and its addresses, by key. */
  readonly values: ReadonlyMap<string, string>;
}

export class GuardedKv implements Kv {
  /** What was made through here, as far as it is known. */
  made: Made | undefined;
  readonly unguarded: Kv;
  readonly #check: () => void | Promise<void>;

  /** @param check throws when the next commit must not be; called directly before each. */
  constructor(kv: Kv, check: () => void | Promise<void>) {
    this.unguarded = kv;
    this.#check = check;
  }

  read(queries: readonly Query[], deadline: Deadline): Promise<Snapshot> {
    return this.unguarded.read(queries, deadline);
  }

  async commit(commit: Commit, deadline: Deadline): Promise<CommitResult> {
    await this.#check();
    if (deadline.passed) throw new UnreachableError('the time was over before anything was written');
    const making = makingOf(commit);
    try {
      const result = await this.unguarded.commit(commit, deadline);
      // One that found the attachment there has taken it up, and whose it was is not to be told.
      if (result.won) this.made = making && { ...making, revision: result.revision };
      return result;
    } catch (error) {
      if (error instanceof UnknownFateError && making !== undefined) this.made = { ...making, revision: undefined };
      throw error;
    }
  }

  scan(from: string, to: string, deadline: Deadline): AsyncIterable<Page> {
    return this.unguarded.scan(from, to, deadline);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.unguarded[Symbol.asyncDispose]();
  }
}

/** What the commit makes if it wins; undefined for one that makes no attachment. */
function makingOf({ conditions, writes }: Commit): Omit<Made, 'revision'> | undefined {
  const absent = new Set(conditions.flatMap(condition => ('absent' in condition ? [condition.absent] : [])));
  const values = new Map<string, string>();
  let id: AttachmentId | undefined;
  for (const write of writes) {
    if (!('put' in write)) continue;
    const parsed = parseKey(write.put);
    if (parsed?.type === 'attachment' && absent.has(write.put)) id = parsed.id;
    if (parsed?.type === 'attachment' || parsed?.type === 'address') values.set(write.put, write.value);
  }
  return id && { id, values };
}
