// The only starter of other programs: argument lists, never a shell, and a deadline unless a person sits before it.
import { execFile, spawn } from 'node:child_process';
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

/** Runs a program to its end. `env` is its whole environment; `input` is all of its stdin. Never throws. */
export function execute(
  file: string,
  args: readonly string[],
  env: Readonly<Record<string, string>>,
  input: string,
  deadline: Deadline,
): Promise<Finished> {
  return new Promise(resolve => {
    const options = {
      env,
      timeout: Math.max(1, Math.ceil(deadline.left())),
      killSignal: 'SIGKILL' as const,
      maxBuffer: 2 ** 22,
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
