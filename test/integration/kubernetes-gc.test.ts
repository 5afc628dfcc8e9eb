// What real workloads keep and give back: sticky addresses of StatefulSets, and gc after everything that nobody tells a node.
import { rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { buildImages, whyNoImages } from '../helpers/images.ts';
import type { ControlPlane } from '../helpers/kubernetes/control-plane.ts';
import type { Node } from '../helpers/kubernetes/node.ts';
import { files } from '../helpers/kubernetes/node-disk.ts';
import { type Playground, startPlayground, whyNoPlayground } from '../helpers/kubernetes/playground.ts';
import { deletePod, type Pod, podNamed, running, runPod, sleeper } from '../helpers/kubernetes/pods.ts';
import { heldIn, recordsOf } from '../helpers/kubernetes/records.ts';
import {
  createWorkload,
  deleteWorkload,
  moveWorkload,
  patchWorkload,
  runningPods,
} from '../helpers/kubernetes/workloads.ts';

const timeout = 240_000;
const obstacle = (await whyNoPlayground()) ?? whyNoImages();
const names = ['node-a', 'node-b'] as const;
const grace = 3000;
const agentFlags = ['--gc-interval=1s', `--gc-grace=${grace}ms`, '--node-grace=1h'];
/** Two scans, a grace apart, and as much again for a busy machine. */
const soon = { timeout: 60_000, interval: 100 };

if (obstacle !== undefined) test('gc', ({ skip }) => skip(obstacle));

describe.skipIf(obstacle !== undefined)('on a cluster of two nodes', () => {
  let playground: Playground;
  let plane: ControlPlane;
  let nodes: readonly [Node, Node];

  beforeAll(async () => {
    const image = buildImages(process.arch as 'x64' | 'arm64').archive('kube-ipam');
    const ipam = { sticky: 'statefulset' };
    playground = await startPlayground({ nodes: names, image, agentFlags, ipam });
    ({ plane } = playground);
    nodes = playground.nodes as readonly [Node, Node];
  }, timeout);

  afterAll(() => playground?.[Symbol.asyncDispose](), timeout);

  const held = () => heldIn(plane);
  const addressesOf = (pods: readonly Pod[]) => pods.map(({ status }) => status.podIP!);
  const agentIsReady = async (node: Node): Promise<boolean> =>
    (await node.run(['busybox', 'wget', '-q', '-O', '-', 'http://127.0.0.1:20244/readyz'])).code === 0;
  const metricOf = async (node: Node, name: string): Promise<number> => {
    const page = await node.must(['busybox', 'wget', '-q', '-O', '-', 'http://127.0.0.1:20244/metrics']);
    return Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(page)?.[1] ?? 0);
  };
  /** Until the node's agent has looked so often, from now on: a scan may be under way. */
  const scans = async (node: Node, count: number) => {
    const done = () => metricOf(node, 'kube_ipam_gc_scans_total{result="done"}');
    for (const until = (await done()) + count + 1; (await done()) < until; await sleep(100));
  };

  describe.concurrent('while all nodes live', () => {
    test('a StatefulSet keeps its addresses until it is scaled down or deleted', { timeout }, async ({ expect }) => {
      await createWorkload(plane, 'statefulsets', { name: 'db', replicas: 2, node: 'node-a' });
      const first = await runningPods(plane, 'db', { count: 2 });
      const [kept, spare] = addressesOf(first) as [string, string];
      await deletePod(plane, 'db-0');
      const again = await runningPods(plane, 'db', { count: 2, former: first.slice(0, 1) });
      expect(addressesOf(again)).toEqual([kept, spare]);

      await moveWorkload(plane, 'statefulsets', 'db', 'node-b');
      const moved = await runningPods(plane, 'db', { count: 2, former: [...first, ...again] });
      expect(moved.map(({ spec }) => spec.nodeName)).toEqual(['node-b', 'node-b']);
      expect(addressesOf(moved)).toEqual([kept, spare]);

      const scaled = performance.now();
      await patchWorkload(plane, 'statefulsets', 'db', { replicas: 1 });
      await expect.poll(held, soon).toContain(`${spare} sticky`);
      await expect.poll(held, soon).not.toContain(`${spare} sticky`);
      expect(performance.now() - scaled).toBeGreaterThan(grace);
      expect(await held()).toContain(`${kept} default/db-0`);

      await patchWorkload(plane, 'statefulsets', 'db', { replicas: 2 });
      const grown = await runningPods(plane, 'db', { count: 2 });
      expect(addressesOf(grown)[0]).toBe(kept);
      await deleteWorkload(plane, 'statefulsets', 'db');
      const left = async () => (await held()).filter(text => addressesOf(grown).includes(text.split(' ')[0]!));
      await expect.poll(left, soon).toEqual([]);
      const { workloads } = await recordsOf(plane);
      expect([...workloads.keys()].filter(key => key.includes('/db-'))).toEqual([]);
    });

    test('a static pod keeps its address for as long as it runs', { timeout }, async ({ expect }) => {
      const [node] = nodes;
      const file = node.path(join(files.staticPods, 'static.json'));
      const { automountServiceAccountToken: _, ...spec } = sleeper() as Record<string, unknown>;
      const pod = { apiVersion: 'v1', kind: 'Pod', metadata: { name: 'static', namespace: 'default' }, spec };
      writeFileSync(file, JSON.stringify(pod));
      const { status } = await running(plane, 'static-node-a');
      await Promise.all(nodes.map(each => scans(each, 2 + grace / 1000)));
      expect(await held()).toContain(`${status.podIP} default/static-node-a`);
      rmSync(file);
      await expect.poll(async () => (await held()).join(), soon).not.toContain('/static-node-a');
    });

    test('a Job that has ended holds nothing, though its pod is still there', { timeout }, async ({ expect }) => {
      const container = { name: 'main', image: 'localhost/pause:1', imagePullPolicy: 'Never' };
      const spec = {
        ...sleeper('node-a'),
        restartPolicy: 'Never',
        containers: [{ ...container, command: ['/busybox', 'true'] }],
      };
      await plane.api('POST', '/apis/batch/v1/namespaces/default/jobs', {
        metadata: { name: 'task' },
        spec: { template: { metadata: { labels: { app: 'task' } }, spec } },
      });
      await plane.kubectl(['wait', '--for=condition=complete', 'job/task', '--timeout=60s'], { timeout: 70_000 });
      await expect.poll(async () => (await held()).join(), soon).not.toContain('/task-');
      expect(await plane.kubectl(['get', 'pods', '-l', 'app=task', '-o', 'name'])).toMatch(/^pod\/task-\w+\n$/);
    });
  });

  test('a runtime loses its containers, and a pod its object: what has a network namespace is told, and freed without', {
    timeout,
  }, async () => {
    const [, node] = nodes;
    const [stays, goes] = await Promise.all(['stays', 'goes'].map(name => runPod(plane, { name, node: node.name })));
    const before = await Promise.all([stays!, goes!].map(({ status }) => sandboxOf(status.podIP!)));
    await node.stopKubelet();
    await deletePod(plane, 'goes', 'default', true);
    const events = () => plane.kubectl(['get', 'events', '--field-selector', `involvedObject.name=${node.name}`]);
    await expect.poll(events, soon).toMatch(/OrphanedAddress .*default\/goes/);
    expect(await held()).toContain(`${goes!.status.podIP} default/goes`);

    await node.loseContainers();
    const fresh = async () => (await podNamed(plane, 'stays'))?.status.podIP;
    await expect.poll(fresh, { ...soon, timeout: 120_000 }).not.toBe(stays!.status.podIP);
    await running(plane, 'stays');
    await expect.poll(() => metricOf(node, 'kube_ipam_gc_orphans'), { ...soon, timeout: 120_000 }).toBe(2);
    expect(await held()).toEqual(
      expect.arrayContaining([
        `${goes!.status.podIP} default/goes`,
        `${stays!.status.podIP} default/stays`,
        `${await fresh()} default/stays`,
      ]),
    );
    for (const { netns } of before) await node.must(['ip', 'netns', 'del', basename(netns)]);
    const ofBoth = async () => (await held()).filter(text => /\/(stays|goes)$/.test(text));
    await expect.poll(ofBoth, soon).toEqual([`${await fresh()} default/stays`]);
    await deletePod(plane, 'stays');
  });

  test('a node is started again, and its containers see another boot ID than it does: what runs there keeps its address', {
    timeout,
  }, async () => {
    const [, node] = nodes;
    const fixed = { 'kube-ipam.ip': '10.188.0.5' };
    const [, named] = await Promise.all([
      runPod(plane, { name: 'plain', node: node.name }),
      runPod(plane, { name: 'named', node: node.name, annotations: fixed }),
    ]);
    const before = await sandboxOf(named.status.podIP!);
    await node.restart({ newBootId: true });
    await expect.poll(() => sandboxOf(named.status.podIP!), soon).not.toEqual(before);
    const own = async () => (await held()).filter(text => /\/(plain|named)$/.test(text));
    await expect.poll(own, soon).toHaveLength(2);
    const shown = async () => {
      const pods = await Promise.all(['plain', 'named'].map(name => running(plane, name)));
      return pods.map(({ metadata, status }) => `${status.podIP} default/${metadata.name}`).toSorted();
    };
    await expect.poll(shown, soon).toEqual((await own()).toSorted());
    await expect.poll(() => agentIsReady(node), soon).toBe(true);
    await scans(node, 2);
    expect((await own()).toSorted()).toEqual(await shown());
    await Promise.all(['plain', 'named'].map(name => deletePod(plane, name)));
    await expect.poll(own, soon).toEqual([]);
  });

  test('pods end while no agent runs, and a node is lost for good: once an agent is back, nothing is left of them', {
    timeout,
  }, async () => {
    const [near, far] = nodes;
    const [ended, lost, lives] = await Promise.all([
      runPod(plane, { name: 'ended', node: near.name }),
      runPod(plane, { name: 'lost', node: far.name }),
      runPod(plane, { name: 'lives', node: near.name }),
    ]);
    const selector = (value: string | null) =>
      plane.kubectl([
        ...['patch', 'daemonset', 'kube-ipam', '-n', 'kube-system', '--type=merge', '-p'],
        JSON.stringify({ spec: { template: { spec: { nodeSelector: { 'kubernetes.io/hostname': value } } } } }),
      ]);
    await selector('nowhere');
    const agents = () => plane.kubectl(['get', 'pods', '-n', 'kube-system', '-o', 'name']);
    await expect.poll(agents, soon).toBe('');
    await deletePod(plane, 'ended');
    await far.kill();
    await deletePod(plane, 'lost', 'default', true);
    await plane.api('DELETE', `/api/v1/nodes/${far.name}`);
    await expect.poll(held, soon).not.toContain(`${ended.status.podIP} default/ended`);
    expect(await held()).toContain(`${lost.status.podIP} default/lost`);

    await selector(null);
    await expect.poll(held, { ...soon, timeout: 120_000 }).toEqual([`${lives.status.podIP} default/lives`]);
    await deletePod(plane, 'lives');
    await expect.poll(held, soon).toEqual([]);
  });

  /** Where the pod lives that has this address. */
  async function sandboxOf(ip: string): Promise<{ readonly containerID: string; readonly netns: string }> {
    const [holder] = (await recordsOf(plane)).owners.get(ip)?.holders ?? [];
    return { containerID: holder?.containerID ?? '', netns: holder?.netns ?? '' };
  }
});
