// Tells people in a pod's or node's own events (core/v1, which every viewer counts and sorts) what happened to it.
import { randomBytes } from 'node:crypto';
import { backoff, deadlineIn, rest } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import type { Client } from './client.ts';
import { ApiError, UnansweredError } from './failure.ts';
import { events, pathOf } from './resources.ts';

/** The object that an event is about. */
export interface EventSubject {
  readonly apiVersion: string;
  readonly kind: string;
  /** Absent for nodes and their like, whose events stand in namespace default. */
  readonly namespace?: string | undefined;
  readonly name: string;
  readonly uid?: string | undefined;
}

export type EventType = 'Normal' | 'Warning';

export interface EventOptions {
  /** Who tells it. */
  readonly component: string;
  /** On which node. */
  readonly host: string;
  readonly limits?: Partial<EventLimits>;
}

export interface EventLimits {
  /** Different events that wait to be told; more are dropped. */
  readonly waiting: number;
  /** Requests that may go out at once after a quiet time, and how many may each second for long. */
  readonly burst: number;
  readonly perSecond: number;
  /** Milliseconds between two requests about the same event: those between are counted together. */
  readonly gap: number;
  /** Milliseconds after which an event that could not be told is given up. */
  readonly life: number;
}

const usual: EventLimits = { waiting: 500, burst: 20, perSecond: 5, gap: 10_000, life: 300_000 };

/** Events whose repetitions are counted: beyond that the one that is longest unheard of is told anew. */
const mostKnown = 1000;

const requestTimeout = 10_000;
const longestMessage = 1024;

/** How long the end waits for what is still to be told, in milliseconds. */
const lastWords = 2000;

/** What is to be told: once, or how often since the last time. */
interface Waiting {
  readonly subject: EventSubject;
  readonly type: EventType;
  readonly reason: string;
  readonly message: string;
  readonly since: number;
  readonly first: string;
  last: string;
  times: number;
}

/** What was told, and under which name it stands in the API. */
interface Known {
  readonly name: string;
  readonly first: string;
  /** How often, as the API has it; 0: not yet there. */
  count: number;
  toldAt: number;
}

/** Needs the rights to create and patch events. */
export class EventRecorder implements AsyncDisposable {
  readonly #client: Client;
  readonly #options: EventOptions;
  readonly #limits: EventLimits;
  readonly #waiting = new Map<string, Waiting>();
  readonly #known = new Map<string, Known>();
  readonly #closing = new AbortController();
  #wake = new AbortController();
  #running: Promise<void> | undefined;
  #tokens: number;
  #tokensAt = performance.now();
  #failures = 0;
  #dropped = 0;
  #trouble: string | undefined;

  constructor(client: Client, options: EventOptions) {
    this.#client = client;
    this.#options = options;
    this.#limits = { ...usual, ...options.limits };
    this.#tokens = this.#limits.burst;
  }

  /** How many events were never told. */
  get dropped(): number {
    return this.#dropped;
  }

  /** Why the last one could not be told; undefined when it could. */
  get trouble(): string | undefined {
    return this.#trouble;
  }

  /** Returns at once and never throws; it is told soon, once for many of the same, or not at all. */
  record(subject: EventSubject, type: EventType, reason: string, message: string): void {
    if (this.#closing.signal.aborted) return;
    const { kind, namespace, name, uid } = subject;
    const key = JSON.stringify([kind, namespace, name, uid, type, reason, message]);
    const same = this.#waiting.get(key);
    const now = seconds();
    if (same !== undefined) {
      same.times++;
      same.last = now;
    } else if (this.#waiting.size >= this.#limits.waiting) this.#dropped++;
    else {
      const since = performance.now();
      this.#waiting.set(key, { subject, type, reason, message, since, first: now, last: now, times: 1 });
      this.#running ??= this.#run();
      this.#wake.abort();
    }
  }

  /** Tells what still waits, for two seconds at most. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort();
    this.#wake.abort();
    const late = new AbortController();
    await Promise.race([this.#running, rest(lastWords, late.signal)]);
    late.abort();
    this.#waiting.clear();
  }

  async #run(): Promise<void> {
    while (this.#waiting.size > 0 || !this.#closing.signal.aborted) {
      const next = this.#next();
      if (next === undefined) await this.#pause(this.#untilDue());
      else await this.#told(...next);
    }
  }

  /** The one that waits longest, of those that may be told now. */
  #next(): [string, Waiting] | undefined {
    if (this.#tokensNow() < 1) return undefined;
    for (const entry of this.#waiting) if (this.#dueIn(entry[0]) <= 0) return entry;
    return undefined;
  }

  #dueIn(key: string): number {
    const known = this.#known.get(key);
    if (known === undefined || this.#closing.signal.aborted) return 0;
    return known.toldAt + this.#limits.gap - performance.now();
  }

  #untilDue(): number {
    const soonest = Math.min(...[...this.#waiting.keys()].map(key => this.#dueIn(key)));
    const token = ((1 - this.#tokensNow()) / this.#limits.perSecond) * 1000;
    return Math.min(60_000, Math.max(soonest, token, 1));
  }

  #tokensNow(): number {
    const now = performance.now();
    const { burst, perSecond } = this.#limits;
    this.#tokens = Math.min(burst, this.#tokens + ((now - this.#tokensAt) / 1000) * perSecond);
    this.#tokensAt = now;
    return this.#tokens;
  }

  async #pause(ms: number): Promise<void> {
    if (this.#wake.signal.aborted) this.#wake = new AbortController();
    await rest(ms, this.#wake.signal);
  }

  async #told(key: string, event: Waiting): Promise<void> {
    this.#tokens--;
    const { times, last } = event;
    const known = this.#known.get(key) ?? {
      name: nameOf(event.subject),
      first: event.first,
      count: 0,
      toldAt: 0,
    };
    this.#remember(key, known);
    try {
      await this.#send(event, known, known.count + times, last);
      known.count += times;
      known.toldAt = performance.now();
      this.#failures = 0;
      this.#trouble = undefined;
      event.times -= times;
      if (event.times === 0) this.#waiting.delete(key);
    } catch (error) {
      this.#trouble = messageOf(error);
      const hasTime = performance.now() - event.since < this.#limits.life && !this.#closing.signal.aborted;
      if (mayPass(error) && hasTime) return rest(backoff(++this.#failures, 1000, 30_000), this.#closing.signal);
      this.#waiting.delete(key);
      this.#dropped++;
    }
  }

  /** The newest is last. */
  #remember(key: string, known: Known): void {
    this.#known.delete(key);
    this.#known.set(key, known);
    const [oldest] = this.#known.keys();
    if (this.#known.size > mostKnown && oldest !== undefined) this.#known.delete(oldest);
  }

  async #send(event: Waiting, known: Known, count: number, lastTimestamp: string): Promise<void> {
    const namespace = event.subject.namespace ?? 'default';
    const deadline = deadlineIn(requestTimeout);
    if (known.count > 0) {
      try {
        const path = pathOf(events, { namespace, name: known.name });
        await this.#client.patch(path, 'merge', { count, lastTimestamp }, deadline);
        return;
      } catch (error) {
        // The API server forgets events after an hour.
        if (!(error instanceof ApiError) || error.status !== 404) throw error;
      }
    }
    try {
      await this.#client.create(
        pathOf(events, { namespace }),
        this.#body(event, namespace, known, count, lastTimestamp),
        deadline,
      );
    } catch (error) {
      // An earlier try whose answer was lost.
      if (!(error instanceof ApiError) || error.reason !== 'AlreadyExists') throw error;
    }
  }

  #body(event: Waiting, namespace: string, known: Known, count: number, lastTimestamp: string): object {
    const { component, host } = this.#options;
    const { subject, type, reason, message } = event;
    return {
      apiVersion: events.apiVersion,
      kind: events.kind,
      metadata: { namespace, name: known.name },
      involvedObject: subject,
      type,
      reason,
      message: message.length > longestMessage ? `${message.slice(0, longestMessage - 3)}...` : message,
      firstTimestamp: known.first,
      lastTimestamp,
      count,
      source: { component, host },
      reportingComponent: component,
      reportingInstance: host,
    };
  }
}

/** Asking again may help; a right that is missing or a namespace that is gone will not come soon. */
function mayPass(error: unknown): boolean {
  return (
    error instanceof UnansweredError || (error instanceof ApiError && (error.status === 429 || error.status >= 500))
  );
}

/** The subject's own name first, as people list events; what is cut off must leave a name that Kubernetes allows. */
function nameOf({ name }: EventSubject): string {
  return `${name.slice(0, 230).replace(/[^a-z0-9]+$/, '')}.${randomBytes(8).toString('hex')}`;
}

/** The wall clock, for people. */
function seconds(): string {
  return new Date().toISOString().replace(/\.\d+Z$/, 'Z');
}
