// The built executable as a host gets it: its libraries, its faces, what of the environment it is deaf to, and its archive.
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import {
  copyFileSync,
  cpSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { identityOf } from '../../scripts/bundle/identity.ts';
import { assemble, libraryFolder } from '../../scripts/bundle/sea.ts';
import { build, executable, tree } from '../helpers/executable.ts';
import { project } from '../helpers/project.ts';

let folder = '';

beforeAll(() => {
  // Beside the executable, because hard links to it must lie on the same file system.
  folder = mkdtempSync(join(project, 'dist', '.test-'));
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

interface Call {
  readonly env?: Record<string, string>;
  readonly input?: string;
  readonly cwd?: string;
}

/** Starts it with nothing in the environment but what the test says. */
function call(path: string, args: readonly string[], { env = {}, input = '', cwd = folder }: Call = {}) {
  const { status, signal, stdout, stderr } = spawnSync(path, args, {
    encoding: 'utf8',
    env,
    input,
    cwd,
    timeout: 60_000,
  });
  return { status, signal, stdout, stderr };
}

function version(path: string, env: Record<string, string> = {}) {
  return call(path, ['version'], { env });
}

function cniVersions(env: Record<string, string> = {}, input = '') {
  return call(executable, [], { env: { CNI_COMMAND: 'VERSION', ...env }, input });
}

function sha256(path: string): string {
  return createHash('sha256').update(readFileSync(path)).digest('hex');
}

const told = /^kube-ipam \d+\.\d+\.\d+ \(commit ([0-9a-f]{12}(-dirty)?|unknown), Node 26\.10\.0\)\n$/;

describe('faces', () => {
  it('tells version, commit and Node', () => {
    const { status, stdout, stderr } = version(executable);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout).toMatch(told);
    expect(stdout).toContain(identityOf(project).version);
  });

  it.each(['--version', '-version'])('understands %s as well', flag => {
    expect(call(executable, [flag]).stdout).toMatch(told);
  });

  it('is the plugin where CNI_COMMAND is set, even to nothing', () => {
    const { status, stdout } = cniVersions();
    expect(status).toBe(0);
    expect(JSON.parse(stdout).supportedVersions).toContain('1.1.0');
    expect(JSON.parse(call(executable, ['version'], { env: { CNI_COMMAND: '' } }).stdout)).toMatchObject({ code: 4 });
  });

  it.each(['eipctl', 'eip_agent', 'kube-router'])('says that %s comes later', name => {
    symlinkSync(executable, join(folder, name));
    const { status, stdout, stderr } = call(join(folder, name), ['ls']);
    expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
    expect(stderr).toBe(`${name}: this tool is not part of this version of kube-ipam\n`);
  });

  it('runs public IPs under the name of their ancestor, also where only flags are given', () => {
    symlinkSync(executable, join(folder, 'kiwi'));
    const help = call(join(folder, 'kiwi'), ['--help']);
    expect({ status: help.status, title: help.stdout.split('\n')[0] }).toEqual({
      status: 0,
      title: 'kiwi puts each public address of a Service on exactly one healthy node, and moves it when that dies.',
    });
    const refused = call(join(folder, 'kiwi'), ['--interface', 'a/b', '--cidr-range', 'x']);
    expect(refused.status).toBe(2);
    expect(refused.stderr).toMatch(/^kiwi: .*--interface.*--cidr-range/);
  });

  it('is a plugin of kubectl under the name that kubectl looks for', () => {
    symlinkSync(executable, join(folder, 'kubectl-ipam'));
    const { status, stdout } = call(join(folder, 'kubectl-ipam'), ['help']);
    expect({ status, title: stdout.split('\n')[0] }).toEqual({
      status: 0,
      title: 'kubectl ipam shows who has which address in this cluster, and keeps the records in order.',
    });
  });

  it('is the command line under any other name, and found through a link', () => {
    symlinkSync(executable, join(folder, 'address-keeper'));
    expect(version(join(folder, 'address-keeper')).stdout).toMatch(told);
    expect(call('./address-keeper', ['version']).stdout).toMatch(told);
  });

  it('runs from the sources too', () => {
    const main = join(project, 'src/main.ts');
    expect(call(process.execPath, [main, 'version']).stdout).toMatch(/^kube-ipam source/);
    const plugin = call(process.execPath, [main], { env: { CNI_COMMAND: 'VERSION' } });
    expect(JSON.parse(plugin.stdout)).toEqual(JSON.parse(cniVersions().stdout));
  });
});

describe('streams', () => {
  it('waits for a slow writer on a non-blocking pipe without spinning', async () => {
    const child = spawn(executable, [], { env: { CNI_COMMAND: 'VERSION' } });
    const chunks: Buffer[] = [];
    child.stdout.on('data', (chunk: Buffer) => chunks.push(chunk));
    child.stdin.write('{"cniVersion":');
    await new Promise(resolve => setTimeout(resolve, 700));
    const ticks = readFileSync(`/proc/${child.pid}/stat`, 'utf8').split(') ')[1]!.split(' ').slice(11, 13).map(Number);
    child.stdin.end('"0.4.0"}');
    expect(await once(child, 'close')).toEqual([0, null]);
    expect(JSON.parse(Buffer.concat(chunks).toString()).cniVersion).toBe('0.4.0');
    // Hundredths of a second of CPU; spinning through the wait would take 60 more.
    expect(ticks[0]! + ticks[1]!).toBeLessThan(40);
  });

  it('reads several megabytes', () => {
    const { stdout } = cniVersions({}, JSON.stringify({ cniVersion: '0.3.1', padding: 'x'.repeat(5_000_000) }));
    expect(JSON.parse(stdout).cniVersion).toBe('0.3.1');
  });

  it('lives with closed streams', () => {
    const closed = (redirections: string) =>
      spawnSync('bash', ['-c', `exec "$1" ${redirections}`, 'bash', executable], {
        encoding: 'utf8',
        env: { CNI_COMMAND: 'VERSION' },
        timeout: 60_000,
      });
    expect(JSON.parse(closed('<&-').stdout).supportedVersions).toContain('1.0.0');
    expect(closed('</dev/null 2>&- >&-').signal).toBeNull();
    expect(closed('</dev/null >/dev/full').stderr).not.toMatch(/\n\s+at /);
  });

  it('ends with 1 and without a word when nobody reads the answer', async () => {
    const child = spawn(executable, [], { env: { CNI_COMMAND: 'VERSION' } });
    child.stdout.destroy();
    const errors: Buffer[] = [];
    child.stderr.on('data', (chunk: Buffer) => errors.push(chunk));
    await new Promise(resolve => setTimeout(resolve, 100));
    child.stdin.end();
    expect(await once(child, 'close')).toEqual([1, null]);
    expect(Buffer.concat(errors).toString()).toBe('');
  });
});

describe('libraries', () => {
  it('needs nothing in its environment', () => {
    const ended = spawnSync('env', ['-i', executable, 'version'], { encoding: 'utf8', cwd: '/' });
    expect(ended.stdout).toMatch(told);
  });

  it('starts where the host has no usable libatomic', ctx => {
    if (process.getuid!() !== 0) ctx.skip('hiding a library takes root');
    const libraries = spawnSync('ldconfig', ['-p'], { encoding: 'utf8', env: { PATH: '/usr/sbin:/sbin' } }).stdout;
    const found = [...libraries.matchAll(/libatomic\.so\.1 .*=> (\S+)/g)].map(([, path]) => path!);
    const hidden = (path: string) =>
      spawnSync(
        'unshare',
        [
          '-m',
          'bash',
          '-c',
          'for f in "$@"; do [ "$f" = "$1" ] || mount --bind /dev/null "$f"; done; exec "$1" version',
          'bash',
          path,
          ...found,
        ],
        { encoding: 'utf8', timeout: 60_000 },
      );
    expect(hidden(executable).stdout).toMatch(told);
    // The same file without its folder fails, which shows that the host's library was hidden.
    mkdirSync(join(folder, 'alone'));
    linkSync(executable, join(folder, 'alone/kube-ipam'));
    expect(hidden(join(folder, 'alone/kube-ipam')).stderr).toMatch(/libatomic/);
  });

  it('is copied with its folder, called through a link, and not misled by LD_LIBRARY_PATH', () => {
    const bin = join(folder, 'opt/cni/bin');
    const trap = join(folder, 'trap');
    for (const path of [bin, trap, join(folder, 'elsewhere')]) mkdirSync(path, { recursive: true });
    copyFileSync(executable, join(bin, 'kube-ipam'));
    cpSync(join(tree, libraryFolder), join(bin, libraryFolder), { recursive: true });
    writeFileSync(join(trap, 'libatomic.so.1'), 'not a library');
    symlinkSync('../opt/cni/bin/kube-ipam', join(folder, 'elsewhere/kube-ipam'));
    const { stdout, stderr } = version(join(folder, 'elsewhere/kube-ipam'), { LD_LIBRARY_PATH: trap });
    expect(stderr).toBe('');
    expect(stdout).toMatch(told);
    const loaded = version(join(bin, 'kube-ipam'), { LD_DEBUG: 'libs' }).stderr;
    expect(loaded).toContain(`calling init: ${join(bin, libraryFolder)}/libatomic.so.1`);
  });
});

describe('randomness', () => {
  it('differs from process to process, though the build itself is reproducible', () => {
    const probe = join(folder, 'probe');
    mkdirSync(probe);
    writeFileSync(join(probe, 'main.js'), 'require("node:fs").writeSync(1, String(Math.random()))');
    assemble(probe, identityOf(project), process.arch as 'x64' | 'arm64', []);
    cpSync(join(tree, libraryFolder), join(probe, libraryFolder), { recursive: true });
    const drawn = Array.from({ length: 5 }, () => call(join(probe, 'kube-ipam'), []).stdout);
    expect(drawn[0]).toMatch(/^0\.\d+/);
    expect(new Set(drawn).size).toBe(5);
  });
});

describe('archive', () => {
  const name = `kube-ipam-${identityOf(project).version}-linux-${process.arch}.tgz`;

  it('holds the tree, and its checksum is right', () => {
    const archive = join(project, 'dist', name);
    expect(readFileSync(`${archive}.sha256`, 'utf8')).toBe(`${sha256(archive)}  ${name}\n`);
    expect(spawnSync('sha256sum', ['-c', `${name}.sha256`], { cwd: join(project, 'dist') }).status).toBe(0);
    const unpacked = join(folder, 'unpacked');
    mkdirSync(unpacked);
    expect(spawnSync('tar', ['-xzf', archive, '-C', unpacked]).status).toBe(0);
    const root = join(unpacked, `linux-${process.arch}`);
    expect(readdirSync(root).sort()).toEqual([
      'LICENSE',
      'LICENSE.third-party',
      'cni-conf',
      'deploy',
      'kube-ipam',
      libraryFolder,
    ]);
    expect(version(join(root, 'kube-ipam')).stdout).toMatch(told);
    expect(sha256(join(root, 'kube-ipam'))).toBe(sha256(executable));
    expect(readFileSync(join(root, 'LICENSE.third-party'), 'utf8')).toMatch(/Node\.js is licensed[\s\S]*etcd3 1\.1\.2/);
  });

  it('is the same, byte for byte, when built twice', () => {
    const inputs = (out: string) => readFileSync(join(out, `.linux-${process.arch}.inputs`), 'utf8');
    const outs = ['first', 'second'].map(each => join(folder, each)) as [string, string];
    // Someone may save a source between the two builds; then they are two builds of two trees.
    for (let tries = 0; tries < 3; tries++) {
      for (const out of outs) build('--force', '--out', out);
      if (inputs(outs[0]) === inputs(outs[1])) break;
    }
    expect(inputs(outs[1])).toBe(inputs(outs[0]));
    const sums = outs.map(out => [sha256(join(out, `linux-${process.arch}/kube-ipam`)), sha256(join(out, name))]);
    expect(sums[1]).toEqual(sums[0]);
  });

  it('is not built again when nothing changed', () => {
    const out = join(folder, 'first');
    build('--out', out);
    expect(build('--out', out)).toContain('is up to date');
  });

  it('is built for arm64 as well', ctx => {
    if (spawnSync('aarch64-linux-gnu-strip', ['--version']).error)
      ctx.skip('aarch64-linux-gnu-strip is missing (scripts/setup.sh build-arm64 installs it)');
    const out = join(folder, 'foreign');
    build('--arch', 'arm64', '--out', out);
    // ELF header: 64 bit, little endian, machine 183 is AArch64.
    for (const file of ['kube-ipam', join(libraryFolder, 'libatomic.so.1')]) {
      const header = readFileSync(join(out, 'linux-arm64', file)).subarray(0, 20);
      expect(header.toString('latin1', 0, 6)).toBe('\x7fELF\x02\x01');
      expect(header.readUInt16LE(18)).toBe(183);
    }
    const dynamic = spawnSync('readelf', ['-d', join(out, 'linux-arm64/kube-ipam')], { encoding: 'utf8' }).stdout;
    expect(dynamic).toContain(`Library rpath: [$ORIGIN/${libraryFolder}]`);
    expect(dynamic).toContain('Shared library: [libatomic.so.1]');
    const archive = join(out, name.replace(process.arch, 'arm64'));
    expect(readFileSync(`${archive}.sha256`, 'utf8').split(' ')[0]).toBe(sha256(archive));
  });
});
