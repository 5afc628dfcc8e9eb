// Fetches packages of Debian for any architecture, with apt's state kept apart so that this host stays what it is.
import { existsSync, mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Arch } from './identity.ts';
import { run } from './run.ts';

export const debianArch = { x64: 'amd64', arm64: 'arm64' } as const;
export const debianTriplet = { x64: 'x86_64-linux-gnu', arm64: 'aarch64-linux-gnu' } as const;

export interface DebianPackage {
  readonly name: string;
  readonly version: string;
  /** Path of the .deb file. */
  readonly file: string;
}

/** For so long (ms) an index counts as new: security updates must come into images, and builds in a row must not wait for it. */
const indexLife = 86_400_000;

/**
 * The named packages and all that they depend on, as the host's package sources have them, sorted by name. What lies in
 * `folder` from an earlier call, the index for a day, is not downloaded again; apt checks packages against the signed
 * index either way.
 */
export function fetchPackages(arch: Arch, names: readonly string[], folder: string): DebianPackage[] {
  for (const part of ['lists/partial', 'cache/archives/partial']) mkdirSync(join(folder, part), { recursive: true });
  const apart = [
    `APT::Architecture=${debianArch[arch]}`,
    `APT::Architectures::=${debianArch[arch]}`,
    `Dir::State::lists=${folder}/lists`,
    `Dir::Cache=${folder}/cache`,
    // Nothing counts as installed, so that the answer does not depend on this host.
    'Dir::State::status=/dev/null',
    // apt drops to its own user, who may not read a folder of the project.
    'APT::Sandbox::User=root',
  ].flatMap(setting => ['-o', setting]);
  const apt = (...args: readonly string[]) =>
    run('apt-get', ['-qq', ...apart, ...args], {
      hint: "libraries of the executable are Debian's, so apt-get is needed",
    });
  const install = ['install', '--yes', '--no-install-recommends', ...names];
  const plan = () => {
    const planned = [...apt('--simulate', ...install).matchAll(/^Inst (\S+) \((\S+) .*\)/gm)];
    return planned.map(([, name = '', version = '']) => ({ name, version })).sort((a, b) => (a.name < b.name ? -1 : 1));
  };
  const archives = join(folder, 'cache/archives');
  const files = () => readdirSync(archives).filter(file => file.endsWith('.deb'));
  // apt writes the epoch's colon this way in names of files.
  const fileOf = ({ name, version }: Omit<DebianPackage, 'file'>) =>
    files().find(one => one.startsWith(`${name}_${version.replace(':', '%3a')}_`));
  const index = join(folder, 'index-read');
  const isNew = existsSync(index) && Date.now() - statSync(index).mtimeMs < indexLife;
  let wanted = isNew ? plan() : [];
  if (wanted.length === 0 || !wanted.every(fileOf)) {
    apt('update');
    writeFileSync(index, '');
    wanted = plan();
  }
  apt('--download-only', ...install);
  const packages = wanted.map(one => {
    const file = fileOf(one);
    if (file === undefined)
      throw new Error(`apt-get said that it fetched ${one.name} ${one.version}, but it is not in ${archives}`);
    return { ...one, file: join(archives, file) };
  });
  for (const file of files()) if (!packages.some(one => one.file.endsWith(`/${file}`))) rmSync(join(archives, file));
  return packages;
}

export function unpackPackage({ file }: DebianPackage, folder: string): void {
  run('dpkg-deb', ['--extract', file, folder]);
}
