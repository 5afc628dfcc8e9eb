// Fixed addresses of real workloads: kept through deletion, rolling update, another node and the loss of a node, and never shared.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { buildImages, whyNoImages } from '../helpers/images.ts';
import type { ControlPlane } from '../helpers/kubernetes/control-plane.ts';
import type { Node } from '../helpers/kubernetes/node.ts';
import { type Playground, startPlayground, whyNoPlayground } from '../helpers/kubernetes/playground.ts';
import { createPod, deletePod, type Pod, podNamed, running, runPod } from '../helpers/kubernetes/pods.ts';
import { recordsOf } from '../helpers/kubernetes/records.ts';
import {
  createWorkload,
  deleteWorkload,
  moveWorkload,
  onlyPod,
  restartWorkload,
} from '../helpers/kubernetes/workloads.ts';

const timeout = 240_000;
const obstacle = (await whyNoPlayground()) ?? whyNoImages();
const deployments = 'deployments';

/** As the guide has it. */
const wish = (ip: string) => ({ 'kube-ipam.ip': ip, 'kube-ipam.netmask': '255.255.0.0' });
const oneByOne = { strategy: { type: 'RollingUpdate', rollingUpdate: { maxUnavailable: 1, maxSurge: 0 } } };
const recreate = { strategy: { type: 'Recreate' } };

if (obstacle !== undefined) test('fixed addresses', ({ skip }) => skip(obstacle));

describe.skipIf(obstacle !== undefined)('on a cluster of two nodes', () => {
  let playground: Playground;
  let plane: ControlPlane;
  let nodes: readonly Node[];

  beforeAll(async () => {
    const image = buildImages(process.arch as 'x64' | 'arm64').archive('kube-ipam');
    playground = await startPlayground({ nodes: ['node-a', 'node-b'], image, nodeMonitorGracePeriod: 6 });
    ({ plane, nodes } = playground);
  }, timeout);

  afterAll(() => playground?.[Symbol.asyncDispose](), timeout);

  /** The name of the pod that the records give the address to. */
  const holderOf = async (ip: string) => {
    const holders = (await recordsOf(plane)).owners.get(ip)?.holders ?? [];
    return holders.map(({ pod }) => pod?.name).join();
  };

  /** The pod has the address, in the API, in its own eyes and in the records. */
  const expectHas = async (pod: Pod, ip: string) => {
    expect(pod.status.podIP).toBe(ip);
    const { name } = pod.metadata;
    const shown = await plane.kubectl(['exec', name, '--', '/busybox', 'ip', '-4', 'address', 'show', 'dev', 'eth0']);
    expect(shown).toContain(`inet ${ip}/16 `);
    expect(await holderOf(ip)).toBe(name);
  };

  const eventsOf = async (name: string) => {
    const selector = `involvedObject.name=${name}`;
    const { items } = JSON.parse(
      await plane.kubectl(['get', 'events', '--field-selector', selector, '-o', 'json']),
    ) as {
      items: readonly { reason: string; message: string }[];
    };
    return items.map(({ reason, message }) => `${reason}: ${message}`);
  };

  describe.concurrent('a Deployment', () => {
    test('of strategy Recreate keeps its address when its pod is deleted, and through a rolling update', {
      timeout,
    }, async () => {
      const ip = '10.188.0.216';
      await createWorkload(plane, deployments, { name: 'db', annotations: wish(ip), spec: recreate });
      const first = await onlyPod(plane, 'db');
      await expectHas(first, ip);
      await restartWorkload(plane, deployments, 'db');
      const second = await onlyPod(plane, 'db', first);
      await expectHas(second, ip);
      await deletePod(plane, second.metadata.name);
      await expectHas(await onlyPod(plane, 'db', first, second), ip);
    });

    test('that is updated one by one keeps its address', { timeout }, async () => {
      const ip = '10.188.0.217';
      await createWorkload(plane, deployments, { name: 'web', annotations: wish(ip), spec: oneByOne });
      const first = await onlyPod(plane, 'web');
      await expectHas(first, ip);
      await restartWorkload(plane, deployments, 'web');
      await expectHas(await onlyPod(plane, 'web', first), ip);
    });

    test('takes its address to the other node and back', { timeout }, async () => {
      const ip = '10.188.0.218';
      const common = { name: 'mover', annotations: wish(ip), spec: recreate };
      await createWorkload(plane, deployments, { ...common, node: 'node-a' });
      const first = await onlyPod(plane, 'mover');
      expect(first.spec.nodeName).toBe('node-a');
      await expectHas(first, ip);
      await moveWorkload(plane, deployments, 'mover', 'node-b');
      const second = await onlyPod(plane, 'mover', first);
      expect(second.spec.nodeName).toBe('node-b');
      await expectHas(second, ip);
    });

    test('with another that wants the same address: the second waits, is told why, and starts when the first ends', {
      timeout,
    }, async () => {
      const ip = '10.188.0.219';
      const first = await runPod(plane, { name: 'first', node: 'node-a', annotations: wish(ip) });
      await createPod(plane, { name: 'second', node: 'node-b', annotations: wish(ip) });
      const held = `address ${ip} of network pods is held by`;
      const told = () => eventsOf('second').then(events => events.join('\n'));
      await expect.poll(told, { timeout: 60_000 }).toMatch(/FailedCreatePodSandBox/);
      await expect.poll(told, { timeout: 60_000 }).toMatch(/FixedAddressHeld/);
      for (const event of await eventsOf('second')) {
        if (!/^(FailedCreatePodSandBox|FixedAddressHeld)/.test(event)) continue;
        expect(event).toContain(held);
        expect(event).toContain('default/first');
        expect(event).toContain('node-a');
      }
      expect(await podNamed(plane, 'second')).toMatchObject({ status: { phase: 'Pending' } });
      await expectHas(first, ip);
      await deletePod(plane, 'first');
      await expectHas(await running(plane, 'second'), ip);
      await deletePod(plane, 'second');
    });
  });

  test('a node is lost: an address follows a pod that is deleted by force, and another one a taint', {
    timeout,
  }, async () => {
    const [, lost] = nodes as readonly [Node, Node];
    const ips = { forced: '10.188.0.220', tainted: '10.188.0.221' };
    const spec = oneByOne;
    const names = ['forced', 'tainted'] as const;
    for (const name of ['db', 'web', 'mover']) await deleteWorkload(plane, deployments, name);
    await plane.kubectl(['cordon', 'node-a']);
    for (const name of names) await createWorkload(plane, deployments, { name, annotations: wish(ips[name]), spec });
    const [forced, tainted] = await Promise.all(names.map(name => onlyPod(plane, name)));
    expect([forced!.spec.nodeName, tainted!.spec.nodeName]).toEqual([lost.name, lost.name]);
    await lost.kill();
    await plane.kubectl(['uncordon', 'node-a']);

    // What the node runs now nobody knows: the addresses stay where they are.
    const successor = async (name: string, old: Pod) => {
      const pods = await plane.api<{ items: readonly Pod[] }>(
        'GET',
        `/api/v1/namespaces/default/pods?labelSelector=app%3D${name}`,
      );
      return pods.items.find(({ metadata }) => metadata.uid !== old.metadata.uid)?.metadata.name ?? '';
    };
    for (const [name, old] of [
      ['forced', forced],
      ['tainted', tainted],
    ] as const) {
      await expect.poll(() => successor(name, old!), { timeout: 90_000 }).not.toBe('');
      const next = await successor(name, old!);
      await expect.poll(async () => (await eventsOf(next)).join('\n'), { timeout: 60_000 }).toMatch(/is held by/);
      expect(await holderOf(ips[name])).toBe(old!.metadata.name);
    }

    await deletePod(plane, forced!.metadata.name, 'default', true);
    await expectHas(await onlyPod(plane, 'forced', forced!), ips.forced);
    expect(await holderOf(ips.tainted)).toBe(tainted!.metadata.name);
    await plane.kubectl(['taint', 'node', lost.name, 'node.kubernetes.io/out-of-service=nodeshutdown:NoExecute']);
    await expectHas(await onlyPod(plane, 'tainted', tainted!), ips.tainted);
  });
});
