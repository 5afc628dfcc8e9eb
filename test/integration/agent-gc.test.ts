// The agent's gc loop on a real API server and both stores: it frees, tells what it may not free, counts, and refuses to judge blindly.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { ClientGcApi } from '../../src/agent/gc-api.ts';
import { GcLoop, type GcSurroundings, type GcTimes } from '../../src/agent/gc-loop.ts';
import { Log } from '../../src/base/log.ts';
import { Metrics } from '../../src/base/metrics.ts';
import { readMachine } from '../../src/base/node.ts';
import { type AccessConfig, readAccessConfig } from '../../src/ipam/config.ts';
import { openSurroundings } from '../../src/ipam/open.ts';
import { type Client, openClient } from '../../src/kube/client.ts';
import { parseIp } from '../../src/net/ip.ts';
import { clusterKey } from '../../src/store/keys.ts';
import { Agent } from '../helpers/agent.ts';
import type { PodRef } from '../helpers/kubernetes/cluster.ts';
import { onCluster, type Sandbox } from '../helpers/kubernetes/on-cluster.ts';
import { call, confOf, Ground, type Json } from '../helpers/plugin.ts';
import { run } from '../helpers/plugin-process.ts';

const ranges = [[{ subnet: '10.1.0.0/24', rangeStart: '10.1.0.10' }]];
const times: GcTimes = { interval: 40, grace: 60, nodeGrace: 300_000 };

onCluster({ ranges }, here => {
  let client: Client;
  let loop: GcLoop | undefined;
  let metrics: Metrics;
  let told: string[];
  beforeEach(async () => {
    client = await openClient({ kubeconfig: here.plane.adminKubeconfig, env: {} });
    metrics = new Metrics();
    told = [];
  });
  afterEach(async () => {
    await loop?.stop();
    await client[Symbol.asyncDispose]();
  });

  const access = (ipam: Json = {}, name = 'net'): AccessConfig => readAccessConfig(confOf(here.site, ipam, { name }));
  const logFile = () => join(here.site.folder, '../gc-log');
  const start = async (
    more: Partial<GcSurroundings> = {},
    changed: Partial<GcTimes> = {},
    api: GcSurroundings['api'] | 'none' = new ClientGcApi(client),
  ): Promise<GcLoop> => {
    const around: GcSurroundings = {
      networks: () => [access()],
      open: (of, deadline) => openSurroundings(of, deadline),
      ...(api !== 'none' && { api }),
      leads: () => false,
      tellNode: (...words) => told.push(words.join(' | ')),
      log: new Log({ file: logFile(), level: 'info', maxSize: 1e6 }),
      metrics,
      ...more,
    };
    loop = new GcLoop(around, { ...times, ...changed });
    await loop.start();
    return loop;
  };
  const figure = (name: string) =>
    new RegExp(`^kube_ipam_gc_${name}(?:\\{[^}]*\\})? (\\S+)$`, 'm').exec(metrics.page())?.[1];
  const dead = async (sandbox?: Sandbox & { netns?: string }): Promise<{ pod: PodRef; ip: string }> => {
    const pod = await here.cluster.pod({ node: sandbox?.node ?? 'node-a' });
    const conf = here.callOf(pod, sandbox);
    const { addresses, stdout } = await call('ADD', { ...conf, ...(sandbox?.netns && { netns: sandbox.netns }) });
    expect(addresses, stdout).toHaveLength(1);
    await here.cluster.remove(pod);
    return { pod, ip: addresses[0]! };
  };
  const owners = async () => [...(await here.holdings()).owners.keys()];
  const soon = { timeout: 20_000, interval: 20 };

  it('frees what died, again and again, and counts it', async () => {
    const alive = await here.cluster.pod();
    const { addresses } = await here.add(alive);
    await dead();
    await start();
    await expect.poll(owners, soon).toEqual(addresses);
    await dead();
    await expect.poll(owners, soon).toEqual(addresses);
    await expect.poll(() => figure('freed_total'), soon).toBe('2');
    expect(Number(figure('scans_total'))).toBeGreaterThan(2);
    expect(figure('leader')).toBe('0');
    expect(metrics.page()).toMatch(/kube_ipam_gc_scan_duration_seconds_count \d+/);
    expect(loop!.state()).toEqual({ ready: true, detail: 'scans its own node' });
  });

  it('tells of what still has its namespace, once, in event, log and metric, until that is gone', async () => {
    const child: ChildProcess = spawn('unshare', ['--net', 'sleep', '600'], { stdio: 'ignore' });
    try {
      const { pod, ip } = await dead({ netns: `/proc/${child.pid}/ns/net` });
      await start();
      await expect.poll(() => figure('orphans'), soon).toBe('1');
      const scans = Number(figure('scans_total'));
      await expect.poll(() => Number(figure('scans_total')), soon).toBeGreaterThan(scans + 3);
      expect(told).toEqual([
        `node-a | OrphanedAddress | address ${ip} of pod default/${pod.name}, container sandbox-${pod.uid} eth0, is not freed: its pod is gone, but its network namespace /proc/${child.pid}/ns/net is there`,
      ]);
      expect(await owners()).toEqual([ip]);
      child.kill('SIGKILL');
      await expect.poll(owners, soon).toEqual([]);
      await expect.poll(() => figure('orphans'), soon).toBe('0');
    } finally {
      child.kill('SIGKILL');
    }
  });

  it('frees what other nodes left only where it leads', async ({ skip }) => {
    if (here.site.kind === 'embedded') skip('an embedded store knows one node only');
    const { ip } = await dead({ node: 'gone-for-good' });
    let leads = false;
    await start({ leads: () => leads });
    await expect.poll(() => Number(figure('scans_total')), soon).toBeGreaterThan(4);
    expect(await owners()).toEqual([ip]);
    leads = true;
    await expect.poll(owners, soon).toEqual([]);
    expect(figure('leader')).toBe('1');
    expect(loop!.state().detail).toBe('leads');
  });

  it('counts what nodes that are there should have freed, from one scan of all to the next', async ({ skip }) => {
    if (here.site.kind === 'embedded') skip('an embedded store knows one node only');
    const node = await here.cluster.node();
    const { ip } = await dead({ node });
    await start({ leads: () => true });
    await expect.poll(() => figure('left'), soon).toBe('1');
    const scans = Number(figure('scans_total'));
    for (let seen = scans; seen < scans + 12; seen = Number(figure('scans_total'))) {
      expect(figure('left')).toBe('1');
      await new Promise(resolve => setTimeout(resolve, 10));
    }
    expect(await owners()).toEqual([ip]);
    await here.cluster.removeNode(node);
    await expect.poll(owners, soon).toEqual([]);
    await expect.poll(() => figure('left'), soon).toBe('0');
  });

  it('tells a node, once, of what its own agent has not freed in ten minutes', async ({ skip }) => {
    if (here.site.kind === 'embedded') skip('an embedded store knows one node only');
    const node = await here.cluster.node();
    const { pod, ip } = await dead({ node });
    await start({ leads: () => true });
    await expect.poll(() => figure('left'), soon).toBe('1');
    expect(told).toEqual([]);
    const now = performance.now.bind(performance);
    const clock = vi.spyOn(performance, 'now').mockImplementation(() => now() + 601_000);
    try {
      await expect.poll(() => told, soon).not.toEqual([]);
      const scans = Number(figure('scans_total{result="done"}'));
      await expect.poll(() => Number(figure('scans_total{result="done"}')), soon).toBeGreaterThan(scans + 22);
      expect(told).toEqual([
        `${node} | AddressLeft | address ${ip} of pod default/${pod.name}, container sandbox-${pod.uid} eth0, is not freed: its pod is gone, but node ${node} is not gone: its own agent frees it`,
      ]);
    } finally {
      await loop!.stop();
      clock.mockRestore();
    }
    expect(await owners()).toEqual([ip]);
  });

  it('one scan is for all networks that share store, space and cluster, each with its own cooldown', async () => {
    await dead();
    const { ip } = await dead({ more: { name: 'cool' } });
    let opened = 0;
    const open: GcSurroundings['open'] = (of, deadline) => {
      opened++;
      return openSurroundings(of, deadline);
    };
    await start({ open, networks: () => [access(), access({ cooldown: 600 }, 'cool')] });
    await expect.poll(() => figure('freed_total'), soon).toBe('2');
    await expect.poll(owners, soon).toEqual([ip]);
    expect((await here.holdings()).owners.get(ip)).toMatchObject({ kind: 'held' });
    expect(opened).toBeLessThanOrEqual(Number(figure('scans_total')) + 1);
  });

  it('without an API it frees what earlier boots left, and judges nothing else', async () => {
    const { ip } = await dead();
    const id = { node: here.site.node, network: 'net', containerID: 'before', ifname: 'eth0' };
    const owner = { kind: 'dynamic', cluster: 'default', ...id, machine: readMachine().machine, boot: 'earlier' };
    await here.site.put(here.site.keys.address(parseIp('10.1.0.77')!), owner);
    await here.site.put(here.site.keys.attachment(id), { addresses: ['10.1.0.77'] });
    await start({}, {}, 'none');
    await expect.poll(() => Number(figure('scans_total')), soon).toBeGreaterThan(3);
    expect(await owners()).toEqual([ip]);
    expect(figure('freed_total')).toBe('1');
    expect(loop!.state()).toEqual({ ready: true, detail: expect.stringContaining('no Kubernetes API is known') });
  });

  it('a name that belongs to another cluster makes it not ready, and says what to set', async () => {
    const cluster = `foreign-${here.site.kind}`;
    const { ip } = await dead({ ipam: { cluster, kubeConfig: '' } });
    await here.site.put(clusterKey(cluster), { uid: 'somebody-else' });
    await start({ networks: () => [access({ cluster })] });
    await expect
      .poll(() => loop!.state(), soon)
      .toMatchObject({
        ready: false,
        detail: expect.stringContaining(`set "cluster": ${cluster} belongs to another cluster`),
      });
    expect(await owners()).toEqual([ip]);
    expect(metrics.page()).toMatch(/kube_ipam_gc_scans_total\{result="failed"\} [1-9]/);
    await here.site.remove(clusterKey(cluster));
    await expect.poll(owners, soon).toEqual([]);
    expect(loop!.state().ready).toBe(true);
  });

  it('an API that is away leaves it ready: others say so; and the loop goes on', async () => {
    const { ip } = await dead();
    const nobody = here.plane.kubeconfig({ token: 'admin-token' }, 'https://127.0.0.1:1');
    await using lost = await openClient({ kubeconfig: nobody, env: {} });
    await start({}, {}, new ClientGcApi(lost));
    await expect
      .poll(() => loop!.state(), soon)
      .toMatchObject({ ready: true, detail: expect.stringContaining('refused') });
    await expect.poll(() => Number(figure('scans_total')), soon).toBeGreaterThan(3);
    expect(await owners()).toEqual([ip]);
  });

  it('a store that nobody has used yet is not made by looking', async ({ skip }) => {
    if (here.site.kind === 'etcd') skip('etcd is there or not');
    const dataDir = join(here.site.folder, 'new');
    await start({ networks: () => [access({ dataDir })] });
    await expect.poll(() => Number(figure('scans_total')), soon).toBeGreaterThan(2);
    expect(existsSync(dataDir)).toBe(false);
  });

  it('stops in the middle of a scan, soon, and does not begin another', async () => {
    for (let i = 0; i < 20; i++) await dead();
    await start({}, { grace: 1 });
    await expect.poll(() => Number(figure('freed_total') ?? 0), { ...soon, interval: 1 }).toBeGreaterThan(0);
    await loop!.stop();
    const scans = figure('scans_total');
    const left = await owners();
    await new Promise(resolve => setTimeout(resolve, 200));
    expect(figure('scans_total')).toBe(scans);
    expect(await owners()).toEqual(left);
  });
});

onCluster({ ranges }, here => {
  const soon = { timeout: 30_000, interval: 100 };
  const owners = async () => [...(await here.holdings()).owners.keys()];
  const start = (flags: readonly string[], wrapper: readonly string[] = []) => {
    const access = ['--kubeconfig', here.plane.adminKubeconfig, '--plugin-kubeconfig', 'off', '--node', 'node-a'];
    const gc = ['--gc-interval', '1s', '--gc-grace', '500ms', '--node-grace', '1m', ...flags];
    return Agent.start({ dataDir: here.site.folder, flags: [...access, ...gc], wrapper });
  };
  const configure = (agent: Agent) => {
    const conf = confOf(here.site, { ranges }, { name: 'net' });
    writeFileSync(join(agent.folder, 'net.d/net.conf'), JSON.stringify(conf));
  };

  it('an agent frees, leads by its Lease, tells the node and its pages, and hands over when it stops', async () => {
    const holder = async (): Promise<string> => {
      const { spec } = await here.plane.api<{ spec: { holderIdentity?: string } }>(
        'GET',
        '/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kube-ipam-gc',
      );
      return spec.holderIdentity ?? 'nobody';
    };
    const nodes = here.site.kind === 'embedded' ? ['node-a'] : ['node-a', 'node-lost'];
    for (const node of nodes) {
      const pod = await here.cluster.pod({ node });
      await here.add(pod, { node });
      await here.cluster.remove(pod);
    }
    const orphan = await here.cluster.pod();
    const { addresses } = await call('ADD', { ...here.callOf(orphan), netns: `/proc/${process.pid}/ns/net` });
    await here.cluster.remove(orphan);
    await using agent = await start([]);
    configure(agent);
    await expect.poll(owners, soon).toEqual(addresses);
    await expect.poll(() => agent.metric('kube_ipam_gc_orphans'), soon).toBe(1);
    await expect.poll(() => agent.metric('kube_ipam_gc_leader'), soon).toBe(1);
    expect(await agent.metric('kube_ipam_gc_freed_total')).toBe(nodes.length);
    expect(await holder()).toMatch(/^node-a_/);
    const { body } = await agent.page('/readyz');
    expect(JSON.parse(body).parts).toMatchObject({
      gc: { ready: true, detail: 'leads' },
      'gc-election': { ready: true, detail: 'this agent leads' },
    });
    const told = async () => {
      const { items } = await here.plane.api<{ items: { involvedObject: Json; reason: string; message: string }[] }>(
        'GET',
        '/api/v1/namespaces/default/events',
      );
      return items.filter(({ reason, message }) => reason === 'OrphanedAddress' && message.includes(orphan.uid));
    };
    await expect
      .poll(async () => (await told()).map(({ involvedObject }) => involvedObject), soon)
      .toMatchObject([{ kind: 'Node', name: 'node-a' }]);
    const freed = agent.events.filter(({ event }) => event === 'gc');
    expect(freed.map(({ why }) => why)).toEqual(nodes.map(() => 'its pod is gone'));
    expect(await agent.end('SIGTERM')).toBe(0);
    expect(await holder()).toBe('nobody');
  });

  it('where the host’s network namespaces do not arrive gc is refused, and /readyz says so', async () => {
    const pod = await here.cluster.pod();
    const { addresses } = await here.add(pod);
    await here.cluster.remove(pod);
    const hide = 'mount -t tmpfs none /run/netns && exec "$@"';
    await using agent = await start([], ['unshare', '--mount', 'sh', '-c', hide, 'sh']);
    configure(agent);
    const gc = async () => JSON.parse((await agent.page('/readyz')).body).parts.gc as Json;
    await expect.poll(gc, soon).toMatchObject({ ready: false, detail: expect.stringContaining('/run/netns') });
    expect((await agent.page('/readyz')).status).toBe(503);
    await new Promise(resolve => setTimeout(resolve, 2500));
    expect(await owners()).toEqual(addresses);
    expect(await agent.metric('kube_ipam_gc_scans_total{result="done"}')).toBeUndefined();
  });
});

describe('in a container without the host’s network namespaces', () => {
  const program = `
    import { GcLoop } from ${JSON.stringify(join(import.meta.dirname, '../../src/agent/gc-loop.ts'))};
    import { Metrics } from ${JSON.stringify(join(import.meta.dirname, '../../src/base/metrics.ts'))};
    const log = { info() {}, debug() {}, warn() {}, error() {} };
    const networks = () => { throw new Error('nothing must be looked at'); };
    const loop = new GcLoop({ networks, leads: () => true, log, metrics: new Metrics() }, { interval: 1e6 });
    await loop.start();
    setTimeout(async () => { console.log(JSON.stringify(loop.state())); await loop.stop(); }, 200);`;
  const stateIn = (script: string): unknown => {
    const node = [process.execPath, '--input-type=module', '-e', program];
    const argv = ['--mount', '--propagation', 'slave', 'sh', '-c', `${script} exec "$@"`, 'sh', ...node];
    return JSON.parse(execFileSync('unshare', argv, { encoding: 'utf8' }));
  };

  it('gc is refused, and says which mount is missing', () => {
    expect(stateIn('mount -t tmpfs none /run && mkdir /run/netns &&')).toEqual({
      ready: false,
      detail: expect.stringMatching(/^refused: \/run\/netns of the host is not mounted here.*HostToContainer/),
    });
    expect(stateIn('mount -t tmpfs none /run &&')).toMatchObject({ ready: false });
  });

  it('an ADD that finds a range full takes nobody for one of an earlier boot', async () => {
    const name = `kube-ipam-test-${process.pid}`;
    const blind = ['unshare', '--mount', '--propagation', 'slave', 'sh', '-c', 'mount -t tmpfs none /run && exec "$@"'];
    execFileSync('ip', ['netns', 'add', name]);
    try {
      await using ground = await Ground.make('etcd');
      const site = await ground.site();
      await using agent = await Agent.start({ dataDir: site.folder, wrapper: [...blind, 'sh'] });
      const conf = confOf(site, { subnet: '10.7.0.0/30', timeout: 20, agentSocket: agent.socket });
      const netns = `/run/netns/${name}`;
      const [ip] = (await run('ADD', { conf, netns, containerID: 'lives' })).addresses;
      // A plugin on a node that is a container of LXC reads that container's boot ID, an agent in a pod the kernel's.
      const key = site.keys.address(parseIp(ip!)!);
      const { value } = (await site.entries()).find(entry => entry.key === key)!;
      await site.put(key, { ...JSON.parse(value), boot: 'of-this-container' });
      const { error } = await run('ADD', { conf, containerID: 'comes' });
      expect(error?.code).toBe(100);
      expect(await agent.metric('kube_ipam_agent_requests_total{command="ADD",code="100"}')).toBe(1);
    } finally {
      execFileSync('ip', ['netns', 'del', name]);
    }
  });
});
