// Writes cni-conf/*.conflist and those of deploy/ from the templates; run it after a change to src/cli/conf-templates.ts.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { shippedConfs } from '../src/cli/conf-templates.ts';
import { deployedConfs } from './deploy/networks.ts';

for (const [folder, files] of [
  ['cni-conf', shippedConfs()],
  ['deploy', deployedConfs()],
] as const) {
  for (const [name, text] of files) {
    writeFileSync(join(import.meta.dirname, '..', folder, name), text);
    process.stdout.write(`${folder}/${name}\n`);
  }
}
