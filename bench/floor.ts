// The floor of every figure: a single executable that does nothing, made from the same Node in the same way.
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { identityOf } from '../scripts/bundle/identity.ts';
import { project } from '../scripts/bundle/javascript.ts';
import { nativeArch, strippedNode } from '../scripts/bundle/node.ts';
import { run } from '../scripts/bundle/run.ts';
import { libraryFolder } from '../scripts/bundle/sea.ts';
import { tree } from '../test/helpers/executable.ts';

/** Makes the empty executable in the folder: as Node makes one, without the flags that kube-ipam starts with. */
export function makeEmptyExecutable(folder: string): string {
  const work = mkdtempSync(join(tmpdir(), 'kube-ipam-floor-'));
  try {
    writeFileSync(join(work, 'main.js'), '');
    const config = {
      main: 'main.js',
      output: 'empty',
      executable: strippedNode(project, nativeArch, identityOf(project).node),
      mainFormat: 'commonjs',
      useCodeCache: true,
      disableExperimentalSEAWarning: true,
      execArgv: ['--disable-sigusr1', '--no-warnings'],
      execArgvExtension: 'none',
    };
    writeFileSync(join(work, 'sea.json'), JSON.stringify(config));
    run(process.execPath, ['--build-sea', 'sea.json'], { cwd: work, env: {} });
    mkdirSync(folder, { recursive: true });
    const path = join(folder, 'empty');
    run('patchelf', ['--force-rpath', '--set-rpath', join(tree, libraryFolder), '--output', path, join(work, 'empty')]);
    chmodSync(path, 0o755);
    return path;
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}
