// Fetches packages of Debian for any architecture, with apt's state kept apart so that this host stays what it is.
import { mkdirSync, readdirSync, rmSync } from 'node:fs';
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

/**
 * The named packages and all that they depend on, as the host's package sources have them now, sorted by name. What lies
 * in `folder` from an earlier call is not downloaded again; apt checks it against the signed index either way.
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
  apt('update');
  const install = ['install', '--yes', '--no-install-recommends', ...names];
  const planned = [...apt('--simulate', ...install).matchAll(/^Inst (\S+) \((\S+) .*\)/gm)];
  const wanted = planned
    .map(([, name = '', version = '']) => ({ name, version }))
    .sort((a, b) => (a.name < b.name ? -1 : 1));
  const archives = join(folder, 'cache/archives');
  apt('--download-only', ...install);
  const files = readdirSync(archives).filter(file => file.endsWith('.deb'));
  const packages = wanted.map(({ name, version }) => {
    // apt writes the epoch's colon this way in names of files.
    const file = files.find(one => one.startsWith(`${name}_${version.replace(':', '%3a')}_`));
    if (file === undefined)
      throw new Error(`apt-get said that it fetched ${name} ${version}, but it is not in ${archives}`);
    return { name, version, file: join(archives, file) };
  });
  for (const file of files) if (!packages.some(one => one.file.endsWith(`/${file}`))) rmSync(join(archives, file));
  return packages;
}

export function unpackPackage({ file }: DebianPackage, folder: string): void {
  run('dpkg-deb', ['--extract', file, folder]);
}
