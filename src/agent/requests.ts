// The agent's socket: which requests are taken, and how one is done.
import { accessSync, constants, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { code, FailureError, messageOf } from '../base/errors.ts';
import type { Counter, Histogram, Metrics } from '../base/metrics.ts';
import { nodeNameOf } from '../base/node-name.ts';
import type { Part, PartState } from '../base/part.ts';
import { isObject } from '../base/section.ts';
import { parseConf } from '../cni/netconf.ts';
import { type Parts, runPlugin } from '../cni/plugin.ts';
import { type AccessConfig, readAccessConfig } from '../ipam/config.ts';
import type { Answer, Request, SameFile } from '../ipc/protocol.ts';
import { AgentServer, type Caller, type Work } from '../ipc/server.ts';
import { Session, type SessionTools } from './session.ts';
import { attachmentKey, type Turns } from './turns.ts';

/** Milliseconds for which a stopping agent goes on with what it has begun: longer than most commands may take. */
const drainTime = 20_000;

/** Milliseconds between two looks at the socket's own file. */
const lookInterval = 5000;

/** The commands that are about one attachment, which take turns. */
const ofAttachment = ['ADD', 'DEL', 'CHECK'];

export interface RequestsOptions extends SessionTools {
  readonly socket: string;
  readonly turns: Turns;
  readonly metrics: Metrics;
  readonly parts: Parts;
  /** Told of each network that is served. */
  readonly onServed: (conf: Readonly<Record<string, unknown>>) => void;
}

export class Requests implements Part {
  readonly name = 'socket';
  readonly #options: RequestsOptions;
  readonly #counts: Counter;
  readonly #durations: Histogram;
  readonly #left: Counter;
  readonly #undone: Counter;
  #server: AgentServer | undefined;
  /** Inode of the socket's file. */
  #inode = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: RequestsOptions) {
    this.#options = options;
    const { metrics } = options;
    this.#counts = metrics.counter(
      'kube_ipam_agent_requests_total',
      'Commands done for plugins, by command and CNI error code (0: fine).',
    );
    this.#durations = metrics.histogram(
      'kube_ipam_agent_request_duration_seconds',
      'From the begin of the work to its answer, by command.',
    );
    this.#left = metrics.counter(
      'kube_ipam_agent_requests_left_total',
      'Requests that were not taken or broke off: the plugin did them itself.',
    );
    this.#undone = metrics.counter(
      'kube_ipam_agent_requests_undone_total',
      'ADDs that were taken back because their plugin had left.',
    );
    metrics.gauge(
      'kube_ipam_agent_requests_in_flight',
      'Commands that plugins wait for.',
      () => this.#server?.busy ?? 0,
    );
  }

  async start(): Promise<void> {
    await this.#listen();
    this.#timer = setInterval(() => void this.#lookAfterFile(), lookInterval);
  }

  get isBusy(): boolean {
    return (this.#server?.busy ?? 0) > 0;
  }

  state(): PartState {
    const { socket } = this.#options;
    if (this.#server === undefined) return { ready: false, detail: `${socket} is not there` };
    return { ready: true, detail: socket };
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
    const server = this.#server;
    this.#server = undefined;
    if (server !== undefined && !(await server.drain(drainTime))) {
      this.#options.log.warn('stopped in the middle of requests: their plugins do them again');
    }
  }

  async #listen(): Promise<void> {
    const { socket, log } = this.#options;
    try {
      this.#server = await AgentServer.listen({
        path: socket,
        take: request => this.#take(request),
        onTrouble: (what, why) => {
          this.#left.add();
          log.info(what, { why });
        },
      });
      this.#inode = statSync(socket).ino;
    } catch (error) {
      throw new FailureError(code.io, `cannot listen on ${socket}: ${messageOf(error)}`);
    }
  }

  /** A socket that was swept away, by a cleaner of /run for instance, is made anew. */
  async #lookAfterFile(): Promise<void> {
    const { socket, log } = this.#options;
    if (statSync(socket, { throwIfNoEntry: false })?.ino === this.#inode) return;
    log.warn('the socket was removed: it is made anew', { socket });
    void this.#server?.drain(drainTime);
    this.#server = undefined;
    try {
      await this.#listen();
    } catch (error) {
      log.error('there is no socket', { cause: messageOf(error) });
    }
  }

  #take(request: Request): Work | string {
    const left = request.deadline - this.#options.monotonicNow();
    if (left <= 0 || left > 3_600_000) return 'its time is over, or its clock is not ours';
    if (request.node !== nodeNameOf(undefined)) {
      return `this node is called ${request.node} by the plugin and ${nodeNameOf(undefined)} by the agent`;
    }
    const other = request.files.find(file => !isSame(file));
    if (other !== undefined) return `${other.path} is not what the plugin sees there`;
    const conf = parseConf(Buffer.from(request.conf));
    const access = readAccessConfig(conf);
    for (const file of filesOf(access, conf)) accessSync(file, constants.R_OK);
    this.#options.onServed(conf);
    const { CNI_COMMAND = '', CNI_CONTAINERID, CNI_IFNAME } = request.env;
    // A STATUS waits for nobody: a runtime takes the node for one that is not ready while it gets no answer.
    if (!ofAttachment.includes(CNI_COMMAND)) return caller => this.#do(request, caller);
    const key = attachmentKey(access.network, CNI_CONTAINERID, CNI_IFNAME);
    return caller => this.#options.turns.take(key, () => this.#do(request, caller));
  }

  async #do(request: Request, caller: Caller): Promise<Answer> {
    const began = performance.now();
    const session = new Session(request, caller, this.#options);
    const { env, conf } = request;
    let stdout = '';
    const exitCode = await runPlugin({
      env,
      readStdin: () => Buffer.from(conf),
      writeStdout: text => {
        stdout += text;
      },
      parts: this.#options.parts,
      resident: session,
    });
    if (exitCode === 'asset') throw new Error('the plugin asked for parts where it has them');
    if (await session.end()) {
      this.#undone.add();
      this.#options.log.warn('a plugin left during its ADD: the address was taken back', {
        containerID: env.CNI_CONTAINERID,
        ifname: env.CNI_IFNAME,
      });
    }
    const command = env.CNI_COMMAND ?? '';
    this.#counts.add({ command, code: exitCode === 0 ? '0' : codeOf(stdout) });
    this.#durations.observe((performance.now() - began) / 1000, { command });
    return session.answer(exitCode === 0 ? 0 : 1, stdout);
  }
}

/** Beside the socket, so that agents with different sockets do not stand in each other's way. */
export function lockFileOf(socket: string): string {
  return join(dirname(socket), `${basename(socket, '.sock')}.lock`);
}

function isSame({ path, dev, ino }: SameFile): boolean {
  if (!path.startsWith('/')) return false;
  const found = statSync(path, { throwIfNoEntry: false });
  return (found?.dev ?? 0) === dev && (found?.ino ?? 0) === ino;
}

/** What must be readable here for the answer to be the plugin's. */
function filesOf({ store }: AccessConfig, conf: Readonly<Record<string, unknown>>): string[] {
  const ipam = isObject(conf.ipam) ? conf.ipam : {};
  const etcd = isObject(ipam.etcdConfig) ? ipam.etcdConfig : {};
  const own = store.kind === 'etcd' ? [store.certFile, store.keyFile, store.caFile, store.passwordFile] : [];
  const named = [...own, ipam.kubeConfig, etcd.kubeConfig];
  return named.flatMap(file => (typeof file === 'string' && file !== '' ? [file] : []));
}

function codeOf(stdout: string): string {
  try {
    return String(JSON.parse(stdout).code);
  } catch {
    return 'unknown';
  }
}
