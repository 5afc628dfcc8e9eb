// Fixed addresses of real workloads: kept through deletion, rolling update, another node and the loss of a node, and never shared.
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { pluginKubeconfig } from '../../scripts/deploy/networks.ts';
import { confFor, type PluginConf } from '../../src/cli/conf-templates.ts';
import { sandboxImage } from '../helpers/containerd.ts';
import { read } from '../helpers/docs.ts';
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
  podsOf,
  restartWorkload,
} from '../helpers/kubernetes/workloads.ts';
import { type Command, callPlugin } from '../helpers/netns.ts';
import { project } from '../helpers/project.ts';

const timeout = 240_000;
const obstacle = (await whyNoPlayground()) ?? whyNoImages();
const deployments = 'deployments';

/** What Multus' users install with it. */
const definitions = {
  apiVersion: 'apiextensions.k8s.io/v1',
  kind: 'CustomResourceDefinition',
  metadata: { name: 'network-attachment-definitions.k8s.cni.cncf.io' },
  spec: {
    group: 'k8s.cni.cncf.io',
    scope: 'Namespaced',
    names: {
      plural: 'network-attachment-definitions',
      singular: 'network-attachment-definition',
      kind: 'NetworkAttachmentDefinition',
    },
    versions: [
      {
        name: 'v1',
        served: true,
        storage: true,
        schema: { openAPIV3Schema: { type: 'object', 'x-kubernetes-preserve-unknown-fields': true } },
      },
    ],
  },
};

/** The Deployment with a fixed address, but for its image. */
function exampleOfGuide(): string {
  const { blocks } = read(join(project, 'docs/guide.md'));
  const found = blocks.find(({ text }) => text.includes('kind: Deployment') && text.includes('kube-ipam.ip'));
  return found!.text.replace(/image: .*/, `image: ${sandboxImage}`);
}

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
  const told = async (name: string) => (await eventsOf(name)).join('\n');

  describe.concurrent('a Deployment', () => {
    test('of the guide keeps its address when its pod is deleted, and through a rolling update', {
      timeout,
    }, async () => {
      const ip = '10.188.0.216';
      const name = 'billing';
      await plane.kubectl(['apply', '-f', '-'], { input: exampleOfGuide() });
      const first = await onlyPod(plane, name);
      await expectHas(first, ip);
      await restartWorkload(plane, deployments, name);
      const second = await onlyPod(plane, name, first);
      await expectHas(second, ip);
      await deletePod(plane, second.metadata.name);
      await expectHas(await onlyPod(plane, name, first, second), ip);
    });

    test('that is updated one by one keeps its address', { timeout }, async () => {
      const ip = '10.188.0.217';
      await createWorkload(plane, deployments, { name: 'web', annotations: wish(ip), spec: oneByOne });
      const first = await onlyPod(plane, 'web');
      await expectHas(first, ip);
      await restartWorkload(plane, deployments, 'web');
      await expectHas(await onlyPod(plane, 'web', first), ip);
    });

    test('that would start the new pod before it ends the old one waits, and says what to do', { timeout }, async ({
      expect,
    }) => {
      const ip = '10.188.0.223';
      await createWorkload(plane, deployments, { name: 'eager', annotations: wish(ip) });
      const old = await onlyPod(plane, 'eager');
      await restartWorkload(plane, deployments, 'eager');
      const hint = 'the old pod of this rollout still holds it: use strategy Recreate or maxUnavailable 1';
      const toldAll = async () => (await plane.kubectl(['get', 'events'])).replaceAll(/\s+/g, ' ');
      await expect.poll(toldAll, { timeout: 60_000 }).toContain(hint);
      await expectHas(old, ip);
      await deleteWorkload(plane, deployments, 'eager');
    });

    test('takes its address to the other node', { timeout }, async ({ expect }) => {
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
    }, async ({ expect }) => {
      const ip = '10.188.0.219';
      const first = await runPod(plane, { name: 'first', node: 'node-a', annotations: wish(ip) });
      await createPod(plane, { name: 'second', node: 'node-b', annotations: wish(ip) });
      const held = `address ${ip} of network pods is held by`;
      for (const reason of ['FailedCreatePodSandBox', 'FixedAddressHeld']) {
        await expect.poll(() => told('second'), { timeout: 60_000 }).toContain(`${reason}: `);
      }
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

  describe('a pod of two networks has a fixed address in each', () => {
    const ips = { eth0: '10.188.0.222', net1: '10.189.0.5' };
    const annotations = {
      'kube-ipam.ip': `${ips.eth0}, net1=${ips.net1}`,
      'k8s.v1.cni.cncf.io/networks': 'storage',
    };
    const storage = (): PluginConf => {
      const etcd = { urls: plane.etcd.endpoints.join(',') };
      const options = { name: 'storage', bridge: 'storage0', ranges: [[{ subnet: '10.189.0.0/16' }]], etcd };
      const { cniVersion, name, plugins } = confFor('bridge', { ...options, kubeConfig: pluginKubeconfig });
      return { cniVersion, name, ...plugins[0]! };
    };
    const shownIn = (name: string) => plane.kubectl(['exec', name, '--', '/busybox', 'ip', '-4', 'address']);

    test('when the second main plugin is called as Multus does', { timeout }, async () => {
      const [node] = nodes as readonly [Node];
      const pod = await runPod(plane, { name: 'twice', node: node.name, annotations });
      const { namespace, name, uid } = pod.metadata;
      await expect
        .poll(() => told(name), { timeout: 30_000 })
        .toContain(`no interface of this pod has net1=${ips.net1}`);
      const { containerID, netns } = (await recordsOf(plane)).owners.get(ips.eth0)!.holders[0]!;
      const args = `IgnoreUnknown=1;K8S_POD_NAMESPACE=${namespace};K8S_POD_NAME=${name};K8S_POD_INFRA_CONTAINER_ID=${containerID};K8S_POD_UID=${uid}`;
      const call = (command: Command) =>
        callPlugin(node, '/opt/cni/bin', command, storage(), { containerID, netns, ifname: 'net1', args });
      expect(await call('ADD')).toMatchObject({ ips: [{ address: `${ips.net1}/16` }] });
      const shown = await shownIn(name);
      for (const ip of Object.values(ips)) {
        expect(shown).toContain(`inet ${ip}/16 `);
        expect(await holderOf(ip)).toBe(name);
      }
      await call('DEL');
      expect([await holderOf(ips.eth0), await holderOf(ips.net1)]).toEqual([name, '']);
      await deletePod(plane, name);
      await expect.poll(() => holderOf(ips.eth0), { timeout: 30_000 }).toBe('');
    });

    const multus = process.env.MULTUS;
    test('through Multus itself', { timeout }, async ({ skip }) => {
      if (multus === undefined) return skip('MULTUS names no executable');
      const [node] = nodes as readonly [Node];
      const places = {
        program: node.path('/opt/cni/bin/multus'),
        kubeconfig: '/etc/cni/net.d/multus.d/kubeconfig',
        // Before kube-ipam's own: the runtime takes the first.
        network: node.path('/etc/cni/net.d/0-multus.conf'),
      };
      await plane.kubectl(['apply', '-f', '-'], { input: JSON.stringify(definitions) });
      await plane.kubectl(['wait', '--for=condition=Established', `crd/${definitions.metadata.name}`]);
      await plane.api('POST', '/apis/k8s.cni.cncf.io/v1/namespaces/default/network-attachment-definitions', {
        apiVersion: 'k8s.cni.cncf.io/v1',
        kind: 'NetworkAttachmentDefinition',
        metadata: { name: 'storage' },
        spec: { config: JSON.stringify(storage()) },
      });
      cpSync(multus, places.program);
      mkdirSync(node.path('/etc/cni/net.d/multus.d'));
      cpSync(plane.adminKubeconfig, node.path(places.kubeconfig));
      const [own] = readdirSync(node.path('/etc/cni/net.d')).filter(file => file.endsWith('kube-ipam.conflist'));
      const delegates = [JSON.parse(readFileSync(node.path(`/etc/cni/net.d/${own}`), 'utf8'))];
      const { kubeconfig } = places;
      const conf = { cniVersion: '1.0.0', name: 'multus', type: 'multus', kubeconfig, delegates };
      writeFileSync(places.network, JSON.stringify(conf));
      await runPod(plane, { name: 'twofold', node: node.name, annotations });
      const shown = await shownIn('twofold');
      for (const ip of Object.values(ips)) {
        expect(shown).toContain(`inet ${ip}/16 `);
        expect(await holderOf(ip)).toBe('twofold');
      }
      await deletePod(plane, 'twofold');
      for (const ip of Object.values(ips)) await expect.poll(() => holderOf(ip), { timeout: 30_000 }).toBe('');
      rmSync(places.network);
    });
  });

  test('a node is lost: an address follows a pod that is deleted by force, and another one a taint', {
    timeout,
  }, async () => {
    const [, lost] = nodes as readonly [Node, Node];
    const ips = { forced: '10.188.0.220', tainted: '10.188.0.221' };
    const spec = oneByOne;
    const names = ['forced', 'tainted'] as const;
    for (const name of ['billing', 'web', 'mover']) await deleteWorkload(plane, deployments, name);
    await plane.kubectl(['cordon', 'node-a']);
    for (const name of names) await createWorkload(plane, deployments, { name, annotations: wish(ips[name]), spec });
    const [forced, tainted] = await Promise.all(names.map(name => onlyPod(plane, name)));
    expect([forced!.spec.nodeName, tainted!.spec.nodeName]).toEqual([lost.name, lost.name]);
    await lost.kill();
    await plane.kubectl(['uncordon', 'node-a']);

    // What the node runs now nobody knows: the addresses stay where they are.
    const successorOf = async (name: string, old: Pod) => {
      const others = (await podsOf(plane, name)).filter(({ metadata }) => metadata.uid !== old.metadata.uid);
      return others[0]?.metadata.name ?? '';
    };
    const waits = async (name: keyof typeof ips, old: Pod) => {
      await expect.poll(() => successorOf(name, old), { timeout: 90_000 }).not.toBe('');
      const next = await successorOf(name, old);
      await expect.poll(() => told(next), { timeout: 60_000 }).toContain(' is held by ');
      expect(await holderOf(ips[name])).toBe(old.metadata.name);
    };
    await Promise.all([waits('forced', forced!), waits('tainted', tainted!)]);

    await deletePod(plane, forced!.metadata.name, 'default', true);
    await expectHas(await onlyPod(plane, 'forced', forced!), ips.forced);
    expect(await holderOf(ips.tainted)).toBe(tainted!.metadata.name);
    await plane.kubectl(['taint', 'node', lost.name, 'node.kubernetes.io/out-of-service=nodeshutdown:NoExecute']);
    await expectHas(await onlyPod(plane, 'tainted', tainted!), ips.tainted);
  });
});
