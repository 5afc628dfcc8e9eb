// The stores that requests name, open already: one connection for each etcd, however many networks lead there.
import type { Deadline } from '../base/clock.ts';
import { openGrpc } from '../store/etcd/grpc.ts';
import type { Commit, CommitResult } from '../store/kv.ts';
import { openStore } from '../store/open.ts';
import type { StoreTarget } from '../store/target.ts';
import { type Check, type CheckedKv, CheckingKv } from './checked-kv.ts';
import { GatheringKv } from './gather.ts';

/** Milliseconds after which a store that nobody asks for is closed. */
const idleTime = 600_000;

interface Warm {
  readonly kv: CheckedKv;
  users: number;
  /** performance.now() when the last user left. */
  since: number;
}

export class WarmStores implements AsyncDisposable {
  readonly #warm = new Map<string, Warm>();

  /**
   * A store for one piece of work, which disposes of it at its end. etcd's certificates and password are read again by
   * its adapter. The embedded store is opened each time: a file that somebody removed and made anew must not live on here.
   */
  async open(target: StoreTarget): Promise<CheckedKv> {
    if (target.kind === 'embedded') return new CheckingKv(await openStore(target));
    await this.#closeIdle();
    const key = JSON.stringify(target);
    let warm = this.#warm.get(key);
    if (warm === undefined) {
      warm = { kv: new GatheringKv(openGrpc(target)), users: 0, since: 0 };
      this.#warm.set(key, warm);
    }
    warm.users++;
    return new Borrowed(warm);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const all = [...this.#warm.values()];
    this.#warm.clear();
    await Promise.all(all.map(({ kv }) => kv[Symbol.asyncDispose]()));
  }

  async #closeIdle(): Promise<void> {
    for (const [key, { kv, users, since }] of this.#warm) {
      if (users > 0 || performance.now() - since < idleTime) continue;
      this.#warm.delete(key);
      await kv[Symbol.asyncDispose]();
    }
  }
}

/** A store that stays open for the next user. */
class Borrowed extends CheckingKv<CheckedKv> {
  readonly #warm: Warm;

  constructor(warm: Warm) {
    super(warm.kv);
    this.#warm = warm;
  }

  override commit(commit: Commit, deadline: Deadline, check?: Check): Promise<CommitResult> {
    return this.inner.commit(commit, deadline, check);
  }

  override async [Symbol.asyncDispose](): Promise<void> {
    this.#warm.users--;
    this.#warm.since = performance.now();
  }
}
