// Tells the demo on the terminal: numbered steps, each command as it could be typed, and what came of it.
import { spawn } from 'node:child_process';

/** A step that did not work: the message names the command and what it said. */
export class StepError extends Error {
  override name = 'StepError';
}

export interface RunOptions {
  readonly input?: string;
  /** Added to the environment, and shown in front of the command. */
  readonly env?: Readonly<Record<string, string>>;
  /** What to show behind the command, such as a redirection. */
  readonly shown?: string;
  /** Milliseconds. */
  readonly timeout?: number;
  /** Whether the output is told word for word. */
  readonly tell?: boolean;
}

const plain = (text: string) => text;
const colour = (code: number) => (text: string) => `\u001b[${code}m${text}\u001b[0m`;

export class Narrator {
  readonly #write: (text: string) => void;
  readonly #bold: (text: string) => string;
  readonly #command: (text: string) => string;
  readonly #good: (text: string) => string;
  #step = 0;

  constructor(stream: NodeJS.WriteStream) {
    const coloured = stream.isTTY && process.env.NO_COLOR === undefined;
    this.#write = text => stream.write(text);
    this.#bold = coloured ? colour(1) : plain;
    this.#command = coloured ? colour(36) : plain;
    this.#good = coloured ? colour(32) : plain;
  }

  part(title: string): void {
    this.#write(`\n${this.#bold(title)}\n`);
  }

  step(title: string): void {
    this.#step += 1;
    this.#write(`\n${this.#bold(`${String(this.#step).padStart(2)}. ${title}`)}\n`);
  }

  say(text: string): void {
    for (const line of text.trimEnd().split('\n')) this.#write(`    ${line}\n`);
  }

  result(text: string): void {
    this.say(this.#good(text));
  }

  /** Shows and runs one command; its standard output, or a StepError. */
  async run(argv: readonly string[], options: RunOptions = {}): Promise<string> {
    const words = [...Object.entries(options.env ?? {}).map(([key, value]) => `${key}=${value}`), ...argv];
    const line = [...words, options.shown ?? ''].join(' ').trim();
    this.say(this.#command(`$ ${line}`));
    const { code, stdout, stderr } = await finished(argv, options);
    if (code !== 0) throw new StepError(`${line}\nended with ${code}: ${(stderr || stdout).trim()}`);
    if (options.tell === true) this.say(stdout);
    return stdout;
  }
}

interface Finished {
  /** An exit code, or the words for what came instead of one. */
  readonly code: number | string;
  readonly stdout: string;
  readonly stderr: string;
}

function finished(argv: readonly string[], options: RunOptions): Promise<Finished> {
  const [command = '', ...rest] = argv;
  const timeout = options.timeout ?? 20_000;
  return new Promise((resolve, reject) => {
    const child = spawn(command, rest, {
      env: { ...process.env, ...options.env },
      timeout,
      killSignal: 'SIGKILL',
    });
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', chunk => {
      stdout += chunk;
    });
    child.stderr.on('data', chunk => {
      stderr += chunk;
    });
    child.on('error', cause => reject(new StepError(`${command} could not be started: ${cause.message}`, { cause })));
    child.on('close', code => resolve({ code: code ?? `no exit code within ${timeout / 1000} s`, stdout, stderr }));
    // A command that ends before it has read its input has said why on its own.
    child.stdin.on('error', () => {});
    child.stdin.end(options.input ?? '');
  });
}
