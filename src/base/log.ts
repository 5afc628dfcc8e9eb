// The log of what happened to addresses: one JSON line an event, written so that many processes can share the file.
import { closeSync, constants, fstatSync, lstatSync, openSync, renameSync, rmSync, statSync, writeSync } from 'node:fs';

export const logLevels = ['debug', 'info', 'warn', 'error', 'off'] as const;
export type LogLevel = (typeof logLevels)[number];

export interface LogTarget {
  readonly file: string;
  readonly level: LogLevel;
  /** Bytes after which the file is renamed to `<file>.1`. */
  readonly maxSize: number;
}

export type Fields = Readonly<Record<string, string | number | boolean | undefined | readonly string[]>>;

/** Puts lines, each with its end, where they belong. */
export type WriteLines = (target: LogTarget, lines: string) => void;

/** Writes events of a level or above; a log that cannot be written never stops the work. */
export class Log {
  readonly #target: LogTarget;
  readonly #context: Fields;
  readonly #writeLines: WriteLines;

  constructor(target: LogTarget, context: Fields = {}, writeLines: WriteLines = append) {
    this.#target = target;
    this.#context = context;
    this.#writeLines = writeLines;
  }

  with(context: Fields): Log {
    return new Log(this.#target, { ...this.#context, ...context }, this.#writeLines);
  }

  debug(event: string, fields: Fields = {}): void {
    this.#write('debug', event, fields);
  }

  info(event: string, fields: Fields = {}): void {
    this.#write('info', event, fields);
  }

  warn(event: string, fields: Fields = {}): void {
    this.#write('warn', event, fields);
  }

  error(event: string, fields: Fields = {}): void {
    this.#write('error', event, fields);
  }

  #write(level: LogLevel, event: string, fields: Fields): void {
    if (logLevels.indexOf(level) < logLevels.indexOf(this.#target.level)) return;
    const line = { time: new Date().toISOString(), level, event, ...this.#context, ...fields };
    quietly(() => this.#writeLines(this.#target, `${JSON.stringify(line)}\n`));
  }
}

/** Appends to the file, and keeps it from growing beyond `maxSize`. Never throws. */
export function appendLines(target: Pick<LogTarget, 'file' | 'maxSize'>, lines: string): void {
  quietly(() => append(target, lines));
}

function quietly(write: () => void): void {
  try {
    write();
  } catch {
    // An address matters more than its log line; `kube-ipam status` tells that the log cannot be written.
  }
}

function append(target: Pick<LogTarget, 'file' | 'maxSize'>, lines: string): void {
  // One write with O_APPEND: lines of several processes never mix.
  // O_NONBLOCK: a named pipe without a reader is an error then, not a wait for ever.
  const { O_WRONLY, O_APPEND, O_CREAT, O_NONBLOCK } = constants;
  const fd = openSync(target.file, O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK, 0o640);
  try {
    writeSync(fd, lines);
    if (fstatSync(fd).size > target.maxSize) rotate(target);
  } finally {
    closeSync(fd);
  }
}

/** Keeps one old file. The lock keeps a second process from renaming the fresh file over the old one. */
function rotate(target: Pick<LogTarget, 'file' | 'maxSize'>): void {
  const lock = `${target.file}.lock`;
  try {
    closeSync(openSync(lock, 'wx', 0o600));
  } catch {
    const made = statSync(lock, { throwIfNoEntry: false })?.mtimeMs;
    // Either way: one from the future was made before the clock was set back.
    if (made !== undefined && Math.abs(Date.now() - made) > 10_000) rmSync(lock, { force: true });
    return;
  }
  try {
    // A link (/dev/stderr is one) is not ours to rename, and what it leads to is somebody else's file.
    const there = lstatSync(target.file);
    if (there.isFile() && there.size > target.maxSize) renameSync(target.file, `${target.file}.1`);
  } finally {
    rmSync(lock, { force: true });
  }
}
