// A watch that loses no event: it resumes behind the last event it handed out, never where etcd says the store is now.
import { backoff, deadlineIn, rest } from '../../base/clock.ts';
import { afterPrefix, type Entry, RefusedError } from '../kv.ts';
import type { Stream } from './channel.ts';
import { fault } from './channel.ts';
import { RelistError } from './errors.ts';
import { type Failure, judge } from './failure.ts';
import type { Streams } from './streams.ts';
import {
  BrokenAnswerError,
  decode,
  encode,
  entry,
  headerRevision,
  integer,
  list,
  type Message,
  message,
} from './wire.ts';

export type WatchEvent =
  | { readonly type: 'put'; readonly entry: Entry }
  | { readonly type: 'delete'; readonly key: string; readonly revision: number };

/** Events of one or several whole commits, in the order of their revisions. */
export interface WatchBatch {
  /** Revision of the last event: a watch from the next one misses and repeats nothing. */
  readonly revision: number;
  readonly events: readonly WatchEvent[];
}

export interface WatchOptions {
  /** Ends the watch, also between events. */
  readonly signal?: AbortSignal;
  /** Told when events flow (the endpoint) and when they do not (why); the watch goes on trying by itself. */
  readonly onState?: (
    state:
      | { readonly connected: true; readonly endpoint: string }
      | { readonly connected: false; readonly reason: string },
  ) => void;
}

/** Ends one stream in a foreseen way; the failure says how to go on. */
class StreamEndError extends Error {
  override name = 'StreamEndError';
  readonly failure: Failure;

  constructor(failure: Failure) {
    super(failure.reason);
    this.failure = failure;
  }
}

/**
 * All events under `prefix` (which ends in "/") from `fromRevision` on, across drops and changes of member, until the
 * signal or the end of the store. Throws RelistError when etcd no longer has the events, RefusedError without permission.
 */
export async function* watch(
  streams: Streams,
  prefix: string,
  fromRevision: number,
  options: WatchOptions = {},
): AsyncGenerator<WatchBatch, void> {
  const signal = options.signal === undefined ? streams.closed : AbortSignal.any([streams.closed, options.signal]);
  const place = { prefix, next: fromRevision, refused: 0 };
  for (let tries = 1; !signal.aborted; tries++) {
    const endpoint = streams.calls.endpoints.order()[0]!;
    const opened = await streams.open(endpoint, 'Watch', 'watch');
    let failure = opened.failure;
    if (opened.failure === undefined) {
      const stop = () => opened.stream.cancel();
      signal.addEventListener('abort', stop);
      // It may have come while the stream was opened, and comes only once.
      if (signal.aborted) stop();
      try {
        for await (const batch of follow(streams, opened.stream, place, endpoint, options)) {
          place.next = batch.revision + 1;
          place.refused = 0;
          tries = 1;
          yield batch;
        }
      } catch (error) {
        if (signal.aborted) return;
        failure = ending(error);
      } finally {
        signal.removeEventListener('abort', stop);
        opened.stream.cancel();
      }
    }
    if (signal.aborted) return;
    const end = failure ?? { kind: 'unclear', reason: 'the stream ended' };
    options.onState?.({ connected: false, reason: `${endpoint}: ${end.reason}` });
    streams.ended(endpoint, end, opened.token);
    judgeEnd(end, place, streams);
    await rest(backoff(tries, 50, 2000), signal);
  }
}

function ending(error: unknown): Failure {
  if (error instanceof RelistError || error instanceof RefusedError) throw error;
  if (error instanceof StreamEndError) return error.failure;
  if (error instanceof BrokenAnswerError)
    return { kind: 'unclear', reason: `not an answer of etcd's (${error.message})` };
  if (typeof (error as { code?: unknown } | null)?.code === 'number') return fault(error);
  throw error;
}

/** A refusal counts only when it comes with a new token too: etcd 3.4 says "permission denied" to an old one. */
function judgeEnd(end: Failure, place: { prefix: string; refused: number }, streams: Streams): void {
  if (!['permission', 'token', 'login', 'refused', 'compacted'].includes(end.kind)) return;
  place.refused++;
  if (end.kind !== 'refused' && place.refused < 3 && streams.target.username !== undefined) return;
  const user = streams.target.username === undefined ? 'this client' : `user "${streams.target.username}"`;
  throw new RefusedError(`etcd does not let ${user} watch ${place.prefix} (${end.reason})`);
}

async function* follow(
  streams: Streams,
  stream: Stream,
  place: { readonly prefix: string; readonly next: number },
  endpoint: string,
  options: WatchOptions,
): AsyncGenerator<WatchBatch, void> {
  let silent = false;
  const giveUp = setTimeout(() => {
    silent = true;
    stream.cancel();
  }, streams.target.requestTimeout);
  try {
    const range = { key: encode(place.prefix), range_end: encode(afterPrefix(place.prefix)) };
    stream.write({ create_request: { ...range, start_revision: String(place.next) } });
    for await (const raw of stream) {
      const answer = message(raw);
      if (answer.canceled === true) throw cancelled(answer);
      if (answer.created === true) {
        clearTimeout(giveUp);
        await refuseRestoredStore(streams, headerRevision(answer), place);
        streams.calls.endpoints.answered(endpoint, 'grpc');
        options.onState?.({ connected: true, endpoint });
      }
      const events = list(answer.events).map(event);
      if (events.length > 0) yield { revision: Math.max(...events.map(revisionOf)), events };
    }
  } catch (error) {
    if (silent)
      throw new StreamEndError({ kind: 'unclear', reason: 'connected, but the watch was not set up in time' });
    throw error;
  } finally {
    clearTimeout(giveUp);
  }
}

function event(raw: unknown): WatchEvent {
  const { type, kv } = message(raw);
  if (type === 'Put') return { type: 'put', entry: entry(kv) };
  if (type !== 'Delete') throw new BrokenAnswerError('event expected');
  const gone = message(kv);
  return { type: 'delete', key: decode(gone.key), revision: integer(gone.mod_revision) };
}

function revisionOf(one: WatchEvent): number {
  return one.type === 'put' ? one.entry.revision : one.revision;
}

function cancelled(answer: Message): Error {
  const oldest = integer(answer.compact_revision);
  if (oldest > 0) {
    return new RelistError(
      `etcd has compacted its history up to revision ${oldest}: list again, then watch from there`,
      oldest,
    );
  }
  // Newer members wrap their own words in gRPC's.
  const reason = typeof answer.cancel_reason === 'string' ? answer.cancel_reason.replace(/^.*desc = /, '') : '';
  const failure = judge(3, reason === '' ? 'etcdserver: watch canceled' : reason);
  return new StreamEndError(failure.kind === 'refused' && reason === '' ? { ...failure, kind: 'unclear' } : failure);
}

/** etcd is silent for ever to a watch from a revision that a store restored from a backup has yet to reach. */
async function refuseRestoredStore(
  streams: Streams,
  revision: number,
  place: { readonly prefix: string; readonly next: number },
): Promise<void> {
  if (revision >= place.next - 1) return;
  // This member may only lag behind: the whole cluster is asked before the history is given up.
  const now = await streams.revision(place.prefix, deadlineIn(streams.target.requestTimeout));
  if (now >= place.next - 1) return;
  throw new RelistError(
    `etcd is at revision ${now}, behind ${place.next - 1}, which was seen before: it was restored from a backup; list again`,
  );
}
