// Writes cni-conf/*.conflist from the templates; run it after a change to src/cli/conf-templates.ts.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { shippedConfs } from '../src/cli/conf-templates.ts';

const folder = join(import.meta.dirname, '..', 'cni-conf');
for (const [name, text] of shippedConfs()) {
  writeFileSync(join(folder, name), text);
  process.stdout.write(`cni-conf/${name}\n`);
}
