// Builds the tree dist/linux-<arch>/ with the single executable, and the archive of it: bundle.ts [--arch x64|arm64] [--out dist] [--force].
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { type Arch, filesUnder, identityOf, inputsHash } from './bundle/identity.ts';
import { project } from './bundle/javascript.ts';
import { nativeArch } from './bundle/node.ts';
import { makeExecutable } from './bundle/sea.ts';
import { layOut, pack } from './bundle/tree.ts';

function say(text: string): void {
  process.stdout.write(`bundle: ${text}\n`);
}

function megabytes(path: string): string {
  return `${Math.round(statSync(path).size / 1e6)} MB`;
}

/** Puts each new file over the old one by rename, so that a process that starts meanwhile finds the one or the other. */
function replace(from: string, to: string): void {
  const files = filesUnder(from, '.');
  for (const path of files) {
    mkdirSync(dirname(join(to, path)), { recursive: true });
    renameSync(join(from, path), join(to, path));
  }
  for (const path of filesUnder(to, '.')) if (!files.includes(path)) rmSync(join(to, path));
}

async function build(out: string, arch: Arch, force: boolean): Promise<void> {
  const identity = identityOf(project);
  const name = `kube-ipam-${identity.version}-linux-${arch}`;
  const tree = join(out, `linux-${arch}`);
  const stamp = join(out, `.linux-${arch}.inputs`);
  const inputs = inputsHash(project, identity, arch);
  const complete = [join(tree, 'kube-ipam'), join(out, `${name}.tgz`), join(out, `${name}.tgz.sha256`)].every(path =>
    existsSync(path),
  );
  if (!force && complete && existsSync(stamp) && readFileSync(stamp, 'utf8') === inputs) {
    say(`${tree} is up to date (${identity.version}, commit ${identity.commit})`);
    return;
  }
  say(`building ${identity.version}, commit ${identity.commit}, Node ${identity.node}, for linux-${arch}`);
  rmSync(stamp, { force: true });
  mkdirSync(out, { recursive: true });
  const work = mkdtempSync(join(out, '.build-'));
  try {
    const packages = await makeExecutable(work, identity, arch);
    const fresh = join(work, `linux-${arch}`);
    mkdirSync(fresh);
    renameSync(join(work, 'kube-ipam'), join(fresh, 'kube-ipam'));
    layOut(fresh, project, identity, arch, packages);
    say('packing');
    pack(work, `linux-${arch}`, name);
    replace(fresh, tree);
    for (const file of [`${name}.tgz`, `${name}.tgz.sha256`]) renameSync(join(work, file), join(out, file));
    writeFileSync(stamp, inputs);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  say(`${join(tree, 'kube-ipam')} (${megabytes(join(tree, 'kube-ipam'))})`);
  say(`${join(out, `${name}.tgz`)} (${megabytes(join(out, `${name}.tgz`))}) with checksum`);
}

const { values } = parseArgs({
  options: {
    arch: { type: 'string', default: nativeArch },
    out: { type: 'string', default: join(project, 'dist') },
    force: { type: 'boolean', default: false },
  },
});
if (values.arch !== 'x64' && values.arch !== 'arm64') {
  process.stderr.write(`bundle: --arch must be x64 or arm64, not ${values.arch}\n`);
  process.exit(2);
}
try {
  await build(resolve(values.out), values.arch, values.force);
} catch (error) {
  process.stderr.write(`bundle: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
}
