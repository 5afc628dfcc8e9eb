// The events of one watch, taken off its stream line by line; whatever is not an event ends it.
import type { IncomingMessage } from 'node:http';
import { isObject } from '../base/section.ts';
import { isKubeObject, parsed, statusOf } from './answer.ts';
import type { ApiTarget } from './config.ts';
import { asUnanswered } from './exchange.ts';
import { type Request, refusal, strange } from './failure.ts';
import type { KubeObject } from './objects.ts';

export type WatchEvent<T extends KubeObject> =
  | { readonly type: 'ADDED' | 'MODIFIED' | 'DELETED'; readonly object: T; readonly resourceVersion: string }
  /** Nothing more has happened up to this version. */
  | { readonly type: 'BOOKMARK'; readonly resourceVersion: string };

/** etcd takes no larger objects by far. */
const longestLine = 32 * 1024 * 1024;

/**
 * Ends when the server ends the stream properly, or with the signal. Throws ApiError for an error that the server sends
 * as an event, UnansweredError when the stream breaks, StrangeAnswerError also when nothing comes for `silence` milliseconds.
 */
export async function* follow<T extends KubeObject>(
  response: IncomingMessage,
  request: Request,
  target: ApiTarget,
  silence: number,
  signal: AbortSignal,
): AsyncGenerator<WatchEvent<T>, void> {
  const stop = () => response.destroy();
  const giveUp = () => response.destroy(strange(request, target, `silent for ${Math.round(silence / 1000)} s`));
  const timer = setTimeout(giveUp, silence);
  signal.addEventListener('abort', stop);
  try {
    if (signal.aborted) return;
    for await (const line of lines(response, request, target)) {
      timer.refresh();
      yield event<T>(line, request, target);
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', stop);
    response.destroy();
  }
}

async function* lines(response: IncomingMessage, request: Request, target: ApiTarget): AsyncGenerator<string, void> {
  let pieces: Buffer[] = [];
  let size = 0;
  try {
    for await (const chunk of response as AsyncIterable<Buffer>) {
      let from = 0;
      for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, from)) {
        pieces.push(chunk.subarray(from, end));
        const line = Buffer.concat(pieces).toString('utf8');
        pieces = [];
        size = 0;
        from = end + 1;
        if (line.trim() !== '') yield line;
      }
      pieces.push(chunk.subarray(from));
      size += chunk.length - from;
      if (size > longestLine) throw strange(request, target, 'an event too large to be a true one');
    }
  } catch (error) {
    throw asUnanswered(request, target, error);
  }
}

function event<T extends KubeObject>(line: string, request: Request, target: ApiTarget): WatchEvent<T> {
  const value = parsed(line);
  const { type, object } = isObject(value) ? value : {};
  if (type === 'ERROR') {
    const said = statusOf(object);
    throw refusal(request, target, said?.code ?? 500, said);
  }
  const metadata = isObject(object) && isObject(object.metadata) ? object.metadata : {};
  const { resourceVersion } = metadata;
  if (typeof resourceVersion !== 'string') throw strange(request, target, 'not an event of a watch');
  if (type === 'BOOKMARK') return { type, resourceVersion };
  if ((type === 'ADDED' || type === 'MODIFIED' || type === 'DELETED') && isKubeObject(object)) {
    return { type, object: object as unknown as T, resourceVersion };
  }
  throw strange(request, target, 'not an event of a watch');
}
