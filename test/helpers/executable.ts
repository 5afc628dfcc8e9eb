// The built executable for tests; importing this builds it when it is missing or older than its sources.
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { project } from './project.ts';

/** The release tree: `kube-ipam`, its library folder, `cni-conf`, `deploy`, LICENSE. */
export const tree = join(project, 'dist', `linux-${process.arch}`);

export const executable = join(tree, 'kube-ipam');

/** Builds into `out`; does nothing when nothing has changed since the last build there. Returns what the build said. */
export function build(...options: string[]): string {
  const script = join(project, 'scripts/bundle-sea.sh');
  const { status, stdout, stderr } = spawnSync('bash', [script, ...options], { encoding: 'utf8', timeout: 280_000 });
  if (status !== 0) throw new Error(`the executable could not be built:\n${stdout}${stderr}`);
  return stdout;
}

build();
