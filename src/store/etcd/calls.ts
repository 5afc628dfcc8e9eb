// One call to an etcd cluster: which endpoint is asked, when the next one is, and when to stop because nobody can tell what happened.
import { backoff, type Deadline, pause } from '../../base/clock.ts';
import type { FailureError } from '../../base/errors.ts';
import { DamagedError, OutOfSpaceError, RefusedError, UnknownFateError, UnreachableError } from '../kv.ts';
import type { EtcdTarget } from '../target.ts';
import { Endpoints } from './endpoints.ts';
import { GatewayOffError, RelistError } from './errors.ts';
import type { Failure } from './failure.ts';
import { Login } from './login.ts';
import type { Method, Reply, Transport } from './transport.ts';
import { BrokenAnswerError, type Message } from './wire.ts';

/** Whether a call may be sent a second time when nobody knows what became of the first. */
export type Repeat = 'safe' | 'never';

/** A lease ran out between its granting and the commit that was to use it: nothing was written. */
export class LeaseGoneError extends Error {
  override name = 'LeaseGoneError';
}

export class Calls implements AsyncDisposable {
  readonly endpoints: Endpoints;
  readonly #target: EtcdTarget;
  readonly #transport: Transport;
  readonly #login: Login;

  constructor(target: EtcdTarget, transport: Transport) {
    this.endpoints = new Endpoints(target);
    this.#target = target;
    this.#transport = transport;
    this.#login = new Login(target, transport);
  }

  /** @param understand takes the answer apart; what it throws as BrokenAnswerError counts as no clear answer. */
  async call<T>(
    method: Method,
    body: Message,
    repeat: Repeat,
    deadline: Deadline,
    understand: (answer: Message) => T,
  ): Promise<T> {
    const tried = new Map<string, string>();
    for (let round = 1; ; round++) {
      let passing = false;
      for (const endpoint of this.endpoints.order()) {
        if (deadline.passed) throw unreachable(tried, this.endpoints.all);
        const outcome = understood(await this.#ask(endpoint, method, body, deadline), understand);
        if ('result' in outcome) {
          this.endpoints.answered(endpoint, this.#transport.name);
          return outcome.result;
        }
        this.#giveUpIfClear(endpoint, outcome.failure, repeat);
        tried.set(endpoint, outcome.failure.reason);
        passing ||= outcome.failure.passing === true;
      }
      if (!passing || deadline.passed) throw unreachable(tried, this.endpoints.all);
      await pause(backoff(round, 50, 500), deadline);
    }
  }

  /** A token for a stream, which cannot go through `call`. */
  token(endpoint: string, deadline: Deadline) {
    return this.#login.token(endpoint, deadline);
  }

  tokenRefused(token: string | undefined): void {
    this.#login.refused(token);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#transport[Symbol.asyncDispose]();
  }

  /** One endpoint; a second time with a new token when etcd no longer takes the one we have. */
  async #ask(endpoint: string, method: Method, body: Message, deadline: Deadline): Promise<Reply> {
    const limit = deadline.within(this.#target.requestTimeout);
    for (let tries = 1; ; tries++) {
      const login = await this.#login.token(endpoint, limit);
      if (login.failure !== undefined) return login;
      const reply = await this.#transport.send(endpoint, method, body, login.token, limit);
      const renew = reply.failure?.kind === 'token' || (reply.failure?.kind === 'login' && login.token === undefined);
      if (!renew || tries === 2) return reply;
      this.#login.refused(login.token);
    }
  }

  /** Returns when the next endpoint may be asked, throws when the call ends here. */
  #giveUpIfClear(endpoint: string, failure: Failure, repeat: Repeat): void {
    const { kind, reason } = failure;
    if (kind === 'gatewayOff') {
      this.endpoints.gatewayOff(endpoint);
      throw new GatewayOffError(`etcd at ${endpoint} does not serve this client over its JSON gateway (${reason})`);
    }
    if (kind === 'busy') return;
    if (kind === 'unsent' || kind === 'unclear') {
      this.endpoints.failed(endpoint);
      if (kind === 'unsent' || repeat === 'safe') return;
      throw new UnknownFateError(
        `etcd at ${endpoint} was asked to write, but did not say clearly whether it did (${reason}): it may have been written, or may be later`,
      );
    }
    throw refusal(endpoint, failure, this.#target);
  }
}

type Outcome<T> = { readonly result: T } | { readonly failure: Failure };

function understood<T>(reply: Reply, understand: (answer: Message) => T): Outcome<T> {
  if (reply.failure !== undefined) return { failure: reply.failure };
  try {
    return { result: understand(reply.answer) };
  } catch (error) {
    if (!(error instanceof BrokenAnswerError)) throw error;
    return { failure: { kind: 'unclear', reason: `not an answer of etcd's (${error.message})` } };
  }
}

function unreachable(tried: ReadonlyMap<string, string>, all: readonly string[]): UnreachableError {
  if (tried.size === 0)
    return new UnreachableError(`etcd was not asked in time (${all.join(', ')}): the time allowed had run out`);
  const reasons = [...tried].map(([endpoint, reason]) => `${endpoint}: ${reason}`);
  const untried = all.filter(endpoint => !tried.has(endpoint)).map(endpoint => `${endpoint}: no time left to try it`);
  return new UnreachableError(`etcd cannot be reached: ${[...reasons, ...untried].join('; ')}`);
}

function refusal(endpoint: string, failure: Failure, target: EtcdTarget): FailureError | LeaseGoneError {
  const at = `etcd at ${endpoint}`;
  const user = target.username === undefined ? 'this client (no etcdUsername is set)' : `user "${target.username}"`;
  switch (failure.kind) {
    case 'space':
      return new OutOfSpaceError(
        `${at} is out of space and refuses writes (alarm NOSPACE): compact its history, defragment every member (etcdctl defrag), then run "etcdctl alarm disarm"; if it fills again, raise --quota-backend-bytes or switch on --auto-compaction-retention`,
      );
    case 'permission':
      return new RefusedError(
        `${at} gives ${user} no permission: grant its role readwrite on the prefixes /kube-ipam/ and /kiwi/ (etcdctl role grant-permission ROLE --prefix=true readwrite /kube-ipam/)`,
      );
    case 'login':
    case 'token':
    case 'noLogin':
      return new RefusedError(
        target.username === undefined
          ? `${at} asks for a user (${failure.reason}): set etcdUsername and etcdPasswordFile, or a client certificate that names a user`
          : `${at} refuses ${user} (${failure.reason}): check etcdUsername and the password in ${target.passwordFile}`,
      );
    case 'broken':
      return new DamagedError(
        `${at} says that its data is damaged (${failure.reason}): see etcd's documentation on data corruption before anything else is written`,
      );
    case 'compacted':
      return new RelistError(`${at} no longer has the revision that was asked for (${failure.reason}): ask again`);
    case 'leaseGone':
      return new LeaseGoneError(`${at}: ${failure.reason}`);
    default:
      return new RefusedError(`${at} refuses the request (${failure.reason})`);
  }
}
