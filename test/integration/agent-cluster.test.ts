// The agent on a cluster: pods from memory, with the same answers as the plugin alone; events for people; an API that goes away.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Agent, until } from '../helpers/agent.ts';
import { argsOf, Cluster, type PodRef } from '../helpers/kubernetes/cluster.ts';
import { type ControlPlane, startControlPlane, whyNoControlPlane } from '../helpers/kubernetes/control-plane.ts';
import { DamagingProxy } from '../helpers/kubernetes/damaging-proxy.ts';
import { type Call, confOf, Ground, type Json, type Site } from '../helpers/plugin.ts';
import { run } from '../helpers/plugin-process.ts';
import { project } from '../helpers/project.ts';

const obstacle = whyNoControlPlane();
const ipv4 = { subnet: '10.30.0.0/24' };
const node = 'node-a';

interface Told {
  readonly reason: string;
  readonly message: string;
}

describe.skipIf(obstacle !== undefined)(`an agent on a cluster${obstacle ? ` (${obstacle})` : ''}`, () => {
  const parts = new AsyncDisposableStack();
  let plane: ControlPlane;
  let cluster: Cluster;
  let site: Site;
  let agent: Agent;
  let kubeConfig: string;
  let sandboxes = 0;

  beforeAll(async () => {
    plane = parts.use(await startControlPlane());
    cluster = new Cluster(plane);
    const ground = parts.use(await Ground.make('etcd'));
    site = await ground.site();
    const account = { namespace: 'kube-system', name: 'kube-ipam-plugin' };
    await plane.api('POST', '/api/v1/namespaces/kube-system/serviceaccounts', { metadata: { name: account.name } });
    const rbac = '/apis/rbac.authorization.k8s.io/v1';
    const rules = [{ apiGroups: [''], resources: ['pods', 'nodes', 'namespaces'], verbs: ['get'] }];
    await plane.api('POST', `${rbac}/clusterroles`, { metadata: { name: 'plugin' }, rules });
    await plane.api('POST', `${rbac}/clusterrolebindings`, {
      metadata: { name: 'plugin' },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'plugin' },
      subjects: [{ kind: 'ServiceAccount', ...account }],
    });
    kubeConfig = join(ground.folder, 'net.d', 'kubeconfig');
    const flags = ['--kubeconfig', plane.adminKubeconfig, '--plugin-kubeconfig', kubeConfig, '--node', node];
    agent = parts.use(await Agent.start({ dataDir: site.folder, flags }));
    await until(() => agent.log.includes('kubeconfig renewed'));
  }, 120_000);

  afterAll(() => parts.disposeAsync());

  function callOf(pod: PodRef, ipam: Json = {}): Call {
    const keys = { agentSocket: agent.socket, kubeConfig, timeout: 10, ...ipv4, ...ipam };
    return { conf: confOf(site, keys), containerID: `sandbox-${++sandboxes}`, args: argsOf(pod) };
  }

  async function eventsOf({ namespace, name }: PodRef): Promise<Told[]> {
    const path = `/api/v1/namespaces/${namespace}/events?fieldSelector=involvedObject.name=${name}`;
    return (await plane.api<{ items: Told[] }>('GET', path)).items;
  }

  const served = async () => (await agent.metric('kube_ipam_agent_requests_total{command="ADD",code="0"}')) ?? 0;

  it('gives a fixed address by the pod in its memory, and the plugin alone the same', async () => {
    const pod = await cluster.pod({
      annotations: { 'kube-ipam.ip': '10.30.0.77', 'kube-ipam.netmask': '255.255.0.0' },
    });
    const call = callOf(pod);
    const before = await served();
    const through = await run('ADD', call);
    expect(through).toMatchObject({ addresses: ['10.30.0.77'], exitCode: 0 });
    expect(await served()).toBe(before + 1);
    const alone = await run('ADD', {
      ...call,
      conf: confOf(site, { agentSocket: '', kubeConfig, timeout: 10, ...ipv4 }),
    });
    expect(alone.stdout).toBe(through.stdout);
    expect(await served()).toBe(before + 1);
    expect(await run('DEL', call)).toMatchObject({ exitCode: 0, stdout: '' });
  });

  it('what it remembers of a pod is for a sandbox of that very uid; of all others it asks', async () => {
    await using proxy = await DamagingProxy.start(plane);
    // The server says nothing more of what has changed, as when it is busy.
    let isSilent = false;
    const alter = (piece: Buffer) => (isSilent ? Buffer.alloc(0) : piece);
    proxy.damage = ({ path }) => (path.includes('watch=1') ? { alter } : undefined);
    const own = join(site.folder, 'kubeconfig');
    const throughProxy = plane.kubeconfig({ token: plane.adminToken }, proxy.url);
    const flags = ['--kubeconfig', throughProxy, '--plugin-kubeconfig', own, '--node', node];
    const fixed = (ip: string, more = {}) => ({ annotations: { 'kube-ipam.ip': ip, ...more } });
    const first = await cluster.pod(fixed('10.30.0.95'));
    const mirror = await cluster.pod(fixed('10.30.0.97', { 'kubernetes.io/config.mirror': 'static-uid' }));
    await using slow = await Agent.start({ dataDir: site.folder, flags });
    await until(() => slow.log.includes('kubeconfig renewed'));
    await until(async () => JSON.parse((await slow.page('/readyz')).body).parts.pods.ready);
    const add = async (pod: PodRef, args = argsOf(pod)) => {
      proxy.seen.length = 0;
      const call = { ...callOf(pod, { agentSocket: slow.socket, kubeConfig: own }), args };
      const { addresses, error } = await run('ADD', call);
      expect((await run('DEL', call)).exitCode).toBe(0);
      const asked = proxy.seen.filter(({ path }) => path.endsWith(`/pods/${pod.name}`)).length;
      return { asked, ...(error ? { code: error.code } : { addresses }) };
    };
    expect(await add(first)).toEqual({ asked: 0, addresses: ['10.30.0.95'] });
    expect(await add({ ...mirror, uid: 'static-uid' })).toEqual({ asked: 1, addresses: ['10.30.0.97'] });
    isSilent = true;
    const second = await cluster.replace(first, fixed('10.30.0.96'));
    expect(await add(second)).toEqual({ asked: 1, addresses: ['10.30.0.96'] });
    const { namespace, name } = second;
    expect(await add(second, argsOf({ namespace, name }))).toEqual({ asked: 1, addresses: ['10.30.0.96'] });
    expect(await add({ ...second, uid: 'of-another' })).toEqual({ asked: 1, code: 11 });
    expect(await slow.metric('kube_ipam_agent_requests_total{command="ADD",code="0"}')).toBe(4);
  });

  it('its pages have what the reference says, and nothing else', async () => {
    const reference = readFileSync(join(project, 'docs/reference.md'), 'utf8');
    const listed = (pattern: RegExp) => [...reference.matchAll(pattern)].map(match => match[1]!);
    const { body } = await agent.page('/metrics');
    const metrics = [...body.matchAll(/^# TYPE (\S+)/gm)].map(match => match[1]!);
    expect(listed(/^\| `((?:kube_ipam_(?:agent|gc|build)|process)_[a-z_]+)/gm).sort()).toEqual(metrics.sort());
    const table = /\| part \| ready when \|[\s\S]*?\n\n/.exec(reference)![0];
    const parts = [...table.matchAll(/^\| (`.*?`) \|/gm)].flatMap(([, cell]) => cell!.match(/[a-z-]+/g)!);
    const told = Object.keys(JSON.parse((await agent.page('/readyz')).body).parts);
    // Of the flag that this agent has not.
    expect(parts.sort()).toEqual([...told, 'certificates'].sort());
  });

  it('tells the pod who has its address', async () => {
    const annotations = { 'kube-ipam.ip': '10.30.0.78' };
    const [first, second] = [await cluster.pod({ annotations }), await cluster.pod({ annotations })];
    expect(await run('ADD', callOf(first))).toMatchObject({ addresses: ['10.30.0.78'] });
    const refused = await run('ADD', callOf(second));
    expect(refused.error).toMatchObject({ code: 11, msg: expect.stringContaining(`pod default/${first.name}`) });
    await expect
      .poll(() => eventsOf(second), { timeout: 30_000 })
      .toMatchObject([
        {
          reason: 'FixedAddressHeld',
          message: expect.stringMatching(`default/${first.name}.* on node ${node} since 20`),
        },
      ]);
    await cluster.remove(first);
    expect(await run('ADD', callOf(second))).toMatchObject({ addresses: ['10.30.0.78'] });
  });

  it('tells a running pod of a fixed address that no interface has, and only then', async () => {
    const annotations = { 'kube-ipam.ip': '10.30.0.79, net7=10.30.0.80' };
    const [used, unused] = [
      await cluster.pod({ annotations: { 'kube-ipam.ip': '10.30.0.81' } }),
      await cluster.pod({ annotations }),
    ];
    for (const pod of [used, unused]) expect((await run('ADD', callOf(pod))).exitCode).toBe(0);
    for (const pod of [used, unused]) await cluster.setPhase(pod, 'Running');
    await expect
      .poll(() => eventsOf(unused), { timeout: 30_000 })
      .toMatchObject([{ reason: 'FixedAddressUnused', message: expect.stringMatching(/has net7=10\.30\.0\.80:/) }]);
    expect(await eventsOf(used)).toEqual([]);
  });

  it('refuses every pod while the API is away, unless it is in its memory', async () => {
    const known = await cluster.pod({ annotations: { 'kube-ipam.ip': '10.30.0.90' } });
    // The agent has heard of this pod once it has answered for it.
    const call = callOf(known);
    expect(await run('ADD', call)).toMatchObject({ addresses: ['10.30.0.90'] });
    await run('DEL', call);
    const before = await site.remains();
    await plane.apiServer.stop();
    try {
      const stranger = { ...known, name: 'stranger', uid: 'no-such-uid' };
      const refused = await run('ADD', callOf(stranger, { timeout: 3 }));
      expect(refused.error).toMatchObject({ code: 11, msg: expect.stringContaining('get pods/stranger') });
      expect(refused.ms).toBeLessThan(9000);
      expect(await site.remains()).toEqual(before);
    } finally {
      plane.apiServer.cont();
    }
    await expect.poll(async () => (await run('ADD', call)).addresses, { timeout: 60_000 }).toEqual(['10.30.0.90']);
  });
});
