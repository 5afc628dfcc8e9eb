// A copy of a collection in memory that keeps itself up to date: it lists, watches from there, and never gives up.
import { backoff, type Deadline, deadlineIn, rest } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import { Cache, type Change } from './cache.ts';
import type { Client, Selection } from './client.ts';
import { ApiError, StrangeAnswerError } from './failure.ts';
import type { KubeObject, ObjectMeta } from './objects.ts';
import type { WatchEvent } from './watch.ts';

export type InformerState =
  | { readonly connected: true }
  /** Why the copy does not follow the original now; it goes on trying by itself. */
  | { readonly connected: false; readonly reason: string };

export interface InformerOptions<T extends KubeObject, K> extends Selection {
  /** What is remembered of an object: as little as possible, there may be thousands. */
  readonly keep: (object: T) => K;
  /** Keys under which `indexed` finds the object. */
  readonly indexBy?: (kept: K) => readonly string[];
  /**
   * Called after each change. `old` and `now` are the same object by its uid; one of them is undefined when it came or
   * went, also when that was found out by a list only. Must not take long; what it throws goes to `onBug`.
   */
  readonly onChange?: (old: K | undefined, now: K | undefined) => void;
  readonly onState?: (state: InformerState) => void;
  readonly onBug?: (error: unknown) => void;
  readonly timing?: Partial<Timing>;
}

/** In milliseconds. */
export interface Timing {
  /** Waits between failures: the first one, and the longest. */
  readonly firstWait: number;
  readonly longestWait: number;
  /** The server ends each watch after this time to twice this time, so that agents do not all come back at once. */
  readonly watch: number;
  /**
   * A server sends a bookmark each minute when nothing happens: a watch without a word for this long is given up. The
   * next one goes on where it was, so giving up too early costs one request.
   */
  readonly silence: number;
  /** The longest time for the pages of one list. */
  readonly list: number;
}

const usual: Timing = { firstWait: 500, longestWait: 30_000, watch: 300_000, silence: 150_000, list: 300_000 };

/** A watch that lasted this long was no failure, even if nothing happened, in milliseconds. */
const longEnough = 5000;

export class Informer<T extends KubeObject, K = T> implements AsyncDisposable {
  readonly #client: Client;
  readonly #path: string;
  readonly #options: InformerOptions<T, K>;
  readonly #timing: Timing;
  readonly #cache: Cache<K>;
  readonly #closing = new AbortController();
  readonly #synced = Promise.withResolvers<boolean>();
  #running: Promise<void> | undefined;
  #isSynced = false;
  /** The version up to which everything is known; undefined: list. */
  #version: string | undefined;
  /** In a row, since the last word of a watch. */
  #failures = 0;
  /** Those since the version was proven good, by a list or by such a word. */
  #doubts = 0;
  #lastContact: number | undefined;
  #trouble: string | undefined = 'not started';

  /** @param path of a collection, of `pathOf`. Nothing is sent before `start`. */
  constructor(client: Client, path: string, options: InformerOptions<T, K>) {
    this.#client = client;
    this.#path = path;
    this.#options = options;
    this.#timing = { ...usual, ...options.timing };
    this.#cache = new Cache(options.indexBy);
  }

  start(): this {
    this.#trouble = 'its first list is not complete';
    this.#running ??= this.#run();
    return this;
  }

  /** Whether it has held the whole collection at least once; it may be old, see `trouble` and `silentFor`. */
  get isSynced(): boolean {
    return this.#isSynced;
  }

  /** True once it is synced; false when the deadline passes or it is closed before. */
  async whenSynced(deadline: Deadline): Promise<boolean> {
    const stop = new AbortController();
    const late = rest(deadline.left(), stop.signal).then(() => false);
    try {
      return await Promise.race([this.#synced.promise, late]);
    } finally {
      stop.abort();
    }
  }

  /** Why it does not follow the collection now; undefined when it does. */
  get trouble(): string | undefined {
    return this.#trouble;
  }

  /** Milliseconds since the server's last word, bookmarks included; undefined before the first. */
  get silentFor(): number | undefined {
    return this.#lastContact === undefined ? undefined : performance.now() - this.#lastContact;
  }

  get size(): number {
    return this.#cache.size;
  }

  get(namespace: string | undefined, name: string): K | undefined {
    return this.#cache.get(namespace, name);
  }

  list(): K[] {
    return [...this.#cache.values()];
  }

  indexed(key: string): K[] {
    return this.#cache.indexed(key);
  }

  async close(): Promise<void> {
    this.#closing.abort();
    this.#synced.resolve(false);
    await this.#running;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #run(): Promise<void> {
    const { signal } = this.#closing;
    while (!signal.aborted) {
      try {
        if (this.#version === undefined) await this.#relist();
        await this.#watch(this.#version!);
      } catch (error) {
        this.#failed(error);
      }
      const { firstWait, longestWait } = this.#timing;
      if (this.#failures > 0) await rest(backoff(this.#failures, firstWait, longestWait), signal);
    }
  }

  async #relist(): Promise<void> {
    const { keep } = this.#options;
    const keepBoth = (object: T) => ({ meta: identity(object), kept: keep(object) });
    const { labelSelector, fieldSelector } = this.#options;
    const options = { labelSelector, fieldSelector, signal: this.#closing.signal };
    const deadline = deadlineIn(this.#timing.list);
    const { items, resourceVersion } = await this.#client.list(this.#path, options, deadline, keepBoth);
    this.#heard();
    this.#tell(this.#cache.removeOthers(items.map(({ meta }) => meta)));
    for (const { meta, kept } of items) this.#tell(this.#cache.put(meta, kept));
    this.#version = resourceVersion;
    this.#doubts = 0;
    this.#isSynced = true;
    this.#synced.resolve(true);
  }

  async #watch(resourceVersion: string): Promise<void> {
    const { labelSelector, fieldSelector } = this.#options;
    const { watch, silence } = this.#timing;
    const timeoutSeconds = Math.ceil((watch * (1 + Math.random())) / 1000);
    const options = { labelSelector, fieldSelector, resourceVersion, timeoutSeconds, silence };
    const events = await this.#client.watch<T>(this.#path, options, this.#closing.signal);
    const opened = performance.now();
    this.#heard();
    this.#inTrouble(undefined);
    for await (const event of events) {
      this.#heard();
      this.#failures = 0;
      this.#doubts = 0;
      this.#apply(event);
    }
    if (performance.now() - opened > longEnough) this.#failures = 0;
    else if (this.#version === resourceVersion) this.#failed(new Error('the server ended the watch at once'));
  }

  #apply(event: WatchEvent<T>): void {
    if (event.type === 'DELETED') this.#tell(this.#cache.remove(event.object.metadata));
    else if (event.type !== 'BOOKMARK') {
      this.#tell(this.#cache.put(identity(event.object), this.#options.keep(event.object)));
    }
    this.#version = event.resourceVersion;
  }

  #failed(error: unknown): void {
    if (this.#closing.signal.aborted) return;
    this.#failures++;
    this.#doubts++;
    // A list is always right; going on from a version costs the server much less.
    if (isExpired(error) || (this.#doubts > 1 && blamesVersion(error))) this.#version = undefined;
    this.#inTrouble(messageOf(error));
  }

  #heard(): void {
    this.#lastContact = performance.now();
  }

  #inTrouble(reason: string | undefined): void {
    if (reason === this.#trouble) return;
    this.#trouble = reason;
    this.#guard(() =>
      this.#options.onState?.(reason === undefined ? { connected: true } : { connected: false, reason }),
    );
  }

  #tell(changes: readonly Change<K>[]): void {
    for (const { old, now } of changes) this.#guard(() => this.#options.onChange?.(old, now));
  }

  /** A bug of whoever listens must not stop the copy from being true. */
  #guard(call: () => void): void {
    try {
      call();
    } catch (error) {
      this.#options.onBug?.(error);
    }
  }
}

function isExpired(error: unknown): boolean {
  return error instanceof ApiError && error.status === 410;
}

/**
 * What a version may be the cause of. A server that was restored from a backup is silent for ever to a version that it
 * has yet to reach, or says that it is too large (504).
 */
function blamesVersion(error: unknown): boolean {
  if (error instanceof ApiError) return ![401, 403, 429, 500, 502, 503].includes(error.status);
  return error instanceof StrangeAnswerError;
}

function identity({ metadata: { namespace, name, uid, resourceVersion } }: KubeObject): ObjectMeta {
  return {
    name,
    uid,
    ...(namespace !== undefined && { namespace }),
    ...(resourceVersion !== undefined && { resourceVersion }),
  };
}
