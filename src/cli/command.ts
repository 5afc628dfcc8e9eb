// The shape of a command as plain data, from which parsing, help, completion and the reference are made.
import { durationRule, parseDuration } from '../base/duration.ts';
import type { CliIo } from './program.ts';

/** Exit codes of every command. */
export const exit = { fine: 0, trouble: 1, usage: 2, unreachable: 3, running: 4 } as const;

export interface Flag {
  readonly type: 'string' | 'boolean';
  readonly describe: string;
  readonly choices?: readonly string[];
  /** May be given several times. */
  readonly many?: boolean;
  /** One letter. */
  readonly short?: string;
  /** What the value is called in help: FILE, NAME, ... */
  readonly value?: string;
}

export type Flags = Readonly<Record<string, Flag>>;

export interface Positional {
  readonly name: string;
  readonly describe: string;
  readonly required: boolean;
  readonly choices?: readonly string[];
}

/** What yargs made of the arguments; read it with the functions below. */
export type Args = Readonly<Record<string, unknown>>;

export interface Command {
  readonly verb: string;
  readonly summary: string;
  /** What help says beyond the summary. */
  readonly details?: string;
  readonly positionals: readonly Positional[];
  readonly flags: Flags;
  readonly examples: readonly (readonly [command: string, meaning: string])[];
  /** Returns the exit code; what it throws is told to the user by the program. */
  run(args: Args, io: CliIo): Promise<number>;
}

/** The caller asked for something that cannot be asked for: exit code 2. */
export class UsageError extends Error {
  override name = 'UsageError';
}

/** The value of a flag or positional; undefined when it was not given. */
export function text(args: Args, name: string): string | undefined {
  const value = args[name];
  if (value === undefined) return undefined;
  if (value === '') throw new UsageError(`${name}: must not be empty`);
  return String(value);
}

/** The value of a positional that the parser has made sure of. */
export function required(args: Args, name: string): string {
  const value = text(args, name);
  if (value === undefined) throw new UsageError(`${name} is missing`);
  return value;
}

/** The values of a flag that may be given several times. */
export function texts(args: Args, name: string): readonly string[] {
  const value = args[name];
  if (value === undefined) return [];
  const list = (Array.isArray(value) ? value : [value]).map(String);
  if (list.includes('')) throw new UsageError(`--${name}: must not be empty`);
  return list;
}

export function given(args: Args, name: string): boolean {
  return args[name] === true;
}

/** Milliseconds. A timer of Node's ends at once beyond 24 days, and nobody waits that long. */
export function durationOf(args: Args, name: string): number | undefined {
  const value = text(args, name);
  if (value === undefined) return undefined;
  const ms = parseDuration(value);
  if (ms !== undefined && ms <= 86_400_000) return ms;
  throw new UsageError(`--${name} ${JSON.stringify(value)}: ${durationRule}, at most a day`);
}
