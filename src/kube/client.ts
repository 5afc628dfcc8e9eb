// The Kubernetes API for what runs longer than a pod's ADD: agent and command line. Every call has a deadline.
import type { IncomingMessage } from 'node:http';
import { type Deadline, deadlineIn, rest } from '../base/clock.ts';
import { type Answer, foundIn, isAbsent, type Page, pageIn, parsed, statusOf, valueIn } from './answer.ts';
import type { ApiTarget } from './config.ts';
import { Credentials, type ReadTarget, type TargetSource, targetReader } from './credentials.ts';
import { bodyOf, type Call, Exchanges } from './exchange.ts';
import { ApiError, refusal } from './failure.ts';
import type { Found, KubeObject } from './objects.ts';
import { follow, type WatchEvent } from './watch.ts';

/** Which objects of a collection. */
export interface Selection {
  /** As kubectl's `-l` and `--field-selector` take them. */
  readonly labelSelector?: string | undefined;
  readonly fieldSelector?: string | undefined;
}

export interface ListOptions extends Selection {
  /** Ends it early, as unanswered. */
  readonly signal?: AbortSignal;
}

export interface Listed<T> {
  readonly items: readonly T[];
  /** Of the whole list; a watch from here misses nothing. */
  readonly resourceVersion: string;
}

export interface WatchOptions extends Selection {
  /** What came after this version. */
  readonly resourceVersion: string;
  /** After how many seconds the server is to end the watch. */
  readonly timeoutSeconds: number;
  /** After how many milliseconds without a word from the server the watch fails; bookmarks are words. */
  readonly silence: number;
}

const patchTypes = {
  merge: 'application/merge-patch+json',
  json: 'application/json-patch+json',
  /** JSON is YAML too. */
  apply: 'application/apply-patch+yaml',
} as const;

/** Our name in an object's managedFields. */
const fieldManager = 'kube-ipam';

export interface DeleteOptions {
  /** The object goes only if it is still this one. */
  readonly preconditions?: { readonly uid?: string; readonly resourceVersion?: string };
  readonly gracePeriodSeconds?: number;
}

const pageSize = '500';

/** One page of a list, in milliseconds: the API server itself gives up after 60 s. */
const pageTimeout = 30_000;

/** The head of a watch's answer, in milliseconds. */
const openTimeout = 30_000;

/** Of one call, waits that the server asked for included. */
const mostTries = 10;

/** A second time does no more than the first (RFC 9110, 9.2.2); on PUT and DELETE it may answer that it was done before. */
const repeatable: readonly string[] = ['GET', 'PUT', 'DELETE'];

/** Reads the target at once, so that what is wrong with it is told at the start. Throws code 7. */
export async function openClient(source: TargetSource): Promise<Client> {
  const client = new Client(targetReader(source));
  await client.target();
  return client;
}

/**
 * Paths are those of `pathOf`. Every call throws ApiError when the server refuses, UnansweredError when no answer came
 * in time or before the signal, StrangeAnswerError when it was none of an API server's; all are code 11, and say what
 * would mend it.
 */
export class Client implements AsyncDisposable {
  readonly #credentials: Credentials;
  readonly #exchanges = new Exchanges();

  constructor(read: ReadTarget) {
    this.#credentials = new Credentials(read);
  }

  /** As its files are now. Throws code 7. */
  target(): Promise<ApiTarget> {
    return this.#credentials.current();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#exchanges[Symbol.dispose]();
  }

  /** Undefined when the server says that there is no such object. */
  async get<T extends KubeObject>(
    path: string,
    deadline: Deadline,
    signal?: AbortSignal,
  ): Promise<Found<T> | undefined> {
    const call: Call = { verb: 'get', method: 'GET', path };
    const { target, ...answer } = await this.#answer(call, deadline, signal);
    return foundIn<T>(call, target, answer);
  }

  /**
   * All objects of a collection as they are now, at one version, by quorum; `keep` may shrink each as its page arrives.
   */
  async list<T extends KubeObject, K = T>(
    path: string,
    options: ListOptions,
    deadline: Deadline,
    keep: (object: T) => K = object => object as unknown as K,
  ): Promise<Listed<K>> {
    for (let tries = 1; ; tries++) {
      try {
        return await this.#pages(path, options, deadline, keep);
      } catch (error) {
        // The version that the pages are of was compacted away between two of them.
        if (!(error instanceof ApiError && error.status === 410) || tries === 3) throw error;
      }
    }
  }

  create<T>(path: string, object: object, deadline: Deadline, signal?: AbortSignal): Promise<T> {
    return this.#write<T>({ verb: 'create', method: 'POST', path, body: JSON.stringify(object) }, deadline, signal);
  }

  /** Puts the object in the place of the one with its metadata.resourceVersion; reason `Conflict` when that has changed. */
  update<T>(path: string, object: object, deadline: Deadline, signal?: AbortSignal): Promise<T> {
    return this.#write<T>({ verb: 'update', method: 'PUT', path, body: JSON.stringify(object) }, deadline, signal);
  }

  /** `apply` takes over the fields that it names, from whomever, and creates the object where there is none. */
  patch<T>(path: string, type: keyof typeof patchTypes, patch: object, deadline: Deadline): Promise<T> {
    const query = { fieldManager, ...(type === 'apply' && { force: 'true' }) };
    const contentType = patchTypes[type];
    const body = JSON.stringify(patch);
    return this.#write<T>({ verb: 'patch', method: 'PATCH', path, query, body, contentType }, deadline);
  }

  /** False when there is no such object. */
  async delete(path: string, deadline: Deadline, options: DeleteOptions = {}): Promise<boolean> {
    const call: Call = { verb: 'delete', method: 'DELETE', path, body: JSON.stringify(options) };
    const { target, ...answer } = await this.#answer(call, deadline);
    if (isAbsent(call, answer.status, statusOf(parsed(answer.body)))) return false;
    valueIn(call, target, answer);
    return true;
  }

  /**
   * What happens to a collection after a version: settles when the server has agreed, and ends when the server ends it
   * or the signal does. Status 410: the version is too old, so list again.
   */
  async watch<T extends KubeObject>(
    path: string,
    options: WatchOptions,
    signal: AbortSignal,
  ): Promise<AsyncIterable<WatchEvent<T>>> {
    const { silence, resourceVersion, timeoutSeconds, labelSelector, fieldSelector } = options;
    const query = {
      watch: '1',
      allowWatchBookmarks: 'true',
      resourceVersion,
      timeoutSeconds: String(timeoutSeconds),
      labelSelector,
      fieldSelector,
    };
    const call: Call = { verb: 'watch', method: 'GET', path, query };
    const deadline = deadlineIn(Math.min(openTimeout, silence));
    const { response, target } = await this.#send(call, deadline, signal);
    if (response.statusCode === 200) return follow<T>(response, call, target, silence, signal);
    const { status, body } = await this.#read(response, call, target, deadline, signal);
    throw refusal(call, target, status, statusOf(parsed(body)));
  }

  async #pages<T extends KubeObject, K>(
    path: string,
    { labelSelector, fieldSelector, signal }: ListOptions,
    deadline: Deadline,
    keep: (object: T) => K,
  ): Promise<Listed<K>> {
    const items: K[] = [];
    for (let next: string | undefined; ; ) {
      const query = { limit: pageSize, labelSelector, fieldSelector, continue: next };
      const call: Call = { verb: 'list', method: 'GET', path, query };
      const { target, ...answer } = await this.#answer(call, deadline.within(pageTimeout), signal);
      const page: Page<T> = pageIn(call, target, answer);
      for (const item of page.items) items.push(keep(item));
      if (page.next === '') return { items, resourceVersion: page.resourceVersion };
      next = page.next;
    }
  }

  async #write<T>(call: Call, deadline: Deadline, signal?: AbortSignal): Promise<T> {
    const { target, ...answer } = await this.#answer(call, deadline, signal);
    return valueIn<T>(call, target, answer);
  }

  async #answer(call: Call, deadline: Deadline, signal?: AbortSignal): Promise<Answer & { target: ApiTarget }> {
    const { response, target } = await this.#send(call, deadline, signal);
    return this.#read(response, call, target, deadline, signal);
  }

  async #read(
    response: IncomingMessage,
    call: Call,
    target: ApiTarget,
    deadline: Deadline,
    signal: AbortSignal | undefined,
  ): Promise<Answer & { target: ApiTarget }> {
    const body = await bodyOf(response, call, target, deadline, signal);
    return { target, status: response.statusCode ?? 0, date: response.headers.date, body };
  }

  /** Sends the call, and again where that is safe and worth it: the server has then done nothing with the one before. */
  async #send(call: Call, deadline: Deadline, signal?: AbortSignal): Promise<Received> {
    let target = await this.#credentials.current();
    for (let tries = 1; ; tries++) {
      const reply = await this.#exchanges.send(call, target, deadline, signal);
      if ('failure' in reply) {
        if (reply.stale && repeatable.includes(call.method) && tries < mostTries) continue;
        throw reply.failure;
      }
      const { response } = reply;
      const renewed = response.statusCode === 401 ? await this.#credentials.instead(target) : undefined;
      const wait = renewed === undefined ? retryAfter(response) : 0;
      if (wait === undefined || wait >= deadline.left() || tries >= mostTries) return { response, target };
      response.resume();
      target = renewed ?? target;
      await rest(wait, signal);
    }
  }
}

interface Received {
  readonly response: IncomingMessage;
  readonly target: ApiTarget;
}

/** Milliseconds after which the server wants to be asked again: it sheds load, or is just starting or ending. */
function retryAfter({ statusCode = 0, headers }: IncomingMessage): number | undefined {
  const seconds = Number(headers['retry-after']);
  if ((statusCode !== 429 && statusCode < 500) || !Number.isFinite(seconds) || seconds < 0) return undefined;
  // Some later than told, so that those who were sent away together do not come back together.
  return seconds * 1000 * (1 + Math.random() / 2);
}
