// The command line on etcd's good and bad days: the doctor's eye, moving between the stores, a full and a dead cluster.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Desk, kubeIpam } from '../helpers/command-line.ts';
import { type EtcdCluster, startEtcd } from '../helpers/etcd.ts';
import { tree } from '../helpers/executable.ts';
import { anEngine, call, type Json } from '../helpers/plugin.ts';

interface Diagnosis {
  readonly area: string;
  readonly subject: string;
  readonly level: string;
  readonly text: string;
  readonly advice?: string;
  readonly figures?: Readonly<Record<string, unknown>>;
}

/** A plugin folder as `install` leaves it, with the main plugin that the configurations name. */
function pluginsOf(desk: Desk): string {
  const folder = join(desk.folder, 'bin');
  if (existsSync(folder)) return folder;
  mkdirSync(folder);
  for (const name of ['kube-ipam', 'kube-ipam.lib']) symlinkSync(join(tree, name), join(folder, name));
  // The doctor only looks whether it can be run.
  symlinkSync(join(tree, 'kube-ipam'), join(folder, 'bridge'));
  return folder;
}

/** What the doctor says, with the built executable in place. */
async function examine(desk: Desk, ...argv: readonly string[]) {
  const { code, stdout } = await desk.run(['status', '--bin-dir', pluginsOf(desk), '-o', 'json', ...argv]);
  const { worst, diagnoses } = JSON.parse(stdout) as { worst: string; diagnoses: Diagnosis[] };
  const about = (area: string, level?: string) =>
    diagnoses.filter(one => one.area === area && (level === undefined || one.level === level));
  return { code, worst, about };
}

const ipam = { subnet: '10.1.0.0/24' };

/** Writes until etcd takes no more. */
async function fill(cluster: EtcdCluster): Promise<void> {
  const env = { PATH: process.env.PATH, ETCDCTL_API: '3' };
  const input = 'x'.repeat(1_000_000);
  for (let i = 0; i < 64; i++) {
    const argv = ['--endpoints', cluster.endpoints[0]!, 'put', `junk${i}`];
    execFileSync(cluster.engine.etcdctl, argv, { input, env, stdio: ['pipe', 'ignore', 'pipe'] });
  }
}

describe('on three members', () => {
  let cluster: EtcdCluster;
  beforeAll(async () => {
    cluster = await startEtcd(anEngine(), { members: 3 });
  });
  afterAll(() => cluster[Symbol.asyncDispose]());

  it('status tells each endpoint, a dead one among them, and a dead cluster', async () => {
    using desk = new Desk();
    const etcdConfig = { etcdURL: cluster.endpoints.join(',') };
    desk.network('net', { ...ipam, etcdConfig, dataDir: desk.dataDir });
    const well = await examine(desk);
    expect({ code: well.code, worst: well.worst }).toEqual({ code: 0, worst: 'fine' });
    const endpoints = well.about('etcd').filter(({ figures }) => figures?.version !== undefined);
    expect(endpoints.map(({ subject }) => subject)).toEqual(cluster.endpoints);
    expect(endpoints.filter(({ text }) => text.endsWith('leader'))).toHaveLength(1);
    for (const { figures } of endpoints) {
      expect(figures).toMatchObject({ version: cluster.engine.version, quota: 2 ** 31, gateway: 'on', alarms: [] });
      expect(figures?.dbSize).toBeGreaterThan(1000);
    }
    // Not the leader: then nothing is waiting for an election.
    const follower = endpoints.findIndex(({ text }) => text.endsWith('follower'));
    await cluster.members[follower]!.kill();
    const hurt = await examine(desk);
    expect(hurt).toMatchObject({ code: 1, worst: 'wrong' });
    expect(hurt.about('etcd', 'wrong')).toMatchObject([
      { subject: cluster.endpoints[follower], text: expect.stringContaining('cannot be reached') },
    ]);
    for (const member of cluster.members) await member.kill();
    const dead = await examine(desk, '--timeout', '5');
    expect(dead).toMatchObject({ code: 3, worst: 'unreachable' });
    expect(dead.about('etcd', 'unreachable')).toHaveLength(3);
    const { code, stdout, stderr } = await desk.run(['ls', '--timeout', '5']);
    expect({ code, stdout }).toEqual({ code: 3, stdout: '' });
    for (const endpoint of cluster.endpoints) expect(stderr).toContain(endpoint);
  });
});

describe('on one member', () => {
  let cluster: EtcdCluster;
  beforeAll(async () => {
    cluster = await startEtcd(anEngine(), { flags: ['--quota-backend-bytes', String(16 * 2 ** 20)] });
  });
  afterAll(() => cluster[Symbol.asyncDispose]());

  it('records move from the embedded store to etcd and back, and their pods are still released there', async () => {
    using desk = new Desk();
    const node = { nodeName: 'node-a', logLevel: 'off', timeout: '1h' };
    const etcdConfig = { etcdURL: cluster.endpoints.join(',') };
    const here = {
      cniVersion: '1.0.0',
      name: 'net',
      type: 'bridge',
      ipam: { type: 'kube-ipam', ...ipam, ...node, dataDir: desk.dataDir },
    };
    const there: Json = { ...here, ipam: { ...here.ipam, dataDir: join(desk.folder, 'state'), etcdConfig } };
    const back = { ...here, ipam: { ...here.ipam, dataDir: join(desk.folder, 'back') } };
    for (const containerID of ['a', 'b', 'c']) {
      expect(await call('ADD', { conf: here, containerID })).toMatchObject({ exitCode: 0 });
    }
    const conf = (name: string, content: Json) => ['--conf', desk.write(`${name}.conf`, content)];
    const first = await kubeIpam(['export', ...conf('here', here)]);
    const toEtcd = await kubeIpam(['import', ...conf('there', there)], { input: first.stdout });
    expect(toEtcd).toMatchObject({ code: 0, stdout: expect.stringMatching(/^8 records written/) });
    const listed = JSON.parse((await kubeIpam(['ls', ...conf('there', there), '-o', 'json'])).stdout) as Json[];
    expect(listed.map(({ address, node: name }) => [address, name])).toEqual(
      ['10.1.0.2', '10.1.0.3', '10.1.0.4'].map(address => [address, 'node-a']),
    );
    expect(await kubeIpam(['check', ...conf('there', there)])).toMatchObject({ code: 0 });
    // A repeated ADD finds its addresses, a new one gets the next, and DEL gives back.
    expect(await call('ADD', { conf: there, containerID: 'b' })).toMatchObject({ addresses: ['10.1.0.3'] });
    expect(await call('ADD', { conf: there, containerID: 'd' })).toMatchObject({ addresses: ['10.1.0.5'] });
    expect(await call('DEL', { conf: there, containerID: 'a' })).toMatchObject({ exitCode: 0 });
    const second = await kubeIpam(['export', ...conf('there', there)]);
    const returned = await kubeIpam(['import', ...conf('back', back)], { input: second.stdout });
    expect(second.stderr + returned.stderr).toBe('');
    expect(returned).toMatchObject({ code: 0, stdout: expect.stringMatching(/^8 records written/) });
    expect(await call('DEL', { conf: back, containerID: 'd' })).toMatchObject({ exitCode: 0 });
    const left = JSON.parse((await kubeIpam(['ls', ...conf('back', back), '-o', 'json'])).stdout) as Json[];
    expect(left.map(({ address }) => address)).toEqual(['10.1.0.3', '10.1.0.4']);
  });

  it('no auto-compaction is advised against, and other ranges than recorded are warned of', async () => {
    using desk = new Desk();
    const etcdConfig = { etcdURL: cluster.endpoints.join(',') };
    const space = 'history';
    const recorded = { ranges: [[{ subnet: '10.7.0.0/24' }]], exclude: [], node: 'n', since: '2026-01-01T00:00:00Z' };
    await cluster.ctl('put', `/kube-ipam/v1/${space}/networks/net`, JSON.stringify(recorded));
    desk.network('net', { ...ipam, etcdConfig, addressSpace: space, dataDir: desk.dataDir });
    const { code, about } = await examine(desk);
    expect(code).toBe(0);
    expect(about('etcd', 'advice')).toMatchObject([{ text: expect.stringContaining('no auto-compaction') }]);
    expect(about('ranges', 'warning')).toMatchObject([{ subject: 'network net' }]);
    const revision = /"revision":(\d+)/.exec(await cluster.ctl('get', 'x', '-w', 'json'))![1]!;
    await cluster.ctl('put', 'later', 'x');
    await cluster.ctl('compact', String(Number(revision) + 1));
    expect((await examine(desk)).about('etcd', 'advice')).toEqual([]);
  });

  it('a full etcd is named with its cure, by the doctor and by a command that writes', async () => {
    using desk = new Desk();
    const etcdConfig = { etcdURL: cluster.endpoints.join(',') };
    desk.network('net', { ...ipam, etcdConfig, dataDir: desk.dataDir });
    await expect(fill(cluster)).rejects.toThrow('database space exceeded');
    const { code, about } = await examine(desk);
    expect(code).toBe(1);
    expect(about('etcd', 'wrong')).toMatchObject([
      { text: expect.stringContaining('NOSPACE'), advice: expect.stringContaining('etcdctl alarm disarm') },
    ]);
    const { code: failed, stdout, stderr } = await desk.run(['reserve', '10.1.0.9', '--reason', 'x']);
    expect({ failed, stdout }).toEqual({ failed: 1, stdout: '' });
    expect(stderr).toContain('is out of space and refuses writes (alarm NOSPACE)');
    expect(stderr).toContain('etcdctl alarm disarm');
  });
});

describe('over TLS', () => {
  it('status warns of certificates that end, and tells those that cannot be read', async () => {
    await using cluster = await startEtcd(anEngine(), { tls: { verifyClients: true } });
    using desk = new Desk();
    const { ca, namedClient } = cluster.certificates!;
    const etcdConfig = {
      etcdURL: cluster.endpoints.join(','),
      ...{ etcdTrustedCAFile: ca, etcdCertFile: namedClient.cert, etcdKeyFile: namedClient.key },
    };
    desk.network('net', { ...ipam, etcdConfig, dataDir: desk.dataDir });
    const { code, worst, about } = await examine(desk);
    expect({ code, worst }).toEqual({ code: 0, worst: 'warning' });
    expect(about('certificate', 'warning').map(({ subject }) => subject)).toEqual([
      namedClient.cert,
      ca,
      ...cluster.endpoints,
    ]);
    for (const { figures } of about('certificate')) expect([1, 2]).toContain(figures?.days);
    const flags = ['--etcd-url', cluster.endpoints.join(','), '--etcd-ca', ca];
    const client = ['--etcd-cert', namedClient.cert, '--etcd-key', namedClient.key];
    expect(await kubeIpam(['ls', ...flags, ...client])).toMatchObject({ code: 0 });
    expect(await kubeIpam(['ls', ...flags, '--timeout', '3'])).toMatchObject({ code: 3, stdout: '' });
    const named = await examine(desk, ...flags, ...client);
    expect({ code: named.code, worst: named.worst }).toEqual({ code: 0, worst: 'warning' });
    expect(named.about('etcd', 'fine')).not.toEqual([]);
    expect(named.about('certificate', 'warning')).toHaveLength(2 + cluster.endpoints.length);
    expect(['executable', 'configuration', 'ranges', 'log'].flatMap(area => named.about(area))).toEqual([]);
    expect(await examine(desk, ...flags, '--timeout', '3')).toMatchObject({ code: 3, worst: 'unreachable' });

    const expired = join(desk.folder, 'expired.crt');
    const [request, key] = [join(desk.folder, 'request'), join(desk.folder, 'key')];
    const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-subj', '/CN=old'];
    execFileSync('openssl', ['req', ...newKey, '-keyout', key, '-out', request], { stdio: 'ignore' });
    const signing = ['-req', '-in', request, '-signkey', key, '-days', '-1', '-out', expired];
    execFileSync('openssl', ['x509', ...signing], { stdio: 'ignore' });
    desk.network('net', { ...ipam, etcdConfig: { ...etcdConfig, etcdTrustedCAFile: expired }, dataDir: desk.dataDir });
    const old = await examine(desk, '--timeout', '5');
    expect(old.code).toBe(3);
    expect(old.about('certificate', 'wrong')).toMatchObject([
      { subject: expired, text: expect.stringContaining('ended on') },
    ]);
  });
});
