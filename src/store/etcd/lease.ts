// A lease that is kept alive, and whose holder can tell at any moment whether it still surely has it.
import { type Deadline, rest } from '../../base/clock.ts';
import type { Stream } from './channel.ts';
import { fault } from './channel.ts';
import type { Failure } from './failure.ts';
import type { Streams } from './streams.ts';
import { BrokenAnswerError, integer, message } from './wire.ts';

/** Dispose it to stop renewing (it then runs out by itself), or revoke it to end it, and every key on it, at once. */
export interface KeptLease extends AsyncDisposable {
  readonly id: string;
  /** Seconds that etcd granted. */
  readonly ttl: number;
  /**
   * Until when etcd cannot have let it expire, in milliseconds of performance.now(): the moment at which the last
   * acknowledged renewal was sent, plus the time to live. Beyond it the lease may still live, but nobody here knows.
   */
  readonly heldUntil: number;
  surelyHeld(): boolean;
  /** Aborted when etcd has said that the lease is gone. Its keys are gone too. */
  readonly lost: AbortSignal;
  /** Sends a renewal now, whenever the next one would be due. */
  renewNow(): void;
  revoke(deadline: Deadline): Promise<void>;
}

interface Granted {
  readonly id: string;
  readonly ttl: number;
  /** When the request for it was sent. */
  readonly asked: number;
}

/** What somebody who keeps a lease may have to do with its renewals. Neither function may throw. */
export interface Renewal {
  /** Asked before each renewal is sent; while it says no, none is. */
  readonly mayRenew?: () => boolean;
  /** Called after each acknowledged renewal, when `heldUntil` has moved. */
  readonly onRenewed?: () => void;
}

interface Keeping extends Renewal {
  revoke(lease: string, deadline: Deadline): Promise<void>;
}

/** How often, in milliseconds, it is asked again whether to renew. */
const askAgain = 100;

export function keep(streams: Streams, granted: Granted, keeping: Keeping): KeptLease {
  return new RenewedLease(streams, granted, keeping);
}

class RenewedLease implements KeptLease {
  readonly id: string;
  readonly ttl: number;
  readonly #streams: Streams;
  readonly #keeping: Keeping;
  readonly #stop = new AbortController();
  readonly #lost = new AbortController();
  readonly #renewing: Promise<void>;
  readonly #ended: AbortSignal;
  #heldUntil: number;
  #hurry = new AbortController();

  constructor(streams: Streams, granted: Granted, keeping: Keeping) {
    this.id = granted.id;
    this.ttl = granted.ttl;
    this.#streams = streams;
    this.#keeping = keeping;
    this.#heldUntil = granted.asked + granted.ttl * 1000;
    this.#ended = AbortSignal.any([this.#stop.signal, this.#lost.signal, streams.closed]);
    this.#renewing = this.#renew();
  }

  get heldUntil(): number {
    return this.#lost.signal.aborted ? 0 : this.#heldUntil;
  }

  get lost(): AbortSignal {
    return this.#lost.signal;
  }

  surelyHeld(): boolean {
    return performance.now() < this.heldUntil;
  }

  renewNow(): void {
    this.#hurry.abort();
  }

  async revoke(deadline: Deadline): Promise<void> {
    await this[Symbol.asyncDispose]();
    await this.#keeping.revoke(this.id, deadline);
    this.#lost.abort();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#renewing;
  }

  /** A silent member costs a sixth of the time to live, so that two others can be asked before it is over. */
  get #patience(): number {
    return Math.min(this.#streams.target.requestTimeout, (this.ttl * 1000) / 6);
  }

  async #restUntilDue(): Promise<void> {
    await rest((this.ttl * 1000) / 3, AbortSignal.any([this.#ended, this.#hurry.signal]));
    this.#hurry = new AbortController();
  }

  async #renew(): Promise<void> {
    await this.#restUntilDue();
    while (!this.#ended.aborted) {
      const endpoint = this.#streams.calls.endpoints.order()[0]!;
      const failure = await this.#renewAt(endpoint);
      if (this.#ended.aborted) return;
      this.#streams.ended(endpoint, failure.failure, failure.token);
      await rest(50 + Math.random() * 100, this.#ended);
    }
  }

  /** Renews on one stream until that fails. */
  async #renewAt(endpoint: string): Promise<{ readonly failure: Failure; readonly token?: string | undefined }> {
    let token: string | undefined;
    try {
      const opened = await this.#streams.open(endpoint, 'Lease', 'leaseKeepAlive');
      if (opened.failure !== undefined) return opened;
      token = opened.token;
      return { failure: await this.#renewOn(opened.stream, endpoint), token };
    } catch (error) {
      const reason = error instanceof BrokenAnswerError ? error.message : undefined;
      return { failure: reason === undefined ? fault(error) : { kind: 'unclear', reason }, token };
    }
  }

  async #renewOn(stream: Stream, endpoint: string): Promise<Failure> {
    const stop = () => stream.cancel();
    this.#ended.addEventListener('abort', stop);
    try {
      const answers = stream[Symbol.asyncIterator]();
      while (!this.#ended.aborted) {
        if (this.#keeping.mayRenew?.() === false) {
          await rest(askAgain, this.#ended);
          continue;
        }
        const sent = performance.now();
        stream.write({ ID: this.id });
        const answer = await inTime(answers.next(), this.#patience);
        if (answer === undefined) return { kind: 'unclear', reason: 'connected, but no answer in time' };
        if (answer.done === true) return { kind: 'unclear', reason: 'the stream ended' };
        this.#take(integer(message(answer.value).TTL), sent);
        this.#streams.calls.endpoints.answered(endpoint, 'grpc');
        await this.#restUntilDue();
      }
      return { kind: 'unclear', reason: 'stopped' };
    } finally {
      this.#ended.removeEventListener('abort', stop);
      stream.cancel();
    }
  }

  #take(ttl: number, sent: number): void {
    if (ttl <= 0) {
      this.#lost.abort();
      return;
    }
    this.#heldUntil = Math.max(this.#heldUntil, sent + ttl * 1000);
    this.#keeping.onRenewed?.();
  }
}

/** Undefined when the time is over first. */
async function inTime<T>(promise: Promise<T>, ms: number): Promise<T | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<undefined>(resolve => {
    timer = setTimeout(() => resolve(undefined), ms);
  });
  // When the time wins, the promise rejects later with the cancelled stream, and nobody is left to hear it.
  promise.catch(() => {});
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
