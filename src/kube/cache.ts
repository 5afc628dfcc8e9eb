// What an informer remembers of a collection: what was kept of each object, by its name, and by keys made from it.
import type { ObjectMeta } from './objects.ts';

interface Entry<K> {
  readonly uid: string;
  readonly resourceVersion: string | undefined;
  readonly kept: K;
}

/** One step from what was to what is; both are there when the same object (by uid) has changed. */
export interface Change<K> {
  readonly old: K | undefined;
  readonly now: K | undefined;
}

export class Cache<K> {
  readonly #indexBy: (kept: K) => readonly string[];
  readonly #entries = new Map<string, Entry<K>>();
  readonly #index = new Map<string, Set<string>>();

  constructor(indexBy: (kept: K) => readonly string[] = () => []) {
    this.#indexBy = indexBy;
  }

  get size(): number {
    return this.#entries.size;
  }

  get(namespace: string | undefined, name: string): K | undefined {
    return this.#entries.get(keyOf({ namespace, name }))?.kept;
  }

  *values(): Generator<K, void> {
    for (const { kept } of this.#entries.values()) yield kept;
  }

  /** What `indexBy` gave this key for. */
  indexed(key: string): K[] {
    return [...(this.#index.get(key) ?? [])].map(entry => this.#entries.get(entry)!.kept);
  }

  /** None when it was there already; two when it has taken the place of another object of its name. */
  put(meta: ObjectMeta, kept: K): Change<K>[] {
    const key = keyOf(meta);
    const old = this.#entries.get(key);
    if (old !== undefined && old.uid === meta.uid && old.resourceVersion === meta.resourceVersion) return [];
    this.#unindex(key, old);
    this.#entries.set(key, { uid: meta.uid, resourceVersion: meta.resourceVersion, kept });
    for (const at of this.#indexBy(kept)) this.#index.set(at, (this.#index.get(at) ?? new Set()).add(key));
    if (old === undefined || old.uid === meta.uid) return [{ old: old?.kept, now: kept }];
    return [
      { old: old.kept, now: undefined },
      { old: undefined, now: kept },
    ];
  }

  remove(meta: Pick<ObjectMeta, 'namespace' | 'name'>): Change<K>[] {
    return this.#remove(keyOf(meta));
  }

  /** Removes what a complete list does not have. */
  removeOthers(listed: readonly ObjectMeta[]): Change<K>[] {
    const present = new Set(listed.map(keyOf));
    return [...this.#entries.keys()].filter(key => !present.has(key)).flatMap(key => this.#remove(key));
  }

  #remove(key: string): Change<K>[] {
    const old = this.#entries.get(key);
    if (old === undefined) return [];
    this.#unindex(key, old);
    this.#entries.delete(key);
    return [{ old: old.kept, now: undefined }];
  }

  #unindex(key: string, old: Entry<K> | undefined): void {
    if (old === undefined) return;
    for (const at of this.#indexBy(old.kept)) {
      const keys = this.#index.get(at);
      keys?.delete(key);
      if (keys?.size === 0) this.#index.delete(at);
    }
  }
}

function keyOf({ namespace, name }: { readonly namespace?: string | undefined; readonly name: string }): string {
  return namespace === undefined ? name : `${namespace}/${name}`;
}
