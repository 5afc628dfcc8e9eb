// gc by pods of a real API server, on each store: every rule frees what it is for, and every untouchable stays (design section 9).
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { readMachine } from '../../src/base/node.ts';
import { sweepEarlierBoots } from '../../src/ipam/service/sweep.ts';
import { parseIp } from '../../src/net/ip.ts';
import { argsOf, type PodRef, statefulSet } from '../helpers/kubernetes/cluster.ts';
import { onCluster, type Sandbox } from '../helpers/kubernetes/on-cluster.ts';
import { Scanner, type ScannerOptions, surroundings } from '../helpers/kubernetes/scanner.ts';
import { call, confOf } from '../helpers/plugin.ts';

const range = {
  subnet: '10.1.0.0/24',
  rangeStart: '10.1.0.10',
  rangeEnd: '10.1.0.200',
  fixedStart: '10.1.0.210',
  fixedEnd: '10.1.0.220',
};

onCluster({ ranges: [[range]] }, here => {
  let scanner: Scanner;
  beforeEach(async () => {
    scanner = await Scanner.open(here.site, here.plane.adminKubeconfig);
  });
  afterEach(() => scanner[Symbol.asyncDispose]());

  const owners = async () => [...(await here.holdings()).owners.keys()];
  const added = async (pod: PodRef, sandbox?: Sandbox): Promise<string> => {
    const { addresses, stdout } = await here.add(pod, sandbox);
    expect(addresses, stdout).toHaveLength(1);
    return addresses[0]!;
  };
  const key = (ip: string) => here.site.keys.address(parseIp(ip)!);
  const record = async (ip: string) => {
    const entry = (await here.site.entries()).find(one => one.key === key(ip));
    return JSON.parse(entry!.value) as Record<string, unknown>;
  };

  describe('what is freed, in the second scan', () => {
    it('(a) whose pod is gone; a living one beside it stays', async () => {
      const [dead, alive] = [await here.cluster.pod(), await here.cluster.pod()];
      const gone = await added(dead);
      const stays = await added(alive);
      await here.cluster.remove(dead);
      expect(await scanner.scan()).toEqual([`suspect ${gone}`]);
      expect(await owners()).toEqual([gone, stays]);
      expect(await scanner.scan()).toEqual([`freed ${gone}`]);
      expect(scanner.whyOf('freed')).toEqual(['its pod is gone']);
      expect(await owners()).toEqual([stays]);
      expect(await scanner.scan()).toEqual([]);
      expect((await here.check(alive)).exitCode).toBe(0);
    });

    it('(b) whose name another pod has', async () => {
      const pod = await here.cluster.pod();
      const gone = await added(pod);
      const heir = await here.cluster.replace(pod);
      const own = await added(heir);
      expect(await scanner.twice()).toEqual([`freed ${gone}`]);
      expect(scanner.whyOf('freed')).toEqual(['another pod has its name now']);
      expect(await owners()).toEqual([own]);
    });

    it.each(['Succeeded', 'Failed'] as const)('(c) whose pod has %s, as those of Jobs do', async phase => {
      const pod = await here.cluster.pod();
      const gone = await added(pod);
      expect(await scanner.scan()).toEqual([]);
      await here.cluster.setPhase(pod, phase);
      expect(await scanner.twice()).toEqual([`freed ${gone}`]);
    });

    it('(d) whose pod has a newer sandbox', async () => {
      const pod = await here.cluster.pod();
      const old = await added(pod, { containerID: 'zz-first' });
      const second = await added(pod, { containerID: 'a-second' });
      const third = await added(pod, { ifname: 'net1' });
      expect(await scanner.twice()).toEqual([`freed ${old}`]);
      expect(await owners()).toEqual([second, third]);
    });

    it('(e) what this machine wrote before it was started again: at once, and without an API', async () => {
      const alive = await here.cluster.pod();
      const now = await added(alive);
      const before = ['a', 'b'].map((pod, i) => [`10.1.0.10${i}`, pod] as const);
      const podman = { containerID: 'podman', boot: 'earlier', machine: readMachine().machine };
      for (const [ip, pod] of before) await hold(ip, { ...podman, containerID: pod });
      await hold('10.1.0.103', { ...podman, boot: '', containerID: 'c' });
      await hold('10.1.0.104', { ...podman, machine: 'f00dfeed00c0ffee', containerID: 'd' });
      const around = surroundings(here.site);
      const said: string[] = [];
      for await (const { outcome } of sweepEarlierBoots(around, here.site.node, { cluster: 'default', dryRun: true }))
        said.push(outcome);
      for await (const { outcome } of sweepEarlierBoots(around, here.site.node, { cluster: 'default', dryRun: false }))
        said.push(outcome);
      expect(said).toEqual(['dead', 'dead', 'freed', 'freed']);
      expect(await owners()).toEqual([now, '10.1.0.103', '10.1.0.104']);
    });

    it('all addresses of an attachment in one commit, and many pods in one scan', async () => {
      const dual = { ranges: [[range], [{ subnet: 'fd00:1::/64' }]] };
      const pods = await Promise.all(Array.from({ length: 12 }, () => here.cluster.pod()));
      for (const pod of pods) await here.add(pod, { ipam: dual });
      await Promise.all(pods.slice(1).map(pod => here.cluster.remove(pod)));
      const said = await scanner.twice();
      expect(said).toHaveLength(11);
      expect(said.every(text => /^freed 10\.1\.0\.\d+ fd00:1::[0-9a-f]+$/.test(text))).toBe(true);
      expect(await owners()).toHaveLength(2);
    });

    it('a fixed address leaves its hold, and one with a cooldown too', async () => {
      const fixed = await here.cluster.pod({ annotations: { 'kube-ipam.ip': '10.1.0.50' } });
      const outside = await here.cluster.pod({ annotations: { 'kube-ipam.ip': '10.1.0.215' } });
      const random = await here.cluster.pod();
      await added(fixed);
      await added(outside);
      const ip = await added(random);
      await Promise.all([fixed, outside, random].map(pod => here.cluster.remove(pod)));
      expect((await scanner.twice({ cooldownOf: network => (network === 'net' ? 60 : 0) })).length).toBe(3);
      expect(await record('10.1.0.50')).toMatchObject({ kind: 'held', byName: true });
      expect(await record(ip)).toMatchObject({ kind: 'held', pod: { uid: random.uid } });
      expect(await owners()).toEqual([ip, '10.1.0.50'].sort());
      expect(await scanner.twice()).toEqual([]);
      expect(await owners()).toHaveLength(2);
    });

    it('of a sticky address the holder only', async () => {
      const [first, second] = ['web-0', 'web-1'].map(name => ({ name: `${name}`, owner: statefulSet('web') }));
      const pods = [await here.cluster.pod(first), await here.cluster.pod(second)];
      const sticky = { ipam: { sticky: 'statefulset' } };
      const [ip, other] = [await added(pods[0]!, sticky), await added(pods[1]!, sticky)];
      await here.cluster.remove(pods[0]!);
      expect(await scanner.twice()).toEqual([`freed ${ip}`]);
      await rewrite(other, holders => holders.map(holder => ({ ...holder, boot: 'earlier' })));
      expect(await scanner.scan()).toEqual([`freed ${other}`]);
      for (const one of [ip, other]) expect(await record(one)).toMatchObject({ kind: 'sticky', holders: [] });
      const { workloads } = await here.holdings();
      expect([...workloads.values()]).toEqual([[ip], [other]]);
      const heir = await here.cluster.pod(first);
      expect(await added(heir, sticky)).toBe(ip);
      await Promise.all([heir, pods[1]!].map(pod => here.cluster.remove(pod)));
    });
  });

  describe('what is not freed', () => {
    it('before the grace is over, or what was touched in between', async () => {
      const [asked, waiting] = [await here.cluster.pod(), await here.cluster.pod()];
      const [first, second] = [await added(asked), await added(waiting)];
      await Promise.all([asked, waiting].map(pod => here.cluster.remove(pod)));
      const patient: ScannerOptions = { grace: 400 };
      const begun = performance.now();
      await scanner.scan(patient);
      const seen = performance.now();
      while (performance.now() - begun < 300) {
        const said = await scanner.scan(patient);
        // A machine that paused here has let the grace pass.
        if (performance.now() - begun < 400) expect(said).toEqual([`suspect ${first}`, `suspect ${second}`].sort());
      }
      // Its ADD comes once more: whoever asks lives, whatever the API has forgotten.
      await rewrite(first, () => [], true);
      await sleep(seen + 450 - performance.now());
      expect(await scanner.scan(patient)).toEqual([`freed ${second}`, `suspect ${first}`]);
      await sleep(450);
      expect(await scanner.scan(patient)).toEqual([`freed ${first}`]);
    });

    it('by the clock of the wall: it may be set to any time between two scans', async () => {
      const { ip, patient } = await suspected(60_000);
      vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 86_400_000 });
      try {
        expect(await scanner.scan(patient)).toEqual([`suspect ${ip}`]);
        vi.setSystemTime(0);
        expect(await scanner.scan(patient)).toEqual([`suspect ${ip}`]);
        expect(await scanner.scan({ grace: 0 })).toEqual([`freed ${ip}`]);
      } finally {
        vi.useRealTimers();
      }
    });

    it('a static pod, which has the uid of its mirror’s annotation', async () => {
      const hash = '0123456789abcdef0123456789abcdef';
      const mirror = await here.cluster.pod({ annotations: { 'kubernetes.io/config.mirror': hash } });
      const ip = await added({ ...mirror, uid: hash });
      expect(await scanner.twice()).toEqual([]);
      await here.cluster.remove(mirror);
      expect(await scanner.twice()).toEqual([`freed ${ip}`]);
    });

    it('a pod whose runtime told no uid, while one of its name lives', async () => {
      const pod = await here.cluster.pod();
      const { namespace, name } = pod;
      const answer = await call('ADD', {
        ...here.callOf(pod),
        conf: conf({ kubeConfig: '' }),
        args: argsOf({ namespace, name }),
      });
      const heir = await here.cluster.replace(pod);
      expect(await scanner.twice()).toEqual([]);
      await here.cluster.remove(heir);
      expect(await scanner.twice()).toEqual([`freed ${answer.addresses[0]}`]);
    });

    it('what the second scan finds alive begins anew', async () => {
      const pod = await here.cluster.pod();
      const { namespace, name } = pod;
      await call('ADD', { ...here.callOf(pod), conf: conf({ kubeConfig: '' }), args: argsOf({ namespace, name }) });
      await here.cluster.remove(pod);
      expect(await scanner.scan()).toHaveLength(1);
      const heir = await here.cluster.pod({ name });
      expect(await scanner.scan()).toEqual([]);
      await here.cluster.remove(heir);
      expect(await scanner.scan()).toEqual([expect.stringMatching(/^suspect/)]);
    });

    it('a pod that was bound to another node than its record says is asked for by its name', async () => {
      const pods = await Promise.all(Array.from({ length: 7 }, () => here.cluster.pod({ node: 'elsewhere' })));
      for (const pod of pods) await added(pod);
      expect((await scanner.scan()).every(text => text.startsWith('suspect'))).toBe(true);
      expect(await scanner.scan()).toEqual([]);
      expect(await owners()).toHaveLength(7);
    });

    it('what is no business of gc: reserved, held, service, unknown kinds, podman’s, other clusters’', async () => {
      const pod = await here.cluster.pod();
      const dead = { pod: { namespace: pod.namespace, name: pod.name, uid: pod.uid } };
      await here.cluster.remove(pod);
      await hold('10.1.0.100', { containerID: 'podman', pod: { namespace: '', name: 'web' } });
      await hold('10.1.0.101', { containerID: 'bare' });
      await hold('10.1.0.102', { containerID: 'there', cluster: 'there', ...dead });
      for (const [i, kind] of ['reserved', 'held', 'service', 'from-the-future'].entries()) {
        await hold(`10.1.0.11${i}`, { containerID: kind, kind, ...dead });
      }
      for (const [i, node] of ['kube-ipam.eip', 'kube-ipam.public-ip'].entries()) {
        await hold(`10.1.0.12${i}`, { containerID: node, node, ...dead });
      }
      // A pool's address, lent to a Service that no API knows.
      const object = { feature: 'public-ip', group: '', kind: 'Service', ...dead.pod };
      const lent = { cluster: 'default', kind: 'service', since: '', holder: object, pool: 'public' };
      const id = { network: 'pool.public', containerID: pod.uid, ifname: 'lb4', node: 'kube-ipam.public-ip' };
      await here.site.put(here.site.keys.address(parseIp('10.1.0.125')!), lent);
      await here.site.put(here.site.keys.attachment(id), { addresses: ['10.1.0.125'], kept: true });
      const before = await here.site.entries();
      for (let scan = 0; scan < 3; scan++) expect(await scanner.scan({ reach: 'all' })).toEqual([]);
      expect(await here.site.entries()).toEqual(before);
      // The same record without what protects it.
      await hold('10.1.0.130', { containerID: 'plain', ...dead });
      expect(await scanner.twice()).toEqual(['freed 10.1.0.130']);
    });

    it('a container whose namespace is still there, on a live node: it is told, until the namespace is gone', async () => {
      const [pod, child] = [await here.cluster.pod(), await sleeper()];
      try {
        const netns = `/proc/${child.pid}/ns/net`;
        const { addresses } = await call('ADD', { ...here.callOf(pod), netns });
        await here.cluster.remove(pod);
        expect(await scanner.twice()).toEqual([`orphan ${addresses[0]}`]);
        expect(scanner.whyOf('orphan')).toEqual([`its pod is gone, but its network namespace ${netns} is there`]);
        expect(await scanner.scan()).toEqual([`orphan ${addresses[0]}`]);
        expect(await owners()).toEqual(addresses);
        await ended(child);
        expect(await scanner.scan()).toEqual([`freed ${addresses[0]}`]);
      } finally {
        await ended(child);
      }
    });

    it('an older sandbox whose namespace is still there, or a container whose namespace nobody recorded', async () => {
      const pod = await here.cluster.pod();
      const old = await call('ADD', { ...here.callOf(pod), containerID: 'old', netns: '/proc/self/ns/net' });
      const unknown = await call('ADD', { ...here.callOf(pod), containerID: 'older', netns: `/${'n'.repeat(300)}` });
      const own = await added(pod);
      expect(await scanner.twice()).toEqual([old, unknown].map(({ addresses }) => `orphan ${addresses[0]}`));
      expect(await owners()).toEqual([...old.addresses, ...unknown.addresses, own]);
    });
  });

  describe('a dry run', () => {
    it('says what would go, and writes nothing, not even whose cluster it is', async () => {
      const pod = await here.cluster.pod();
      const { addresses } = await call('ADD', { ...here.callOf(pod), conf: conf({ kubeConfig: '' }) });
      await here.cluster.remove(pod);
      const before = await here.site.entries();
      expect(await scanner.twice({ dryRun: true, reach: 'all', cluster: 'default' })).toEqual([`dead ${addresses[0]}`]);
      expect(await here.site.entries()).toEqual(before);
    });
  });

  /** A pod that is gone, seen dead once. */
  async function suspected(grace: number) {
    const pod = await here.cluster.pod();
    const ip = await added(pod);
    await here.cluster.remove(pod);
    const patient: ScannerOptions = { grace };
    expect(await scanner.scan(patient)).toEqual([`suspect ${ip}`]);
    return { ip, patient };
  }

  const conf = (ipam: object) => confOf(here.site, { ranges: [[range]], ...ipam }, { cniVersion: '1.1.0' });

  /** An owner record and its attachment, as some version may have written them. */
  async function hold(
    ip: string,
    more: Readonly<Record<string, unknown>> & { readonly containerID: string },
  ): Promise<void> {
    const id = {
      node: String(more.node ?? here.site.node),
      network: 'net',
      containerID: more.containerID,
      ifname: 'eth0',
    };
    const owner = {
      cluster: 'default',
      kind: 'dynamic',
      ...id,
      machine: '',
      boot: '',
      netns: '/run/netns/none',
      ...more,
    };
    await here.site.put(key(ip), owner);
    await here.site.put(here.site.keys.attachment(id), { addresses: [ip] });
  }

  /** Changes the holders of a record, or only its revision. */
  async function rewrite(
    ip: string,
    change: (holders: readonly object[]) => readonly object[],
    same = false,
  ): Promise<void> {
    const old = await record(ip);
    await here.site.put(key(ip), same ? old : { ...old, holders: change(old.holders as readonly object[]) });
  }
});

async function sleeper(): Promise<ChildProcess> {
  const child = spawn('unshare', ['--net', 'sleep', '600'], { stdio: 'ignore' });
  await once(child, 'spawn');
  return child;
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exit = once(child, 'exit');
  child.kill('SIGKILL');
  await exit;
}
