// The pinned Node that the executable is made from, for this architecture or a foreign one, without its symbols.
import { createHash } from 'node:crypto';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { debianTriplet, fetchPackages, unpackPackage } from './debian.ts';
import type { Arch } from './identity.ts';
import { run } from './run.ts';

export const nativeArch = process.arch as Arch;

/** Things that took long to get and never change: the foreign Node, stripped Nodes, foreign libraries. */
export function cacheFolder(project: string): string {
  const folder = join(project, 'node_modules/.cache/kube-ipam');
  mkdirSync(folder, { recursive: true });
  return folder;
}

/** Node's executable for that architecture, as its npm package has it. */
function plainNode(project: string, arch: Arch, version: string): string {
  const installed = join(project, `node_modules/node-linux-${arch}/bin/node`);
  if (existsSync(installed)) return installed;
  const kept = join(cacheFolder(project), `node-linux-${arch}-${version}`);
  if (!existsSync(kept)) download(project, arch, version, kept);
  return join(kept, 'package/bin/node');
}

/** npm does not install a package for another architecture, so it is packed, checked against the lock file and unpacked. */
function download(project: string, arch: Arch, version: string, kept: string): void {
  const name = `node-linux-${arch}`;
  process.stdout.write(`bundle: fetching ${name} ${version}\n`);
  const folder = mkdtempSync(`${kept}.`);
  try {
    run('npm', ['pack', '--silent', '--pack-destination', folder, `${name}@${version}`], { cwd: project });
    const archive = join(folder, `${name}-${version}.tgz`);
    const lock = JSON.parse(readFileSync(join(project, 'package-lock.json'), 'utf8'));
    const wanted = lock.packages[`node_modules/${name}`].integrity;
    const found = `sha512-${createHash('sha512').update(readFileSync(archive)).digest('base64')}`;
    if (found !== wanted) throw new Error(`${name} ${version}: checksum is ${found}, package-lock.json says ${wanted}`);
    run('tar', ['-xzf', archive, '-C', folder, 'package/bin/node', 'package/LICENSE']);
    rmSync(archive);
    renameSync(folder, kept);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** The licence text that Node ships under. */
export function nodeLicense(project: string, arch: Arch, version: string): string {
  return readFileSync(join(plainNode(project, arch, version), '../../LICENSE'), 'utf8');
}

/**
 * Node without symbols: 33 MB less to map, and a tenth faster to start. It must happen before the program goes in;
 * an executable stripped afterwards crashes.
 */
export function strippedNode(project: string, arch: Arch, version: string): string {
  const kept = join(cacheFolder(project), `node-${version}-${arch}-stripped`);
  if (existsSync(kept)) return kept;
  process.stdout.write(`bundle: stripping Node ${version} for ${arch}\n`);
  const temporary = `${kept}.${process.pid}`;
  const strip = arch === nativeArch ? 'strip' : `${debianTriplet[arch]}-strip`;
  const purpose = arch === nativeArch ? 'build' : `build-${arch}`;
  try {
    copyFileSync(plainNode(project, arch, version), temporary);
    run(strip, [temporary], { hint: `bash scripts/setup.sh ${purpose} installs it` });
    renameSync(temporary, kept);
  } finally {
    rmSync(temporary, { force: true });
  }
  return kept;
}

/** libatomic.so.1, which Node needs and many hosts lack. */
export function libatomic(project: string, arch: Arch): string {
  const own = [`/usr/lib/${debianTriplet[arch]}/libatomic.so.1`, '/usr/lib64/libatomic.so.1'].find(path =>
    existsSync(path),
  );
  if (arch === nativeArch) {
    if (own === undefined) throw new Error('libatomic.so.1 is missing; bash scripts/setup.sh build installs it');
    return own;
  }
  const kept = join(cacheFolder(project), `libatomic-${arch}`);
  if (!existsSync(kept)) downloadLibatomic(arch, kept);
  return join(kept, `usr/lib/${debianTriplet[arch]}/libatomic.so.1`);
}

function downloadLibatomic(arch: Arch, kept: string): void {
  process.stdout.write(`bundle: fetching Debian's libatomic1 for ${arch}\n`);
  const folder = mkdtempSync(`${kept}.`);
  try {
    const found = fetchPackages(arch, ['libatomic1'], folder).find(({ name }) => name === 'libatomic1');
    if (found === undefined) throw new Error(`Debian has no libatomic1 for ${arch}`);
    unpackPackage(found, join(folder, 'root'));
    renameSync(join(folder, 'root'), kept);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
