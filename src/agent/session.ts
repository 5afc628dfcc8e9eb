// One command that the agent runs for a plugin: the plugin's own code, on warm stores, and nothing written once the plugin has left.
import { deadlineIn } from '../base/clock.ts';
import { code, FailureError, messageOf } from '../base/errors.ts';
import { Log } from '../base/log.ts';
import { readArgs } from '../cni/args.ts';
import type { Open, Resident } from '../cni/plugin.ts';
import type { Pod } from '../ipam/model.ts';
import { surroundingsOf } from '../ipam/open.ts';
import type { Api, Surroundings } from '../ipam/ports.ts';
import { whyBlind } from '../ipam/service/namespace.ts';
import { HeldError } from '../ipam/service/succession.ts';
import type { Answer, LogLines, Request } from '../ipc/protocol.ts';
import type { Caller } from '../ipc/server.ts';
import type { CheckedKv } from './checked-kv.ts';
import type { ClaimBooks } from './claims.ts';
import type { Cursors } from './cursors.ts';
import { GuardedKv, type Made } from './guard.ts';
import type { WarmStores } from './stores.ts';
import { undo } from './undo.ts';
import type { VerdictBooks } from './verdicts.ts';

/** Milliseconds before the plugin gives up at which its answer must be on its way. */
const margin = 50;

/** Milliseconds for taking back what was given to a plugin that has left. */
const undoTime = 5000;

export interface SessionTools {
  readonly stores: WarmStores;
  readonly claims: ClaimBooks;
  readonly cursors: Cursors;
  readonly verdicts: VerdictBooks;
  readonly api: (kubeConfig: string) => Promise<Api>;
  /** CLOCK_MONOTONIC in milliseconds. */
  readonly monotonicNow: () => number;
  /** For people who look at a pod of the cluster that a kubeconfig leads to. Never throws. */
  readonly tellPod: (kubeConfig: string, pod: Pod, reason: string, message: string) => void;
  /** The agent's own. */
  readonly log: Log;
}

interface Opened {
  readonly around: Surroundings;
  readonly kv: GuardedKv;
  /** Without the guard, for what must be done when the plugin has left. */
  readonly store: CheckedKv;
  readonly claims: Disposable;
}

export class Session implements Resident {
  readonly #request: Request;
  readonly #caller: Caller;
  readonly #tools: SessionTools;
  #opened: Opened | undefined;
  #lines: LogLines | undefined;
  #kubeConfig: string | undefined;

  constructor(request: Request, caller: Caller, tools: SessionTools) {
    this.#request = request;
    this.#caller = caller;
    this.#tools = tools;
  }

  readonly elapsed = (): number => this.#tools.monotonicNow() - this.#request.started;

  readonly open: Open = async (access, deadline, kubeConfig) => {
    this.#kubeConfig = kubeConfig;
    const api = kubeConfig === undefined ? undefined : await this.#tools.api(kubeConfig);
    const left = this.#request.deadline - this.#tools.monotonicNow() - margin;
    const store = await this.#tools.stores.open(access.store);
    const kv = new GuardedKv(store, () => this.#refuseIfLeft());
    const place = JSON.stringify(access.store);
    const claims = this.#tools.claims.open(JSON.stringify([place, access.space]));
    // The path of the log means what it says to the plugin, not always to an agent in a container.
    const log = new Log(access.log, {}, ({ file, maxSize }, lines) => {
      this.#lines = { file, maxSize, text: `${this.#lines?.text ?? ''}${lines}` };
    });
    const around = {
      ...surroundingsOf(access, kv, deadline.within(left), log),
      claims,
      cursors: this.#tools.cursors.of(place),
      verdicts: this.#tools.verdicts.of(place),
      whyBlind,
      ...(api && { api }),
    };
    this.#opened = { around, kv, store, claims };
    return around;
  };

  /** Whoever waits for a fixed address wants to know for whom. */
  readonly failed = (error: unknown): void => {
    if (!(error instanceof HeldError) || this.#kubeConfig === undefined) return;
    const { pod } = readArgs(this.#request.env.CNI_ARGS ?? '');
    if (pod !== undefined) this.#tools.tellPod(this.#kubeConfig, pod, 'FixedAddressHeld', error.message);
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
      return made !== undefined && (await this.#caller.left()) && (await this.#undo(opened, made));
    } finally {
      opened.claims[Symbol.dispose]();
      await opened.kv[Symbol.asyncDispose]();
    }
  }

  async #refuseIfLeft(): Promise<void> {
    if (await this.#caller.left()) throw new FailureError(code.tryAgain, 'the plugin that asked for this has left');
  }

  /** What this leaves because the store is away, its DEL or gc finds. */
  async #undo({ around, store }: Opened, made: Made): Promise<boolean> {
    try {
      return await undo({ ...around, kv: store, deadline: deadlineIn(undoTime) }, made);
    } catch (error) {
      const { network, containerID, ifname } = made.id;
      const cause = messageOf(error);
      this.#tools.log.warn('a plugin left, and its address stays', { network, containerID, ifname, cause });
      return false;
    }
  }
}
