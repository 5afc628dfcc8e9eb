// Installing and uninstalling the built executable, in folders of a test's own and in a machine of its own.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  appendFileSync,
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { libraryFolder } from '../../scripts/bundle/sea.ts';
import { libraryFolder as installed } from '../../src/cli/install/executable.ts';
import { Desk, kubeIpam, runProcess, sources } from '../helpers/command-line.ts';
import { executable, tree } from '../helpers/executable.ts';
import { Machine, whyNoMachine } from '../helpers/machine.ts';

/** Runs the built executable with the folders of a desk. */
function install(desk: Desk, ...argv: readonly string[]) {
  const places = ['--bin-dir', join(desk.folder, 'bin'), '--conf-dir', desk.confDir];
  return kubeIpam([...argv, ...places], { program: executable });
}

function files(folder: string): string[] {
  return existsSync(folder) ? (readdirSync(folder, { recursive: true }) as string[]).sort() : [];
}

const macvlan = {
  cniVersion: '1.0.0',
  name: 'lan',
  type: 'macvlan',
  ipam: { type: 'kube-ipam', subnet: '10.4.0.0/24' },
};
const network = (desk: Desk) => ['--subnet', '10.1.0.0/24', '--data-dir', desk.dataDir];
const program = (desk: Desk) => join(desk.folder, 'bin', 'kube-ipam');

describe('install', () => {
  it('puts executable, libraries and configuration in place, with their modes, and all of them work', async () => {
    using desk = new Desk();
    const { code, stdout, stderr } = await install(desk, 'install', 'bridge', ...network(desk));
    expect({ code, stderr }).toMatchObject({
      code: 0,
      stderr: expect.stringContaining('main plugin bridge is not in'),
    });
    expect(stdout).toContain('record the ranges of network pods');
    expect(files(join(desk.folder, 'bin'))).toEqual(['kube-ipam', 'kube-ipam.lib', 'kube-ipam.lib/libatomic.so.1']);
    expect(files(desk.confDir)).toEqual(['1-kube-ipam.conf']);
    const mode = (path: string) => (statSync(path).mode & 0o777).toString(8);
    expect(mode(program(desk))).toBe('755');
    expect(mode(join(desk.folder, 'bin/kube-ipam.lib/libatomic.so.1'))).toBe('644');
    expect(mode(join(desk.confDir, '1-kube-ipam.conf'))).toBe('644');
    expect(readFileSync(program(desk)).equals(readFileSync(executable))).toBe(true);
    const conf = readFileSync(join(desk.confDir, '1-kube-ipam.conf'), 'utf8');
    const env = { CNI_COMMAND: 'ADD', CNI_CONTAINERID: 'c', CNI_NETNS: '/run/netns/c', CNI_IFNAME: 'eth0' };
    const logless = JSON.stringify({ ...JSON.parse(conf), ipam: { ...JSON.parse(conf).ipam, logLevel: 'off' } });
    const added = await runProcess(program(desk), [], { env, input: logless });
    expect(JSON.parse(added.stdout)).toMatchObject({ ips: [{ address: '10.1.0.2/24' }] });
    expect((await desk.run(['usage'])).stdout).toMatch(/pods +10\.1\.0\.0\/24/);
  });

  it('may be repeated, and says what stays as it is', async () => {
    using desk = new Desk();
    await install(desk, 'install', 'bridge', ...network(desk));
    const inodes = () => [program(desk), join(desk.confDir, '1-kube-ipam.conf')].map(path => statSync(path).ino);
    const before = inodes();
    const again = await install(desk, 'install', 'bridge', ...network(desk));
    expect(again).toMatchObject({ code: 0, stdout: expect.stringContaining('they are the same') });
    expect(again.stdout.match(/^leave /gm)).toHaveLength(3);
    expect(inodes()).toEqual(before);
    const library = join(desk.folder, 'bin/kube-ipam.lib/libatomic.so.1');
    const damages: readonly (() => void)[] = [
      () => chmodSync(program(desk), 0o700),
      () => writeFileSync(library, readFileSync(library).fill('x', 20_000, 20_010)),
      () => appendFileSync(program(desk), 'x'),
      () => rmSync(library),
    ];
    // What copies that were killed half-way left behind, one of them by a process with any number.
    for (const left of [`${program(desk)}.1.new`, `${program(desk)}.1.0123456789ab.new`]) {
      writeFileSync(left, 'half');
      utimesSync(left, 0, 0);
    }
    for (const damage of damages) {
      damage();
      expect(await install(desk, 'install')).toMatchObject({
        code: 0,
        stdout: expect.stringMatching(/^copy .*kube-ipam/),
      });
      expect(readFileSync(program(desk)).equals(readFileSync(executable))).toBe(true);
      expect(readFileSync(library).equals(readFileSync(join(tree, libraryFolder, 'libatomic.so.1')))).toBe(true);
    }
    const places = ['--bin-dir', join(desk.folder, 'bin'), '--conf-dir', desk.confDir];
    const itself = await kubeIpam(['install', ...places], { program: program(desk) });
    expect(itself).toMatchObject({ code: 0, stdout: expect.stringContaining('it is this very file') });
    expect(files(desk.folder).filter(name => name.endsWith('.new'))).toEqual([]);
    const other = await install(desk, 'install', 'bridge', ...network(desk), '--exclude', '10.1.0.9');
    expect(other.stdout).toContain('replace the ranges of network pods');
  });

  it('replaces a copy that is running, and the runtime never sees half of one', async () => {
    using desk = new Desk();
    await install(desk, 'install');
    // Another one, that runs all the same: the very same would be left alone.
    appendFileSync(program(desk), 'x');
    // A command that waits for its input is a running copy.
    const running: ChildProcess = spawn(program(desk), ['import', '--data-dir', desk.dataDir], {
      stdio: ['pipe', 'ignore', 'pipe'],
    });
    let said = '';
    running.stderr?.on('data', chunk => {
      said += chunk;
    });
    const ended = new Promise<number | null>(resolve => running.on('close', resolve));
    try {
      while (running.exitCode === null && !existsSync(`/proc/${running.pid}/exe`)) await sleep(5);
      let isDone = false;
      const done = install(desk, 'install').finally(() => {
        isDone = true;
      });
      let asked = 0;
      while (!isDone) {
        const answer = await runProcess(program(desk), [], { env: { CNI_COMMAND: 'VERSION' } });
        expect(answer).toMatchObject({ code: 0, stdout: expect.stringContaining('supportedVersions') });
        asked++;
      }
      expect(await done).toMatchObject({ code: 0, stdout: expect.stringMatching(/^copy /) });
      expect(asked).toBeGreaterThan(0);
      expect(running.exitCode).toBeNull();
    } finally {
      running.stdin?.end();
    }
    expect(await ended).toBe(1);
    expect(said).toContain('the input is empty');
  });

  it('writes a list as .conflist, takes a file as it is, and removes the older form', async () => {
    using desk = new Desk();
    expect(await install(desk, 'install', 'calico', ...network(desk))).toMatchObject({ code: 0 });
    expect(files(desk.confDir)).toEqual(['1-kube-ipam.conflist']);
    const own = {
      cniVersion: '1.0.0',
      name: 'mine',
      type: 'bridge',
      ipam: { type: 'kube-ipam', subnet: '10.3.0.0/24', dataDir: desk.dataDir },
    };
    const source = desk.write('mine.json', `  ${JSON.stringify(own)}  \n`);
    expect(await install(desk, 'install', '--conf', source)).toMatchObject({ code: 0 });
    expect(files(desk.confDir)).toEqual(['1-kube-ipam.conf']);
    expect(readFileSync(join(desk.confDir, '1-kube-ipam.conf'), 'utf8')).toBe(readFileSync(source, 'utf8'));
    desk.write('net.d/0-other.conf', { cniVersion: '1.0.0', name: 'o', type: 'bridge' });
    const warned = await install(desk, 'install', '--conf', source);
    expect(warned.stderr).toContain(`the runtime takes ${join(desk.confDir, '0-other.conf')} before`);
  });

  it('changes nothing for a configuration that cannot be used, nor in a dry run', async () => {
    using desk = new Desk();
    const bad = desk.write('bad.json', {
      cniVersion: '1.0.0',
      name: 'x',
      type: 'bridge',
      ipam: { type: 'kube-ipam', subnet: '10.1.0.1/24' },
    });
    const refused = await install(desk, 'install', '--conf', bad);
    expect(refused).toMatchObject({ code: 1, stdout: '', stderr: expect.stringContaining('write 10.1.0.0/24') });
    const broken = await install(desk, 'install', '--conf', desk.write('broken.json', '{"a": 1,}'));
    expect(broken).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('broken.json:1:8: not JSON: a comma too many'),
    });
    const named = await install(desk, 'install', 'calico', ...network(desk), '--conf-name', 'x.conf');
    expect(named).toMatchObject({ code: 2, stderr: expect.stringContaining('must end in .conflist') });
    const dry = await install(desk, 'install', 'bridge', ...network(desk), '--dry-run');
    expect(dry).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/^would copy .*\nwould write .*\nwould record .*\n$/),
    });
    expect(files(join(desk.folder, 'bin'))).toEqual([]);
    expect(files(desk.confDir)).toEqual([]);
    expect(existsSync(desk.dataDir)).toBe(false);
  });

  it('installs without its store, and says so', async () => {
    using desk = new Desk();
    const etcd = ['--subnet', '10.1.0.0/24', '--etcd-url', 'http://127.0.0.1:1', '--timeout', '2'];
    const { code, stderr } = await install(desk, 'install', 'bridge', ...etcd);
    expect(code).toBe(0);
    expect(stderr).toContain('are not recorded: etcd cannot be reached');
    expect(files(desk.confDir)).toEqual(['1-kube-ipam.conf']);
  });

  it('activates no new network whose store is away, with --need-store, and keeps what is there', async () => {
    using desk = new Desk();
    const flags = ['--subnet', '10.1.0.0/24', '--etcd-url', 'http://127.0.0.1:1', '--timeout', '2'];
    const first = await install(desk, 'install', 'bridge', ...flags, '--need-store');
    expect(first).toMatchObject({
      code: 3,
      stderr: expect.stringMatching(/is not written before .*\n.*cannot be reached/),
    });
    expect(files(desk.confDir)).toEqual([]);
    expect(existsSync(program(desk))).toBe(true);
    await install(desk, 'install', 'bridge', ...flags);
    const [file] = files(desk.confDir);
    const before = readFileSync(join(desk.confDir, file!), 'utf8');
    // A node that boots while etcd is away: its network stays.
    expect(await install(desk, 'install', 'bridge', ...flags, '--need-store')).toMatchObject({ code: 0 });
    const changed = await install(desk, 'install', 'bridge', ...flags, '--need-store', '--mtu', '1400');
    expect(changed.code).toBe(3);
    expect(readFileSync(join(desk.confDir, file!), 'utf8')).toBe(before);
    const embedded = await install(desk, 'install', 'bridge', ...network(desk), '--need-store');
    expect(embedded).toMatchObject({ code: 0, stdout: expect.stringContaining(`write ${join(desk.confDir, file!)}`) });
  });

  it('closes a state folder that somebody has just made for it, and no other', async () => {
    using desk = new Desk();
    mkdirSync(desk.dataDir);
    await install(desk, 'install', 'bridge', ...network(desk));
    expect(statSync(desk.dataDir).mode & 0o777).toBe(0o700);
    chmodSync(desk.dataDir, 0o755);
    await install(desk, 'install', 'bridge', ...network(desk));
    expect(statSync(desk.dataDir).mode & 0o777).toBe(0o755);
  });

  it('refuses to install the sources', async () => {
    using desk = new Desk();
    const places = ['--bin-dir', join(desk.folder, 'bin'), '--conf-dir', desk.confDir];
    const said = await runProcess(sources[0], [sources[1], 'install', ...places]);
    expect(said).toMatchObject({ code: 1, stderr: expect.stringContaining('npm run build') });
    expect(libraryFolder).toBe(installed);
  });

  it('leaves the old executable where the new one cannot run', async ctx => {
    const why = await whyNoMachine();
    if (why !== undefined) return ctx.skip(why);
    await using machine = await Machine.start('host-a');
    const bin = join(machine.folder, 'bin');
    mkdirSync(bin);
    await machine.must(['mount', '-t', 'tmpfs', '-o', 'noexec', 'tmpfs', bin]);
    const old = machine.path(join(bin, 'kube-ipam'));
    writeFileSync(old, 'the old one');
    const said = await machine.run([executable, 'install', '--bin-dir', bin, '--conf-dir', machine.folder]);
    expect(said).toMatchObject({ code: 1, stderr: expect.stringMatching(/does not run here: .*noexec/) });
    expect(readFileSync(old, 'utf8')).toBe('the old one');
    expect(readdirSync(machine.path(bin)).sort()).toEqual(['kube-ipam', 'kube-ipam.lib']);
  });

  it('copies certificates for root alone, also those that a kubelet swaps by links', async ctx => {
    const why = await whyNoMachine();
    if (why !== undefined) return ctx.skip(why);
    await using machine = await Machine.start('host-a');
    using desk = new Desk();
    await machine.must(['mount', '-t', 'tmpfs', '-o', 'mode=755', 'tmpfs', '/etc/cni']);
    await machine.must(['mkdir', '-p', '/etc/kube-ipam']);
    await machine.must(['mount', '-t', 'tmpfs', '-o', 'mode=755', 'tmpfs', '/etc/kube-ipam']);
    const secret = join(desk.folder, 'secret');
    mkdirSync(join(secret, '..2026_01'), { recursive: true });
    writeFileSync(join(secret, '..2026_01/etcd-client.key'), 'key');
    writeFileSync(join(secret, '..2026_01/etcd-ca.crt'), 'authority');
    symlinkSync('..2026_01', join(secret, '..data'));
    for (const name of ['etcd-client.key', 'etcd-ca.crt']) symlinkSync(join('..data', name), join(secret, name));
    const places = ['--bin-dir', join(desk.folder, 'bin'), '--conf-dir', desk.confDir, '--certificates', secret];
    const copy = () => machine.run([executable, 'install', ...places]);
    expect(await copy()).toMatchObject({
      code: 0,
      stdout: expect.stringContaining('write /etc/kube-ipam/etcd-ca.crt\n'),
    });
    const there = () => machine.must(['busybox', 'stat', '-c', '%n %a %F', ...certificates]);
    const certificates = ['/etc/kube-ipam/etcd-ca.crt', '/etc/kube-ipam/etcd-client.key'];
    expect(await there()).toBe(certificates.map(path => `${path} 600 regular file\n`).join(''));
    expect(await machine.must(['ls', '/etc/kube-ipam'])).toBe('etcd-ca.crt\netcd-client.key\n');
    writeFileSync(join(secret, '..2026_01/etcd-client.key'), 'new');
    const again = await copy();
    expect(again.stdout).toContain(
      'leave /etc/kube-ipam/etcd-ca.crt: it is the same\nwrite /etc/kube-ipam/etcd-client.key\n',
    );
    expect(await machine.must(['cat', '/etc/kube-ipam/etcd-client.key'])).toBe('new');
    writeFileSync(join(secret, 'node'), 'worker');
    expect(await copy()).toMatchObject({ code: 1, stderr: expect.stringContaining('holds the name of the node') });
    rmSync(join(secret, 'node'));
    const conf = { etcdConfig: { etcdURL: 'https://127.0.0.1:1', etcdTrustedCAFile: '/etc/kube-ipam/new.crt' } };
    writeFileSync(join(secret, '..2026_01/new.crt'), 'authority');
    symlinkSync('..data/new.crt', join(secret, 'new.crt'));
    const network = desk.write('net.json', { ...macvlan, ipam: { ...macvlan.ipam, ...conf } });
    // They are there before anything asks for them.
    const both = await machine.run([executable, 'install', ...places, '--conf', network, '--timeout', '1']);
    expect(both).toMatchObject({ code: 0, stdout: expect.stringContaining('write /etc/kube-ipam/new.crt') });
    expect(both.stderr).not.toContain('cannot be read on this machine');
    const missing = ['--bin-dir', desk.folder, '--certificates', join(desk.folder, 'none')];
    expect(await machine.run([executable, 'install', ...missing])).toMatchObject({
      code: 1,
      stderr: expect.stringContaining(`${join(desk.folder, 'none')} cannot be read`),
    });
  });

  it('writes the name of the node, and uses it', async ctx => {
    const why = await whyNoMachine();
    if (why !== undefined) return ctx.skip(why);
    await using machine = await Machine.start('host-a');
    using desk = new Desk();
    mkdirSync(join(machine.folder, 'etc'));
    await machine.must(['mkdir', '-p', '/etc/kube-ipam']);
    try {
      await machine.must(['mount', '--bind', join(machine.folder, 'etc'), '/etc/kube-ipam']);
      const places = ['--bin-dir', join(desk.folder, 'bin'), '--conf-dir', desk.confDir];
      const said = await machine.run([executable, 'install', '--node', 'worker-7', ...places]);
      expect(said).toMatchObject({ code: 0, stdout: expect.stringContaining('write /etc/kube-ipam/node: worker-7') });
      expect(readFileSync(join(machine.folder, 'etc/node'), 'utf8')).toBe('worker-7\n');
      expect((statSync(join(machine.folder, 'etc/node')).mode & 0o777).toString(8)).toBe('644');
      const status = await machine.run([executable, 'status', ...places, '-o', 'json']);
      expect(status.stdout).toContain('"subject": "worker-7"');
      const bad = await machine.run([executable, 'install', '--node', 'a/b', ...places]);
      expect(bad).toMatchObject({ code: 2, stderr: expect.stringContaining('is no name for a node') });
    } finally {
      await machine.run(['umount', '/etc/kube-ipam']);
    }
  });
});

describe('uninstall', () => {
  it('removes what install wrote, keeps the data, and may be repeated', async () => {
    using desk = new Desk();
    await install(desk, 'install', 'bridge', ...network(desk));
    const dry = await install(desk, 'uninstall', '--dry-run');
    expect(dry).toMatchObject({ code: 0, stderr: '' });
    expect(dry.stdout.split('\n').slice(0, 3)).toEqual([
      `would remove ${join(desk.confDir, '1-kube-ipam.conf')}`,
      `would remove ${program(desk)}`,
      `would remove ${program(desk)}.lib`,
    ]);
    expect(existsSync(program(desk))).toBe(true);
    const { code, stdout } = await install(desk, 'uninstall');
    expect(code).toBe(0);
    expect(stdout.split('\n').slice(0, 3)).toEqual([
      `removed ${join(desk.confDir, '1-kube-ipam.conf')}`,
      `removed ${program(desk)}`,
      `removed ${program(desk)}.lib`,
    ]);
    expect(stdout).toContain(`left: the addresses in ${desk.dataDir}`);
    expect(files(join(desk.folder, 'bin'))).toEqual([]);
    expect(files(desk.confDir)).toEqual([]);
    expect(existsSync(join(desk.dataDir, 'store.db'))).toBe(true);
    expect(await install(desk, 'uninstall')).toMatchObject({
      code: 0,
      stdout: expect.stringContaining('nothing to remove'),
    });
  });

  it('warns while containers of this machine have addresses, whose DEL would find no executable', async () => {
    using desk = new Desk();
    await install(desk, 'install', 'bridge', ...network(desk));
    const reserved = ['reserve', '10.1.0.20-10.1.0.29', '--reason', 'not of a container', '--data-dir', desk.dataDir];
    expect(await kubeIpam(reserved)).toMatchObject({ code: 0 });
    expect(await install(desk, 'uninstall', '--dry-run')).toMatchObject({ code: 0, stderr: '' });
    const conf = JSON.parse(readFileSync(join(desk.confDir, '1-kube-ipam.conf'), 'utf8'));
    const add = async (containerID: string, more: object) => {
      const env = { CNI_COMMAND: 'ADD', CNI_CONTAINERID: containerID, CNI_NETNS: '/run/netns/c', CNI_IFNAME: 'eth0' };
      const input = JSON.stringify({ ...conf, ipam: { ...conf.ipam, logLevel: 'off', ...more } });
      expect(await runProcess(program(desk), [], { env, input })).toMatchObject({ code: 0 });
    };
    await add('a', {});
    await add('b', { addressSpace: 'another' });
    const warning = `warning: the store in ${desk.dataDir} still holds 2 addresses of containers on this machine`;
    for (const flag of ['--dry-run', '--force']) {
      const { code, stderr } = await install(desk, 'uninstall', flag);
      expect({ code, stderr }).toEqual({ code: 0, stderr: expect.stringContaining(warning) });
    }
    expect(existsSync(program(desk))).toBe(false);
    const again = await install(desk, 'uninstall', '--data-dir', desk.dataDir);
    expect(again).toMatchObject({ code: 0, stderr: '' });
  });

  it('is not stopped by a store that cannot be read', async () => {
    using desk = new Desk();
    await install(desk, 'install', 'bridge', ...network(desk));
    writeFileSync(join(desk.dataDir, 'store.db'), 'x'.repeat(8192));
    const { code, stderr } = await install(desk, 'uninstall');
    expect({ code, stderr }).toEqual({ code: 0, stderr: expect.stringContaining('cannot be told: ') });
    expect(existsSync(program(desk))).toBe(false);
  });

  it('--purge asks, takes the store, and leaves what is not its own', async () => {
    using desk = new Desk();
    await install(desk, 'install', 'bridge', ...network(desk));
    writeFileSync(join(desk.dataDir, 'mine.txt'), 'x');
    expect(await install(desk, 'uninstall', '--purge')).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('say --yes'),
    });
    expect(existsSync(program(desk))).toBe(true);
    expect(await install(desk, 'uninstall', '--purge', '--yes')).toMatchObject({ code: 0 });
    expect(files(desk.dataDir)).toEqual(['mine.txt']);
  });

  it('--purge takes the store that an earlier uninstall left, unless a network still names one', async () => {
    using desk = new Desk();
    await install(desk, 'install', 'bridge', ...network(desk));
    await install(desk, 'uninstall');
    const purge = ['uninstall', '--purge', '--yes', '--data-dir', desk.dataDir];
    const other = desk.network('other', { subnet: '10.9.0.0/24', dataDir: desk.dataDir });
    await install(desk, ...purge);
    expect(existsSync(join(desk.dataDir, 'store.db'))).toBe(true);
    rmSync(other);
    const left = await install(desk, 'uninstall', '--data-dir', desk.dataDir);
    expect(left.stdout).toContain(`left: the addresses in ${desk.dataDir}`);
    expect(await install(desk, ...purge)).toMatchObject({
      code: 0,
      stdout: expect.stringContaining(`removed the store in ${desk.dataDir}`),
    });
    expect(existsSync(desk.dataDir)).toBe(false);
  });

  it('refuses while another network uses the executable', async () => {
    using desk = new Desk();
    await install(desk, 'install', 'bridge', ...network(desk));
    const other = desk.network('other', { subnet: '10.9.0.0/24', dataDir: desk.dataDir });
    const refused = await install(desk, 'uninstall');
    expect(refused).toMatchObject({
      code: 1,
      stdout: '',
      stderr: expect.stringContaining(`${other} still uses kube-ipam`),
    });
    expect(files(join(desk.folder, 'bin'))).toContain('kube-ipam');
    expect(await install(desk, 'uninstall', '--force')).toMatchObject({ code: 0 });
    expect(files(desk.confDir)).toEqual(['other.conf']);
  });
});

describe('uninstall --all', () => {
  /** A host as a container of the manifests sees it: its folders below another one. */
  function host(desk: Desk) {
    const root = join(desk.folder, 'host');
    const place = (...parts: readonly string[]) => join(root, ...parts);
    for (const folder of [
      'run/kube-ipam',
      'var/lib/kube-ipam/eip',
      'etc/kube-ipam',
      'etc/cni/net.d/kube-ipam.d',
      'var/log',
    ])
      mkdirSync(place(folder), { recursive: true });
    for (const file of ['etc/kube-ipam/node', 'etc/kube-ipam/etcd-client.key', 'etc/cni/net.d/kube-ipam.d/kubeconfig'])
      writeFileSync(place(file), 'x');
    for (const file of [
      'var/lib/kube-ipam/ledger.json',
      'var/lib/kube-ipam/eip/x',
      'var/log/kube-ipam.log',
      'run/other',
    ])
      writeFileSync(place(file), 'x');
    return { root, place };
  }

  const etcd = { etcdConfig: { etcdURL: 'http://127.0.0.1:1' }, subnet: '10.1.0.0/24' };

  async function installed(desk: Desk, ipam: object) {
    const { root, place } = host(desk);
    const conf = { cniVersion: '1.0.0', name: 'pods', type: 'bridge', ipam: { type: 'kube-ipam', ...ipam } };
    const places = ['--bin-dir', place('opt/cni/bin'), '--conf-dir', place('etc/cni/net.d'), '--timeout', '1'];
    const said = await kubeIpam(['install', '--conf', desk.write('pods.json', conf), ...places], {
      program: executable,
    });
    expect(said.code).toBe(0);
    const state = place('var/lib/cni/kube-ipam');
    mkdirSync(join(state, 'spool'), { recursive: true });
    writeFileSync(join(state, 'spool', '0123'), '{}');
    writeFileSync(join(state, 'endpoint.json'), '{}');
    const remove = (...argv: readonly string[]) =>
      kubeIpam(['uninstall', '--all', '--root', root, ...argv], { program: executable });
    return { root, place, state, remove };
  }

  it('leaves nothing but the log, and says so', async () => {
    using desk = new Desk();
    const { root, remove, state } = await installed(desk, etcd);
    expect(await remove()).toMatchObject({ code: 2, stderr: expect.stringContaining('say --yes') });
    const before = files(root);
    const dry = await remove('--dry-run');
    expect(dry).toMatchObject({ code: 0, stderr: expect.stringContaining(`1 DEL waits in ${state} for etcd`) });
    expect(files(root)).toEqual(before);
    const { code, stdout } = await remove('--yes');
    expect(code).toBe(0);
    expect(stdout).toContain('left: the addresses in etcd at http://127.0.0.1:1');
    expect(stdout.match(/^removed /gm)).toHaveLength(8);
    expect(existsSync(state)).toBe(false);
    const left = files(root).filter(path => !statSync(join(root, path)).isDirectory());
    expect(left).toEqual(['run/other', 'var/log/kube-ipam.log']);
    expect(files(root).filter(path => /kube-ipam/.test(path))).toEqual(['var/log/kube-ipam.log']);
    expect(await remove('--yes')).toMatchObject({ code: 0, stdout: expect.stringContaining('nothing to remove') });
    // As a kubelet makes it for a pod that never did anything.
    mkdirSync(state);
    expect((await remove('--yes')).stdout).toContain(`removed the state in ${state}`);
    expect(existsSync(state)).toBe(false);
  });

  it('takes the embedded store of the host along, not that of the container', async () => {
    using desk = new Desk();
    const { state, remove } = await installed(desk, { subnet: '10.1.0.0/24', dataDir: desk.dataDir });
    writeFileSync(join(state, 'mine'), 'x');
    mkdirSync(join(desk.folder, 'host', desk.dataDir), { recursive: true });
    copyFileSync(join(desk.dataDir, 'store.db'), join(desk.folder, 'host', desk.dataDir, 'store.db'));
    const { code, stdout } = await remove('--yes');
    expect({ code, stdout }).toEqual({
      code: 0,
      stdout: expect.stringContaining(`removed the store in ${join(desk.folder, 'host', desk.dataDir)}`),
    });
    expect(existsSync(join(desk.folder, 'host', desk.dataDir))).toBe(false);
    expect(existsSync(join(desk.dataDir, 'store.db'))).toBe(true);
    expect(files(state)).toEqual(['mine']);
  });

  it('refuses while the agent runs, and not for a socket that it has left', async () => {
    using desk = new Desk();
    const { place, root, remove } = await installed(desk, etcd);
    const socket = place('run/kube-ipam/agent.sock');
    const agent = createServer().listen(socket);
    await once(agent, 'listening');
    const before = files(root);
    try {
      expect(await remove('--yes')).toMatchObject({
        code: 4,
        stderr: expect.stringContaining('agent of this node is running'),
      });
      expect(files(root)).toEqual(before);
    } finally {
      agent.close();
    }
    writeFileSync(socket, '');
    expect(await remove('--yes')).toMatchObject({ code: 0 });
    expect(existsSync(socket)).toBe(false);
  });

  it('stays afterwards when it is told to', async () => {
    using desk = new Desk();
    const { root, place } = await installed(desk, etcd);
    const child = spawn(executable, ['uninstall', '--all', '--yes', '--stay', '--root', root], { stdio: 'ignore' });
    const ended = once(child, 'close');
    await expect.poll(() => existsSync(place('run/kube-ipam')), { timeout: 20_000 }).toBe(false);
    await sleep(300);
    expect(child.exitCode).toBeNull();
    child.kill('SIGTERM');
    expect(await ended).toEqual([0, null]);
  });
});

describe('status of an installation', () => {
  it('is fine after install, and names what is missing or open to others', async () => {
    using desk = new Desk();
    await install(desk, 'install', 'bridge', ...network(desk));
    const bridge = join(desk.folder, 'bin', 'bridge');
    const without = await install(desk, 'status');
    expect(without.code).toBe(1);
    expect(without.stdout).toMatch(/wrong +\S+\/bin\/bridge: is not there, .* no pod of network pods starts/);
    expect(without.stdout).toContain('1 thing wrong');
    copyFileSync(executable, bridge);
    chmodSync(bridge, 0o644);
    expect(await install(desk, 'status')).toMatchObject({ code: 1 });
    chmodSync(bridge, 0o755);
    const well = await install(desk, 'status', '-o', 'json');
    expect(JSON.parse(well.stdout)).toMatchObject({ worst: 'fine' });
    expect(well.code).toBe(0);
    chmodSync(program(desk), 0o777);
    const open = await install(desk, 'status');
    expect(open).toMatchObject({ code: 1, stdout: expect.stringContaining('others than root may change it') });
    await install(desk, 'uninstall');
    const none = await install(desk, 'status');
    expect(none.code).toBe(1);
    expect(none.stdout).toContain('no pod can be given an address');
    expect(none.stdout).toContain('holds no network configuration');
    expect(files(tree)).toContain('kube-ipam');
  });

  it('looks for every plugin of a list, and of what Multus delegates to', async () => {
    using desk = new Desk();
    const ipam = { type: 'kube-ipam', subnet: '10.1.0.0/24', dataDir: desk.dataDir, logLevel: 'off' };
    const delegates = [{ name: 'second', type: 'macvlan', ipam }];
    const plugins = [{ type: 'multus', delegates }, { type: 'portmap' }];
    desk.write('net.d/1.conflist', { cniVersion: '1.0.0', name: 'all', plugins });
    const { code, stdout } = await install(desk, 'status', '-o', 'json');
    expect(code).toBe(1);
    const { diagnoses } = JSON.parse(stdout) as { diagnoses: { level: string; area: string; subject: string }[] };
    const missing = diagnoses.filter(({ area, level }) => area === 'executable' && level === 'wrong');
    const bin = join(desk.folder, 'bin');
    expect(missing.map(({ subject }) => subject)).toEqual(
      ['kube-ipam', 'multus', 'macvlan', 'portmap'].map(name => join(bin, name)),
    );
  });

  it('tells which file the runtime takes first, files that are broken, and a log that cannot be written', async () => {
    using desk = new Desk();
    desk.network('pods', { subnet: '10.1.0.0/24', dataDir: desk.dataDir, logFile: '/proc/kube-ipam.log' });
    desk.write('net.d/0-first.conf', { cniVersion: '1.0.0', name: 'o', type: 'bridge' });
    desk.write('net.d/zz.conflist', '{"name": "x" "plugins": []}');
    const { code, stdout } = await install(desk, 'status', '-o', 'json');
    expect(code).toBe(1);
    const { diagnoses } = JSON.parse(stdout) as { diagnoses: { level: string; subject: string; text: string }[] };
    const found = (subject: string) => diagnoses.find(one => one.subject === subject && one.level !== 'fine')?.text;
    expect(found(join(desk.confDir, '0-first.conf'))).toContain('does not use kube-ipam');
    expect(found(join(desk.confDir, 'zz.conflist'))).toContain('line 1, column 13');
    expect(found('/proc/kube-ipam.log')).toContain('cannot be written');
  });
});
