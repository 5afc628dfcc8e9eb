// The node agent as a process of the built executable, and a relay on the way to it that sees and holds up what is said.
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Json } from './plugin.ts';
import { program } from './plugin-process.ts';
import { allStopped } from './server-process.ts';

export interface AgentOptions {
  /** State folder of the plugins: that of the site. */
  readonly dataDir: string;
  readonly flags?: readonly string[];
  /** Put before the executable, to run it in namespaces of its own for instance. */
  readonly wrapper?: readonly string[];
}

export class Agent implements AsyncDisposable {
  readonly folder: string;
  readonly socket: string;
  readonly #options: AgentOptions;
  #child: ChildProcess | undefined;
  #log = '';

  private constructor(options: AgentOptions) {
    this.#options = options;
    this.folder = mkdtempSync(join(tmpdir(), 'kube-ipam-agent-'));
    this.socket = join(this.folder, 'run', 'agent.sock');
    mkdirSync(join(this.folder, 'net.d'));
  }

  static async start(options: AgentOptions): Promise<Agent> {
    const agent = new Agent(options);
    await agent.start();
    return agent;
  }

  /** Starts it, again perhaps, and waits until it takes requests. */
  async start(): Promise<void> {
    const child = this.spawn();
    this.#child = child;
    const before = this.#log.length;
    await until(() => {
      if (child.exitCode !== null || child.signalCode !== null) throw new Error(`the agent ended: ${this.#log}`);
      return this.#log.slice(before).includes('agent started');
    });
  }

  /** One more process with the same socket; nobody waits for it. */
  spawn(): ChildProcess {
    const { dataDir, flags = [], wrapper = [] } = this.#options;
    const own = ['agent', '--socket', this.socket, '--listen', '127.0.0.1:0', '--data-dir', dataDir];
    const places = ['--conf-dir', join(this.folder, 'net.d'), '--state-dir', join(this.folder, 'state')];
    // A test that is killed itself can end nothing: the kernel then ends what setpriv starts.
    const [file, ...args] = ['setpriv', '--pdeathsig', 'KILL', ...wrapper, program, ...own, ...places, ...flags];
    const child = spawn(file!, args, { env: { PATH: process.env.PATH }, stdio: ['ignore', 'pipe', 'pipe'] });
    for (const stream of [child.stdout, child.stderr]) {
      stream!.on('data', (chunk: Buffer) => {
        this.#log += chunk;
      });
    }
    return child;
  }

  get log(): string {
    return this.#log;
  }

  get events(): Json[] {
    return this.#log
      .split('\n')
      .filter(line => line.startsWith('{') && line.endsWith('}'))
      .map(line => JSON.parse(line) as Json);
  }

  get child(): ChildProcess {
    return this.#child!;
  }

  /** Returns once every thread of it stands still. */
  async pause(): Promise<void> {
    this.child.kill('SIGSTOP');
    await until(() => allStopped(this.child.pid!));
  }

  resume(): void {
    this.child.kill('SIGCONT');
  }

  /** Ends it; the exit code, or the signal that ended it. */
  async end(signal: NodeJS.Signals = 'SIGTERM'): Promise<number | string> {
    const { child } = this;
    if (child.exitCode === null && child.signalCode === null) {
      const ended = new Promise(resolve => child.once('exit', resolve));
      child.kill(signal);
      await ended;
    }
    return child.exitCode ?? child.signalCode!;
  }

  /** A page of it, by its path. */
  async page(path: string): Promise<{ status: number; body: string }> {
    const started = this.events.findLast(({ event }) => event === 'agent started');
    return new Promise((resolve, reject) => {
      const request = http.get(`http://127.0.0.1:${started!.port}${path}`, { agent: false }, response => {
        let body = '';
        response.on('data', chunk => {
          body += chunk;
        });
        response.on('end', () => resolve({ status: response.statusCode!, body }));
      });
      request.on('error', reject);
    });
  }

  /** The value of a metric by its name with labels. */
  async metric(name: string): Promise<number | undefined> {
    const { body } = await this.page('/metrics');
    const line = body.split('\n').find(one => one.startsWith(`${name} `));
    return line === undefined ? undefined : Number(line.slice(name.length + 1));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.resume();
    await this.end('SIGKILL');
    rmSync(this.folder, { recursive: true, force: true });
  }
}

export async function until(condition: () => boolean | Promise<boolean>, ms = 30_000): Promise<void> {
  for (const end = performance.now() + ms; !(await condition()); await sleep(5)) {
    if (performance.now() > end) throw new Error('waited in vain');
  }
}

/** What passes: lines of the plugin, and lines of the agent. */
export type Spoken = { readonly by: 'plugin' | 'agent'; readonly type: string };

/** Stands between plugins and an agent. `before` is awaited before a line goes on its way; lines keep their order. */
export async function startRelay(
  to: string,
  socket: string,
  before: (line: Spoken) => Promise<void> | void,
): Promise<AsyncDisposable> {
  const sockets = new Set<net.Socket>();
  const join = (from: net.Socket, to: net.Socket, by: Spoken['by']): void => {
    sockets.add(from);
    let rest = '';
    let queue = Promise.resolve();
    from.on('data', piece => {
      const lines = `${rest}${piece}`.split('\n');
      rest = lines.pop()!;
      for (const line of lines) {
        queue = queue.then(async () => {
          await before({ by, type: JSON.parse(line).type ?? 'request' });
          to.write(`${line}\n`);
        });
      }
    });
    from.on('error', () => {});
    from.on('close', () => {
      sockets.delete(from);
      void queue.then(() => to.end());
    });
  };
  const server = net.createServer(plugin => {
    const agent = net.connect(to);
    join(plugin, agent, 'plugin');
    join(agent, plugin, 'agent');
  });
  await new Promise<void>(resolve => server.listen(socket, resolve));
  return {
    async [Symbol.asyncDispose]() {
      for (const one of sockets) one.destroy();
      await new Promise(resolve => server.close(resolve));
    },
  };
}
