// A server of a test as a process: ready when it answers, killed, paused and started again at will, gone with the test.
import { type ChildProcess, spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const readyWithin = 60_000;

/** In front of a command: a test that is killed itself can end nothing, so the kernel ends it. */
export const endsWithParent = ['setpriv', '--pdeathsig', 'KILL'] as const;

export interface ServerCommand {
  /** For messages: what it is and where. */
  readonly name: string;
  readonly argv: readonly string[];
  /** Whether it answers; asked again and again until it does. */
  readonly answers: () => Promise<boolean>;
}

export class ServerProcess {
  readonly #command: ServerCommand;
  #child: ChildProcess;
  #log = '';

  constructor(command: ServerCommand) {
    this.#command = command;
    this.#child = this.#spawn();
  }

  get running(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** The end of what it wrote. */
  get log(): string {
    return this.#log;
  }

  async ready(): Promise<void> {
    const until = performance.now() + readyWithin;
    while (!(await this.#command.answers())) {
      if (!this.running || performance.now() > until) {
        throw new Error(`${this.#command.name} ${this.running ? 'does not answer' : 'ended'}: ${this.#log}`);
      }
      await sleep(50);
    }
  }

  /** SIGKILL, and waits for the end. */
  async kill(): Promise<void> {
    if (!this.running) return;
    const ended = new Promise(resolve => this.#child.once('exit', resolve));
    this.#child.kill('SIGKILL');
    await ended;
  }

  /** SIGSTOP: it keeps its connections and says nothing from when this resolves. */
  async stop(): Promise<void> {
    this.#child.kill('SIGSTOP');
    // On a busy machine the signal waits for one thread to get a CPU, while the others go on answering.
    const until = performance.now() + readyWithin;
    while (!allStopped(this.#child.pid!)) {
      if (performance.now() > until) throw new Error(`${this.#command.name} does not stop`);
      await sleep(2);
    }
  }

  cont(): void {
    this.#child.kill('SIGCONT');
  }

  /** Starts it again with its data and ports, and waits until it answers. */
  async restart(): Promise<void> {
    await this.kill();
    this.#child = this.#spawn();
    await this.ready();
  }

  #spawn(): ChildProcess {
    const [command, ...args] = [...endsWithParent, ...this.#command.argv];
    const child = spawn(command, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { PATH: process.env.PATH },
    });
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (chunk: Buffer) => {
        this.#log = (this.#log + chunk).slice(-4000);
      });
    }
    return child;
  }
}

/** Whether every thread of a process stands still. */
export function allStopped(pid: number): boolean {
  const tasks = `/proc/${pid}/task`;
  try {
    return readdirSync(tasks).every(task =>
      /^\d+ \([^)]*\) T /.test(readFileSync(join(tasks, task, 'stat'), 'latin1')),
    );
  } catch {
    // A thread that ended between the two reads.
    return false;
  }
}
