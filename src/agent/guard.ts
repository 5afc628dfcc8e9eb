// A store through which nothing is written for somebody who is not there any more, and which remembers what was made.
import type { Deadline } from '../base/clock.ts';
import { type AttachmentId, parseKey } from '../store/keys.ts';
import { type Commit, type CommitResult, UnknownFateError } from '../store/kv.ts';
import { type Check, type CheckedKv, CheckingKv } from './checked-kv.ts';

/** An attachment that a commit made where there was none. */
export interface Made {
  readonly id: AttachmentId;
  /** Of that commit; undefined when its fate is unknown. */
  readonly revision: number | undefined;
}

export class GuardedKv extends CheckingKv<CheckedKv> {
  /** What was made through here, as far as it is known. */
  made: Made | undefined;
  readonly #check: Check;

  constructor(inner: CheckedKv, check: Check) {
    super(inner);
    this.#check = check;
  }

  override async commit(commit: Commit, deadline: Deadline): Promise<CommitResult> {
    const id = madeBy(commit);
    try {
      const result = await this.inner.commit(commit, deadline, this.#check);
      // One that found the attachment there has taken it up, and whose it was is not to be told.
      if (result.won) this.made = id && { id, revision: result.revision };
      return result;
    } catch (error) {
      if (error instanceof UnknownFateError && id !== undefined) this.made = { id, revision: undefined };
      throw error;
    }
  }
}

/** The attachment that the commit makes if it wins; undefined for one that makes none. */
function madeBy({ conditions, writes }: Commit): AttachmentId | undefined {
  const absent = new Set(conditions.flatMap(condition => ('absent' in condition ? [condition.absent] : [])));
  for (const write of writes) {
    if (!('put' in write) || !absent.has(write.put)) continue;
    const parsed = parseKey(write.put);
    if (parsed?.type === 'attachment') return parsed.id;
  }
  return undefined;
}
