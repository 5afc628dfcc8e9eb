// One HTTP exchange with an API server over node:https (or node:http, where a URL asks for it): connections are kept, and proxies of the environment are not used.
import http, { type ClientRequest, type IncomingMessage } from 'node:http';
import https, { type RequestOptions } from 'node:https';
import type { Deadline } from '../base/clock.ts';
import { connectionReason, tlsOptions } from '../base/dial.ts';
import { FailureError, systemCode } from '../base/errors.ts';
import { version } from '../base/version.ts';
import type { ApiTarget } from './config.ts';
import { type Request, unanswered, unusableCertificates } from './failure.ts';

export interface Call extends Request {
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  readonly query?: Readonly<Record<string, string | undefined>>;
  readonly body?: string;
  readonly contentType?: string;
}

/** The head of an answer, with its body still to come; or the words for why none came. */
export type Reply =
  | { readonly response: IncomingMessage }
  /** `stale`: on a kept connection that the server had closed meanwhile, which says nothing about the server. */
  | { readonly failure: Error; readonly stale: boolean };

/** A page of 500 large objects is a tenth of this: more is another server, and must not fill the memory. */
const largestBody = 64 * 1024 * 1024;

const kept = { keepAlive: true, keepAliveMsecs: 15_000, maxSockets: 50, maxFreeSockets: 8 };

const unwanted = 'it is no longer wanted';

export class Exchanges implements Disposable {
  /** A peer that is gone without a word is noticed within half a minute, as the kernel asks it. */
  readonly #agent = new https.Agent(kept);
  readonly #plainAgent = new http.Agent(kept);

  [Symbol.dispose](): void {
    this.#agent.destroy();
    this.#plainAgent.destroy();
  }

  /** Sends the call and waits for the head of the answer. Throws code 7 for certificates that cannot be used. */
  send(call: Call, target: ApiTarget, deadline: Deadline, signal?: AbortSignal): Promise<Reply> {
    return new Promise((resolve, reject) => {
      let sending: ClientRequest;
      try {
        sending = this.#request(call, target);
      } catch (error) {
        return reject(unusableCertificates(target, error));
      }
      const fail = (error: unknown, stale = false) => {
        over();
        resolve({ failure: asUnanswered(call, target, error), stale });
      };
      // A request that is over already would tell nobody that it was ended: that is not waited for.
      const end = (why: string) => {
        fail(unanswered(call, target, why));
        sending.destroy();
      };
      const late = () => {
        end('no answer in time');
        this.#closeIdle();
      };
      const abort = () => end(unwanted);
      const timer = setTimeout(late, deadline.left());
      const over = () => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', abort);
      };
      signal?.addEventListener('abort', abort);
      sending.on('error', (error: Error) => {
        fail(error, sending.reusedSocket && ['ECONNRESET', 'EPIPE'].includes(systemCode(error) ?? ''));
      });
      // Without an error it ends where the server goes over to another protocol.
      sending.on('close', () => fail(unanswered(call, target, 'connection closed')));
      sending.on('response', response => {
        over();
        // Who reads it is told; one that is thrown away must not end the process when it breaks.
        response.on('error', () => {});
        resolve({ response });
      });
      if (signal?.aborted) abort();
      sending.end(call.body);
    });
  }

  #request(call: Call, target: ApiTarget): ClientRequest {
    const options = requestOptions(call, target);
    if (target.server.startsWith('http:')) return http.request({ ...options, agent: this.#plainAgent });
    return https.request({ ...options, ...tlsOptions(target.host, target.tls), agent: this.#agent });
  }

  /** A server that does not answer may have vanished under all its connections: the next call is to find out anew. */
  #closeIdle(): void {
    const free = [this.#agent, this.#plainAgent].flatMap(({ freeSockets }) => Object.values(freeSockets));
    for (const sockets of free) for (const socket of sockets ?? []) socket.destroy();
  }
}

function requestOptions({ method, path, query = {}, body, contentType }: Call, target: ApiTarget): RequestOptions {
  const { host, port, basePath, token } = target;
  const given = Object.entries(query).filter((entry): entry is [string, string] => entry[1] !== undefined);
  const search = given.length === 0 ? '' : `?${new URLSearchParams(given)}`;
  return {
    host,
    port,
    method,
    path: `${basePath}${path}${search}`,
    headers: {
      accept: 'application/json',
      'user-agent': `kube-ipam/${version}`,
      ...(token !== undefined && { authorization: `Bearer ${token}` }),
      ...(body !== undefined && {
        'content-type': contentType ?? 'application/json',
        'content-length': Buffer.byteLength(body),
      }),
    },
  };
}

/** The whole body, by the deadline. */
export function bodyOf(
  response: IncomingMessage,
  call: Request,
  target: ApiTarget,
  deadline: Deadline,
  signal: AbortSignal | undefined,
): Promise<string> {
  return new Promise((resolve, reject) => {
    const fail = (error: unknown) => {
      over();
      reject(asUnanswered(call, target, error));
    };
    const end = (why: string) => {
      fail(unanswered(call, target, why));
      response.destroy();
    };
    const timer = setTimeout(end, deadline.left(), 'the answer did not end in time');
    const abort = () => end(unwanted);
    const over = () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', abort);
    };
    signal?.addEventListener('abort', abort);
    const chunks: Buffer[] = [];
    let size = 0;
    response.on('data', (chunk: Buffer) => {
      chunks.push(chunk);
      size += chunk.length;
      if (size > largestBody) end('the answer is too large to be a true one');
    });
    response.on('error', fail);
    // Not by `for await`, which is done before the connection is back among those that can be used again.
    response.on('end', () => {
      over();
      resolve(Buffer.concat(chunks).toString('utf8'));
    });
    if (signal?.aborted) abort();
    // What broke together with its head has told so already, when nobody listened.
    else if (response.destroyed) fail(response.errored);
  });
}

/** What broke a connection, in words. */
export function asUnanswered(call: Request, target: ApiTarget, error: unknown): FailureError {
  if (error instanceof FailureError) return error;
  return unanswered(call, target, connectionReason(systemCode(error)));
}
