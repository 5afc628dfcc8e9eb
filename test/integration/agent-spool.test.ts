// DELs while the store is away: kept on disk by the agent, done when it is back, and never after a newer ADD.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { Agent, until } from '../helpers/agent.ts';
import { holdings } from '../helpers/agreement.ts';
import { type EtcdCluster, startEtcd } from '../helpers/etcd.ts';
import { anEngine, confOf, Ground, type Json, type Site } from '../helpers/plugin.ts';
import { type Ended, run, start } from '../helpers/plugin-process.ts';

let cluster: EtcdCluster;
let ground: Ground;
let site: Site;
let agent: Agent;

beforeEach(async () => {
  cluster = await startEtcd(anEngine());
  ground = await Ground.make('etcd', cluster);
  site = await ground.site();
  agent = await Agent.start({ dataDir: site.folder });
});
afterEach(async () => {
  await agent[Symbol.asyncDispose]();
  await ground[Symbol.asyncDispose]();
});

function conf(ipam: Json = {}): Json {
  const ranges = [[{ subnet: '10.1.0.0/22' }], [{ subnet: 'fd00::/64' }]];
  return confOf(site, { ranges, timeout: 20, agentSocket: agent.socket, ...ipam });
}

/** Names of the files of waiting DELs. */
function waiting(): string[] {
  const folder = join(site.folder, 'spool');
  return existsSync(folder) ? readdirSync(folder) : [];
}

const names = (count: number) => Array.from({ length: count }, (_, n) => `pod-${n}`);
const away = () => cluster.members[0]!.kill();
const back = () => cluster.members[0]!.restart();

async function each(command: 'ADD' | 'DEL', ids: readonly string[], ipam: Json = {}): Promise<Ended[]> {
  const all = await Promise.all(ids.map(containerID => run(command, { conf: conf(ipam), containerID })));
  expect(all.flatMap(({ error }) => error?.msg ?? [])).toEqual([]);
  return all;
}

it('a DEL is answered while the store is away, and done when it is back', async () => {
  await each('ADD', ['pod-1']);
  await away();
  const [first] = await each('DEL', ['pod-1']);
  expect(first!.ms).toBeLessThan(15_000);
  await each('DEL', ['pod-1']);
  expect(waiting()).toHaveLength(1);
  expect(site.events().at(-1)).toMatchObject({ event: 'del', kept: expect.stringContaining('etcd') });
  expect(await agent.metric('kube_ipam_agent_requests_total{command="DEL",code="0"}')).toBe(2);
  await until(async () => (await agent.metric('kube_ipam_agent_spool_length')) === 1);
  await back();
  await until(() => waiting().length === 0, 60_000);
  expect(await site.remains()).toEqual([]);
  expect(agent.events.at(-1)).toMatchObject({ event: 'a DEL that waited is done', containerID: 'pod-1' });
  expect(await agent.metric('kube_ipam_agent_spool_length')).toBe(0);
});

it('a GC that waits for the store holds no STATUS up', async () => {
  await each('ADD', ['pod-1']);
  await cluster.members[0]!.stop();
  const etcdConfig = { ...(site.access.etcdConfig as Json), requestTimeout: 8 };
  const asked = { ...conf({ status: 'local', etcdConfig }), cniVersion: '1.1.0' };
  const collecting = start('GC', { conf: { ...asked, 'cni.dev/valid-attachments': [] }, containerID: '' });
  await until(async () => (await agent.metric('kube_ipam_agent_requests_in_flight')) === 1);
  const { exitCode, stdout } = await run('STATUS', { conf: asked, containerID: '' });
  expect([exitCode, stdout]).toEqual([0, '']);
  expect(collecting.child.exitCode).toBeNull();
  cluster.members[0]!.cont();
  await collecting.ended;
});

it('the plugin alone keeps nothing: code 11, and the runtime asks again', async () => {
  await each('ADD', ['pod-1']);
  await away();
  const { error } = await run('DEL', { conf: conf({ agentSocket: '', timeout: 2 }), containerID: 'pod-1' });
  expect(error?.code).toBe(11);
  expect(waiting()).toEqual([]);
});

it('a hundred at once, and an agent killed before the store is back: its successor does them all', async () => {
  await each('ADD', names(100));
  await away();
  await each('DEL', names(100));
  expect(waiting()).toHaveLength(100);
  await agent.end('SIGKILL');
  await back();
  await agent.start();
  await until(() => waiting().length === 0, 60_000);
  expect(await site.remains()).toEqual([]);
});

it('a newer ADD of the same container removes the DEL, through the agent or without one', async () => {
  await each('ADD', ['by-agent', 'alone']);
  await away();
  await each('DEL', ['by-agent', 'alone']);
  await agent.end('SIGKILL');
  await back();
  const [alone] = await each('ADD', ['alone'], { agentSocket: '' });
  expect(waiting()).toHaveLength(1);
  await agent.start();
  const [byAgent] = await each('ADD', ['by-agent']);
  await until(() => waiting().length === 0, 60_000);
  await sleep(3000);
  const { attachments } = await holdings(site);
  expect(attachments.get('alone/eth0')).toEqual(alone!.addresses);
  expect(attachments.get('by-agent/eth0')).toEqual(byAgent!.addresses);
});

it('a plugin that deletes the same container removes the waiting DEL too', async () => {
  await each('ADD', ['pod-1']);
  await away();
  await each('DEL', ['pod-1']);
  await agent.end('SIGKILL');
  await back();
  await each('DEL', ['pod-1'], { agentSocket: '' });
  expect(waiting()).toEqual([]);
  expect(await site.remains()).toEqual([]);
});

it('ADDs of the same containers race with their waiting DELs: what an ADD answered lives', async () => {
  const ids = names(20);
  await each('ADD', ids);
  await away();
  await each('DEL', ids);
  expect(waiting()).toHaveLength(20);
  await back();
  // The agent begins with the DELs at some moment of these.
  const agentSocket = (n: number) => (n % 2 === 0 ? agent.socket : '');
  const answers = await Promise.all(
    ids.map(async (containerID, n) => {
      await sleep(Math.random() * 4000);
      return run('ADD', { conf: conf({ agentSocket: agentSocket(n) }), containerID });
    }),
  );
  await until(() => waiting().length === 0, 60_000);
  await sleep(1000);
  const { attachments } = await holdings(site);
  for (const [n, { error, addresses }] of answers.entries()) {
    expect(error?.msg).toBeUndefined();
    expect(attachments.get(`${ids[n]}/eth0`)).toEqual(addresses);
  }
});

it('a full disk: the DEL fails with code 11, and is done once there is room', async () => {
  await agent.end('SIGKILL');
  mkdirSync(site.folder, { recursive: true });
  const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', site.folder]);
  expect(String(mounted.stderr)).toBe('');
  try {
    await agent.start();
    await each('ADD', ['pod-1']);
    await away();
    const ballast = join(site.folder, 'ballast');
    expect(() => writeFileSync(ballast, Buffer.alloc(1 << 20))).toThrow(/ENOSPC/);
    const { error } = await run('DEL', { conf: conf(), containerID: 'pod-1' });
    expect(error).toMatchObject({ code: 11, msg: expect.stringContaining('cannot be kept') });
    expect(waiting()).toEqual([]);
    rmSync(ballast);
    await each('DEL', ['pod-1']);
    expect(waiting()).toHaveLength(1);
    await back();
    await until(() => waiting().length === 0, 60_000);
    expect(await site.remains()).toEqual([]);
  } finally {
    await agent.end('SIGKILL');
    spawnSync('umount', [site.folder]);
  }
});

it('the embedded store, locked by another process: kept as well', async () => {
  await using local = await Ground.make('embedded');
  site = await local.site();
  await agent.end('SIGKILL');
  await using own = await Agent.start({ dataDir: site.folder });
  await each('ADD', ['pod-1'], { agentSocket: own.socket });
  const locker = new DatabaseSync(join(site.folder, 'store.db'));
  locker.exec('BEGIN IMMEDIATE');
  await each('DEL', ['pod-1'], { agentSocket: own.socket });
  expect(waiting()).toHaveLength(1);
  locker.exec('ROLLBACK');
  locker.close();
  await until(() => waiting().length === 0, 60_000);
  expect(await site.remains()).toEqual([]);
});
