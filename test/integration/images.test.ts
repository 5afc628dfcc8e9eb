// The container images: what is in them, that two builds are the same, and that podman and containerd run what they hold.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, lstatSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { identityOf } from '../../scripts/bundle/identity.ts';
import { tools } from '../../scripts/images/contents.ts';
import { isElf, machineOf, neededBy } from '../../scripts/images/elf.ts';
import { Containerd, whyNoContainerd } from '../helpers/containerd.ts';
import { buildImages, type ImageName, imageNames, reference, unpackImage, whyNoImages } from '../helpers/images.ts';
import { Machine, whyNoMachine } from '../helpers/machine.ts';
import { Podman, whyNoPodman } from '../helpers/podman.ts';
import { project } from '../helpers/project.ts';

const native = process.arch as 'x64' | 'arm64';
/** Foreign images are built on x64 machines only, as foreign executables are. */
const arches = native === 'x64' ? (['x64', 'arm64'] as const) : (['arm64'] as const);
const { version } = identityOf(project);

let folder = '';
beforeAll(() => {
  folder = mkdtempSync(join(project, 'dist', '.test-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

interface Found {
  readonly path: string;
  readonly bytes: Buffer;
  readonly mode: number;
}

/** Every regular file below a folder. */
function filesIn(root: string): Found[] {
  return readdirSync(root, { recursive: true, withFileTypes: true })
    .filter(entry => entry.isFile())
    .map(entry => join(entry.parentPath, entry.name))
    .map(path => ({ path: path.slice(root.length), bytes: readFileSync(path), mode: lstatSync(path).mode }));
}

describe.each(arches)('images for %s', arch => {
  const obstacle = whyNoImages(arch);
  const roots = {} as Record<ImageName, string>;

  beforeAll(() => {
    if (obstacle !== undefined) return;
    const { archive } = buildImages(arch);
    for (const name of imageNames) {
      roots[name] = join(folder, `${name}-${arch}`);
      unpackImage(archive(name), roots[name]);
    }
  });

  it.for(imageNames)(
    '%s holds machine code of its architecture, with every library that it needs',
    (name, { skip }) => {
      if (obstacle !== undefined) skip(obstacle);
      const root = roots[name];
      const code = filesIn(root).filter(({ bytes }) => isElf(bytes));
      expect(code.length).toBeGreaterThan(name === 'kube-ipam' ? 7 : 150);
      expect(new Set(code.map(({ bytes }) => machineOf(bytes)))).toEqual(new Set([arch]));
      const places = [
        '/usr/local/bin/kube-ipam.lib',
        ...['x86_64', 'aarch64'].map(one => `/usr/lib/${one}-linux-gnu`),
        '',
      ];
      const missing = [...neededBy(code.map(({ path }) => root + path))].filter(
        needed => !places.some(place => existsSync(join(root, place, needed))),
      );
      expect(missing).toEqual([]);
    },
  );

  it.for(imageNames)(
    '%s holds no interpreter, nothing that makes root of others, and no link that leads nowhere',
    (name, { skip }) => {
      if (obstacle !== undefined) skip(obstacle);
      const root = roots[name];
      const files = filesIn(root);
      expect(files.filter(({ mode }) => mode & 0o6000).map(({ path }) => path)).toEqual([]);
      const programs = files.filter(({ mode }) => mode & 0o111);
      // Whatever can be run is machine code: a script would want a shell, and there is none.
      expect(programs.filter(({ bytes }) => !isElf(bytes)).map(({ path }) => path)).toEqual([]);
      const shells = /\/(sh|bash|dash|busybox|perl|python[\d.]*|env|apt|dpkg)$/;
      expect(files.filter(({ path }) => shells.test(path)).map(({ path }) => path)).toEqual([]);
      const links = readdirSync(root, { recursive: true, withFileTypes: true })
        .filter(entry => entry.isSymbolicLink())
        .map(entry => join(entry.parentPath, entry.name));
      const target = (link: string) => {
        const to = readlinkSync(link);
        return to.startsWith('/') ? join(root, to) : join(link, '..', to);
      };
      expect(links.filter(link => !existsSync(target(link)))).toEqual([]);
    },
  );

  it.for(imageNames)('%s has the licence and the control record of every package in it', (name, { skip }) => {
    if (obstacle !== undefined) skip(obstacle);
    const root = roots[name];
    const packages = readdirSync(join(root, 'var/lib/dpkg/status.d'));
    for (const one of ['libc6', 'libstdc++6', ...(name === 'kube-ipam' ? [] : Object.keys(tools))])
      expect(packages).toContain(one);
    for (const one of packages) {
      const record = readFileSync(join(root, 'var/lib/dpkg/status.d', one), 'utf8');
      expect(record).toMatch(new RegExp(`^Package: ${one.replaceAll('+', '\\+')}\n(.*\n)*?Version: .+\n`));
      expect(readFileSync(join(root, 'usr/share/doc', one, 'copyright'), 'utf8').length).toBeGreaterThan(100);
    }
    expect(readFileSync(join(root, 'etc/os-release'), 'utf8')).toContain('ID=debian');
    expect(readFileSync(join(root, 'usr/share/doc/kube-ipam/LICENSE.third-party'), 'utf8')).toContain('Node.js');
  });

  it('run', ({ skip }) => {
    if (obstacle !== undefined) skip(obstacle);
    if (arch === native) skip('podman runs those of this architecture, below');
    const emulator = { x64: 'qemu-x86_64', arm64: 'qemu-aarch64' }[arch];
    if (spawnSync(emulator, ['--version']).error) skip(`${emulator} is missing (package qemu-user)`);
    const root = roots['kube-ipam-net'];
    const call = (program: string, ...argv: readonly string[]) =>
      spawnSync(emulator, ['-L', root, join(root, program), ...argv], { encoding: 'utf8', timeout: 60_000 }).stdout;
    expect(call('usr/local/bin/kube-ipam', 'version')).toContain(`kube-ipam ${version} `);
    expect(call('usr/bin/nsenter', '--version')).toContain('util-linux');
    expect(call('usr/bin/ip', '-V')).toContain('iproute2');
  });
});

describe('a build', () => {
  it('is not repeated when nothing has changed, and gives the same bytes when it is', { timeout: 290_000 }, ({
    skip,
  }) => {
    const obstacle = whyNoImages();
    if (obstacle !== undefined) skip(obstacle);
    const outs = ['first', 'second'].map(name => join(folder, name));
    const sum = (path: string) => createHash('sha256').update(readFileSync(path)).digest('hex');
    const inputs = (out: string) => readFileSync(join(out, `.${native === 'x64' ? 'amd64' : 'arm64'}.inputs`), 'utf8');
    const build = (out: string) => {
      const { archive } = buildImages(native, '--out', out, '--force');
      return imageNames.map(name => sum(archive(name)));
    };
    let sums = outs.map(build);
    // A commit or an edit between the two is another build.
    for (let tries = 0; inputs(outs[0]!) !== inputs(outs[1]!) && tries < 2; tries++) sums = outs.map(build);
    expect(inputs(outs[1]!)).toBe(inputs(outs[0]!));
    expect(sums[1]).toEqual(sums[0]);
    const quick = buildImages(native, '--out', outs[1]!);
    if (inputs(outs[1]!) === inputs(outs[0]!)) expect(quick.said).toContain('are up to date');
  });
});

describe('podman', () => {
  let obstacle: string | undefined;
  let machine: Machine;
  let podman: Podman;

  beforeAll(async () => {
    obstacle = (await whyNoMachine()) ?? (await whyNoPodman()) ?? whyNoImages();
    if (obstacle !== undefined) return;
    const { archive } = buildImages(native);
    machine = await Machine.start();
    podman = await Podman.prepare(machine, '/usr/lib/cni', []);
    for (const name of imageNames) await podman.must(['load', '--quiet', '--input', archive(name)]);
  });
  afterAll(async () => {
    await machine?.[Symbol.asyncDispose]();
  });

  /** As the DaemonSet runs it: no capability, nothing that can be written. */
  function call(
    image: ImageName,
    entrypoint: string | undefined,
    argv: readonly string[],
    options: readonly string[] = [],
  ) {
    const strict = ['--network', 'host', '--read-only', '--cap-drop', 'all', '--security-opt', 'no-new-privileges'];
    const entry = entrypoint === undefined ? [] : ['--entrypoint', entrypoint];
    const group = ['--cgroup-parent', machine.cgroup];
    return podman.run(['run', '--rm', ...group, ...strict, ...entry, ...options, reference(image), ...argv]);
  }

  it.for(imageNames)('runs the executable of %s', async (name, { skip }) => {
    if (obstacle !== undefined) skip(obstacle);
    const told = await call(name, undefined, ['version']);
    expect(told).toMatchObject({ code: 0, stdout: expect.stringContaining(`kube-ipam ${version} `) });
    const labels = JSON.parse(await podman.must(['inspect', reference(name), '--format', '{{json .Labels}}']));
    expect(labels).toMatchObject({
      'org.opencontainers.image.title': name,
      'org.opencontainers.image.version': version,
      'org.opencontainers.image.licenses': 'Apache-2.0',
    });
  });

  it.for([
    ['iptables', '--version', 'nf_tables'],
    ['iptables-legacy', '--version', 'legacy'],
    ['ip6tables-restore', '--version', 'nf_tables'],
    ['ipset', 'version', 'ipset v'],
    ['nft', '--version', 'nftables v'],
    ['conntrack', '--version', 'conntrack v'],
    ['arping', '-V', 'arping'],
    ['ndisc6', '-V', 'Neighbor'],
    ['ndptool', '-h', 'Show this help'],
    ['modprobe', '--version', 'kmod version'],
    ['nsenter', '--version', 'util-linux'],
    ['ip', '-V', 'iproute2'],
  ] as const)('runs %s of kube-ipam-net', async ([program, flag, expected], { skip }) => {
    if (obstacle !== undefined) skip(obstacle);
    const { stdout, stderr } = await call('kube-ipam-net', program, [flag]);
    expect(stdout + stderr).toContain(expected);
  });

  it('programs a network by the tools of kube-ipam-net, with two capabilities', async ({ skip }) => {
    if (obstacle !== undefined) skip(obstacle);
    const able = ['--cap-add', 'NET_ADMIN', '--cap-add', 'NET_RAW'];
    const must = async (program: string, ...argv: readonly string[]) => {
      const ended = await call('kube-ipam-net', program, argv, able);
      expect(ended).toMatchObject({ code: 0 });
      return ended.stdout;
    };
    // The plugin of a match is a library of its own, which only such a rule loads.
    const rule = ['OUTPUT', '-p', 'tcp', '-m', 'multiport', '--dports', '80,443', '-m', 'comment', '--comment', 'k'];
    await must('iptables', '-A', ...rule, '-j', 'ACCEPT');
    expect(await must('iptables-save')).toContain('--dports 80,443');
    await must('ip', 'link', 'add', 'k0', 'type', 'bridge');
    expect(await must('ip', '-o', 'link', 'show', 'k0')).toContain('k0:');
    await must('nft', 'add', 'table', 'inet', 'k');
    expect(await must('nft', 'list', 'tables')).toContain('table inet k');
  });

  it('finds no shell in either', async ({ skip }) => {
    if (obstacle !== undefined) skip(obstacle);
    for (const name of imageNames) expect((await call(name, '/bin/sh', ['-c', 'true'])).code).not.toBe(0);
  });
});

it('containerd imports them by the names that Kubernetes asks for', async ({ skip }) => {
  const obstacle = (await whyNoMachine()) ?? (await whyNoContainerd()) ?? whyNoImages();
  if (obstacle !== undefined) skip(obstacle);
  const { archive } = buildImages(native);
  await using machine = await Machine.start();
  const network = { cniVersion: '1.0.0', name: 'none', plugins: [] };
  await using containerd = await Containerd.start(machine, '/usr/lib/cni', network);
  for (const name of imageNames) await containerd.ctr('images', 'import', archive(name));
  const listed = await containerd.ctr('images', 'ls', '--quiet');
  for (const name of imageNames) expect(listed.split('\n')).toContain(reference(name));
  expect(await containerd.ctr('images', 'check')).toMatch(new RegExp(`${reference('kube-ipam')} .*complete`));
});
