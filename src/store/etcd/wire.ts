// etcd's requests and answers, in the field names that its JSON gateway and its gRPC service share.
import type { Answer, Condition, Entry, Query, Snapshot } from '../kv.ts';

/** An answer as it came: nothing about its shape is known yet. */
export type Message = Readonly<Record<string, unknown>>;

/** A put as etcd takes it: on a lease (its ID), or on none. */
export type LeasedWrite =
  | { readonly put: string; readonly value: string; readonly lease?: string | undefined }
  | { readonly delete: string };

/** An answer that is not what etcd answers to this request. */
export class BrokenAnswerError extends Error {
  override name = 'BrokenAnswerError';
}

/** What gRPC gives as bytes, the gateway gives in base64; requests may use base64 on both. */
export function encode(text: string): string {
  return Buffer.from(text, 'utf8').toString('base64');
}

export function decode(value: unknown): string {
  if (value === undefined) return '';
  if (typeof value === 'string') return Buffer.from(value, 'base64').toString('utf8');
  if (value instanceof Uint8Array) return Buffer.from(value).toString('utf8');
  throw new BrokenAnswerError('bytes expected');
}

/** 64-bit numbers come as strings, and 0 is left out. */
export function integer(value: unknown): number {
  if (value === undefined) return 0;
  const number = typeof value === 'string' && /^-?\d{1,19}$/.test(value) ? Number(value) : value;
  if (typeof number !== 'number' || !Number.isSafeInteger(number)) throw new BrokenAnswerError('number expected');
  return number;
}

export function message(value: unknown): Message {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new BrokenAnswerError('object expected');
  }
  return value as Message;
}

export function list(value: unknown): readonly unknown[] {
  if (value === undefined) return [];
  if (!Array.isArray(value)) throw new BrokenAnswerError('list expected');
  return value;
}

/** The store's revision at the time of the answer. Every answer of etcd has one, so its absence unmasks another server. */
export function headerRevision(answer: Message): number {
  const revision = integer(message(answer.header).revision);
  if (revision < 1) throw new BrokenAnswerError('header expected');
  return revision;
}

export interface RangeOptions {
  readonly revision?: number | undefined;
  readonly limit?: number;
}

export function rangeRequest(query: Query, options: RangeOptions = {}): Message {
  const pinned = options.revision === undefined ? {} : { revision: String(options.revision) };
  if ('key' in query) return { key: encode(query.key), ...pinned };
  return {
    key: encode(query.from),
    range_end: encode(query.to),
    ...pinned,
    ...(options.limit === undefined ? {} : { limit: String(options.limit) }),
    ...('count' in query ? { count_only: true } : query.keysOnly ? { keys_only: true } : {}),
  };
}

function rangeOperation(query: Query, options: RangeOptions): Message {
  return { request_range: rangeRequest(query, options) };
}

function writeOperation(write: LeasedWrite): Message {
  if ('delete' in write) return { request_delete_range: { key: encode(write.delete) } };
  const lease = write.lease === undefined ? {} : { lease: write.lease };
  return { request_put: { key: encode(write.put), value: encode(write.value), ...lease } };
}

/** By number, because etcd3 spells their names in its own way and takes a name it does not know for the first one. */
const equal = 0;
const createRevision = 1;
const modRevision = 2;

function compare(condition: Condition): Message {
  if ('absent' in condition) {
    return { result: equal, target: createRevision, key: encode(condition.absent), create_revision: '0' };
  }
  const { unchanged, revision } = condition;
  return { result: equal, target: modRevision, key: encode(unchanged), mod_revision: String(revision) };
}

/** A transaction without conditions that only reads. */
export function readRequest(queries: readonly Query[], options: RangeOptions = {}): Message {
  return { success: queries.map(query => rangeOperation(query, options)) };
}

export function commitRequest(
  conditions: readonly Condition[],
  writes: readonly LeasedWrite[],
  otherwise: readonly Query[],
): Message {
  return {
    compare: conditions.map(compare),
    success: writes.map(writeOperation),
    failure: otherwise.map(query => rangeOperation(query, {})),
  };
}

export function entry(value: unknown): Entry {
  const kv = message(value);
  const revision = integer(kv.mod_revision);
  const created = integer(kv.create_revision);
  if (revision < 1 || created < 1) throw new BrokenAnswerError('revision expected');
  const lease = typeof kv.lease === 'string' && kv.lease !== '0' ? { lease: kv.lease } : {};
  return { key: decode(kv.key), value: decode(kv.value), revision, created, ...lease };
}

function rangeAnswer(response: unknown): Answer {
  const range = message(message(response).response_range);
  return { entries: list(range.kvs).map(entry), count: integer(range.count) };
}

function responses(answer: Message, expected: number): readonly unknown[] {
  const found = list(answer.responses);
  // etcd ignores fields it does not know: a request it misread "succeeds" with fewer responses than were asked for.
  if (found.length !== expected) throw new BrokenAnswerError(`${expected} responses expected, ${found.length} came`);
  return found;
}

/** The answers to a transaction that only reads. */
export function readAnswer(answer: Message, expected: number): Snapshot {
  const revision = headerRevision(answer);
  if (answer.succeeded !== true) throw new BrokenAnswerError('a read without conditions cannot lose');
  return { revision, answers: responses(answer, expected).map(rangeAnswer) };
}

/** Whether the transaction won and the revision; when it lost, what was to be read then. */
export function commitAnswer(
  answer: Message,
  writes: readonly LeasedWrite[],
  otherwise: number,
): { readonly won: true; readonly revision: number } | ({ readonly won: false } & Snapshot) {
  const revision = headerRevision(answer);
  if (answer.succeeded !== true) {
    return { won: false, revision, answers: responses(answer, otherwise).map(rangeAnswer) };
  }
  const done = responses(answer, writes.length);
  for (const [place, write] of writes.entries()) {
    message(message(done[place])['put' in write ? 'response_put' : 'response_delete_range']);
  }
  return { won: true, revision };
}
