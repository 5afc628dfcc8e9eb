// The port to a store: a few reads and one conditional commit, the same for etcd and the embedded store.
import type { Deadline } from '../base/clock.ts';
import { code, FailureError } from '../base/errors.ts';

/** One key as it is stored. Revisions are store-wide, strictly growing, never reused. */
export interface Entry {
  readonly key: string;
  /** Empty when only keys were asked for. */
  readonly value: string;
  /** Revision of the commit that last wrote the key. */
  readonly revision: number;
  /** Revision of the commit that created it. */
  readonly created: number;
  /** The lease that it ends with (etcd alone): its ID, as a decimal number. */
  readonly lease?: string;
}

/** One key; all keys `from <= key < to`, in byte order; or just how many of them there are. */
export type Query =
  | { readonly key: string }
  | { readonly from: string; readonly to: string; readonly keysOnly?: boolean }
  | { readonly from: string; readonly to: string; readonly count: true };

/** The answer to one query: `count` is the number of matching keys; a count query has no entries. */
export interface Answer {
  readonly entries: readonly Entry[];
  readonly count: number;
}

export type Condition = { readonly absent: string } | { readonly unchanged: string; readonly revision: number };

/** A put with `ttl` (seconds) vanishes by itself after that time; a put without never does. */
export type Write =
  | { readonly put: string; readonly value: string; readonly ttl?: number }
  | { readonly delete: string };

export interface Commit {
  /** All must hold, or nothing is written. */
  readonly conditions: readonly Condition[];
  readonly writes: readonly Write[];
  /** Read at the same revision when a condition did not hold. */
  readonly otherwise?: readonly Query[];
}

export interface Snapshot {
  readonly revision: number;
  /** One for each query, in the order asked. */
  readonly answers: readonly Answer[];
}

export type CommitResult = { readonly won: true; readonly revision: number } | ({ readonly won: false } & Snapshot);

/**
 * A store. Reads are never stale (linearizable on etcd). Every call ends by its deadline.
 * Errors: UnreachableError (nothing was done), UnknownFateError (a commit that may be applied, now or later),
 * OutOfSpaceError, DamagedError, RefusedError.
 */
export interface Kv extends AsyncDisposable {
  /** All queries at one revision, however many they are. */
  read(queries: readonly Query[], deadline: Deadline): Promise<Snapshot>;
  /** All or nothing. At most 128 conditions, 128 writes and 128 queries (etcd's limit). */
  commit(commit: Commit, deadline: Deadline): Promise<CommitResult>;
  /** All entries `from <= key < to` at one revision, in pages, for listings of any length. */
  scan(from: string, to: string, deadline: Deadline): AsyncIterable<Page>;
}

export interface Page {
  /** The revision at which all pages of this scan were read. */
  readonly revision: number;
  readonly entries: readonly Entry[];
}

/** No endpoint could be asked: nothing was read or written. */
export class UnreachableError extends FailureError {
  override name = 'UnreachableError';

  constructor(message: string, options: { cause?: unknown } = {}) {
    super(code.tryAgain, message, options);
  }
}

/** A commit was sent and no answer came: it may have been applied, or may be applied later. */
export class UnknownFateError extends FailureError {
  override name = 'UnknownFateError';

  constructor(message: string, options: { cause?: unknown } = {}) {
    super(code.tryAgain, message, options);
  }
}

/** The store refuses writes because it is full: etcd's NOSPACE, or ENOSPC. Nothing was written. */
export class OutOfSpaceError extends FailureError {
  override name = 'OutOfSpaceError';

  constructor(message: string, options: { cause?: unknown } = {}) {
    super(code.noSpace, message, options);
  }
}

/** The store's content cannot be trusted. */
export class DamagedError extends FailureError {
  override name = 'DamagedError';

  constructor(message: string, options: { cause?: unknown } = {}) {
    super(code.damaged, message, options);
  }
}

/** The store answered and said no: wrong password, no permission, a request it does not understand. */
export class RefusedError extends FailureError {
  override name = 'RefusedError';

  constructor(message: string, options: { cause?: unknown } = {}) {
    super(code.tryAgain, message, options);
  }
}

/** The first key behind all keys that start with `prefix`, which must end in "/". */
export function afterPrefix(prefix: string): string {
  return `${prefix.slice(0, -1)}0`;
}

/** Cuts the answers of one read into groups of the given sizes, in order. */
export function groupAnswers(answers: readonly Answer[], sizes: readonly number[]): (readonly Answer[])[] {
  let next = 0;
  return sizes.map(size => {
    next += size;
    return answers.slice(next - size, next);
  });
}
