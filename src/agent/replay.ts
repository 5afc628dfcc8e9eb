// Does the DELs that were kept on disk while their store was away, oldest first, as soon as it answers.
import { deadlineIn } from '../base/clock.ts';
import { code, FailureError, messageOf } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { Metrics } from '../base/metrics.ts';
import type { Part, PartState } from '../base/part.ts';
import { type AccessConfig, readAccessConfig } from '../ipam/config.ts';
import { surroundingsOf } from '../ipam/open.ts';
import { release } from '../ipam/service/release.ts';
import { Spool, type WaitingDel } from '../ipam/spool.ts';
import { UnknownFateError, UnreachableError } from '../store/kv.ts';
import { GuardedKv } from './guard.ts';
import type { WarmStores } from './stores.ts';
import { attachmentKey, type Turns } from './turns.ts';

/** Milliseconds between two rounds: the first, and the longest while stores stay away. */
const [shortPause, longPause] = [2000, 30_000];

/** Milliseconds for one DEL. */
const replayTime = 5000;

export interface ReplayOptions {
  /** The state folders in which DELs may wait. */
  readonly dataDirs: () => readonly string[];
  readonly stores: WarmStores;
  readonly turns: Turns;
  readonly log: Log;
  readonly metrics: Metrics;
}

export class Replay implements Part {
  readonly name = 'spool';
  readonly #options: ReplayOptions;
  #waiting = 0;
  #trouble = '';
  #timer: NodeJS.Timeout | undefined;
  #pause = shortPause;
  #round: Promise<void> = Promise.resolve();
  #stopped = false;

  constructor(options: ReplayOptions) {
    this.#options = options;
    options.metrics.gauge(
      'kube_ipam_agent_spool_length',
      'DELs on disk that wait for their store.',
      () => this.#waiting,
    );
  }

  async start(): Promise<void> {
    this.#next(0);
  }

  /** DELs that wait hold nobody up: what keeps them from being done is told here, and is no reason to be not ready. */
  state(): PartState {
    const why = this.#trouble === '' ? '' : `: ${this.#trouble}`;
    return { ready: true, detail: `${this.#waiting} waiting${why}` };
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    await this.#round;
  }

  #next(ms: number): void {
    this.#timer = setTimeout(() => {
      const failed = (error: unknown) => {
        this.#trouble = messageOf(error);
        this.#pause = longPause;
        this.#options.log.error('waiting DELs cannot be looked at', { cause: this.#trouble });
      };
      this.#round = this.#replayAll()
        .catch(failed)
        .finally(() => {
          if (!this.#stopped) this.#next(this.#pause);
        });
    }, ms);
  }

  async #replayAll(): Promise<void> {
    this.#waiting = 0;
    this.#trouble = '';
    for (const dataDir of this.#options.dataDirs()) {
      const spool = new Spool(dataDir);
      const all = spool.list();
      this.#waiting += all.length;
      // Stores that did not answer in this round are not asked for each DEL again.
      const away = new Set<string>();
      for (const del of all) {
        if (this.#stopped) return;
        if (await this.#replay(spool, del, away)) this.#waiting--;
      }
    }
    this.#pause = this.#trouble === '' ? shortPause : Math.min(this.#pause * 2, longPause);
  }

  /** True when it does not wait any more. */
  async #replay(spool: Spool, del: WaitingDel, away: Set<string>): Promise<boolean> {
    const { log, turns } = this.#options;
    const { containerID, ifname } = del.id;
    let store = '';
    try {
      const access = readAccessConfig(del.conf);
      store = JSON.stringify(access.store);
      if (away.has(store)) return false;
      return await turns.take(attachmentKey(del.id.network, containerID, ifname), async () => {
        await this.#delete(spool, del, access);
        return true;
      });
    } catch (error) {
      // Any other refusal is that DEL's own, and holds up no other.
      if (error instanceof UnreachableError || error instanceof UnknownFateError) away.add(store);
      this.#trouble = messageOf(error);
      log.debug('a DEL goes on waiting', { containerID, ifname, cause: this.#trouble });
      return false;
    }
  }

  async #delete(spool: Spool, { id }: WaitingDel, access: AccessConfig): Promise<void> {
    // What is deleted was read before this look: an ADD that came since has removed the file, or moves the revision.
    await using kv = new GuardedKv(await this.#options.stores.open(access.store), () => {
      if (!spool.has(id)) throw new RevivedError();
    });
    const { log } = this.#options;
    try {
      await release(surroundingsOf(access, kv, deadlineIn(replayTime), log), id, { cooldown: access.cooldown });
      spool.remove(id);
      log.info('a DEL that waited is done', { network: id.network, containerID: id.containerID, ifname: id.ifname });
    } catch (error) {
      if (!(error instanceof RevivedError)) throw error;
    }
  }
}

/** The container got an address again while its DEL was waiting. */
class RevivedError extends FailureError {
  override name = 'RevivedError';

  constructor() {
    super(code.tryAgain, 'a newer ADD has removed this DEL');
  }
}
