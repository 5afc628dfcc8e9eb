// gc beyond one node: what nodes leave behind that are gone, what workloads keep, and records without an attachment.
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { machineOf, readMachine } from '../../src/base/node.ts';
import type { OwnerRecord } from '../../src/ipam/model.ts';
import { parseIp } from '../../src/net/ip.ts';
import type { AttachmentId } from '../../src/store/keys.ts';
import { type PodRef, statefulSet, vmInstance } from '../helpers/kubernetes/cluster.ts';
import { onCluster, type Sandbox } from '../helpers/kubernetes/on-cluster.ts';
import { Scanner, type ScannerOptions } from '../helpers/kubernetes/scanner.ts';
import { call } from '../helpers/plugin.ts';

const ranges = [[{ subnet: '10.1.0.0/16', rangeStart: '10.1.0.10', rangeEnd: '10.1.250.200' }]];

onCluster(
  { ranges },
  here => {
    let scanner: Scanner;
    beforeEach(async () => {
      scanner = await Scanner.open(here.site, here.plane.adminKubeconfig, { reach: 'all' });
    });
    afterEach(() => scanner[Symbol.asyncDispose]());

    const added = async (pod: PodRef, sandbox?: Sandbox): Promise<string> => {
      const { addresses, stdout } = await here.add(pod, sandbox);
      expect(addresses, stdout).toHaveLength(1);
      return addresses[0]!;
    };
    const ownerOf = async (ip: string): Promise<OwnerRecord> => (await here.holdings()).owners.get(ip)!;
    const owners = async () => [...(await here.holdings()).owners.keys()];
    const merge = { contentType: 'application/merge-patch+json' };
    const setNodeInfo = (node: string, nodeInfo: object) =>
      here.plane.api('PATCH', `/api/v1/nodes/${node}/status`, { status: { nodeInfo } }, merge);
    const nodeInfo = (machineID: string, bootID: string) => ({
      ...{ machineID, bootID, systemUUID: 'x', kernelVersion: 'x', osImage: 'x', containerRuntimeVersion: 'x' },
      ...{ kubeletVersion: 'x', kubeProxyVersion: '', operatingSystem: 'linux', architecture: 'amd64' },
    });
    /** A pod that was on this node and is no more. */
    const deadOn = async (node: string): Promise<string> => {
      const pod = await here.cluster.pod({ node });
      const ip = await added(pod, { node });
      await here.cluster.remove(pod);
      return ip;
    };

    describe('other nodes', () => {
      beforeEach(({ skip }) => {
        if (here.site.kind === 'embedded') skip('an embedded store knows one node only');
      });

      it('whose Node is gone: what died with it is freed, by whoever leads', async () => {
        const node = await here.cluster.node();
        const [dead, alive] = [await deadOn(node), await here.cluster.pod({ node })];
        const stays = await added(alive, { node });
        expect(await scanner.twice()).toEqual([`left ${dead}`]);
        await here.cluster.removeNode(node);
        await using follower = await Scanner.open(here.site, here.plane.adminKubeconfig);
        expect(await follower.twice()).toEqual([]);
        // The pod garbage collector has not come yet: this pod's object is there.
        expect(await scanner.scan()).toEqual([`freed ${dead}`]);
        await here.cluster.remove(alive);
        expect(await scanner.twice()).toEqual([`freed ${stays}`]);
        expect(await here.site.remains()).toEqual([]);
      });

      it('not ready for longer than the grace, or out of service: freed; not so long, or ready: left to it', async () => {
        const [lost, late, tainted, ready] = await Promise.all(Array.from({ length: 4 }, () => here.cluster.node()));
        const ips = await Promise.all([lost, late, tainted, ready].map(node => deadOn(node!)));
        await here.cluster.setReady(lost!, 'Unknown', 400);
        await here.cluster.setReady(late!, 'False', 200);
        await here.cluster.taint(tainted!, 'node.kubernetes.io/out-of-service');
        const said = await scanner.twice();
        expect(said.toSorted()).toEqual(
          [`freed ${ips[0]}`, `freed ${ips[2]}`, `left ${ips[1]}`, `left ${ips[3]}`].sort(),
        );
        expect(scanner.whyOf('left').toSorted()).toEqual(
          [late, ready].map(node => `its pod is gone, but node ${node} is not gone: its own agent frees it`).sort(),
        );
        expect((await scanner.scan({ nodeGrace: 100_000 })).toSorted()).toEqual(
          [`freed ${ips[1]}`, `left ${ips[3]}`].sort(),
        );
      });

      it('that have another name in the store than in the API are not gone before their machine is', async () => {
        const { boot } = readMachine();
        const machineID = 'a'.repeat(32);
        const pod = await here.cluster.pod({ node: 'long.name' });
        const ip = await added(pod, { node: 'short' });
        const owner = await ownerOf(ip);
        await here.site.put(here.site.keys.address(parseIp(ip)!), { ...owner.raw, machine: machineOf(machineID) });
        await here.cluster.remove(pod);
        const node = await here.cluster.node();
        await setNodeInfo(node, nodeInfo(machineID, boot));
        expect(await scanner.twice()).toEqual([`left ${ip}`]);
        expect(scanner.whyOf('left')[0]).toMatch(`its machine is node ${node}, which is there`);
        await setNodeInfo(node, nodeInfo(machineID, 'another-boot'));
        expect(await scanner.scan()).toEqual([`freed ${ip}`]);
        await here.cluster.removeNode(node);
      });

      it('that are there are looked at only by a scan of all, those that seem gone by each one', async () => {
        const [ready, late, lost, tainted] = await Promise.all(Array.from({ length: 4 }, () => here.cluster.node()));
        const ips = await Promise.all([ready, late, lost, tainted, 'absent'].map(node => deadOn(node!)));
        await here.cluster.setReady(late!, 'False', 200);
        await here.cluster.setReady(lost!, 'Unknown', 400);
        await here.cluster.taint(tainted!, 'node.kubernetes.io/out-of-service');
        const stray = await deadOn('absent');
        const { containerID } = await ownerOf(stray);
        const id = { node: 'absent', network: 'net', containerID, ifname: 'eth0' };
        await here.site.remove(here.site.keys.attachment(id));
        expect((await scanner.twice({ reach: 'cluster' })).toSorted()).toEqual(
          [`left ${ips[1]}`, ...ips.slice(2).map(ip => `freed ${ip}`)].sort(),
        );
        expect(await scanner.scan()).toEqual(
          [`left ${ips[1]}`, `mended ${stray}`, `suspect ${ips[0]}`, `suspect ${stray}`].sort(),
        );
      });

      it('hosts that never were a Node keep what has no pod of Kubernetes', async () => {
        const conf = here.callOf({ namespace: 'x', name: 'x', uid: 'x' }, { node: 'podman-host' });
        const bare = await call('ADD', { ...conf, args: '' });
        const named = await call('ADD', { ...conf, containerID: 'c2', args: 'K8S_POD_NAME=web' });
        expect([bare.exitCode, named.exitCode]).toEqual([0, 0]);
        expect(await scanner.twice()).toEqual([]);
        expect(await owners()).toEqual([...bare.addresses, ...named.addresses]);
      });

      it('of another cluster in the same etcd are not looked at', async () => {
        const pod = await here.cluster.pod({ node: 'theirs' });
        await added(pod, { node: 'theirs', ipam: { cluster: 'theirs' } });
        await here.cluster.remove(pod);
        const before = await here.site.entries();
        for (let scan = 0; scan < 3; scan++) expect(await scanner.scan()).toEqual([]);
        expect(await here.site.entries()).toEqual(before);
      });

      it('this one, when its machine was replaced: what the former one wrote is freed once the Node is this machine', async () => {
        const node = await here.cluster.node();
        const ip = await deadOn(node);
        const owner = await ownerOf(ip);
        await here.site.put(here.site.keys.address(parseIp(ip)!), { ...owner.raw, machine: machineOf('c'.repeat(32)) });
        const machineID = 'b'.repeat(32);
        const machine = { machine: machineOf(machineID), boot: 'now' };
        const ours: ScannerOptions = { node, around: { machine } };
        expect(await scanner.twice(ours)).toEqual([`orphan ${ip}`]);
        expect(scanner.whyOf('orphan')[0]).toMatch(`another machine that is called ${node} too wrote it`);
        await setNodeInfo(node, nodeInfo(machineID, 'now'));
        // Not one that has its name in the store by a configuration that all nodes share.
        const other = await here.cluster.node();
        await setNodeInfo(other, nodeInfo('c'.repeat(32), readMachine().boot));
        expect(await scanner.scan(ours)).toEqual([`orphan ${ip}`]);
        expect(scanner.whyOf('orphan').at(-1)).toMatch(`wrote it, node ${other}: give each its own nodeName`);
        await here.cluster.removeNode(other);
        expect(await scanner.scan(ours)).toEqual([`freed ${ip}`]);
        await here.cluster.removeNode(node);
      });

      it('two leaders at once: each record goes once', async () => {
        const node = await here.cluster.node();
        const ips = await Promise.all(Array.from({ length: 20 }, () => deadOn(node)));
        await here.cluster.removeNode(node);
        await using second = await Scanner.open(here.site, here.plane.adminKubeconfig, { reach: 'all' });
        await Promise.all([scanner.scan(), second.scan()]);
        const said = (await Promise.all([scanner.scan(), second.scan()])).flat();
        expect(said.filter(text => text.startsWith('freed')).toSorted()).toEqual(ips.map(ip => `freed ${ip}`).sort());
        expect(said.filter(text => !/^(freed|changed)/.test(text))).toEqual([]);
        expect(await here.site.remains()).toEqual([]);
      });
    });

    describe('workloads', () => {
      const sticky: Sandbox = { ipam: { sticky: true } };
      const made: string[] = [];
      const createSet = async (name: string, spec: object) => {
        const template = { metadata: { labels: { app: name } }, spec: { containers: [{ name: 'c', image: 'none' }] } };
        const path = '/apis/apps/v1/namespaces/default/statefulsets';
        const selector = { matchLabels: { app: name } };
        await here.plane.api('POST', path, {
          metadata: { name },
          spec: { serviceName: name, selector, template, ...spec },
        });
        made.push(`${path}/${name}`);
        return (change: object) => here.plane.api('PATCH', `${path}/${name}`, { spec: change }, merge);
      };
      const removeAll = async () => {
        for (const path of made.splice(0)) await here.plane.api('DELETE', path).catch(() => {});
      };
      afterEach(removeAll);
      let sets = 0;
      const newName = () => `set-${here.site.kind}-${++sets}`;
      /** Its pod came and went, as DEL says. */
      const passed = async (set: string, ordinal: number): Promise<string> => {
        const pod = await here.cluster.pod({ name: `${set}-${ordinal}`, owner: statefulSet(set) });
        const ip = await added(pod, sticky);
        await here.del(pod, sticky);
        await here.cluster.remove(pod);
        return ip;
      };

      it('keep an address for an ordinal that the StatefulSet has, and lose it in two scans by scaling down', async () => {
        const set = newName();
        const change = await createSet(set, { replicas: 3, ordinals: { start: 2 } });
        const ips = [await passed(set, 2), await passed(set, 4), await passed(set, 5), await passed(set, 1)];
        expect(await scanner.scan()).toEqual([`suspect ${ips[2]}`, `suspect ${ips[3]}`].sort());
        expect(await scanner.scan()).toEqual([`freed ${ips[2]}`, `freed ${ips[3]}`].sort());
        expect(scanner.whyOf('freed')[0]).toBe('its StatefulSet has the ordinals 2 to 4 now');
        expect(await owners()).toEqual([ips[0], ips[1]]);
        await change({ replicas: 2 });
        expect(await scanner.twice()).toEqual([`freed ${ips[1]}`]);
        expect([...(await here.holdings()).workloads.values()]).toEqual([[ips[0]]]);
      });

      it('lose all when the StatefulSet is deleted; without a leader nothing goes', async () => {
        const set = newName();
        await createSet(set, { replicas: 1 });
        const ip = await passed(set, 0);
        await removeAll();
        await using follower = await Scanner.open(here.site, here.plane.adminKubeconfig);
        expect(await follower.twice()).toEqual([]);
        expect(await scanner.twice()).toEqual([`freed ${ip}`]);
        expect(scanner.whyOf('freed')).toEqual(['its StatefulSet is gone']);
        expect(await here.site.remains()).toEqual([]);
      });

      it('keep it for a living holder, and for one that gc has not buried yet', async () => {
        const set = newName();
        const pod = await here.cluster.pod({ name: `${set}-0`, owner: statefulSet(set) });
        const ip = await added(pod, sticky);
        expect(await scanner.twice()).toEqual([]);
        await here.cluster.remove(pod);
        // First the holder, then the address: never both by one look.
        expect(await scanner.scan()).toEqual([`suspect ${ip}`]);
        expect(await scanner.scan()).toEqual([`freed ${ip}`]);
        expect((await ownerOf(ip)).holders).toEqual([]);
        expect(await scanner.twice()).toEqual([`freed ${ip}`]);
        expect(await here.site.remains()).toEqual([]);
      });

      it('a new pod of the workload between the scans keeps it', async () => {
        const set = newName();
        const ip = await passed(set, 0);
        await scanner.scan();
        expect(await passed(set, 0)).toBe(ip);
        expect(await scanner.scan()).toEqual([`suspect ${ip}`]);
        expect(await scanner.scan()).toEqual([`freed ${ip}`]);
      });

      it('an address that the workload does not list any more goes too, the listed one with a holder stays', async () => {
        const set = newName();
        const pod = await here.cluster.pod({ name: `${set}-0`, owner: statefulSet(set) });
        const [four, six] = (
          await here.add(pod, { ipam: { sticky: true, ranges: [...ranges, [{ subnet: 'fd00:9::/64' }]] } })
        ).addresses;
        const key = here.site.keys.address(parseIp(six!)!);
        await here.site.put(key, { ...(await ownerOf(six!)).raw, holders: [] });
        const id = { node: here.site.node, network: 'net', containerID: `sandbox-${pod.uid}`, ifname: 'eth0' };
        await here.site.put(here.site.keys.attachment(id), { addresses: [four], kept: true });
        expect(await scanner.twice()).toEqual([`freed ${six}`]);
        expect([...(await here.holdings()).workloads.values()]).toEqual([[four]]);
        await here.cluster.remove(pod);
      });

      it('a dry run says so and keeps it', async () => {
        const ip = await passed(newName(), 0);
        expect(await scanner.twice({ dryRun: true })).toEqual([`dead ${ip}`]);
        expect(await owners()).toEqual([ip]);
      });

      it('whose kind the account may not read keep theirs; all else goes on', async () => {
        const set = newName();
        const ip = await passed(set, 0);
        const pod = await here.cluster.pod();
        const dead = await added(pod);
        await here.cluster.remove(pod);
        const name = `reader-${here.site.kind}`;
        const rules = [{ apiGroups: [''], resources: ['pods', 'nodes', 'namespaces'], verbs: ['get', 'list'] }];
        const rbac = '/apis/rbac.authorization.k8s.io/v1';
        const roleRef = { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name };
        await here.plane.api('POST', `${rbac}/clusterroles`, { metadata: { name }, rules });
        await here.plane.api('POST', `${rbac}/clusterrolebindings`, {
          metadata: { name },
          roleRef,
          subjects: [{ kind: 'User', name: 'gc-reader' }],
        });
        const kubeconfig = here.plane.kubeconfig({ token: 'token-of-gc-reader' });
        await using restricted = await Scanner.open(here.site, kubeconfig, { reach: 'all' });
        await expect.poll(() => restricted.scan().then(said => said.length, String), { timeout: 10_000 }).toBe(2);
        expect((await restricted.scan()).toSorted()).toEqual([`freed ${dead}`, `unanswered ${ip}`]);
        expect(restricted.whyOf('unanswered')[0]).toMatch(`"get" on "statefulsets.apps" in namespace default`);
      });

      describe('of KubeVirt', () => {
        const vmPod = (name: string) => here.cluster.pod({ owner: vmInstance(name) });
        const group = 'kubevirt.io';
        const definitions = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions';
        const kinds = [
          { kind: 'VirtualMachineInstance', plural: 'virtualmachineinstances', singular: 'virtualmachineinstance' },
          { kind: 'VirtualMachine', plural: 'virtualmachines', singular: 'virtualmachine' },
        ];
        const path = (plural: string) => `/apis/${group}/v1/namespaces/default/${plural}`;
        const install = async () => {
          for (const names of kinds) {
            const schema = { openAPIV3Schema: { type: 'object', 'x-kubernetes-preserve-unknown-fields': true } };
            await here.plane.api('POST', definitions, {
              metadata: { name: `${names.plural}.${group}` },
              spec: {
                group,
                scope: 'Namespaced',
                names,
                versions: [{ name: 'v1', served: true, storage: true, schema }],
              },
            });
            const list = () => here.plane.api('GET', path(names.plural)).then(() => 'served', String);
            await expect.poll(list, { timeout: 20_000 }).toBe('served');
          }
        };
        const uninstall = async () => {
          for (const { plural } of kinds) {
            await here.plane.api('DELETE', `${definitions}/${plural}.${group}`).catch(() => {});
            const get = () => here.plane.api('GET', `${definitions}/${plural}.${group}`).then(() => 'there', String);
            await expect.poll(get, { timeout: 20_000 }).toContain('404');
          }
        };
        afterEach(uninstall);

        it('a VM keeps its address while it or its instance is there, also when it is stopped', async () => {
          await install();
          const vms = ['running', 'stopped', 'gone'];
          const ips: string[] = [];
          for (const name of vms) {
            const pod = await vmPod(name);
            ips.push(await added(pod, sticky));
            await here.del(pod, sticky);
            await here.cluster.remove(pod);
          }
          await here.plane.api('POST', path('virtualmachineinstances'), object('VirtualMachineInstance', 'running'));
          await here.plane.api('POST', path('virtualmachines'), object('VirtualMachine', 'stopped'));
          expect(await scanner.twice()).toEqual([`freed ${ips[2]}`]);
          expect(scanner.whyOf('freed')).toEqual(['its VM is gone']);
          await here.plane.api('DELETE', `${path('virtualmachines')}/stopped`);
          expect(await scanner.twice()).toEqual([`freed ${ips[1]}`]);
        });

        it('a 404 of a kind that is defined and not served proves nothing; that nobody defines it does', async () => {
          await install();
          const pod = await vmPod('vm');
          const ip = await added(pod, sticky);
          await here.del(pod, sticky);
          await here.cluster.remove(pod);
          for (const { plural } of kinds) {
            const versions = { op: 'replace', path: '/spec/versions/0/served', value: false };
            const contentType = 'application/json-patch+json';
            await here.plane.api('PATCH', `${definitions}/${plural}.${group}`, [versions], { contentType });
            const list = () => here.plane.api('GET', path(plural)).then(() => 'served', String);
            await expect.poll(list, { timeout: 20_000 }).toContain('404');
          }
          for (let scan = 0; scan < 3; scan++) expect(await scanner.scan()).toEqual([`unanswered ${ip}`]);
          await uninstall();
          expect(await scanner.twice()).toEqual([`freed ${ip}`]);
        });

        function object(kind: string, name: string): object {
          return { apiVersion: `${group}/v1`, kind, metadata: { name } };
        }
      });
    });

    describe('records without their attachment', () => {
      const idOf = (pod: PodRef): AttachmentId => ({
        node: here.site.node,
        network: 'net',
        containerID: `sandbox-${pod.uid}`,
        ifname: 'eth0',
      });

      it('get it back, so that their DEL works', async () => {
        const dual = { ipam: { ranges: [...ranges, [{ subnet: 'fd00:9::/64' }]] } };
        const pod = await here.cluster.pod();
        const { addresses } = await here.add(pod, dual);
        await here.site.remove(here.site.keys.attachment(idOf(pod)));
        expect(await scanner.scan({ dryRun: true })).toEqual([`mended ${addresses.join(' ')}`]);
        await expect(here.holdings()).rejects.toThrow('agree');
        expect(await scanner.scan()).toEqual([`mended ${addresses.join(' ')}`]);
        expect(await here.holdings()).toMatchObject({ attachments: new Map([[`sandbox-${pod.uid}/eth0`, addresses]]) });
        expect(await scanner.scan()).toEqual([]);
        expect((await here.del(pod, dual)).exitCode).toBe(0);
        expect(await here.site.remains()).toEqual([]);
      });

      it('and go within two scans more when their pod is dead', async () => {
        const pod = await here.cluster.pod();
        const ip = await added(pod);
        await here.site.remove(here.site.keys.attachment(idOf(pod)));
        await here.cluster.remove(pod);
        expect(await scanner.scan()).toEqual([`mended ${ip}`, `suspect ${ip}`]);
        expect(await scanner.scan()).toEqual([`freed ${ip}`]);
      });

      it('and are no newer for it: the living sandbox of their pod is another', async () => {
        const pod = await here.cluster.pod();
        const old = await added(pod, { containerID: 'first' });
        const now = await added(pod, { containerID: 'second' });
        const id = { node: here.site.node, network: 'net', containerID: 'first', ifname: 'eth0' };
        await here.site.remove(here.site.keys.attachment(id));
        expect(await scanner.scan()).toEqual([`mended ${old}`, `suspect ${old}`]);
        expect(await scanner.scan()).toEqual([`freed ${old}`]);
        expect(await owners()).toEqual([now]);
      });

      it('so do holders of a workload, whose address stays', async () => {
        const pod = await here.cluster.pod({
          name: `lone-${here.site.kind}-0`,
          owner: statefulSet(`lone-${here.site.kind}`),
        });
        const ip = await added(pod, { ipam: { sticky: true } });
        await here.site.remove(here.site.keys.attachment(idOf(pod)));
        await here.cluster.remove(pod);
        expect(await scanner.scan()).toEqual([`mended ${ip}`, `suspect ${ip}`]);
        expect(await scanner.scan()).toEqual([`freed ${ip}`]);
        expect((await ownerOf(ip)).workload).toMatchObject({ kind: 'StatefulSet' });
      });
    });
  },
  { users: [{ name: 'gc-reader', token: 'token-of-gc-reader' }] },
);
