// One HTTP request to one endpoint of etcd's JSON gateway, with what is known of its fate when no answer comes.
import type { Deadline } from '../../base/clock.ts';
import { connectionReason, dial, isTlsAlert } from '../../base/dial.ts';
import { systemCode } from '../../base/errors.ts';
import { ClosedEarlyError, type HttpAnswer, type HttpConnection, NotHttpError } from '../../base/http1.ts';
import type { EtcdTarget } from '../target.ts';
import { type Failure, judge } from './failure.ts';
import { tlsFiles, unusableCertificates } from './tls-files.ts';
import type { Method, Reply, Transport } from './transport.ts';
import type { Message } from './wire.ts';

const paths: Readonly<Record<Method, string>> = {
  txn: '/v3/kv/txn',
  leaseGrant: '/v3/lease/grant',
  leaseRevoke: '/v3/lease/revoke',
  leaseTimeToLive: '/v3/lease/timetolive',
  authenticate: '/v3/auth/authenticate',
  status: '/v3/maintenance/status',
};

/** etcd's words (HTTP 400) to a client that it would identify by the name in its certificate. */
const byCertificateName = 'CommonName of client sending a request against gateway will be ignored';

/** What an HTTP status and body mean. */
type Understand = (answer: HttpAnswer) => Failure | Reply;

export class HttpTransport implements Transport {
  readonly name = 'gateway';
  readonly #target: EtcdTarget;
  /** Connections that wait for their next request, by endpoint. */
  readonly #idle = new Map<string, HttpConnection[]>();

  constructor(target: EtcdTarget) {
    this.#target = target;
  }

  send(endpoint: string, method: Method, body: Message, token: string | undefined, deadline: Deadline): Promise<Reply> {
    const text = JSON.stringify(body);
    const headers = [
      `content-type: application/json`,
      `content-length: ${Buffer.byteLength(text)}`,
      // A member that has lost its leader says so at once, instead of holding the request until it times out.
      'grpc-metadata-hasleader: true',
    ];
    if (token !== undefined) headers.push(`authorization: ${token.replace(/[^\x21-\x7e]/g, '')}`);
    return this.#exchange(endpoint, `POST ${paths[method]}`, headers, text, deadline, read);
  }

  /** A page of plain text, like etcd's metrics; undefined where it cannot be had. */
  async page(endpoint: string, path: string, deadline: Deadline): Promise<string | undefined> {
    const reply = await this.#exchange(endpoint, `GET ${path}`, [], '', deadline, ({ status, body }) =>
      status === 200 ? { answer: { text: body } } : { kind: 'unclear', reason: `HTTP ${status}` },
    );
    return reply.failure === undefined && typeof reply.answer.text === 'string' ? reply.answer.text : undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const connection of [...this.#idle.values()].flat()) connection.close();
    this.#idle.clear();
  }

  /** Sends the request and waits for the whole answer. Never rejects: what happened is in the reply. */
  async #exchange(
    endpoint: string,
    request: string,
    headers: readonly string[],
    body: string,
    deadline: Deadline,
    understand: Understand,
  ): Promise<Reply> {
    const { host } = new URL(endpoint);
    const connection = await this.#connection(endpoint, deadline);
    if ('kind' in connection) return { failure: connection };
    const kept = connection.completed > 0;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<'late'>(resolve => {
      timer = setTimeout(resolve, deadline.left(), 'late');
    });
    try {
      const text = `${[`${request} HTTP/1.1`, `host: ${host}`, ...headers].join('\r\n')}\r\n\r\n${body}`;
      const answer = await Promise.race([connection.exchange(text), late]);
      if (answer === 'late') {
        connection.close();
        return { failure: { kind: 'unclear', reason: 'connected, but no answer in time' } };
      }
      if (connection.reusable) this.#idleOf(endpoint).push(connection);
      else connection.close();
      const outcome = understand(answer);
      return 'kind' in outcome ? { failure: outcome } : outcome;
    } catch (error) {
      connection.close();
      return { failure: broken(error, kept) };
    } finally {
      clearTimeout(timer);
    }
  }

  #idleOf(endpoint: string): HttpConnection[] {
    const idle = this.#idle.get(endpoint) ?? [];
    this.#idle.set(endpoint, idle);
    return idle;
  }

  /** A connection that stands, or a new one. */
  async #connection(endpoint: string, deadline: Deadline): Promise<HttpConnection | Failure> {
    const idle = this.#idleOf(endpoint);
    for (let kept = idle.pop(); kept !== undefined; kept = idle.pop()) {
      if (kept.reusable) return kept;
      kept.close();
    }
    const { protocol, hostname, port } = new URL(endpoint);
    const host = hostname.replace(/^\[|\]$/g, '');
    const number = Number(port) || (protocol === 'https:' ? 443 : 80);
    const tls = protocol === 'https:' ? tlsFiles(this.#target) : undefined;
    try {
      const dialled = await dial(host, number, tls, this.#limit(deadline));
      return typeof dialled === 'string' ? { kind: 'unsent', reason: dialled } : dialled;
    } catch (error) {
      throw unusableCertificates(this.#target, error);
    }
  }

  #limit(deadline: Deadline): number {
    return Math.min(this.#target.dialTimeout, deadline.left());
  }
}

function broken(error: unknown, kept: boolean): Failure {
  const cause = systemCode(error);
  // A server that refuses our certificate says so only after the handshake, and has read nothing then.
  if (isTlsAlert(cause) && !kept) return { kind: 'unsent', reason: connectionReason(cause) };
  if (error instanceof NotHttpError) return { kind: 'unclear', reason: error.message };
  // A kept connection that the server had closed in the meantime says nothing about the server.
  if (error instanceof ClosedEarlyError) {
    return { kind: 'unclear', reason: error.message, passing: kept && !error.answering };
  }
  return { kind: 'unclear', reason: connectionReason(cause), passing: kept };
}

/** What an HTTP answer means. Bodies that are not etcd's are never shown. */
function read({ status, body: text }: HttpAnswer): Failure | Reply {
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
