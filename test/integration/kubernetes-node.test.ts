// Pods of a real kubelet: kube-ipam gives them their addresses and takes them back, on one node and on two.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { confFor } from '../../src/cli/conf-templates.ts';
import { type ControlPlane, startControlPlane } from '../helpers/kubernetes/control-plane.ts';
import { type Node, startNode, whyNoNode } from '../helpers/kubernetes/node.ts';
import { deletePod, type Pod, podNamed, runPod, sleeper } from '../helpers/kubernetes/pods.ts';

const timeout = 180_000;
const obstacle = await whyNoNode();
const pods = '/api/v1/namespaces/default/pods';
const deployments = '/apis/apps/v1/namespaces/default/deployments';
const ranges = [[{ subnet: '10.203.0.0/24' }]];

interface Shown {
  readonly address: string;
  readonly pod: { readonly namespace: string; readonly name: string; readonly uid: string };
}

async function addressesAt(node: Node): Promise<readonly Shown[]> {
  return JSON.parse(await node.must(['/opt/cni/bin/kube-ipam', 'ls', '-o', 'json']));
}

if (obstacle !== undefined) test('node', ({ skip }) => skip(obstacle));

describe.skipIf(obstacle !== undefined)('a node', () => {
  let plane: ControlPlane;
  let node: Node;

  beforeAll(async () => {
    plane = await startControlPlane();
    node = await startNode(plane, { name: 'node-a', network: confFor('bridge', { ranges }) });
  }, timeout);

  afterAll(async () => {
    await node?.[Symbol.asyncDispose]();
    await plane?.[Symbol.asyncDispose]();
  });

  test('a pod gets an address, which is free again when the pod is deleted', { timeout }, async () => {
    const pod = await runPod(plane, { name: 'pod-1', node: 'node-a' });
    expect(pod.status.podIP).toBe('10.203.0.2');
    const shown = await plane.kubectl([
      'exec',
      'pod-1',
      '--',
      '/busybox',
      'ip',
      '-4',
      'address',
      'show',
      'dev',
      'eth0',
    ]);
    expect(shown).toContain('inet 10.203.0.2/24 ');
    const { name, namespace, uid } = pod.metadata;
    expect(await addressesAt(node)).toMatchObject([{ address: '10.203.0.2', pod: { namespace, name, uid } }]);
    await deletePod(plane, 'pod-1');
    await expect.poll(() => addressesAt(node), { timeout: 30_000 }).toEqual([]);
  });

  test('pods made at once all have different addresses, and reach each other', { timeout }, async () => {
    const names = ['one', 'two', 'three', 'four', 'five'];
    const pods = await Promise.all(names.map(name => runPod(plane, { name, node: 'node-a' })));
    const addresses = pods.map(pod => pod.status.podIP!);
    expect(new Set(addresses).size).toBe(names.length);
    const ping = ['/busybox', 'ping', '-c', '1', '-W', '5', addresses[1]!];
    expect(await plane.kubectl(['exec', 'one', '--', ...ping])).toContain('1 packets received');
    await Promise.all(names.map(name => deletePod(plane, name)));
    await expect.poll(() => addressesAt(node), { timeout: 30_000 }).toEqual([]);
  });
});

describe.skipIf(obstacle !== undefined)('two nodes with one etcd', () => {
  let plane: ControlPlane;
  let nodes: readonly Node[] = [];

  beforeAll(async () => {
    plane = await startControlPlane({ controllerManager: { nodeMonitorGracePeriod: 4 }, scheduler: true });
    const network = confFor('bridge', { ranges, etcd: { urls: plane.etcd.endpoints.join(',') } });
    nodes = await Promise.all(['node-a', 'node-b'].map(name => startNode(plane, { name, network })));
  }, timeout);

  afterAll(async () => {
    await Promise.all(nodes.map(node => node[Symbol.asyncDispose]()));
    await plane?.[Symbol.asyncDispose]();
  });

  const readiness = async (name: string) =>
    plane.kubectl(['get', 'node', name, '-o', 'jsonpath={.status.conditions[?(@.type=="Ready")].status}']);

  test('a Deployment spreads its pods, and all have different addresses', { timeout }, async () => {
    const labels = { app: 'web' };
    const template = { metadata: { labels }, spec: sleeper() };
    const spec = { replicas: 6, selector: { matchLabels: labels }, template };
    await plane.api('POST', deployments, {
      apiVersion: 'apps/v1',
      kind: 'Deployment',
      metadata: { name: 'web' },
      spec,
    });
    await plane.kubectl(['rollout', 'status', 'deployment/web', '--timeout=90s'], { timeout: 100_000 });
    const { items } = await plane.api<{ items: readonly Pod[] }>('GET', `${pods}?labelSelector=app%3Dweb`);
    expect(new Set(items.map(pod => pod.spec.nodeName))).toEqual(new Set(['node-a', 'node-b']));
    expect(new Set(items.map(pod => pod.status.podIP)).size).toBe(6);
    expect((await addressesAt(nodes[0]!)).map(({ address }) => address).toSorted()).toEqual(
      items.map(pod => pod.status.podIP).toSorted(),
    );
    await plane.api('DELETE', `${deployments}/web`, { propagationPolicy: 'Foreground' });
    await expect.poll(() => addressesAt(nodes[1]!), { timeout: 60_000 }).toEqual([]);
  });

  test('a node that is cut off is NotReady while its pods run on, and Ready when it is mended', {
    timeout,
  }, async () => {
    const [, node] = nodes as readonly [Node, Node];
    await runPod(plane, { name: 'cut', node: node.name });
    await node.uplink.stop();
    await expect.poll(() => readiness(node.name), { timeout: 60_000, interval: 200 }).toBe('Unknown');
    expect(await node.ctr('tasks', 'list')).toContain('RUNNING');
    node.uplink.cont();
    await expect.poll(() => readiness(node.name), { timeout: 90_000, interval: 200 }).toBe('True');
    await deletePod(plane, 'cut');
  });

  test('a node that is lost falls silent; after its next boot it runs its pods again', { timeout }, async () => {
    const [, node] = nodes as readonly [Node, Node];
    const before = await runPod(plane, { name: 'lost', node: node.name });
    await node.kill();
    await expect.poll(() => readiness(node.name), { timeout: 60_000, interval: 200 }).toBe('Unknown');
    await node.restart({ newBootId: true });
    const ready = ['wait', '--for=condition=Ready', 'pod/lost', '--timeout=90s'];
    await plane.kubectl(ready, { timeout: 100_000 });
    const after = await podNamed(plane, 'lost');
    expect(after?.metadata.uid).toBe(before.metadata.uid);
    expect(await plane.kubectl(['exec', 'lost', '--', '/busybox', 'hostname', '-i'])).toBe(`${after?.status.podIP}\n`);
  });
});
