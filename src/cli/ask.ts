// Asks a person at the terminal before something cannot be taken back.
import { readSync } from 'node:fs';
import { isatty } from 'node:tty';
import { type Args, given, UsageError } from './command.ts';
import { plain } from './output.ts';
import type { CliIo } from './program.ts';

/** Whether to go on: --yes, or "y" at the terminal. Without both a UsageError, as nobody can be asked. */
export function confirmed(args: Args, io: CliIo, question: string): boolean {
  if (given(args, 'yes')) return true;
  // It names owners as the store has them.
  const asked = plain(question);
  if (!isatty(0)) throw new UsageError(`${asked} Nobody can be asked here: say --yes`);
  io.writeStderr(`${asked} [y/N] `);
  return /^y(es)?$/i.test(readLine().trim());
}

function readLine(): string {
  const bytes = Buffer.alloc(1);
  let line = '';
  while (readSync(0, bytes) === 1 && bytes[0] !== 10) line += bytes.toString('latin1');
  return line;
}
