// The container images for tests, built when they are missing or older than what they are made from.
import { spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { debianArch } from '../../scripts/bundle/debian.ts';
import { type Arch, identityOf } from '../../scripts/bundle/identity.ts';
import { project } from './project.ts';

export const imageNames = ['kube-ipam', 'kube-ipam-net'] as const;
export type ImageName = (typeof imageNames)[number];

const { version } = identityOf(project);

/** Why no image can be built here; undefined when one can. */
export function whyNoImages(arch: Arch = process.arch as Arch): string | undefined {
  const needed = ['apt-get', 'dpkg-deb', 'patchelf', ...(arch === process.arch ? [] : ['aarch64-linux-gnu-strip'])];
  const missing = needed.filter(tool => spawnSync(tool, ['--version']).error !== undefined);
  return missing.length === 0 ? undefined : `images cannot be built here: ${missing.join(', ')} not installed`;
}

/** The name by which Kubernetes and podman know it. */
export function reference(name: ImageName): string {
  return `localhost/${name}:${version}`;
}

/** Builds the images of one architecture; gives the path of each archive, and what the build said. */
export function buildImages(
  arch: Arch,
  ...options: readonly string[]
): { archive(name: ImageName): string; said: string } {
  const at = options.indexOf('--out');
  const out = at < 0 ? join(project, 'dist/images') : options[at + 1]!;
  const argv = [join(project, 'scripts/images.sh'), '--arch', arch, ...options];
  const { status, stdout, stderr } = spawnSync('bash', argv, { encoding: 'utf8', timeout: 290_000 });
  if (status !== 0) throw new Error(`the images could not be built:\n${stdout}${stderr}`);
  return { archive: name => join(out, `${name}-${version}-${debianArch[arch]}.tar`), said: stdout };
}

/** Unpacks the layers of an image, one over the other, as a container would see them. */
export function unpackImage(archive: string, folder: string): void {
  mkdirSync(folder, { recursive: true });
  const [{ Layers: layers }] = JSON.parse(tar(['-xOf', archive, 'manifest.json']).toString());
  for (const layer of layers) tar(['-xzf', '-', '-C', folder], tar(['-xOf', archive, layer]));
}

function tar(argv: readonly string[], input?: Buffer): Buffer {
  const { status, stdout, stderr } = spawnSync('tar', argv, { ...(input && { input }), maxBuffer: 1 << 28 });
  if (status !== 0) throw new Error(`tar ${argv.join(' ')}: ${stderr}`);
  return stdout;
}
