// Sticky addresses: a StatefulSet's ordinal and a VM keep theirs through deletion, other nodes, lost nodes and migration,
// and never have two owners (design section 7), with pods of a real API server and on both stores.
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { parseIp } from '../../src/net/ip.ts';
import { holdings } from '../helpers/agreement.ts';
import { startEtcd } from '../helpers/etcd.ts';
import { fillUp, freeUp, smallQuota } from '../helpers/fill-etcd.ts';
import { type PodOptions, type PodRef, statefulSet, vmInstance } from '../helpers/kubernetes/cluster.ts';
import { onCluster, type Sandbox } from '../helpers/kubernetes/on-cluster.ts';
import { type Answer, anEngine, Ground } from '../helpers/plugin.ts';
import { start } from '../helpers/plugin-process.ts';

const four = [{ subnet: '10.1.0.0/24', rangeEnd: '10.1.0.20', fixedStart: '10.1.0.200', fixedEnd: '10.1.0.210' }];
const six = [{ subnet: 'fd00::/64', rangeEnd: 'fd00::ff' }];
const migrating = { 'kubevirt.io/migrationJobUID': 'job-1' };

onCluster({ ranges: [four, six], sticky: true }, here => {
  const added = async (pod: PodRef, sandbox: Sandbox = {}): Promise<readonly string[]> => {
    const answer = await here.add(pod, sandbox);
    expect(answer.error?.msg).toBeUndefined();
    return answer.addresses;
  };
  const deleted = async (pod: PodRef, sandbox: Sandbox = {}) => expect((await here.del(pod, sandbox)).exitCode).toBe(0);
  const refused = (answer: Answer, words: RegExp | string) =>
    expect(answer).toMatchObject({ exitCode: 1, error: { code: 11, msg: expect.stringMatching(words) } });
  const member = async (options: PodOptions = {}) =>
    here.cluster.pod({
      name: 'web-0',
      namespace: await here.cluster.namespace(),
      owner: statefulSet('web'),
      ...options,
    });
  const again = (pod: PodRef, options: PodOptions = {}) =>
    here.cluster.replace(pod, { owner: statefulSet('web'), ...options });
  const launcher = (namespace: string, labels = {}, options: PodOptions = {}) =>
    here.cluster.pod({ namespace, owner: vmInstance('vm'), labels, ...options });
  const holdersOf = async (ip: string) =>
    (await here.holdings()).owners.get(ip)?.holders.map(({ containerID }) => containerID.replace('sandbox-', ''));

  describe('a StatefulSet', () => {
    it('keeps the addresses of an ordinal, of both families, for its next pod on any node', async () => {
      const first = await member();
      const given = await added(first);
      const kept = `${first.namespace}/StatefulSet/web-0/eth0`;
      let { owners, workloads } = await here.holdings();
      expect(workloads).toEqual(new Map([[kept, given]]));
      expect(owners.get(given[0]!)?.raw).toEqual({
        cluster: 'default',
        kind: 'sticky',
        since: expect.any(String),
        network: 'net',
        ifname: 'eth0',
        workload: { namespace: first.namespace, kind: 'StatefulSet', name: 'web-0' },
        holders: [
          {
            node: here.site.node,
            machine: expect.any(String),
            boot: expect.any(String),
            containerID: `sandbox-${first.uid}`,
            netns: '/run/netns/pod-1',
            pod: first,
          },
        ],
      });
      await deleted(first);
      ({ owners, workloads } = await here.holdings());
      expect(workloads, 'DEL keeps them').toEqual(new Map([[kept, given]]));
      for (const ip of given) expect(owners.get(ip)).toMatchObject({ kind: 'sticky', holders: [] });
      const before = await here.site.entries();
      await deleted(first);
      expect(await here.site.entries()).toEqual(before);

      const second = await again(first, { node: 'node-b' });
      expect(await added(second, { node: 'node-b' })).toEqual(given);
      expect(await added(second, { node: 'node-b' }), 'asked again').toEqual(given);
      expect((await here.check(second, { node: 'node-b' })).exitCode).toBe(0);
      expect(await holdersOf(given[0]!)).toEqual([second.uid]);
    });

    it('DEL goes by the record: no API, no range and no other key of the configuration is needed', async () => {
      const pod = await member();
      const given = await added(pod);
      await here.cluster.remove(pod);
      const bare = { ipam: { ranges: [], kubeConfig: '/nowhere', sticky: 'x', cooldown: 3600 } };
      expect(await here.del(pod, bare)).toMatchObject({ exitCode: 0, stdout: '' });
      const { owners, workloads, attachments } = await here.holdings();
      for (const ip of given) expect(owners.get(ip)).toMatchObject({ kind: 'sticky', holders: [] });
      expect([workloads.size, attachments.size]).toEqual([1, 0]);
    });

    it('gives each ordinal, each namespace, each interface and each network its own', async () => {
      const first = await member();
      const sandboxes: [PodRef, Sandbox][] = [
        [first, {}],
        [first, { ifname: 'net1' }],
        [first, { ifname: 'net2', more: { name: 'other' } }],
        [await here.cluster.pod({ name: 'web-1', namespace: first.namespace, owner: statefulSet('web') }), {}],
        [await member(), {}],
      ];
      const given = [];
      for (const [pod, sandbox] of sandboxes) given.push(await added(pod, sandbox));
      expect(new Set(given.flat()).size).toBe(10);
      for (const [pod, sandbox] of sandboxes) await deleted(pod, sandbox);
      // Others take what is free: nothing of these.
      for (let n = 0; n < 5; n++) expect(given.flat()).not.toContain((await added(await here.cluster.pod()))[0]);
      for (const [n, [pod, sandbox]] of sandboxes.entries())
        expect(await added(pod, { ...sandbox, containerID: `again-${n}` })).toEqual(given[n]);
    });

    it('after a force delete: the old holder, still recorded, goes with its attachment in the same commit', async () => {
      const first = await member();
      const given = await added(first);
      const second = await again(first, { node: 'node-b' });
      expect(await added(second, { node: 'node-b' })).toEqual(given);
      const { attachments } = await here.holdings();
      expect([...attachments.keys()]).toEqual([`sandbox-${second.uid}/eth0`]);
      const before = await here.site.entries();
      await deleted(first);
      expect(await here.site.entries(), 'a late DEL').toEqual(before);
      // The lost node wakes up and starts the old pod once more: with its uid, and as an old runtime without.
      refused(await here.add(first, { containerID: 'old' }), `uid ${first.uid}\\) is gone`);
      if (here.kind === 'etcd') {
        const nameless = { ...first, uid: '' };
        refused(await here.add(nameless, { containerID: 'old' }), `held by StatefulSet ${first.namespace}/web-0`);
      }
      expect(await here.site.entries()).toEqual(before);
    });

    it('two pods of one name on two nodes, again and again: never two owners', async () => {
      let pod = await member();
      const given = await added(pod);
      for (let round = 0; round < 20; round++) {
        const old = pod;
        pod = await again(old, { node: `node-${round % 2}` });
        const both = await Promise.all([
          here.add(old, { containerID: `old-${round}` }),
          here.add(pod),
          here.del(old),
          here.add(pod),
        ]);
        expect([both[0]!.error?.code, both[1]!.exitCode, both[3]!.exitCode]).toEqual([11, 0, 0]);
        expect(await holdersOf(given[0]!)).toEqual([pod.uid]);
        expect((await here.holdings()).attachments.size).toBe(1);
      }
    });

    it('a pod in a new sandbox replaces its old one; both families move together', async () => {
      const pod = await member();
      const given = await added(pod);
      expect(await added(pod, { containerID: 'second' })).toEqual(given);
      await deleted(pod);
      expect((await here.holdings()).attachments).toEqual(new Map([['second/eth0', given]]));
    });

    it('a set that is added later gives one more address; a range that is gone gives its address back', async () => {
      const only = (ranges: object[][]) => ({ ipam: { ranges } });
      const first = await member();
      const [v4] = await added(first, only([four]));
      await deleted(first, only([four]));
      const second = await again(first);
      const both = await added(second, only([four, six]));
      expect(both).toEqual([v4, expect.stringMatching(/^fd00::/)]);
      await deleted(second);
      const third = await again(second);
      const moved = [{ subnet: '10.9.0.0/24' }];
      const [other, v6] = await added(third, only([moved, six]));
      expect([other, v6]).toEqual([expect.stringMatching(/^10\.9\.0\./), both[1]]);
      expect([...(await here.holdings()).owners.keys()].sort()).toEqual([other, v6].sort());
      await deleted(third);
      const fourth = await again(third);
      expect(await added(fourth, only([six]))).toEqual([v6]);
      expect([...(await here.holdings()).owners.keys()], 'a set that is gone').toEqual([v6]);
    });

    it('a fixed address wins over the kept one, which is given back; nothing is left of a workload without addresses', async () => {
      const first = await member();
      const [, v6] = await added(first);
      await deleted(first);
      const second = await again(first, { annotations: { 'kube-ipam.ip': '10.1.0.200' } });
      expect(await added(second)).toEqual(['10.1.0.200', v6]);
      const { owners, workloads } = await here.holdings();
      expect(owners.get('10.1.0.200')).toMatchObject({ kind: 'fixed', pod: second });
      expect([...workloads.values()]).toEqual([[v6]]);
      const third = await again(second, { annotations: { 'kube-ipam.ip': '10.1.0.200,fd00::abcd' } });
      expect(await added(third)).toEqual(['10.1.0.200', 'fd00::abcd']);
      expect((await here.holdings()).workloads.size).toBe(0);
      await deleted(third);
      expect(await here.site.remains()).toEqual([]);
    });

    it('a kept address that is fixed too stays kept', async () => {
      const first = await member();
      const given = await added(first);
      await deleted(first);
      const second = await again(first, { annotations: { 'kube-ipam.ip': given[0]! } });
      expect(await added(second)).toEqual(given);
      expect((await here.holdings()).owners.get(given[0]!)).toMatchObject({ kind: 'sticky' });
    });

    it('what a workload keeps is for nobody who names it', async () => {
      const first = await member();
      const [v4] = await added(first);
      const thief = await here.cluster.pod({ annotations: { 'kube-ipam.ip': v4! } });
      refused(await here.add(thief), `held by StatefulSet ${first.namespace}/web-0 \\(pod ${first.namespace}/web-0`);
      await here.cluster.remove(first);
      refused(await here.add(thief), `held by StatefulSet ${first.namespace}/web-0`);
      await deleted(first);
      refused(await here.add(thief), `held by StatefulSet ${first.namespace}/web-0`);
      refused(await here.add(await here.cluster.pod(), { args: `;IP=${v4}` }), 'held by StatefulSet');
    });

    it('an address that somebody released by hand meanwhile is not taken back from its new owner', async () => {
      const first = await member();
      const [v4, v6] = await added(first);
      await deleted(first);
      const { key } = (await here.site.entries()).find(one => one.key === here.site.keys.address(parseIp(v4!)!))!;
      await here.site.remove(key);
      const other = await here.cluster.pod({ annotations: { 'kube-ipam.ip': v4! } });
      await here.add(other);
      const given = await here.add(await again(first));
      expect(given.addresses).toEqual([expect.not.stringMatching(`^${v4}$`), v6]);
      expect((await here.holdings()).owners.get(v4!)).toMatchObject({ kind: 'fixed', pod: other });
    });

    it('another cluster on the same store neither has it nor gets it', async () => {
      const of = (cluster: string) => ({ ipam: { cluster: `${cluster}-${here.site.keys.space}` } });
      const first = await member();
      const east = await added(first, of('east'));
      const west = await added(first, { ...of('west'), containerID: 'west' });
      expect(new Set([...east, ...west]).size).toBe(4);
      await deleted(first, of('east'));
      expect(await added(await again(first), of('east'))).toEqual(east);
    });

    it('killed at any instant of taking over: all of it has happened, or nothing', async () => {
      let pod = await member();
      const given = await added(pod);
      const sandbox = { ipam: { timeout: 60 } };
      for (let round = 0; round < 25; round++) {
        const before = (await holdersOf(given[0]!))!;
        pod = await again(pod);
        const { child, ended } = start('ADD', here.callOf(pod, sandbox));
        await sleep(Math.random() * 90);
        child.kill('SIGKILL');
        await ended;
        // What etcd was asked for in the last moment comes a moment later.
        await sleep(100);
        expect([before, [pod.uid]]).toContainEqual(await holdersOf(given[0]!));
        if (Math.random() < 0.5) await deleted(pod);
      }
      const last = await again(pod);
      expect(await added(last)).toEqual(given);
      expect((await here.holdings()).attachments.size).toBe(1);
    });
  });

  if (here.kind === 'etcd') {
    it('etcd out of space: DEL gives the attachment back; the next pod has the address, and others never, once there is space', async () => {
      await using ground = await Ground.make('etcd', await startEtcd(anEngine(), { flags: smallQuota }));
      const site = await ground.site();
      const sandbox = { ipam: site.access };
      const [first, other] = [await member(), await here.cluster.pod()];
      const given = await added(first, sandbox);
      await added(other, sandbox);
      await fillUp(site);
      for (const pod of [first, other]) await deleted(pod, sandbox);
      const left = (await site.remains()).filter(key => !key.includes('/filler/'));
      expect(left.map(key => key.slice(site.keys.prefix.length).split('/')[0]).sort()).toEqual([
        'addresses',
        'addresses',
        'workloads',
      ]);
      expect((await here.add(await again(first), sandbox)).error?.code).toBe(104);
      await freeUp(site, ground.cluster!);
      expect(await added(await here.cluster.pod(), sandbox)).not.toEqual(given);
      await here.cluster.remove(first);
      expect(await added(await here.cluster.pod({ ...first, owner: statefulSet('web') }), sandbox)).toEqual(given);
      expect((await holdings(site)).attachments.size).toBe(2);
    });
  }

  describe('which pods', () => {
    const isKept = async (pod: PodRef, sandbox: Sandbox = {}) => {
      await added(pod, sandbox);
      await deleted(pod, sandbox);
      return (await here.holdings()).workloads.size > 0;
    };
    const wish = (value: string) => ({ annotations: { 'kube-ipam.sticky': value } });

    it.each([
      [undefined, false, false],
      [false, false, false],
      ['statefulset', true, false],
      ['vm', false, true],
      [true, true, true],
    ])('sticky %j: pods of a StatefulSet %j, of a VM %j', async (sticky, ofSet, ofVm) => {
      const pod = await member();
      expect(await isKept(pod, { ipam: { sticky } })).toBe(ofSet);
      const vm = { ipam: { sticky, addressSpace: `${here.site.keys.space}-vm` } };
      const first = await launcher(pod.namespace);
      const given = await added(first, vm);
      await deleted(first, vm);
      await added(await here.cluster.pod(), vm);
      await here.cluster.remove(first);
      expect((await added(await launcher(pod.namespace), vm))[0] === given[0]).toBe(ofVm);
    });

    it('the annotation wins over the configuration, both ways', async () => {
      expect(await isKept(await member(wish('false')))).toBe(false);
      expect(await isKept(await member(wish('true')), { ipam: { sticky: false } })).toBe(true);
    });

    it('"true" for a pod that nothing keeps: code 7; without it such a pod is like any other', async () => {
      const { error } = await here.add(await here.cluster.pod(wish('true')));
      expect(error).toMatchObject({
        code: 7,
        msg: expect.stringContaining('only pods that a StatefulSet or a KubeVirt VM'),
      });
      expect(await here.site.remains()).toEqual([]);
      expect(await isKept(await here.cluster.pod())).toBe(false);
    });

    it('labels prove nothing: only the controller counts', async () => {
      const labels = {
        'vm.kubevirt.io/name': 'vm',
        'kubevirt.io/domain': 'vm',
        'statefulset.kubernetes.io/pod-name': 'web-0',
      };
      expect(await isKept(await here.cluster.pod({ labels }))).toBe(false);
    });

    it('without kubeConfig: code 7', async () => {
      const { error } = await here.add(await member(), { ipam: { kubeConfig: '' } });
      expect(error).toMatchObject({ code: 7, msg: expect.stringMatching(/sticky.*kubeConfig/) });
    });

    it('switched off later: the pod gets another address, and the kept one stays until its workload is gone', async () => {
      const first = await member();
      const given = await added(first);
      await deleted(first);
      const second = await again(first, wish('false'));
      const now = await added(second);
      expect(now.filter(ip => given.includes(ip))).toEqual([]);
      await deleted(second);
      expect([...(await here.holdings()).owners.keys()].sort()).toEqual([...given].sort());
    });

    it('switched on later: what the pod has stays its own until its next sandbox', async () => {
      const off = { ipam: { sticky: false } };
      const pod = await member();
      const given = await added(pod, off);
      expect(await added(pod)).toEqual(given);
      expect((await here.holdings()).workloads.size).toBe(0);
      await deleted(pod);
      const next = await added(pod, { containerID: 'next' });
      expect([...(await here.holdings()).workloads.values()]).toEqual([next]);
    });
  });

  describe('a VM', () => {
    it('keeps its addresses by its own name, whatever its pods are called', async () => {
      const namespace = await here.cluster.namespace();
      const first = await launcher(namespace);
      const given = await added(first);
      await deleted(first);
      await here.cluster.remove(first);
      expect((await here.holdings()).workloads).toEqual(new Map([[`${namespace}/VirtualMachine/vm/eth0`, given]]));
      expect(await added(await launcher(namespace))).toEqual(given);
      expect(await added(await launcher(await here.cluster.namespace()))).not.toEqual(given);
    });

    it('migrates: source and target have them at once, and either may ask again or end first', async () => {
      for (const first of ['source', 'target'] as const) {
        const namespace = await here.cluster.namespace();
        const source = await launcher(namespace);
        const given = await added(source);
        const target = await launcher(namespace, migrating, { node: 'node-b' });
        expect(await added(target)).toEqual(given);
        expect(await holdersOf(given[0]!)).toEqual([source.uid, target.uid]);
        for (const pod of [source, target]) expect(await added(pod)).toEqual(given);
        for (const pod of [source, target]) expect((await here.check(pod)).exitCode).toBe(0);
        expect((await holdersOf(given[1]!))?.sort()).toEqual([source.uid, target.uid].sort());
        expect(await added(source, { containerID: 'source-again' }), 'a new sandbox').toEqual(given);
        expect((await holdersOf(given[0]!))?.sort()).toEqual([target.uid, 'source-again'].sort());
        const [ends, stays] = first === 'source' ? [source, target] : [target, source];
        await deleted(ends, ends === source ? { containerID: 'source-again' } : {});
        const left = stays === source ? 'source-again' : target.uid;
        for (const ip of given) expect(await holdersOf(ip)).toEqual([left]);
        expect((await here.holdings()).attachments.size).toBe(first === 'source' ? 1 : 2);
      }
    });

    it('migrates on: the next target beside the last one', async () => {
      const namespace = await here.cluster.namespace();
      let running = await launcher(namespace);
      const given = await added(running);
      for (let n = 0; n < 3; n++) {
        const target = await launcher(namespace, migrating);
        expect(await added(target)).toEqual(given);
        await here.cluster.setPhase(running, 'Succeeded');
        running = target;
      }
      // The sources were never told to DEL; the last one of them goes when the next target comes.
      expect((await here.holdings()).attachments.size).toBe(2);
      await added(running);
      expect(await holdersOf(given[0]!)).toEqual([running.uid]);
      expect((await here.holdings()).attachments.size).toBe(1);
    });

    it('a third pod is refused while two live, and takes the place of a dead one', async () => {
      const namespace = await here.cluster.namespace();
      const [source, target, third] = [
        await launcher(namespace),
        await launcher(namespace, migrating),
        await launcher(namespace, migrating),
      ];
      const given = await added(source);
      await added(target);
      const before = await here.site.entries();
      refused(await here.add(third), `held by VirtualMachine ${namespace}/vm`);
      expect(await here.site.entries()).toEqual(before);
      await here.cluster.setPhase(target, 'Failed');
      expect(await added(third)).toEqual(given);
      expect(await holdersOf(given[0]!)).toEqual([source.uid, third.uid]);
    });

    it('a second pod that is no target of a migration waits until the first is dead', async () => {
      const namespace = await here.cluster.namespace();
      const [first, second] = [await launcher(namespace), await launcher(namespace)];
      const given = await added(first);
      refused(await here.add(second), `pod ${namespace}/${first.name}`);
      await here.cluster.setPhase(first, 'Succeeded');
      expect(await added(second)).toEqual(given);
      expect(await holdersOf(given[0]!)).toEqual([second.uid]);
      expect((await here.holdings()).attachments.size).toBe(1);
    });

    it('many targets at once beside one source: one of them gets in', async () => {
      for (let round = 0; round < 8; round++) {
        const namespace = await here.cluster.namespace();
        const source = await launcher(namespace);
        const given = await added(source);
        const targets = await Promise.all([1, 2, 3].map(() => launcher(namespace, migrating)));
        const answers = await Promise.all(targets.map(target => here.add(target)));
        expect(answers.filter(({ exitCode }) => exitCode === 0)).toHaveLength(1);
        for (const ip of given) expect(await holdersOf(ip)).toHaveLength(2);
        await here.holdings();
      }
    });

    it('several pods at once where nothing is kept yet: one address, one owner', async () => {
      for (let round = 0; round < 8; round++) {
        const namespace = await here.cluster.namespace();
        const pods = await Promise.all([1, 2, 3].map(() => launcher(namespace)));
        const answers = await Promise.all(pods.map(pod => here.add(pod)));
        expect(answers.filter(({ exitCode }) => exitCode === 0)).toHaveLength(1);
        const { owners, attachments } = await here.holdings();
        expect([...owners.values()].filter(({ workload }) => workload?.namespace === namespace)).toHaveLength(2);
        expect(attachments.size).toBe(round + 1);
      }
    });
  });
});
