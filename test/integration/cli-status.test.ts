// What `kube-ipam status` says of the Kubernetes API and of the agent, asked for real.
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { clusterKey } from '../../src/store/keys.ts';
import { Agent } from '../helpers/agent.ts';
import { Desk } from '../helpers/command-line.ts';
import { freePorts } from '../helpers/etcd.ts';
import { type ControlPlane, startControlPlane, whyNoControlPlane } from '../helpers/kubernetes/control-plane.ts';
import { Ground, type Json, type Site } from '../helpers/plugin.ts';

const ranges = [[{ subnet: '10.1.0.0/24' }]];
const nobody = { name: 'nobody', token: 'token-of-nobody' };

interface Diagnosis {
  readonly area: string;
  readonly subject: string;
  readonly level: string;
  readonly text: string;
}

const obstacle = whyNoControlPlane();
if (obstacle !== undefined) it('status on a cluster', ({ skip }) => skip(obstacle));

describe.skipIf(obstacle !== undefined)('status', () => {
  let plane: ControlPlane;
  let ground: Ground;
  let site: Site;
  let desk: Desk;
  beforeAll(async () => {
    plane = await startControlPlane({ users: [nobody] });
    ground = await Ground.make('etcd', plane.etcd);
  });
  afterAll(async () => {
    // The etcd is that of the control plane.
    await plane?.[Symbol.asyncDispose]();
    await ground?.[Symbol.asyncDispose]();
  });
  beforeEach(async () => {
    site = await ground.site();
    desk = new Desk();
  });
  afterEach(() => desk[Symbol.dispose]());

  /** What it says of one area, and how it ends. */
  const status = async (area: string, ipam: Json) => {
    const network = desk.network('net', { ...site.access, ranges, ...ipam });
    const { code, stdout, stderr } = await desk.run(['status', '--conf', network, '-o', 'json']);
    expect(stderr).toBe('');
    const { diagnoses } = JSON.parse(stdout) as { diagnoses: readonly Diagnosis[] };
    return { code, diagnoses: diagnoses.filter(one => one.area === area) };
  };
  const levels = async (ipam: Json) => {
    const { diagnoses } = await status('kubernetes', ipam);
    return diagnoses.map(({ subject, level, text }) => `${level} ${subject}: ${text}`);
  };
  const answers = () => `fine ${plane.url}: the API answers: pods, nodes and namespaces may be read`;

  it('asks what an ADD asks, and warns of a node that the cluster does not know', async () => {
    const kubeConfig = plane.adminKubeconfig;
    const nodeName = 'known-node';
    expect(await levels({ kubeConfig, nodeName })).toEqual([
      answers(),
      expect.stringMatching(/^warning node known-node: the cluster has no Node of this name/),
    ]);
    await plane.api('POST', '/api/v1/nodes', { metadata: { name: nodeName } });
    expect(await levels({ kubeConfig, nodeName })).toEqual([answers()]);
    expect(await levels({ nodeName })).toEqual([]);
  });

  it('names each right that is missing, and a token that is not accepted', async () => {
    const lacking = await levels({ kubeConfig: plane.kubeconfig({ token: nobody.token }) });
    expect(lacking).toHaveLength(3);
    for (const [i, right] of ['"get" on "namespaces"', '"get" on "pods" in namespace', '"get" on "nodes"'].entries())
      expect(lacking[i]).toMatch(new RegExp(`^wrong ${plane.url}: .* the right ${right}`));
    const { code, diagnoses } = await status('kubernetes', { kubeConfig: plane.kubeconfig({ token: 'unknown' }) });
    expect({ code, levels: diagnoses.map(({ level }) => level) }).toEqual({
      code: 1,
      levels: ['wrong', 'wrong', 'wrong'],
    });
    expect(diagnoses[0]!.text).toContain('does not accept the credentials');
  });

  it('tells an API server that is away from a kubeconfig that cannot be used', async () => {
    const [port] = await freePorts(1);
    const kubeConfig = plane.kubeconfig({ token: 'x' }, `https://127.0.0.1:${port}`);
    const away = await status('kubernetes', { kubeConfig });
    expect(away).toMatchObject({
      code: 3,
      diagnoses: [{ level: 'unreachable', subject: `https://127.0.0.1:${port}` }],
    });
    const absent = await status('kubernetes', { kubeConfig: '/nowhere/kubeconfig' });
    expect(absent.diagnoses).toMatchObject([
      { level: 'wrong', text: expect.stringContaining('there is no such file') },
    ]);
    const yaml = desk.write('kubeconfig.yaml', 'clusters: [}');
    const broken = await status('kubernetes', { kubeConfig: yaml });
    expect(broken.diagnoses).toMatchObject([
      { level: 'wrong', text: expect.stringContaining('neither JSON nor YAML') },
    ]);
  });

  it('warns of a token that ends soon', async () => {
    await plane.api('POST', '/api/v1/namespaces/kube-system/serviceaccounts', { metadata: { name: 'plugin' } });
    const tokenFor = async (seconds: number) => {
      const { status: answer } = await plane.api<{ status: { token: string } }>(
        'POST',
        '/api/v1/namespaces/kube-system/serviceaccounts/plugin/token',
        { spec: { expirationSeconds: seconds } },
      );
      return plane.kubeconfig({ token: answer.token });
    };
    const kubeConfig = await tokenFor(3600);
    expect(await levels({ kubeConfig })).toContainEqual(
      expect.stringMatching(new RegExp(`^warning ${kubeConfig}: its token ends in 5\\d minutes$`)),
    );
    const long = await tokenFor(48 * 3600);
    expect(await levels({ kubeConfig: long })).toContainEqual(`fine ${long}: its token ends in 47 hours`);
  });

  it('finds out that the name of the cluster is that of another one', async () => {
    const kubeConfig = plane.adminKubeconfig;
    await site.put(clusterKey('blue'), { uid: 'of-another' });
    const told = await levels({ kubeConfig, cluster: 'blue' });
    expect(told).toContainEqual(
      expect.stringMatching(/^wrong cluster blue: is the name of another cluster .* that one of-another/),
    );
    expect((await levels({ kubeConfig, cluster: 'green' })).join()).not.toContain('cluster green');
  });

  it('asks the agent for this very network, and tells one that has died', async () => {
    await using agent = await Agent.start({ dataDir: site.folder });
    const ipam = { agentSocket: agent.socket, nodeName: undefined };
    const subject = agent.socket;
    expect((await status('agent', ipam)).diagnoses).toMatchObject([
      { subject, level: 'fine', text: 'serves network net' },
    ]);
    const refused = await status('agent', { ...ipam, status: 'full', etcdConfig: { etcdURL: 'http://127.0.0.1:1' } });
    expect(refused.diagnoses).toMatchObject([
      { level: 'wrong', text: expect.stringContaining('cannot serve network') },
    ]);
    await agent.end('SIGKILL');
    expect((await status('agent', ipam)).diagnoses).toMatchObject([
      { subject, level: 'warning', text: expect.stringContaining('no agent answers there') },
    ]);
    const agentSocket = join(desk.folder, 'absent.sock');
    expect((await status('agent', { agentSocket })).diagnoses).toMatchObject([{ level: 'fine' }]);
    const { diagnoses } = await status('agent', { agentSocket, kubeConfig: plane.adminKubeconfig });
    expect(diagnoses).toMatchObject([{ level: 'advice', text: expect.stringContaining('no agent runs on this node') }]);
    expect((await status('agent', { agentSocket: '' })).diagnoses).toEqual([]);
  });
});
