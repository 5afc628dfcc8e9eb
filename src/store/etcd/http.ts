// One HTTP request to one endpoint of etcd's JSON gateway, with what is known of its fate when no answer comes.
import http from 'node:http';
import type { Socket } from 'node:net';
import type { Deadline } from '../../base/clock.ts';
import { systemCode } from '../../base/errors.ts';
import type { EtcdTarget } from '../target.ts';
import { connectionReason, type Failure, isTlsAlert, judge } from './failure.ts';
import { tlsFiles } from './tls-files.ts';
import type { Method, Reply, Transport } from './transport.ts';
import type { Message } from './wire.ts';

const paths: Readonly<Record<Method, string>> = {
  txn: '/v3/kv/txn',
  leaseGrant: '/v3/lease/grant',
  leaseRevoke: '/v3/lease/revoke',
  authenticate: '/v3/auth/authenticate',
  status: '/v3/maintenance/status',
};

/** A page of 10 000 large records is a fifth of this: more is another server, and must not fill the memory. */
const largestAnswer = 64 * 1024 * 1024;

/** etcd's words (HTTP 400) to a client that it would identify by the name in its certificate. */
const byCertificateName = 'CommonName of client sending a request against gateway will be ignored';

interface Client {
  readonly request: typeof http.request;
  readonly agent: http.Agent;
}

export class HttpTransport implements Transport {
  readonly name = 'gateway';
  readonly #target: EtcdTarget;
  /** Connections that have been set up, TLS included. */
  readonly #standing = new WeakSet<Socket>();
  #plain: Client | undefined;
  #secure: Client | undefined;

  constructor(target: EtcdTarget) {
    this.#target = target;
  }

  async send(
    endpoint: string,
    method: Method,
    body: Message,
    token: string | undefined,
    deadline: Deadline,
  ): Promise<Reply> {
    const { client, options } = await this.#prepare(endpoint, paths[method]);
    const text = JSON.stringify(body);
    const headers = {
      'content-type': 'application/json',
      'content-length': Buffer.byteLength(text),
      // A member that has lost its leader says so at once, instead of holding the request until it times out.
      'grpc-metadata-hasleader': 'true',
      ...(token === undefined ? {} : { authorization: token }),
    };
    return this.#exchange(client.request({ ...options, method: 'POST', headers }), text, deadline, read);
  }

  /** A page of plain text, like etcd's metrics; undefined where it cannot be had. */
  async page(endpoint: string, path: string, deadline: Deadline): Promise<string | undefined> {
    const { client, options } = await this.#prepare(endpoint, path);
    const request = client.request({ ...options, method: 'GET' });
    const reply = await this.#exchange(request, '', deadline, (status, text) =>
      status === 200 ? { answer: { text } } : { kind: 'unclear', reason: `HTTP ${status}` },
    );
    return reply.failure === undefined && typeof reply.answer.text === 'string' ? reply.answer.text : undefined;
  }

  #exchange(request: http.ClientRequest, body: string, deadline: Deadline, understand: Understand): Promise<Reply> {
    const { dialTimeout } = this.#target;
    return exchange({ request, body, deadline, dialTimeout, standing: this.#standing, understand });
  }

  async #prepare(endpoint: string, path: string) {
    const url = new URL(endpoint);
    const client = url.protocol === 'https:' ? await this.#secureClient() : this.#plainClient();
    const port = url.port === '' ? (url.protocol === 'https:' ? 443 : 80) : url.port;
    const host = url.hostname.replace(/^\[|\]$/g, '');
    return { client, options: { agent: client.agent, protocol: url.protocol, host, port, path } };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#plain?.agent.destroy();
    this.#secure?.agent.destroy();
  }

  // An agent of our own is deaf to NODE_USE_ENV_PROXY and http_proxy, which only steer the global one.
  #plainClient(): Client {
    this.#plain ??= { request: http.request, agent: new http.Agent({ keepAlive: true, maxSockets: 32 }) };
    return this.#plain;
  }

  /** node:https and what it brings cost 12 ms to load, so they are loaded only for endpoints that need them. */
  async #secureClient(): Promise<Client> {
    if (this.#secure !== undefined) return this.#secure;
    const tls = tlsFiles(this.#target);
    const secure = await import('node:https');
    this.#secure ??= {
      request: secure.request,
      agent: new secure.Agent({ keepAlive: true, maxSockets: 32, rejectUnauthorized: true, ...tls }),
    };
    return this.#secure;
  }
}

/** What an HTTP status and body mean. */
type Understand = (status: number, text: string) => Failure | Reply;

interface Exchange {
  readonly request: http.ClientRequest;
  readonly body: string;
  readonly deadline: Deadline;
  readonly dialTimeout: number;
  readonly standing: WeakSet<Socket>;
  readonly understand: Understand;
}

/** Sends the request and waits for the whole answer. Never rejects: what happened is in the reply. */
function exchange({ request, body, deadline, dialTimeout, standing, understand }: Exchange): Promise<Reply> {
  return new Promise(resolve => {
    let connected = false;
    let kept = false;
    let answering = false;
    let ended = false;
    const end = (outcome: Failure | Reply, whole = false) => {
      if (ended) return;
      ended = true;
      clearTimeout(timer);
      resolve('kind' in outcome ? { failure: outcome } : outcome);
      if (!whole) request.destroy();
    };
    const late = () => end(tooLate(connected));
    let timer = setTimeout(late, deadline.left());
    request.on('error', error => end(broken(error, connected, kept && !answering)));
    request.on('socket', socket => {
      // Not `request.reusedSocket`: that stays false on a socket handed over by another request that has just ended.
      kept = standing.has(socket);
      connected = kept;
      if (kept || ended) return;
      clearTimeout(timer);
      timer = setTimeout(late, Math.min(dialTimeout, deadline.left()));
      socket.once(request.protocol === 'https:' ? 'secureConnect' : 'connect', () => {
        connected = true;
        standing.add(socket);
        clearTimeout(timer);
        if (!ended) timer = setTimeout(late, deadline.left());
      });
    });
    request.on('response', response => {
      answering = true;
      collect(response, understand, end);
    });
    request.end(body);
  });
}

function tooLate(connected: boolean): Failure {
  return connected
    ? { kind: 'unclear', reason: 'connected, but no answer in time' }
    : { kind: 'unsent', reason: 'no connection in time' };
}

function broken(error: Error, connected: boolean, stale: boolean): Failure {
  const cause = systemCode(error);
  const reason = connectionReason(cause);
  if (!connected || isTlsAlert(cause)) return { kind: 'unsent', reason };
  // A kept connection that the server had closed in the meantime says nothing about the server.
  return { kind: 'unclear', reason, passing: stale };
}

function collect(
  response: http.IncomingMessage,
  understand: Understand,
  end: (outcome: Failure | Reply, whole?: boolean) => void,
): void {
  const chunks: Buffer[] = [];
  let size = 0;
  response.on('data', (chunk: Buffer) => {
    size += chunk.length;
    if (size > largestAnswer) end({ kind: 'unclear', reason: 'an answer too large to be one of etcd' });
    else chunks.push(chunk);
  });
  response.on('error', () => end({ kind: 'unclear', reason: 'connection closed in the middle of the answer' }));
  response.on('close', () => end({ kind: 'unclear', reason: 'connection closed in the middle of the answer' }));
  response.on('end', () => end(understand(response.statusCode ?? 0, Buffer.concat(chunks).toString('utf8')), true));
}

/** What an HTTP answer means. Bodies that are not etcd's are never shown. */
function read(status: number, text: string): Failure | Reply {
  const body = parse(text);
  if (status === 200) {
    return body === undefined ? { kind: 'unclear', reason: 'an answer that is not JSON' } : { answer: body };
  }
  const { code: grpcCode, message } = body ?? {};
  if (typeof grpcCode === 'number' && typeof message === 'string') {
    // The gateway's own 404 carries gRPC's NotFound too; etcd's errors say "etcdserver".
    if (status === 404 && !message.startsWith('etcdserver: ')) return { kind: 'gatewayOff', reason: 'HTTP 404' };
    return judge(grpcCode, message);
  }
  if (status === 404) return { kind: 'gatewayOff', reason: 'HTTP 404' };
  if (status === 400 && text.startsWith(byCertificateName)) {
    return { kind: 'gatewayOff', reason: 'it identifies clients by the name in their certificate' };
  }
  if (status === 400 && text.startsWith('Client sent an HTTP request to an HTTPS server')) {
    return { kind: 'unsent', reason: 'it speaks TLS: write https:// in etcdURL' };
  }
  return { kind: 'unclear', reason: `HTTP ${status}` };
}

function parse(text: string): Message | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Message) : undefined;
  } catch {
    return undefined;
  }
}
