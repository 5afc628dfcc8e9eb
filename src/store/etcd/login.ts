// The token that stands for user and password: asked for once, kept in memory only, renewed when etcd no longer takes it.
import { readFileSync } from 'node:fs';
import { type Deadline, deadlineIn } from '../../base/clock.ts';
import { code, FailureError, systemCode } from '../../base/errors.ts';
import type { EtcdTarget } from '../target.ts';
import type { Failure } from './failure.ts';
import type { Transport } from './transport.ts';

export type Token = { readonly token: string | undefined; readonly failure?: never } | { readonly failure: Failure };

export class Login {
  readonly #target: EtcdTarget;
  readonly #transport: Transport;
  #token: string | undefined;
  /** etcd runs without authentication, though a user is configured: then no token is asked for. */
  #needless = false;
  /** Checking a password costs etcd 60 ms and more of its CPU: however many calls wait for a token, one asks. */
  readonly #asking = new Map<string, Promise<Token>>();

  constructor(target: EtcdTarget, transport: Transport) {
    this.#target = target;
    this.#transport = transport;
  }

  async token(endpoint: string, deadline: Deadline): Promise<Token> {
    if (this.#target.username === undefined || this.#needless) return { token: undefined };
    if (this.#token !== undefined) return { token: this.#token };
    let asking = this.#asking.get(endpoint);
    if (asking === undefined) {
      asking = this.#ask(endpoint, this.#target.username).finally(() => this.#asking.delete(endpoint));
      this.#asking.set(endpoint, asking);
    }
    return ended(asking, deadline);
  }

  /** Forgets a token that etcd refused, unless a newer one has taken its place. */
  refused(token: string | undefined): void {
    this.#needless = false;
    if (this.#token === token) this.#token = undefined;
  }

  async #ask(endpoint: string, name: string): Promise<Token> {
    const password = readPassword(this.#target.passwordFile);
    const limit = deadlineIn(this.#target.requestTimeout);
    const reply = await this.#transport.send(endpoint, 'authenticate', { name, password }, undefined, limit);
    if (reply.failure?.kind === 'noLogin') {
      this.#needless = true;
      return { token: undefined };
    }
    // Whatever became of the request for a token, the request that needs it has not been sent.
    if (reply.failure !== undefined) {
      return { failure: reply.failure.kind === 'unclear' ? { ...reply.failure, kind: 'unsent' } : reply.failure };
    }
    const { token } = reply.answer;
    if (typeof token !== 'string' || token === '') return { failure: { kind: 'unsent', reason: 'it gave no token' } };
    this.#token = token;
    return { token };
  }
}

/** Read at each login, so that a new password takes effect without a restart. */
function readPassword(file: string | undefined): string {
  if (file === undefined) {
    throw new FailureError(
      code.config,
      'etcdUsername is set but etcdPasswordFile is not: name the file of its password',
    );
  }
  try {
    return readFileSync(file, 'utf8').replace(/\r?\n$/, '');
  } catch (error) {
    throw new FailureError(code.config, `etcdPasswordFile ${file} cannot be read (${systemCode(error) ?? 'failed'})`);
  }
}

async function ended(asking: Promise<Token>, deadline: Deadline): Promise<Token> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<Token>(resolve => {
    const failure: Failure = { kind: 'unsent', reason: 'time ran out while logging in' };
    timer = setTimeout(() => resolve({ failure }), deadline.left());
  });
  try {
    return await Promise.race([asking, late]);
  } finally {
    clearTimeout(timer);
  }
}
