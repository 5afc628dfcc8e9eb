// Builds the images kube-ipam and kube-ipam-net without a registry, each as one archive: images.ts [--arch x64|arm64] [--out dist/images] [--force].
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { type DebianPackage, debianArch, fetchPackages } from './bundle/debian.ts';
import { type Arch, filesUnder, type Identity, identityOf } from './bundle/identity.ts';
import { project } from './bundle/javascript.ts';
import { cacheFolder } from './bundle/node.ts';
import { imageArchive, type Layer, layer } from './images/archive.ts';
import { basePackages, contentsOf, tools } from './images/contents.ts';

function say(text: string): void {
  process.stdout.write(`images: ${text}\n`);
}

function build(arch: Arch, out: string, force: boolean): void {
  say(`executable for ${arch}`);
  const bundled = spawnSync('bash', [join(project, 'scripts/bundle-sea.sh'), '--arch', arch], { stdio: 'inherit' });
  if (bundled.status !== 0) throw new Error(`the executable for ${arch} could not be built`);
  const built = join(project, 'dist', `linux-${arch}`);
  say(`packages of Debian for ${debianArch[arch]}`);
  const folder = join(cacheFolder(project), `debian-${debianArch[arch]}`);
  const packages = fetchPackages(arch, [...basePackages, ...Object.keys(tools)], folder);
  const identity = identityOf(project);
  const file = (name: string) => join(out, `${name}-${identity.version}-${debianArch[arch]}.tar`);
  const stamp = join(out, `.${debianArch[arch]}.inputs`);
  const inputs = inputsHash(identity, built, packages);
  const isThere = ['kube-ipam', 'kube-ipam-net'].every(name => existsSync(file(name)));
  if (!force && isThere && existsSync(stamp) && readFileSync(stamp, 'utf8') === inputs) {
    say(`${file('kube-ipam')} and ${file('kube-ipam-net')} are up to date`);
    return;
  }
  mkdirSync(out, { recursive: true });
  rmSync(stamp, { force: true });
  const work = mkdtempSync(join(out, '.build-'));
  try {
    const contents = contentsOf(packages, built, arch, work);
    const base = layer('libraries of Debian that the executable needs', contents.base);
    const programs = layer("Debian's tools for the network of a host", contents.tools);
    const executable = layer(`kube-ipam ${identity.version}`, contents.executable);
    const write = (name: string, layers: readonly Layer[]) => {
      const draft = join(work, `${name}.tar`);
      writeFileSync(draft, imageArchive(describe(name, arch, identity), layers));
      renameSync(draft, file(name));
      say(`${file(name)} (${Math.round(statSync(file(name)).size / 1e6)} MB)`);
    };
    write('kube-ipam', [base, executable]);
    write('kube-ipam-net', [base, programs, executable]);
    writeFileSync(stamp, inputs);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

function describe(name: string, arch: Arch, { version, commit }: Identity) {
  return {
    reference: `localhost/${name}:${version}`,
    arch,
    entrypoint: ['/usr/local/bin/kube-ipam'],
    labels: {
      'org.opencontainers.image.title': name,
      'org.opencontainers.image.description':
        name === 'kube-ipam'
          ? 'IPAM plugin, node agent and command line'
          : "kube-ipam with the tools that program a host's network",
      'org.opencontainers.image.version': version,
      'org.opencontainers.image.revision': commit,
      'org.opencontainers.image.licenses': 'Apache-2.0',
    },
  };
}

/** Changes whenever a build could give other bytes. */
function inputsHash(identity: Identity, built: string, packages: readonly DebianPackage[]): string {
  const versions = packages.map(({ name, version }) => [name, version]);
  const hash = createHash('sha256').update(JSON.stringify({ identity, versions }));
  const scripts = ['scripts/images', 'scripts/images.ts'].flatMap(path => filesUnder(project, path));
  const files = [...scripts.map(path => join(project, path)), ...filesUnder(built, '.').map(path => join(built, path))];
  for (const file of files) hash.update(`${file}\0`).update(readFileSync(file));
  return hash.digest('hex');
}

const { values } = parseArgs({
  options: {
    arch: { type: 'string' },
    out: { type: 'string', default: join(project, 'dist/images') },
    force: { type: 'boolean', default: false },
  },
});
const arches = (['x64', 'arm64'] as const).filter(arch => values.arch === undefined || values.arch === arch);
if (arches.length === 0) {
  process.stderr.write(`images: --arch must be x64 or arm64, not ${values.arch}\n`);
  process.exit(2);
}
try {
  for (const arch of arches) build(arch, resolve(values.out), values.force);
} catch (error) {
  process.stderr.write(`images: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
}
