// The store as the agent has it: whoever commits may give a check that is made directly before the write.
import type { Deadline } from '../base/clock.ts';
import {
  type Commit,
  type CommitResult,
  type Kv,
  type Page,
  type Query,
  type Snapshot,
  UnreachableError,
} from '../store/kv.ts';

/** Throws when a commit must not be. */
export type Check = () => void | Promise<void>;

export interface CheckedKv extends Kv {
  commit(commit: Commit, deadline: Deadline, check?: Check): Promise<CommitResult>;
}

/** Makes the check, and refuses what comes too late. */
export async function passCheck(deadline: Deadline, check: Check | undefined): Promise<void> {
  await check?.();
  if (deadline.passed) throw new UnreachableError('the time was over before anything was written');
}

/** A store of any kind with checks: it is disposed of along with this. */
export class CheckingKv<Inner extends Kv = Kv> implements CheckedKv {
  protected readonly inner: Inner;

  constructor(inner: Inner) {
    this.inner = inner;
  }

  read(queries: readonly Query[], deadline: Deadline): Promise<Snapshot> {
    return this.inner.read(queries, deadline);
  }

  async commit(commit: Commit, deadline: Deadline, check?: Check): Promise<CommitResult> {
    await passCheck(deadline, check);
    return this.inner.commit(commit, deadline);
  }

  scan(from: string, to: string, deadline: Deadline): AsyncIterable<Page> {
    return this.inner.scan(from, to, deadline);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.inner[Symbol.asyncDispose]();
  }
}
