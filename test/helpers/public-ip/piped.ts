// A program in a machine's network whose lines a test reads as they come: a judge, an asker, a source of noise.
import { type ChildProcessByStdio, spawn, spawnSync } from 'node:child_process';
import type { Readable, Writable } from 'node:stream';
import type { Machine } from '../machine.ts';
import { endsWithParent } from '../server-process.ts';

type Child = ChildProcessByStdio<Writable, Readable, Readable>;

/** Judges are not to be the ones that come late on a busy machine, where it lets anybody choose. */
const mayHurry = spawnSync('chrt', ['--fifo', '1', 'true']).status === 0;
const first = mayHurry ? ['chrt', '--fifo', '1'] : [];

export interface PipedOptions {
  readonly onLine?: (line: string) => void;
  /** Runs before all others, whatever else wants a CPU; for programs that need little of it. */
  readonly urgent?: boolean;
}

/** Ends with the test. A program that ends by itself is a failure, which `fail` and the end of the test tell. */
export class Piped implements AsyncDisposable {
  readonly #child: Child;
  readonly #name: string;
  readonly #ended: Promise<void>;
  #complaints = '';
  #ending = false;
  #failure: string | undefined;

  constructor(machine: Machine, argv: readonly string[], options: PipedOptions = {}) {
    this.#name = `${machine.hostname}: ${argv.join(' ')}`;
    // Mounts too, as /sys and /proc show the network of those who mounted them; not the processes, so that no fork stands between.
    const namespaces = ['--target', String(machine.pid), '--mount', '--net', '--root', '--wdns=/'];
    const [command, ...args] = [
      'nsenter',
      ...namespaces,
      '--',
      ...endsWithParent,
      ...(options.urgent ? first : []),
      ...argv,
    ];
    this.#child = spawn(command!, args, { stdio: ['pipe', 'pipe', 'pipe'], env: machine.environment() });
    this.#ended = new Promise(resolve => {
      this.#child.on('error', error => {
        this.#complaints += error.message;
        resolve();
      });
      // Not "close": what it started may keep its outputs open for a while.
      this.#child.on('exit', () => resolve());
    });
    void this.#ended.then(() => {
      if (!this.#ending) this.#failure = `${this.#name} ended: ${this.#complaints}`;
    });
    this.#child.stdin.on('error', () => {});
    this.#child.stderr.on('data', chunk => {
      this.#complaints = (this.#complaints + chunk).slice(-2000);
    });
    let rest = '';
    this.#child.stdout.on('data', chunk => {
      const lines = `${rest}${chunk}`.split('\n');
      rest = lines.pop()!;
      for (const line of lines) options.onLine?.(line);
    });
  }

  /** Throws when it has ended, which no judge may do unseen. */
  check(): void {
    if (this.#failure !== undefined) throw new Error(this.#failure);
  }

  write(line: string): void {
    this.#child.stdin.write(`${line}\n`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ending = true;
    this.#child.kill('SIGKILL');
    await this.#ended;
  }
}
