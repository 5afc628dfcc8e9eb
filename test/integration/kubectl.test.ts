// The executable as a plugin of the real kubectl: in an agent of a cluster, and on a store that flags name.
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { deadlineIn } from '../../src/base/clock.ts';
import { parseIp } from '../../src/net/ip.ts';
import { openGateway } from '../../src/store/etcd/gateway.ts';
import { Keys } from '../../src/store/keys.ts';
import { runProcess, type Said } from '../helpers/command-line.ts';
import { buildImages, whyNoImages } from '../helpers/images.ts';
import { type ControlPlane, startControlPlane, whyNoControlPlane } from '../helpers/kubernetes/control-plane.ts';
import { type Playground, startPlayground, whyNoPlayground } from '../helpers/kubernetes/playground.ts';
import { deletePod, runPod } from '../helpers/kubernetes/pods.ts';
import { kubernetesProgram } from '../helpers/kubernetes/tools.ts';
import { program } from '../helpers/plugin-process.ts';

const timeout = 280_000;

/** A desk of an administrator: kubectl and its plugin in PATH, and a home with kubeconfigs. */
class Desk implements Disposable {
  readonly folder = mkdtempSync(join(tmpdir(), 'kube-ipam-kubectl-'));

  constructor() {
    mkdirSync(join(this.folder, 'bin'));
    symlinkSync(kubernetesProgram('kubectl')!, join(this.folder, 'bin/kubectl'));
    symlinkSync(program, join(this.folder, 'bin/kubectl-ipam'));
    symlinkSync(program, join(this.folder, 'bin/kubectl_complete-ipam'));
  }

  write(name: string, content: object): string {
    const path = join(this.folder, name);
    writeFileSync(path, JSON.stringify(content), { mode: 0o600 });
    return path;
  }

  /** `kubectl ipam` with these arguments. */
  ipam(argv: readonly string[], kubeconfig: string, input = ''): Promise<Said> {
    return this.kubectl(['ipam', ...argv], kubeconfig, input);
  }

  kubectl(argv: readonly string[], kubeconfig: string, input = ''): Promise<Said> {
    const env = { PATH: join(this.folder, 'bin'), HOME: this.folder, KUBECONFIG: kubeconfig };
    return runProcess(join(this.folder, 'bin/kubectl'), argv, { env, input });
  }

  [Symbol.dispose](): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Where the addresses lie in a table by pods: `namespace/pod node address`. */
function rowsOf({ stdout }: Said): string[] {
  const [head, ...rows] = stdout.trimEnd().split('\n');
  expect(head).toMatch(/^NAMESPACE +POD +NODE +IF +ADDRESS +KIND /);
  return rows.map(row => {
    const [namespace, pod, node, , address] = row.split(/ +/);
    return `${namespace}/${pod} ${node} ${address}`;
  });
}

const noPlane = whyNoControlPlane();
if (noPlane !== undefined) test('kubectl ipam', ({ skip }) => skip(noPlane));

describe.skipIf(noPlane !== undefined)('kubectl ipam on a store that flags name', () => {
  let plane: ControlPlane;
  let desk: Desk;
  let store: readonly string[];
  const token = 'token-of-reader';

  beforeAll(async () => {
    plane = await startControlPlane({ users: [{ name: 'reader', token }] });
    desk = new Desk();
    store = ['--etcd-url', plane.etcd.endpoints.join(',')];
    const kv = openGateway(plane.etcd.target());
    const pods = ['default/a', 'shop/b', 'shop/c', 'stock/d'].map((pod, i) => pod.split('/').concat(`10.1.0.${i + 2}`));
    const writes = pods.map(([namespace, name, address]) => ({
      put: `/kube-ipam/v1/default/addresses/4/010.001.000.00${address!.at(-1)}`,
      value: JSON.stringify({
        ...{ cluster: 'default', kind: 'dynamic', since: '2026-11-21T12:00:00Z', node: 'node-a', network: 'pods' },
        ...{ containerID: `c-${name}`, ifname: 'eth0', pod: { namespace, name, uid: `uid-of-${name}` } },
      }),
    }));
    await kv.commit({ conditions: [], writes }, deadlineIn(20_000));
    await kv[Symbol.asyncDispose]();
  }, timeout);
  afterAll(async () => {
    desk?.[Symbol.dispose]();
    await plane?.[Symbol.asyncDispose]();
  });

  /** A kubeconfig with this part only: kubectl puts several files together. */
  const part = (name: string, contexts: Readonly<Record<string, string | undefined>>, current?: string) =>
    desk.write(name, {
      apiVersion: 'v1',
      kind: 'Config',
      contexts: Object.entries(contexts).map(([context, namespace]) => ({
        name: context,
        context: { cluster: 'test', user: 'test', ...(namespace !== undefined && { namespace }) },
      })),
      ...(current !== undefined && { 'current-context': current }),
    });

  test('lists the pods of the namespace that kubectl would take', async () => {
    const admin = plane.adminKubeconfig;
    const ls = async (kubeconfig: string, ...flags: readonly string[]) =>
      rowsOf(await desk.ipam(['ls', ...store, ...flags], kubeconfig)).map(row => row.split(' ')[0]);
    expect(await ls(admin)).toEqual(['default/a']);
    expect(await ls(admin, '-n', 'shop')).toEqual(['shop/b', 'shop/c']);
    expect(await ls(admin, '--namespace=stock', '--node', 'node-a')).toEqual(['stock/d']);
    expect(await ls(admin, '-A')).toEqual(['default/a', 'shop/b', 'shop/c', 'stock/d']);
    // The first file that says something wins, as with kubectl itself.
    const several = [
      part('one', { shop: 'shop' }, 'shop'),
      part('two', { stock: 'stock', shop: 'other' }, 'stock'),
      admin,
    ];
    expect(await ls(several.join(':'))).toEqual(['shop/b', 'shop/c']);
    expect(await ls(several.join(':'), '--context', 'stock')).toEqual(['stock/d']);
    expect(await ls('/nowhere', '--kubeconfig', admin)).toEqual(['default/a']);
    const lost = await desk.ipam(['ls', ...store], '/nowhere');
    expect(lost).toMatchObject({ code: 3, stderr: expect.stringMatching(/no cluster is chosen; .*--kubeconfig/) });
  });

  test('takes the flags of kube-ipam, prints for programs, and knows a pod by namespace and name', async () => {
    const { adminKubeconfig: admin } = plane;
    const json = JSON.parse((await desk.ipam(['ls', ...store, '-A', '-o', 'json'], admin)).stdout);
    expect(json).toMatchObject([{ address: '10.1.0.2', pod: { name: 'a' } }, {}, {}, {}]);
    const shown = await desk.ipam(['show', 'b', '-n', 'shop', ...store], admin);
    expect(shown).toMatchObject({ code: 0, stdout: expect.stringContaining('10.1.0.3') });
    expect(await desk.ipam(['show', 'b', '-n', 'stock', ...store], admin)).toMatchObject({ code: 1 });
    expect(await desk.ipam(['show', '10.1.0.3', '-n', 'stock', ...store], admin)).toMatchObject({ code: 0 });
    const kept = await desk.ipam(['release', 'b', '-n', 'shop', ...store], admin);
    expect(kept).toMatchObject({ code: 1, stdout: expect.stringContaining('it belongs to node node-a') });
  });

  test('explains itself as kubectl ipam, and says what is wrong with a command', async () => {
    const { adminKubeconfig: admin } = plane;
    const help = await desk.ipam(['ls', '--help'], admin);
    expect(help.code).toBe(0);
    for (const part of [
      'kubectl ipam ls',
      '--namespace',
      '-A, --all-namespaces',
      '--context',
      'kubectl ipam ls -A --node',
    ])
      expect(help.stdout).toContain(part);
    expect(help.stdout).not.toMatch(/kube-ipam (ls|show)/);
    expect((await desk.ipam(['gc', '--help'], admin)).stdout).not.toContain('--local');
    for (const [argv, said] of [
      [['install'], 'there is no command "install"'],
      [['ls', '--namspace', 'x'], 'did you mean "--namespace"?; see "kubectl ipam ls --help"'],
      [['ls', '-A', '-n', 'shop'], 'either --namespace or --all-namespaces'],
      [['usage', '-n', 'shop'], 'usage knows no flag -n'],
    ] as const) {
      const { code, stdout, stderr } = await desk.ipam(argv, admin);
      expect({ code, stdout }, argv.join(' ')).toEqual({ code: 2, stdout: '' });
      expect(stderr).toContain(said);
    }
    expect((await desk.ipam(['version'], '/nowhere')).stdout).toMatch(/^kube-ipam \S+ \(commit/);
  });

  test('completes its words for kubectl', async () => {
    const completed = async (...argv: readonly string[]) => {
      const { stdout } = await desk.kubectl(['__complete', 'ipam', ...argv], plane.adminKubeconfig);
      return stdout.split('\n').map(line => line.split('\t')[0]!);
    };
    expect(await completed('re')).toEqual(['reserve', 'release', ':4', '']);
    expect(await completed('ls', '--name')).toEqual(['--namespace', ':4', '']);
    expect(await completed('ls', '--kind', 'd')).toEqual(['dynamic', ':4', '']);
    expect(await completed('ls', '-o', '')).toEqual(['table', 'wide', 'json', 'yaml', ':4', '']);
    expect(await completed('gc', '--kubeconfig', '')).toEqual([':0', '']);
    expect(await completed('show', '')).toEqual([':4', '']);
    expect(await completed('nothing', '')).toEqual([':4', '']);
  });

  test('says why no agent can be asked', async () => {
    const none = await desk.ipam(['usage'], plane.adminKubeconfig);
    expect(none).toMatchObject({ code: 3, stdout: '' });
    expect(none.stderr).toMatch(/^kubectl ipam: no agent of kube-ipam runs in namespace kube-system .* --etcd-url/);
    const elsewhere = await desk.ipam(['usage', '--agent-namespace', 'shop'], plane.adminKubeconfig);
    expect(elsewhere.stderr).toContain('in namespace shop');
    const refused = await desk.ipam(['usage'], plane.kubeconfig({ token }));
    expect(refused).toMatchObject({ code: 3, stderr: expect.stringContaining('cannot list resource "pods"') });
    const away = await desk.ipam(['usage'], plane.kubeconfig({ token }, 'https://127.0.0.1:1'));
    expect(away).toMatchObject({ code: 3, stderr: expect.stringContaining('127.0.0.1:1') });
    const env = { PATH: '/nowhere', HOME: desk.folder };
    const alone = await runProcess(join(desk.folder, 'bin/kubectl-ipam'), ['usage'], { env });
    expect(alone).toMatchObject({ code: 3, stderr: expect.stringContaining('kubectl get: it is not in PATH') });
  });
});

const obstacle = (await whyNoPlayground()) ?? whyNoImages();
if (obstacle !== undefined) test('kubectl ipam in an agent', ({ skip }) => skip(obstacle));

describe.skipIf(obstacle !== undefined)('kubectl ipam in an agent', () => {
  let ground: Playground;
  let desk: Desk;

  beforeAll(async () => {
    const { archive } = buildImages(process.arch as 'x64' | 'arm64');
    ground = await startPlayground({ nodes: ['node-a'], image: archive('kube-ipam') });
    desk = new Desk();
  }, timeout);
  afterAll(async () => {
    desk?.[Symbol.dispose]();
    await ground?.[Symbol.asyncDispose]();
  }, timeout);

  const ipam = (...argv: readonly string[]) => desk.ipam(argv, ground.plane.adminKubeconfig);

  test('shows what the store of the cluster holds, and changes it, without any flag', { timeout }, async () => {
    await ground.plane.api('POST', '/api/v1/namespaces', { metadata: { name: 'shop' } });
    // The account of a new namespace is made by a controller.
    const account = () => ground.plane.api('GET', '/api/v1/namespaces/shop/serviceaccounts/default').then(() => true);
    await expect.poll(() => account().catch(() => false), { timeout: 30_000 }).toBe(true);
    const pod = await runPod(ground.plane, { name: 'web-0', namespace: 'shop', node: 'node-a' });
    const address = pod.status.podIP!;
    expect(rowsOf(await ipam('ls', '-n', 'shop'))).toEqual([`shop/web-0 node-a ${address}`]);
    expect(await ipam('ls')).toMatchObject({ code: 0, stdout: '', stderr: expect.stringContaining('no address') });
    expect((await ipam('show', 'web-0', '-n', 'shop')).stdout).toContain(address);
    expect(JSON.parse((await ipam('usage', '-o', 'json')).stdout)).toMatchObject([{ used: 1 }]);
    expect(await ipam('check')).toMatchObject({ code: 0, stdout: expect.stringContaining('no trouble') });

    const reason = ['--reason', 'two words, "quoted" $HOME'];
    expect(await ipam('reserve', '10.188.0.99', ...reason)).toMatchObject({ code: 0 });
    expect((await ipam('show', '10.188.0.99')).stdout).toContain('two words, "quoted" $HOME');
    expect(rowsOf(await ipam('ls', '-A', '--kind', 'reserved'))).toEqual([`-/- node-a 10.188.0.99`]);
    expect(await ipam('unreserve', '10.188.0.99')).toMatchObject({ code: 0 });

    // It lives, and nobody can be asked here.
    const refused = await ipam('release', 'web-0', '-n', 'shop');
    expect(refused).toMatchObject({ code: 1, stdout: expect.stringContaining('not released') });
    const unasked = await ipam('release', 'web-0', '-n', 'shop', '--force');
    expect(unasked).toMatchObject({ code: 2, stderr: expect.stringContaining('say --yes') });

    const { stdout: backup } = await ipam('export');
    expect(backup).toContain('"name":"web-0"');
    const again = await desk.ipam(['import', '--dry-run'], ground.plane.adminKubeconfig, backup);
    expect(again).toMatchObject({ code: 0, stdout: expect.stringMatching(/^0 records would be written/) });
    await deletePod(ground.plane, 'web-0', 'shop');
    await expect.poll(async () => (await ipam('ls', '-n', 'shop')).stdout, { timeout: 60_000 }).toBe('');
  });

  /** What a pod of this name on a node that is no more has left. */
  const leave = async (name: string, address: string) => {
    const kv = openGateway(ground.plane.etcd.target());
    const keys = new Keys('default');
    const id = { node: 'gone', network: 'pods', containerID: `c-${name}`, ifname: 'eth0' };
    const pod = { namespace: 'shop', name, uid: `uid-of-${name}` };
    const owner = { cluster: 'default', kind: 'dynamic', since: '', machine: 'm', boot: 'b', ...id, netns: '', pod };
    const writes = [
      { put: keys.address(parseIp(address)!), value: JSON.stringify(owner) },
      { put: keys.attachment(id), value: JSON.stringify({ addresses: [address] }) },
    ];
    await kv.commit({ conditions: [], writes }, deadlineIn(20_000));
    await kv[Symbol.asyncDispose]();
  };

  test("gc asks the API with the agent's account", { timeout }, async () => {
    await leave('ghost', '10.188.0.200');
    const ghost = { addresses: ['10.188.0.200'], pod: { name: 'ghost' } };
    const dry = await ipam('gc', '--dry-run', '--grace', '1s', '-o', 'json');
    expect(dry.stderr).toBe('');
    expect(JSON.parse(dry.stdout)).toMatchObject({ dryRun: true, findings: [{ outcome: 'dead', ...ghost }] });
    const done = await ipam('gc', '--grace', '1s', '-o', 'json');
    expect(JSON.parse(done.stdout)).toMatchObject({ freed: 1, findings: [{ outcome: 'freed', ...ghost }] });
    expect(await ipam('show', '10.188.0.200')).toMatchObject({ code: 1, stdout: '' });
  });

  test('a person at a terminal is asked before anything is released', { timeout }, async () => {
    await leave('by-hand', '10.188.0.201');
    const answer = async (said: string) => {
      const line = [join(desk.folder, 'bin/kubectl'), 'ipam', 'release', '10.188.0.201', '--force'].join(' ');
      const PATH = `${join(desk.folder, 'bin')}:${process.env.PATH}`;
      const env = { PATH, HOME: desk.folder, KUBECONFIG: ground.plane.adminKubeconfig };
      // script(1) gives it a terminal.
      return runProcess('script', ['--quiet', '--return', '--command', line, '/dev/null'], { env, input: `${said}\n` });
    };
    const kept = await answer('n');
    expect(kept.stdout).toContain('It is not proven that nobody uses it! [y/N]');
    expect(kept).toMatchObject({ code: 1, stdout: expect.stringContaining('not released: as you said') });
    expect(await answer('y')).toMatchObject({ code: 0, stdout: expect.stringContaining('released: by force') });
  });
});
