// Streams to a cluster: opened at the endpoint that answered last, with a token where one is needed.
import { type Deadline, deadlineIn } from '../../base/clock.ts';
import { FailureError } from '../../base/errors.ts';
import type { EtcdTarget } from '../target.ts';
import type { Calls } from './calls.ts';
import type { GrpcTransport, OpenedStream, Service } from './channel.ts';
import type { Failure } from './failure.ts';
import { readAnswer, readRequest } from './wire.ts';

export class Streams {
  readonly calls: Calls;
  readonly target: EtcdTarget;
  readonly #transport: GrpcTransport;
  /** Ends every stream, when the store is closed. */
  readonly closed: AbortSignal;

  constructor(target: EtcdTarget, transport: GrpcTransport, calls: Calls, closed: AbortSignal) {
    this.target = target;
    this.#transport = transport;
    this.calls = calls;
    this.closed = closed;
  }

  async open(
    endpoint: string,
    service: Service,
    method: string,
  ): Promise<OpenedStream & { token?: string | undefined }> {
    const deadline = deadlineIn(this.target.requestTimeout);
    try {
      return await this.#open(endpoint, service, method, deadline);
    } catch (error) {
      // A password or certificate file that is just being replaced must not end what runs for weeks.
      if (error instanceof FailureError) return { failure: { kind: 'unsent', reason: error.message } };
      throw error;
    }
  }

  async #open(endpoint: string, service: Service, method: string, deadline: Deadline) {
    const login = await this.calls.token(endpoint, deadline);
    if (login.failure !== undefined) return login;
    const opened = await this.#transport.stream(endpoint, service, method, login.token, deadline);
    return { ...opened, token: login.token };
  }

  /** The revision of the whole cluster now; the read of a key makes a quorum answer. */
  revision(key: string, deadline: Deadline): Promise<number> {
    return this.calls.call('txn', readRequest([{ key }]), 'safe', deadline, answer => readAnswer(answer, 1).revision);
  }

  /** Takes note of what ended a stream, so that the next one goes elsewhere or with a new token. */
  ended(endpoint: string, failure: Failure, token: string | undefined): void {
    if (failure.kind === 'token' || failure.kind === 'permission') this.calls.tokenRefused(token);
    else this.calls.endpoints.failed(endpoint);
  }
}
