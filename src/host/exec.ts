// The only starter of other programs: argument lists, never a shell, and a deadline unless a person sits before it.
import { execFile, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Deadline } from '../base/clock.ts';
import { messageOf, systemCode } from '../base/errors.ts';

export interface Finished {
  /** Exit code; undefined when a signal or the deadline ended it, or it could not be started. */
  readonly code: number | undefined;
  readonly stdout: string;
  readonly stderr: string;
  /** Why it could not be started or did not end by itself. */
  readonly failure?: string;
}

/**
 * Runs a program to its end. `env` is its whole environment; `input` is all of its stdin; `signal` ends it early. Never
 * throws.
 */
export function execute(
  file: string,
  args: readonly string[],
  env: Readonly<Record<string, string>>,
  input: string,
  deadline: Deadline,
  signal?: AbortSignal,
): Promise<Finished> {
  return new Promise(resolve => {
    const options = {
      env,
      timeout: Math.max(1, Math.ceil(deadline.left())),
      killSignal: 'SIGKILL' as const,
      // The addresses of a node that has a hundred thousand of them.
      maxBuffer: 2 ** 25,
      ...(signal !== undefined && { signal }),
    };
    const child = execFile(file, [...args], options, (error, stdout, stderr) => {
      if (error === null) return resolve({ code: 0, stdout, stderr });
      if (typeof error.code === 'number') return resolve({ code: error.code, stdout, stderr });
      const failure = error.killed
        ? 'it did not end in time'
        : (error.signal ?? error.code ?? 'it could not be started');
      resolve({ code: undefined, stdout, stderr, failure: String(failure) });
    });
    // A program that ends without reading its input is told by its exit code, not by a broken pipe.
    child.stdin?.on('error', () => {});
    child.stdin?.end(input);
  });
}

/**
 * Runs a program on this process's own standard input, output and error, to its end. It has no deadline: a person may
 * sit before it, and can end both. Never throws.
 */
export function attach(
  file: string,
  args: readonly string[],
  env: Readonly<Record<string, string>>,
): Promise<Pick<Finished, 'code' | 'failure'>> {
  return new Promise(resolve => {
    const child = spawn(file, [...args], { env, stdio: 'inherit' });
    child.on('error', error => resolve({ code: undefined, failure: systemCode(error) ?? messageOf(error) }));
    child.on('close', (code, signal) =>
      resolve(code === null ? { code: undefined, failure: String(signal) } : { code }),
    );
  });
}

/** What a kept-open program says, as it says it. */
export interface Listener {
  /** A whole line of its stdout, without the newline. */
  line(text: string): void;
  /** A whole line of its stderr. */
  complaint(text: string): void;
  /** Its last word, once: its exit code, signal, or why it could not be started. Nothing is said after it. */
  ended(why: string): void;
}

/** A program that runs beside this one and is spoken to in lines. */
export interface Conversation extends Disposable {
  /** Undefined when it could not be started. */
  readonly pid: number | undefined;
  /** Queues text for its stdin, and never waits; false once it has ended. */
  say(text: string): boolean;
  /** Closes its stdin: a program that reads to the end then ends by itself. */
  hangUp(): void;
  /** SIGKILL. */
  [Symbol.dispose](): void;
}

/**
 * Starts a program that stays, with pipes to all its streams; their ends are how it learns that this process was killed.
 * Never throws: a program that cannot be started is told to `ended`, later.
 */
export function converse(
  file: string,
  args: readonly string[],
  env: Readonly<Record<string, string>>,
  listener: Listener,
): Conversation {
  const child = spawn(file, [...args], { env, stdio: 'pipe' });
  let last: string | undefined;
  const end = (why: string): void => {
    if (last !== undefined) return;
    last = why;
    listener.ended(why);
  };
  createInterface({ input: child.stdout, crlfDelay: Number.POSITIVE_INFINITY }).on('line', text => listener.line(text));
  createInterface({ input: child.stderr, crlfDelay: Number.POSITIVE_INFINITY }).on('line', text =>
    listener.complaint(text),
  );
  child.stdin.on('error', () => {});
  child.on('error', error => end(systemCode(error) ?? messageOf(error)));
  child.on('close', (code, signal) => end(code === null ? String(signal) : `exit code ${code}`));
  return {
    pid: child.pid,
    say(text) {
      if (last !== undefined || !child.stdin.writable) return false;
      child.stdin.write(text);
      return true;
    },
    hangUp: () => child.stdin.end(),
    [Symbol.dispose]: () => void child.kill('SIGKILL'),
  };
}
