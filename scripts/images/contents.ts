// What the images hold: the executable, the libraries that it and the host tools need, and the texts that belong to them.
import { lstatSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { basename, dirname, join, posix } from 'node:path';
import { type DebianPackage, debianTriplet, unpackPackage } from '../bundle/debian.ts';
import type { Arch } from '../bundle/identity.ts';
import { run } from '../bundle/run.ts';
import { isElf, neededBy } from './elf.ts';
import type { Entry, Tree } from './tar.ts';

/** For programs of a package: all of them that are machine code, as no image holds an interpreter. */
const everyProgram = /^usr\/s?bin\/[^/]+$/;

/**
 * The packages whose files an image brings, and which of them. What these need of other packages is found by their ELF
 * headers, so that no shell and no perl comes along because some package's installation script calls for it.
 */
export const tools: Readonly<Record<string, readonly RegExp[]>> = {
  iproute2: [everyProgram, /^etc\/iproute2\//],
  iptables: [everyProgram, /^usr\/lib\/[^/]+\/xtables\//],
  ipset: [everyProgram],
  nftables: [everyProgram],
  conntrack: [everyProgram],
  'iputils-arping': [everyProgram],
  // Its other programs trace routes and resolve names.
  ndisc6: [/^usr\/bin\/ndisc6$/],
  'libndp-tools': [everyProgram],
  kmod: [everyProgram, /^usr\/lib\/modprobe\.d\//],
  // Nothing that formats a disk or opens a login.
  'util-linux': [/^usr\/bin\/(nsenter|unshare|setpriv|flock|lsns|prlimit)$/],
};

/** Packages from which the executable's libraries come; base-files says to scanners which Debian they belong to. */
export const basePackages = ['base-files', 'libc6', 'libgcc-s1', 'libstdc++6'];

/** Debian makes these links when the package is installed (update-alternatives); nft is its default too. */
const alternatives = ['iptables', 'ip6tables'].flatMap(name =>
  ['', '-save', '-restore'].map(verb => [`usr/sbin/${name}${verb}`, `${name}-nft${verb}`] as const),
);

const text = (lines: string): Entry => ({ kind: 'file', bytes: Buffer.from(lines), mode: 0o644 });
const folder: Entry = { kind: 'folder', mode: 0o755 };

/** What a file system has whatever is installed in it. */
const skeleton: Tree = new Map<string, Entry>([
  ...['dev', 'etc', 'proc', 'run', 'sys', 'usr', 'usr/bin', 'usr/lib', 'usr/lib64', 'usr/sbin', 'var'].map(
    path => [path, folder] as const,
  ),
  ['tmp', { kind: 'folder', mode: 0o1777 }],
  ['root', { kind: 'folder', mode: 0o700 }],
  ...['bin', 'lib', 'lib64', 'sbin'].map(path => [path, { kind: 'link', target: `usr/${path}` }] as const),
  ['var/run', { kind: 'link', target: '../run' }],
  ['etc/passwd', text('root:x:0:0:root:/root:/usr/sbin/nologin\n')],
  ['etc/group', text('root:x:0:\n')],
  // Without it, the C library would ask DNS before /etc/hosts.
  ['etc/nsswitch.conf', text('passwd: files\ngroup: files\nhosts: files dns\n')],
]);

export interface Contents {
  /** Skeleton and the executable's libraries: in both images. */
  readonly base: Tree;
  /** What the image for the features that program the host has beside. */
  readonly tools: Tree;
  /** The executable itself, with its licences: in both images. */
  readonly executable: Tree;
}

/** Unpacks the packages below `work` and sorts their files into the layers. `built` is the release tree of that architecture. */
export function contentsOf(packages: readonly DebianPackage[], built: string, arch: Arch, work: string): Contents {
  const shelf = new Shelf(packages, arch, work);
  const executable = executableTree(built);
  const base = shelf.take(
    file => /^(etc|usr\/lib)\/os-release$|^usr\/share\/common-licenses\//.test(file),
    ['base-files'],
  );
  const program = join(built, 'kube-ipam');
  const own = readdirSync(join(built, 'kube-ipam.lib'));
  const libraries = shelf.libraries([program, ...own.map(name => join(built, 'kube-ipam.lib', name))], new Set(own));
  const inBase = new Map([...skeleton, ...base, ...libraries]);
  const programs = Object.entries(tools).flatMap(([name, keep]) => [
    ...shelf.take(file => keep.some(pattern => pattern.test(file)), [name]),
  ]);
  const links = alternatives.map(([path, target]) => [path, { kind: 'link', target } as Entry] as const);
  const host = new Map([...programs, ...links]);
  for (const [path, entry] of shelf.libraries(shelf.sources(host), new Set())) host.set(path, entry);
  for (const path of inBase.keys()) host.delete(path);
  const baseTree = withFolders(new Map([...inBase, ...shelf.papers(inBase)]));
  const hostTree = withoutDeadLinks(withFolders(new Map([...host, ...shelf.papers(host)])), baseTree);
  return { base: withoutDeadLinks(baseTree, new Map()), tools: hostTree, executable };
}

function executableTree(built: string): Tree {
  const tree = new Map<string, Entry>();
  const put = (from: string, to: string, mode: number) =>
    tree.set(to, { kind: 'file', bytes: readFileSync(join(built, from)), mode });
  put('kube-ipam', 'usr/local/bin/kube-ipam', 0o755);
  for (const name of readdirSync(join(built, 'kube-ipam.lib')))
    put(`kube-ipam.lib/${name}`, `usr/local/bin/kube-ipam.lib/${name}`, 0o644);
  for (const name of ['LICENSE', 'LICENSE.third-party']) put(name, `usr/share/doc/kube-ipam/${name}`, 0o644);
  return withFolders(tree);
}

interface Placed {
  readonly package: DebianPackage;
  readonly entry: Entry;
  /** Where it was unpacked. */
  readonly source: string;
}

/** The unpacked packages, by the path that a file has in an image. */
class Shelf {
  readonly #placed = new Map<string, Placed>();
  readonly #packages: readonly DebianPackage[];
  readonly #libraryFolders: readonly string[];

  constructor(packages: readonly DebianPackage[], arch: Arch, work: string) {
    this.#packages = packages;
    this.#libraryFolders = [`usr/lib/${debianTriplet[arch]}`, 'usr/lib64', 'usr/lib'];
    for (const one of packages) {
      const root = join(work, one.name);
      unpackPackage(one, root);
      for (const { path, source } of filesIn(root)) this.#put(one, path, source);
    }
  }

  #put(owner: DebianPackage, unpacked: string, source: string): void {
    const path = merged(unpacked);
    const found = lstatSync(source);
    // Less setuid: whoever gets into a container of ours shall not find a program that makes root of others.
    const entry: Entry = found.isSymbolicLink()
      ? { kind: 'link', target: readlinkSync(source) }
      : { kind: 'file', bytes: readFileSync(source), mode: found.mode & 0o777 };
    this.#placed.set(path, { package: owner, entry, source });
  }

  /** The wanted files of these packages, without scripts. */
  take(wanted: (path: string) => boolean, names: readonly string[]): ReadonlyMap<string, Entry> {
    const taken = new Map<string, Entry>();
    for (const [path, { package: owner, entry }] of this.#placed) {
      if (!names.includes(owner.name) || !wanted(path)) continue;
      const isScript = entry.kind === 'file' && (entry.mode & 0o111) !== 0 && !isElf(entry.bytes);
      if (!isScript) taken.set(path, entry);
    }
    if (taken.size === 0)
      throw new Error(`${names.join(', ')}: none of the files that the images want is there any more`);
    return taken;
  }

  /** Where the machine code among these files lies on this host. */
  sources(tree: Tree): string[] {
    return [...tree.keys()].flatMap(path => {
      const placed = this.#placed.get(path);
      return placed?.entry.kind === 'file' && isElf(placed.entry.bytes) ? [placed.source] : [];
    });
  }

  /** The libraries, and theirs in turn, that these files ask for, less those that they bring themselves. */
  libraries(files: readonly string[], brought: ReadonlySet<string>): ReadonlyMap<string, Entry> {
    const found = new Map<string, Entry>();
    for (let open = files; open.length > 0; ) {
      const fresh = new Map<string, Entry>();
      for (const name of neededBy(open)) {
        if (brought.has(name)) continue;
        for (const path of this.#resolve(name)) if (!found.has(path)) fresh.set(path, this.#at(path).entry);
      }
      for (const [path, entry] of fresh) found.set(path, entry);
      open = this.sources(fresh);
    }
    return found;
  }

  /** The paths of a library or loader: its own, and the one that it is a link to. */
  #resolve(name: string): string[] {
    const paths: string[] = [];
    const candidates = name.includes('/') ? [merged(name)] : this.#libraryFolders.map(one => `${one}/${name}`);
    let path = candidates.find(one => this.#placed.has(one));
    if (path === undefined) throw new Error(`no package of the images has the library ${name}`);
    for (; path !== undefined && !paths.includes(path); path = linkTarget(path, this.#at(path).entry)) paths.push(path);
    return paths;
  }

  #at(path: string): Placed {
    const placed = this.#placed.get(path);
    if (placed === undefined) throw new Error(`${path} is in none of the packages`);
    return placed;
  }

  /** Licence and control record of each package that these files come from: for people, and for scanners. */
  papers(tree: Tree): ReadonlyMap<string, Entry> {
    const owners = new Set([...tree.keys()].flatMap(path => this.#placed.get(path)?.package.name ?? []));
    const papers = new Map<string, Entry>();
    for (const one of this.#packages.filter(({ name }) => owners.has(name))) {
      const control = run('dpkg-deb', ['--field', one.file]);
      papers.set(`var/lib/dpkg/status.d/${one.name}`, text(`${control.trimEnd()}\nStatus: install ok installed\n`));
      for (const [path, entry] of this.#licence(one.name)) papers.set(path, entry);
    }
    return papers;
  }

  /** Packages of one source share a folder of documents by a link. */
  #licence(name: string): ReadonlyMap<string, Entry> {
    const document = `usr/share/doc/${name}`;
    const shared = this.#placed.get(document)?.entry;
    if (shared?.kind === 'link') return new Map([[document, shared], ...this.#licence(basename(shared.target))]);
    return new Map([[`${document}/copyright`, this.#at(`${document}/copyright`).entry]]);
  }
}

function filesIn(root: string): { path: string; source: string }[] {
  return readdirSync(root, { recursive: true, withFileTypes: true })
    .filter(one => !one.isDirectory())
    .map(one => join(one.parentPath, one.name))
    .map(source => ({ source, path: source.slice(root.length + 1) }));
}

/** Where a link leads to inside the image; undefined for what is no link. */
function linkTarget(path: string, entry: Entry): string | undefined {
  if (entry.kind !== 'link') return undefined;
  const target = posix.join('/', entry.target.startsWith('/') ? '' : dirname(path), entry.target).slice(1);
  return merged(target);
}

/** The path of a file as an image has it, where /bin, /lib, /lib64 and /sbin are links into /usr. */
function merged(path: string): string {
  return path.replace(/^(s?bin|lib(64)?)\//, 'usr/$&');
}

/** The folders above everything, unless they are there already. */
function withFolders(tree: Tree): Tree {
  const whole = new Map(tree);
  for (const path of tree.keys()) {
    for (let above = dirname(path); above !== '.'; above = dirname(above))
      if (!whole.has(above)) whole.set(above, folder);
  }
  return whole;
}

/** Links to scripts and other things that stayed out. */
function withoutDeadLinks(tree: Tree, below: Tree): Tree {
  return new Map(
    [...tree].filter(([path, entry]) => {
      const target = linkTarget(path, entry);
      return target === undefined || tree.has(target) || below.has(target);
    }),
  );
}
