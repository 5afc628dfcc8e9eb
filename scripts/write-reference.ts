// Writes the command line's part of docs/reference.md; run it after a change to a command or a flag in src/cli.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { withCommandLine } from './docs/command-line.ts';

const file = join(import.meta.dirname, '../docs/reference.md');
writeFileSync(file, await withCommandLine(readFileSync(file, 'utf8')));
process.stdout.write('docs/reference.md\n');
