// Writes docs/reference-cli.md, the reference of the command line, from the same data that help and parsing are made of.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { cliReference } from './cli-reference.ts';

const file = 'docs/reference-cli.md';
writeFileSync(join(import.meta.dirname, '..', file), await cliReference());
process.stdout.write(`${file}\n`);
