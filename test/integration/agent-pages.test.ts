// What supervisors and Prometheus see of the agent: alive, ready or waiting for what, and figures in the expected format.

import { spawnSync } from 'node:child_process';
import { statSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { deadlineIn } from '../../src/base/clock.ts';
import { nodeNameOf } from '../../src/base/node-name.ts';
import { askAgent } from '../../src/ipc/client.ts';
import type { Request } from '../../src/ipc/protocol.ts';
import { Agent, until } from '../helpers/agent.ts';
import { type EtcdCluster, startEtcd } from '../helpers/etcd.ts';
import { anEngine, confOf, environment, Ground, type Json, type Site } from '../helpers/plugin.ts';
import { program, run } from '../helpers/plugin-process.ts';

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

function conf(): Json {
  return confOf(site, { subnet: '10.64.0.0/12', timeout: 20, agentSocket: agent.socket }, { name: 'pods' });
}

interface Ready {
  readonly ready: boolean;
  readonly parts: Readonly<Record<string, { ready: boolean; detail: string }>>;
}

async function readyz(): Promise<Ready & { status: number }> {
  const { status, body } = await agent.page('/readyz');
  return { status, ...(JSON.parse(body) as Ready) };
}

it('/healthz says ok, whatever stores and other parts do', async () => {
  expect(await agent.page('/healthz')).toEqual({ status: 200, body: 'ok\n' });
  writeFileSync(join(agent.folder, 'net.d', '10-pods.conf'), JSON.stringify(conf()));
  await agent.end();
  await cluster.members[0]!.kill();
  await agent.start();
  await until(async () => (await readyz()).status === 503);
  expect(await agent.page('/healthz')).toEqual({ status: 200, body: 'ok\n' });
});

it('/readyz names each part, and what it waits for', async () => {
  writeFileSync(join(agent.folder, 'net.d', '10-pods.conf'), JSON.stringify(conf()));
  await agent.end();
  await agent.start();
  await until(async () => (await readyz()).parts.stores!.detail === '1 of etcd, all answer');
  const { parts } = await readyz();
  expect(parts.socket).toEqual({ ready: true, detail: agent.socket });
  expect(parts.spool).toEqual({ ready: true, detail: '0 waiting' });
  await agent.end();
  await cluster.members[0]!.kill();
  await agent.start();
  await until(async () => (await readyz()).parts.stores!.detail !== 'not asked yet');
  expect(await readyz()).toMatchObject({
    status: 503,
    ready: false,
    parts: {
      stores: { ready: false, detail: expect.stringContaining('etcd cannot be reached') },
      socket: { ready: true },
    },
  });
  expect(await agent.metric('kube_ipam_agent_stores_away')).toBe(1);
});

it('/metrics is in the format of Prometheus, and counts by command and code', async () => {
  expect((await run('ADD', { conf: conf() })).exitCode).toBe(0);
  expect((await run('CHECK', { conf: conf(), containerID: 'other' })).exitCode).toBe(1);
  expect((await run('DEL', { conf: conf() })).exitCode).toBe(0);
  const { body } = await agent.page('/metrics');
  const name = '[a-z_]+';
  const label = `${name}="(?:[^"\\\\\\n]|\\\\.)*"`;
  const line = new RegExp(
    `^(# HELP ${name} \\S.*|# TYPE ${name} (counter|gauge|histogram)|${name}(\\{${label}(,${label})*\\})? [-+.e0-9]+)$`,
  );
  const lines = body.split('\n').slice(0, -1);
  expect(lines.filter(one => !line.test(one))).toEqual([]);
  // Each family once, its help and type first, every counter with the ending that people expect.
  const types = lines.flatMap(one => /^# TYPE (\S+) (\S+)$/.exec(one)?.slice(1, 3).join(' ') ?? []);
  expect(new Set(types).size).toBe(types.length);
  for (const type of types) expect(type).toMatch(/_total counter$|(?<!_total) gauge$|_seconds histogram$/);
  const count = (labels: string) => agent.metric(`kube_ipam_agent_requests_total{${labels}}`);
  expect(await count('command="ADD",code="0"')).toBe(1);
  expect(await count('command="CHECK",code="106"')).toBe(1);
  expect(await count('command="DEL",code="0"')).toBe(1);
  const duration = 'kube_ipam_agent_request_duration_seconds';
  expect(await agent.metric(`${duration}_count{command="ADD"}`)).toBe(1);
  expect(await agent.metric(`${duration}_bucket{command="ADD",le="+Inf"}`)).toBe(1);
  expect(lines.some(one => /^kube_ipam_build_info\{version=".+",commit=".+",node="[\d.]+"\} 1$/.test(one))).toBe(true);
  expect(await agent.metric('process_resident_memory_bytes')).toBeGreaterThan(30e6);
});

it('answers nothing else, and is held up by nobody', async () => {
  expect((await agent.page('/')).status).toBe(404);
  expect((await agent.page('/debug/pprof')).status).toBe(404);
  const { port } = agent.events.find(({ event }) => event === 'agent started') as { port: number };
  const said = await new Promise<string>(resolve => {
    const socket = net.connect(port, '127.0.0.1', () =>
      socket.end('POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n'),
    );
    socket.on('data', piece => resolve(String(piece)));
  });
  expect(said).toMatch(/^HTTP\/1.1 405 /);
  // Seventy that say nothing.
  const silent = Array.from({ length: 70 }, () => net.connect(port, '127.0.0.1').on('error', () => {}));
  await Promise.all(silent.map(socket => new Promise(resolve => socket.once('connect', resolve))));
  const begun = performance.now();
  expect((await agent.page('/healthz')).status).toBe(200);
  expect(performance.now() - begun).toBeLessThan(3000);
  for (const socket of silent) socket.destroy();
});

it.each([
  [['--listen', 'here'], '--listen "here": must be HOST:PORT'],
  [['--listen', '127.0.0.1:70000'], 'must be HOST:PORT'],
  [['--socket', 'agent.sock'], '--socket agent.sock: must be an absolute path'],
  [['--socket', '/proc/1/agent.sock'], 'not below /proc'],
  [['--log-level', 'loud'], 'log-level'],
  [['--plugin-account', 'plugin'], '--plugin-account "plugin": must be NAMESPACE/NAME'],
  [['--gc-interval', '10ms'], '--gc-interval: at least 1s'],
])('refuses %j', (flags, message) => {
  const { status, stderr } = spawnSync(program, ['agent', ...flags], { encoding: 'utf8', env: {}, timeout: 30_000 });
  expect([status, stderr]).toEqual([2, expect.stringContaining(message)]);
});

it('says which port is taken, and does not start', () => {
  const { port } = agent.events.find(({ event }) => event === 'agent started') as { port: number };
  const places = ['--socket', join(agent.folder, 'other.sock'), '--data-dir', site.folder, '--state-dir', agent.folder];
  const flags = ['agent', ...places, '--kubeconfig', 'off', '--listen', `127.0.0.1:${port}`];
  const { status, stderr } = spawnSync(program, flags, { encoding: 'utf8', env: {}, timeout: 30_000 });
  expect([status, stderr]).toEqual([1, expect.stringContaining(`cannot listen on 127.0.0.1:${port}`)]);
});

it('a thousand requests at once: all are answered, no address twice, and the memory is given back', async () => {
  const same = (path: string) => {
    const { dev = 0, ino = 0 } = statSync(path, { throwIfNoEntry: false }) ?? {};
    return { path, dev, ino };
  };
  const now = () => Number(process.hrtime.bigint()) / 1e6;
  const ask = async (command: string, n: number, tries = 1): Promise<string> => {
    const { CNI_PATH: _, ...env } = environment(command, { containerID: `pod-${n}` });
    const request: Request = {
      v: 1,
      env,
      conf: JSON.stringify(conf()),
      started: now(),
      deadline: now() + 60_000,
      node: nodeNameOf(undefined),
      files: [same(site.folder), same('/etc/machine-id')],
    };
    const outcome = await askAgent(agent.socket, request, deadlineIn(60_000));
    // On a busy machine "taken" may come too late; nothing was begun then, and a plugin would do it itself.
    if (outcome === 'self' && tries < 20) return ask(command, n, tries + 1);
    if (typeof outcome !== 'object' || outcome.answer.exitCode !== 0) throw new Error(JSON.stringify(outcome));
    return outcome.answer.stdout;
  };
  const numbers = Array.from({ length: 1000 }, (_, n) => n);
  const answers = await Promise.all(numbers.map(n => ask('ADD', n)));
  expect(new Set(answers.map(text => JSON.parse(text).ips[0].address)).size).toBe(1000);
  await Promise.all(numbers.map(n => ask('DEL', n)));
  expect(await site.remains()).toEqual([]);
  expect(await agent.metric('kube_ipam_agent_requests_in_flight')).toBe(0);
  await until(async () => ((await agent.metric('process_resident_memory_bytes')) ?? 0) < 150e6, 60_000);
}, 240_000);
