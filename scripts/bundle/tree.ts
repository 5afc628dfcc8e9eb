// Lays out what a release holds beside the executable, and packs it into one archive with its checksum.
import { createHash } from 'node:crypto';
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import type { Arch, Identity } from './identity.ts';
import { filesUnder } from './identity.ts';
import { libatomic, nodeLicense } from './node.ts';
import { run } from './run.ts';
import { libraryFolder } from './sea.ts';

/** Puts library folder, configurations, manifests and licences beside the executable. `packages` are folders of npm packages. */
export function layOut(
  tree: string,
  project: string,
  identity: Identity,
  arch: Arch,
  packages: readonly string[],
): void {
  mkdirSync(join(tree, libraryFolder));
  copyFileSync(libatomic(project, arch), join(tree, libraryFolder, 'libatomic.so.1'));
  for (const folder of ['cni-conf', 'deploy']) cpSync(join(project, folder), join(tree, folder), { recursive: true });
  copyFileSync(join(project, 'LICENSE'), join(tree, 'LICENSE'));
  writeFileSync(join(tree, 'LICENSE.third-party'), thirdParty(project, identity, arch, packages));
  for (const path of filesUnder(tree, '.')) chmodSync(join(tree, path), path === './kube-ipam' ? 0o755 : 0o644);
}

/** The licence of every package inside the executable, in one text. */
function thirdParty(project: string, identity: Identity, arch: Arch, packages: readonly string[]): string {
  const own = packages.map(folder => {
    const { name, version, license } = JSON.parse(readFileSync(join(project, folder, 'package.json'), 'utf8'));
    const file = readdirSync(join(project, folder)).find(entry => /^licen[cs]e/i.test(entry));
    return section(`${name} ${version} (${license})`, file ? readFileSync(join(project, folder, file), 'utf8') : '');
  });
  const library = '/usr/share/doc/libatomic1/copyright';
  return [
    section(`Node.js ${identity.node}`, nodeLicense(project, arch, identity.node)),
    section(
      'libatomic (GPL-3 with the GCC Runtime Library Exception)',
      existsSync(library)
        ? readFileSync(library, 'utf8')
        : 'Part of GCC: https://gcc.gnu.org/onlinedocs/libstdc++/manual/license.html\n',
    ),
    ...own,
  ].join('');
}

function section(title: string, text: string): string {
  return `${'='.repeat(78)}\n${title}\n${'='.repeat(78)}\n\n${text.trim()}\n\n`;
}

/** The same tree gives the same bytes: sorted names, one date, no owner. Returns the file's name. */
export function pack(parent: string, tree: string, name: string): string {
  const tar = join(parent, `${name}.tar`);
  run('tar', [
    '--sort=name',
    '--format=ustar',
    '--mtime=2000-01-01T00:00:00Z',
    '--owner=0',
    '--group=0',
    '--numeric-owner',
    '-C',
    parent,
    '-cf',
    tar,
    tree,
  ]);
  const archive = gzipSync(readFileSync(tar), { level: 6 });
  writeFileSync(join(parent, `${name}.tgz`), archive);
  const sum = createHash('sha256').update(archive).digest('hex');
  writeFileSync(join(parent, `${name}.tgz.sha256`), `${sum}  ${name}.tgz\n`);
  return `${name}.tgz`;
}
