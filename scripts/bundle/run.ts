// Starts one tool of the build with an argument list, and tells its complaint when it fails.
import { spawnSync } from 'node:child_process';

export interface RunOptions {
  readonly cwd?: string;
  readonly env?: NodeJS.ProcessEnv;
  /** What to do when the tool is not there. */
  readonly hint?: string;
}

/** Runs to the end and returns stdout; throws with stderr in the message otherwise. */
export function run(tool: string, args: readonly string[], options: RunOptions = {}): string {
  const { cwd, env } = options;
  const ended = spawnSync(tool, args, {
    encoding: 'utf8',
    maxBuffer: 1 << 28,
    timeout: 600_000,
    ...(cwd && { cwd }),
    ...(env && { env }),
  });
  if (ended.error && 'code' in ended.error && ended.error.code === 'ENOENT')
    throw new Error(`${tool} is missing${options.hint ? `; ${options.hint}` : ''}`);
  if (ended.error) throw new Error(`${tool}: ${ended.error.message}`, { cause: ended.error });
  if (ended.status !== 0) {
    const how = ended.status === null ? `signal ${ended.signal}` : `exit code ${ended.status}`;
    throw new Error(`${tool} ${args.join(' ')} failed (${how}):\n${ended.stderr || ended.stdout}`);
  }
  return ended.stdout;
}
