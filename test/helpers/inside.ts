// Runs functions of the program in a network namespace of their own: a process cannot enter one once it runs threads.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { type Finished, run, searchPath } from './machine.ts';

/** What a function that runs inside may use: it takes nothing else along, only its arguments. */
export type Rooms = Awaited<ReturnType<typeof import('./inside-worker.ts').loadRooms>>;

/** A network of its own, with /run of its own for named namespaces and locks; all gone when it ends, or the test does. */
export class Inside implements AsyncDisposable {
  readonly #worker: ChildProcess;
  #asked = 0;

  private constructor(worker: ChildProcess) {
    this.#worker = worker;
    worker.setMaxListeners(100);
  }

  static async start(): Promise<Inside> {
    const worker = join(import.meta.dirname, 'inside-worker.ts');
    const child = spawn('unshare', ['--net', '--mount', process.execPath, worker], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      serialization: 'advanced',
      env: { PATH: searchPath },
    });
    const inside = new Inside(child);
    await once(child, 'message');
    await inside.must(['mount', '-t', 'tmpfs', 'tmpfs', '/run']);
    await inside.must(['ip', 'link', 'set', 'lo', 'up']);
    return inside;
  }

  /** Of its one process. */
  get pid(): number {
    return this.#worker.pid!;
  }

  /** Runs a function inside; arguments and result are copied, and errors come back by their name and message. */
  async call<A extends readonly unknown[], R>(work: (rooms: Rooms, ...args: A) => Promise<R>, ...args: A): Promise<R> {
    const id = ++this.#asked;
    const answer = new Promise<R>((resolve, reject) => {
      const hear = (message: { id: number; result?: R; error?: { name: string; message: string } }): void => {
        if (message.id !== id) return;
        this.#worker.off('message', hear);
        if (message.error === undefined) resolve(message.result as R);
        else reject(Object.assign(new Error(message.error.message), { name: message.error.name }));
      };
      this.#worker.on('message', hear);
      this.#worker.once('exit', () => reject(new Error('the process inside ended')));
    });
    this.#worker.send({ id, work: String(work), args });
    return answer;
  }

  run(argv: readonly string[], input = ''): Promise<Finished> {
    return run(['nsenter', '--target', String(this.pid), '--net', '--mount', '--wdns=/', '--', ...argv], { input });
  }

  /** As `run`, for a command that has to succeed; gives its standard output. */
  async must(argv: readonly string[], input = ''): Promise<string> {
    const ended = await this.run(argv, input);
    if (ended.code !== 0) throw new Error(`${argv.join(' ')}: exit ${ended.code}: ${ended.stderr || ended.stdout}`);
    return ended.stdout;
  }

  /** A cable `near` here to `far` in a new named namespace, both up; addresses with their prefix lengths. */
  async cable(near: string, far: string, namespace: string): Promise<void> {
    await this.must(['ip', 'netns', 'add', namespace]);
    await this.must(['ip', 'link', 'add', near, 'type', 'veth', 'peer', 'name', far, 'netns', namespace]);
    await this.must(['ip', 'link', 'set', near, 'up']);
    await this.must(['ip', '-n', namespace, 'link', 'set', far, 'up']);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const ended = once(this.#worker, 'exit');
    this.#worker.kill('SIGKILL');
    await ended;
  }
}
