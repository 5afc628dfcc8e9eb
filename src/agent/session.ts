// One command that the agent runs for a plugin: the plugin's own code, on warm stores, and nothing written once the plugin has left.
import { deadlineIn } from '../base/clock.ts';
import { code, FailureError, messageOf } from '../base/errors.ts';
import { Log } from '../base/log.ts';
import type { Open, Resident } from '../cni/plugin.ts';
import type { AccessConfig } from '../ipam/config.ts';
import { surroundingsOf } from '../ipam/open.ts';
import type { Api, Surroundings } from '../ipam/ports.ts';
import { readHeld, releaseRead } from '../ipam/service/release.ts';
import { Spool } from '../ipam/spool.ts';
import type { Answer, LogLines, Request } from '../ipc/protocol.ts';
import type { Caller } from '../ipc/server.ts';
import { GuardedKv } from './guard.ts';
import type { WarmStores } from './stores.ts';

/** Milliseconds before the plugin gives up at which its answer must be on its way. */
const margin = 50;

/** Milliseconds for taking back what was given to a plugin that has left. */
const undoTime = 5000;

export interface SessionTools {
  readonly stores: WarmStores;
  readonly api: (kubeConfig: string) => Promise<Api>;
  /** CLOCK_MONOTONIC in milliseconds. */
  readonly monotonicNow: () => number;
}

export class Session implements Resident {
  readonly #request: Request;
  readonly #caller: Caller;
  readonly #tools: SessionTools;
  #opened: { readonly access: AccessConfig; readonly around: Surroundings; readonly kv: GuardedKv } | undefined;
  #lines: LogLines | undefined;

  constructor(request: Request, caller: Caller, tools: SessionTools) {
    this.#request = request;
    this.#caller = caller;
    this.#tools = tools;
  }

  readonly elapsed = (): number => this.#tools.monotonicNow() - this.#request.started;

  readonly open: Open = async (access, deadline, kubeConfig) => {
    const left = this.#request.deadline - this.#tools.monotonicNow() - margin;
    const kv = new GuardedKv(await this.#tools.stores.open(access.store), () => this.#refuseIfLeft());
    // The path of the log means what it says to the plugin, not always to an agent in a container.
    const log = new Log(access.log, {}, ({ file, maxSize }, lines) => {
      this.#lines = { file, maxSize, text: `${this.#lines?.text ?? ''}${lines}` };
    });
    const around = {
      ...surroundingsOf(access, kv, deadline.within(left), log),
      ...(kubeConfig !== undefined && { api: await this.#tools.api(kubeConfig) }),
    };
    this.#opened = { access, around, kv };
    return around;
  };

  answer(exitCode: 0 | 1, stdout: string): Answer {
    return { exitCode, stdout, ...(this.#lines && { log: this.#lines }) };
  }

  /**
   * Ends the command: what was given to a plugin that has left meanwhile is taken back, because its DEL may have come
   * and gone. True when something was.
   */
  async end(): Promise<boolean> {
    const opened = this.#opened;
    if (opened === undefined) return false;
    try {
      const { made } = opened.kv;
      if (made === undefined || !(await this.#caller.left())) return false;
      await this.#undo(opened.access, opened.around, opened.kv.unguarded, made);
      return true;
    } finally {
      await opened.kv[Symbol.asyncDispose]();
    }
  }

  async #refuseIfLeft(): Promise<void> {
    if (await this.#caller.left()) throw new FailureError(code.tryAgain, 'the plugin that asked for this has left');
  }

  /** Only what this command made, as it made it: a repeated ADD moves the revision, and then the address is in use. */
  async #undo(
    { store }: AccessConfig,
    surroundings: Surroundings,
    kv: Surroundings['kv'],
    { id, revision }: NonNullable<GuardedKv['made']>,
  ): Promise<void> {
    const around = { ...surroundings, kv, deadline: deadlineIn(undoTime) };
    try {
      const { attachment, owned } = await readHeld(around, id);
      if (attachment?.revision === revision) await releaseRead(around, { id, attachment, owned });
    } catch (error) {
      around.log.warn('taking back an address waits for the store', { cause: messageOf(error) });
      new Spool(store.dataDir).keep({ id, conf: JSON.parse(this.#request.conf) });
    }
  }
}
