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
  UnreachableError,
} from '../store/kv.ts';

/** An attachment that a commit made, and the store's revision of that commit. */
export interface Made {
  readonly id: AttachmentId;
  readonly revision: number;
}

export class GuardedKv implements Kv {
  /** What the last commit through here made, where there was nothing before. */
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
    const result = await this.unguarded.commit(commit, deadline);
    const id = result.won ? attachmentMadeBy(commit) : undefined;
    if (id !== undefined) this.made = { id, revision: result.revision };
    return result;
  }

  scan(from: string, to: string, deadline: Deadline): AsyncIterable<Page> {
    return this.unguarded.scan(from, to, deadline);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.unguarded[Symbol.asyncDispose]();
  }
}

function attachmentMadeBy({ conditions, writes }: Commit): AttachmentId | undefined {
  for (const condition of conditions) {
    const key = 'absent' in condition ? condition.absent : '';
    const parsed = parseKey(key);
    const isPut = writes.some(write => 'put' in write && write.put === key);
    if (isPut && parsed?.type === 'attachment') return parsed.id;
  }
  return undefined;
}
