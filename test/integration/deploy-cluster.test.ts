// kube-ipam on a real cluster as people bring it there: by kubectl apply -k and by Helm, upgraded under load, and taken away.
import { spawnSync } from 'node:child_process';
import { appendFileSync, cpSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { pluginKubeconfig } from '../../scripts/deploy/networks.ts';
import { confFor, exampleEtcd } from '../../src/cli/conf-templates.ts';
import { executable } from '../helpers/executable.ts';
import { buildImages, whyNoImages } from '../helpers/images.ts';
import { type ControlPlane, startControlPlane, whyNoControlPlane } from '../helpers/kubernetes/control-plane.ts';
import { type Node, startNode, whyNoNode } from '../helpers/kubernetes/node.ts';
import { deletePod, runPod } from '../helpers/kubernetes/pods.ts';
import { chart, deploy, helm, whyNoManifests } from '../helpers/manifests.ts';

const timeout = 280_000;
const etcd = { tls: { verifyClients: true } };
const wanted = { serviceAccounts: true, controllerManager: true, scheduler: true, etcd } as const;
const obstacle = (await whyNoNode()) ?? whyNoControlPlane(wanted) ?? whyNoManifests() ?? whyNoImages();
const names = ['node-a', 'node-b'] as const;

if (obstacle !== undefined) test('a deployment', ({ skip }) => skip(obstacle));

describe.skipIf(obstacle !== undefined)('on a cluster of two nodes', () => {
  let plane: ControlPlane;
  let nodes: readonly Node[] = [];
  let folder = '';

  beforeAll(async () => {
    const { archive } = buildImages(process.arch as 'x64' | 'arm64');
    folder = mkdtempSync(join(tmpdir(), 'kube-ipam-deploy-'));
    cpSync(deploy, folder, { recursive: true });
    plane = await startControlPlane(wanted);
    await kubectl('-n', 'kube-system', 'create', 'secret', 'generic', 'kube-ipam-etcd', ...fromFiles());
    nodes = await Promise.all(names.map(name => startNode(plane, { name, images: [archive('kube-ipam')] })));
  }, timeout);

  afterAll(async () => {
    await Promise.all(nodes.map(node => node[Symbol.asyncDispose]()));
    await plane?.[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true, force: true });
  }, timeout);

  const kubectl = (...argv: readonly string[]) => plane.kubectl(argv, { timeout: 200_000 });

  /** Waits until every node has the pods of this version; an error says what they complain of. */
  async function rollout(set: string): Promise<void> {
    const inSystem = ['-n', 'kube-system'];
    try {
      await kubectl(...inSystem, 'rollout', 'status', `daemonset/${set}`, '--timeout=180s');
    } catch (cause) {
      const pods = await kubectl(...inSystem, 'describe', 'pods');
      const logs = await kubectl(
        ...inSystem,
        'logs',
        '-l',
        'app.kubernetes.io/name=kube-ipam',
        '--all-containers',
        '--tail=50',
      );
      throw new Error(`${set} was not rolled out:\n${pods}\n${logs}`, { cause });
    }
  }

  /** What etcd asks of its clients, by the names that the files have on the nodes. */
  function certificates(): Readonly<Record<string, string>> {
    const { ca, namedClient } = plane.etcd.certificates!;
    return { 'etcd-ca.crt': ca, 'etcd-client.crt': namedClient.cert, 'etcd-client.key': namedClient.key };
  }

  function fromFiles(): readonly string[] {
    return Object.entries(certificates()).map(([name, file]) => `--from-file=${name}=${file}`);
  }

  /** The network of the tests: nodes with a bridge each, addresses in etcd, annotations counted. */
  function network() {
    const options = { ranges: [[{ subnet: '10.204.0.0/24' }]], kubeConfig: pluginKubeconfig };
    const list = confFor('bridge', { ...options, etcd: { ...exampleEtcd, urls: plane.etcd.endpoints.join(',') } });
    return { ...list, plugins: list.plugins.map(plugin => ({ ...plugin, isGateway: true })) };
  }

  /** Edits the copy of the example, as docs/deploy.md tells its readers to. */
  function writeOverlay(): string {
    const overlay = join(folder, 'example');
    writeFileSync(join(overlay, 'network.conflist'), JSON.stringify(network()));
    const file = join(overlay, 'kustomization.yaml');
    const text = readFileSync(file, 'utf8')
      .replace('registry.example/kube-ipam', 'localhost/kube-ipam')
      .replace('192.0.2.10', '127.0.0.1')
      .replace('6443', String(plane.port));
    writeFileSync(file, text);
    return overlay;
  }

  /** The addresses that pods have, by the pod's name. What is kept for who asks for it by name is nobody's. */
  async function held(): Promise<Readonly<Record<string, string>>> {
    const { ca, namedClient } = plane.etcd.certificates!;
    const secrets = ['--etcd-ca', ca, '--etcd-cert', namedClient.cert, '--etcd-key', namedClient.key];
    const flags = ['--etcd-url', plane.etcd.endpoints.join(','), ...secrets, '-o', 'json'];
    const { status, stdout, stderr } = spawnSync(executable, ['ls', ...flags], { encoding: 'utf8', timeout: 60_000 });
    if (status !== 0) throw new Error(stderr);
    const rows = JSON.parse(stdout) as readonly { address: string; kind: string; pod?: { name: string } }[];
    const owned = rows.filter(({ kind }) => kind !== 'held');
    return Object.fromEntries(owned.map(({ address, pod }) => [pod?.name ?? address, address]));
  }

  /** What of kube-ipam lies on a node, images of the runtime and mounts of running pods aside. */
  async function traces(node: Node): Promise<string> {
    const places = ['/etc', '/opt', '/run', '/var/lib/cni', '/var/lib/kube-ipam', '/var/log'];
    const { stdout } = await node.run(['find', ...places, '-xdev', '-name', '*kube-ipam*']);
    return stdout;
  }

  test('kubectl apply -k brings executable, network and agent to every node', { timeout }, async () => {
    expect(await kubectl('apply', '-k', writeOverlay())).toContain('daemonset.apps/kube-ipam created');
    await rollout('kube-ipam');
    for (const [index, node] of nodes.entries()) {
      await node.ready();
      const ready = JSON.parse(await node.must(['busybox', 'wget', '-q', '-O', '-', 'http://127.0.0.1:20244/readyz']));
      expect(ready).toMatchObject({ ready: true, parts: { kubeconfig: { ready: true }, pods: { ready: true } } });
      const file = (path: string) => readFileSync(node.path(path), 'utf8');
      expect(JSON.parse(file('/etc/cni/net.d/1-kube-ipam.conflist'))).toEqual(network());
      expect(file('/etc/kube-ipam/node')).toBe(`${names[index]}\n`);
      for (const [name, source] of Object.entries(certificates())) {
        expect(file(`/etc/kube-ipam/${name}`)).toBe(readFileSync(source, 'utf8'));
      }
      for (const secret of [pluginKubeconfig, '/etc/kube-ipam/etcd-client.key']) {
        expect((statSync(node.path(secret)).mode & 0o777).toString(8)).toBe('600');
      }
    }
  });

  test('pods get addresses, those that they ask for too, and give them back', { timeout }, async () => {
    const fixed = { 'kube-ipam.ip': '10.204.0.77' };
    const [first, second, third] = await Promise.all([
      runPod(plane, { name: 'one', node: 'node-a' }),
      runPod(plane, { name: 'two', node: 'node-b' }),
      runPod(plane, { name: 'three', node: 'node-b', annotations: fixed }),
    ]);
    expect(third.status.podIP).toBe('10.204.0.77');
    expect(await held()).toEqual({
      one: first.status.podIP,
      two: second.status.podIP,
      three: '10.204.0.77',
    });
    await Promise.all(['one', 'two', 'three'].map(name => deletePod(plane, name)));
    await expect.poll(held, { timeout: 60_000 }).toEqual({});
  });

  test('a rolling upgrade under load loses no address and stops no pod', { timeout }, async () => {
    // What lies on the nodes is another version, so that it is replaced while plugins run.
    const program = (node: Node) => node.path('/opt/cni/bin/kube-ipam');
    for (const node of nodes) appendFileSync(program(node), 'older');
    let isOver = false;
    const started: string[] = [];
    const lane = async (node: string) => {
      const living: string[] = [];
      for (let count = 0; !isOver || count < 5; count++) {
        const name = `load-${node}-${count}`;
        const pod = await runPod(plane, { name, node });
        // One address, one pod: nobody else has it now.
        const others = Object.entries(await held()).filter(([, address]) => address === pod.status.podIP);
        expect(others).toEqual([[name, pod.status.podIP]]);
        started.push(name);
        living.push(name);
        if (living.length > 3) await deletePod(plane, living.shift()!);
      }
      await Promise.all(living.map(name => deletePod(plane, name)));
    };
    const lanes = Promise.all(names.map(lane));
    // A lane that fails must end the test at once, not after the rollout.
    lanes.catch(() => {});
    try {
      await kubectl('-n', 'kube-system', 'rollout', 'restart', 'daemonset/kube-ipam');
      await rollout('kube-ipam');
    } finally {
      isOver = true;
    }
    await lanes;
    for (const node of nodes) expect(readFileSync(program(node)).equals(readFileSync(executable))).toBe(true);
    expect(started.length).toBeGreaterThan(9);
    const events = await kubectl('get', 'events', '-o', 'jsonpath={range .items[*]}{.reason}: {.message}{"\\n"}{end}');
    expect(events.split('\n').filter(line => line.startsWith('Failed'))).toEqual([]);
    await expect.poll(held, { timeout: 60_000 }).toEqual({});
  });

  test('without its agent the plugin still asks for annotations, with what the agent left', { timeout }, async () => {
    const away = '{"spec":{"template":{"spec":{"nodeSelector":{"kubernetes.io/hostname":"nowhere"}}}}}';
    await kubectl('-n', 'kube-system', 'patch', 'daemonset', 'kube-ipam', '--type=merge', '-p', away);
    const agents = () =>
      kubectl('-n', 'kube-system', 'get', 'pods', '-l', 'app.kubernetes.io/component=agent', '-o', 'name');
    await expect.poll(agents, { timeout: 90_000, interval: 200 }).toBe('');
    const pod = await runPod(plane, { name: 'alone', node: 'node-a', annotations: { 'kube-ipam.ip': '10.204.0.78' } });
    expect(pod.status.podIP).toBe('10.204.0.78');
    await deletePod(plane, 'alone');
  });

  test('removal leaves every node clean', { timeout }, async () => {
    await kubectl('delete', '-k', join(folder, 'example'), '--wait');
    for (const node of nodes) expect(await traces(node)).toContain('/opt/cni/bin/kube-ipam\n');
    await kubectl('apply', '-k', join(folder, 'uninstall'));
    await rollout('kube-ipam-uninstall');
    await kubectl('delete', '-k', join(folder, 'uninstall'), '--wait');
    for (const node of nodes) {
      await expect.poll(() => traces(node), { timeout: 30_000 }).toMatch(/^(\/var\/log\/.*\n)*$/);
    }
  });

  test('the chart does the same, from installation to removal', { timeout }, async () => {
    const values = {
      k8sServiceHost: '127.0.0.1',
      k8sServicePort: plane.port,
      etcd: { endpoints: plane.etcd.endpoints },
      network: { main: { isGateway: true }, ipam: { ranges: [[{ subnet: '10.204.0.0/24' }]] } },
    };
    const file = join(folder, 'values.yaml');
    writeFileSync(file, JSON.stringify(values));
    const env = { PATH: process.env.PATH, HOME: plane.folder, KUBECONFIG: plane.adminKubeconfig };
    const run = (...argv: readonly string[]) => {
      const all = [...argv, '--namespace', 'kube-system'];
      expect(spawnSync(helm, all, { env, encoding: 'utf8', timeout: 120_000 })).toMatchObject({
        status: 0,
        stderr: '',
      });
    };
    run('install', 'kube-ipam', chart, '--values', file);
    await rollout('kube-ipam');
    for (const node of nodes) await node.ready();
    const pod = await runPod(plane, {
      name: 'charted',
      node: 'node-a',
      annotations: { 'kube-ipam.ip': '10.204.0.79' },
    });
    expect(pod.status.podIP).toBe('10.204.0.79');
    await deletePod(plane, 'charted');
    run('upgrade', 'kube-ipam', chart, '--reuse-values', '--set', 'uninstall=true');
    await rollout('kube-ipam-uninstall');
    run('uninstall', 'kube-ipam', '--wait');
    await sleep(500);
    for (const node of nodes) {
      await expect.poll(() => traces(node), { timeout: 30_000 }).toMatch(/^(\/var\/log\/.*\n)*$/);
    }
    await expect.poll(held, { timeout: 60_000 }).toEqual({});
  });
});
