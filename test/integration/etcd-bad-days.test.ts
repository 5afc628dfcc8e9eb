// Bad days of an etcd cluster, seen by the plugin: members dead, silent or full, and nodes that disagree.
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { sha256 } from '../../src/base/sha256.ts';
import { parseIp } from '../../src/net/ip.ts';
import { type EtcdCluster, startEtcd } from '../helpers/etcd.ts';
import { fillUp, freeUp, smallQuota } from '../helpers/fill-etcd.ts';
import { anEngine, call, confOf, Ground, type Json, type Site } from '../helpers/plugin.ts';
import { run } from '../helpers/plugin-process.ts';

const subnet = { subnet: '10.1.0.0/24' };
let ground: Ground;
let site: Site;
const conf = (ipam: Json = {}, more: Json = {}) =>
  confOf(site, { ...subnet, timeout: 20, ...ipam }, { cniVersion: '1.1.0', ...more });

async function prepare(cluster: EtcdCluster): Promise<void> {
  ground = await Ground.make('etcd', cluster);
}

describe('three members', () => {
  beforeAll(async () => prepare(await startEtcd(anEngine(), { members: 3 })));
  beforeEach(async () => {
    site = await ground.site();
  });
  afterEach(async () => {
    for (const member of ground.cluster!.members) if (!member.running) await member.restart();
    await ground.cluster!.ready();
  });
  afterAll(() => ground?.[Symbol.asyncDispose]());

  it.each([0, 1, 2])('member %i is dead: ADD, CHECK, STATUS and DEL work', async dead => {
    await ground.cluster!.members[dead]!.kill();
    for (const command of ['ADD', 'CHECK', 'STATUS', 'DEL'] as const) {
      expect(await run(command, { conf: conf() })).toMatchObject({ exitCode: 0, stderr: '' });
    }
    expect(await site.remains()).toEqual([]);
  });

  it('member 0 takes connections and says nothing: ADD and DEL work', async () => {
    const silent = ground.cluster!.members[0]!;
    const etcdConfig = { ...(site.access.etcdConfig as Json), requestTimeout: '700ms' };
    silent.stop();
    try {
      for (const command of ['ADD', 'DEL'] as const) {
        expect(await run(command, { conf: conf({ etcdConfig }) })).toMatchObject({ exitCode: 0, stderr: '' });
      }
    } finally {
      silent.cont();
    }
    expect((await site.remains()).filter(key => !key.includes('/fences/'))).toEqual([]);
  });

  it('two are dead, so nobody can write: ADD gives code 11 within its budget, and nothing stays behind', async () => {
    const [first, second] = ground.cluster!.members;
    await Promise.all([first!.kill(), second!.kill()]);
    const answer = await run('ADD', { conf: conf({ timeout: 2 }) });
    expect(answer).toMatchObject({ exitCode: 1, error: { code: 11 }, stderr: '' });
    expect(answer.ms).toBeLessThan(6000);
    await first!.restart();
    expect((await run('DEL', { conf: conf() })).exitCode).toBe(0);
    expect((await site.remains()).filter(key => !key.includes('/fences/'))).toEqual([]);
  });
});

describe('one member', () => {
  beforeAll(async () => prepare(await startEtcd(anEngine())));
  beforeEach(async () => {
    site = await ground.site();
  });
  afterEach(async () => {
    const [member] = ground.cluster!.members;
    member!.cont();
    if (!member!.running) await member!.restart();
  });
  afterAll(() => ground?.[Symbol.asyncDispose]());

  it.each(['dead', 'silent'])(
    '10.4 %s: ADD and DEL give code 11 within the budget and name the endpoint; nothing is lost',
    async how => {
      const [member] = ground.cluster!.members;
      expect((await run('ADD', { conf: conf() })).exitCode).toBe(0);
      if (how === 'dead') await member!.kill();
      else member!.stop();
      const answers = await Promise.all([
        run('ADD', { conf: conf({ timeout: 2 }), containerID: 'new' }),
        run('DEL', { conf: conf({ timeout: 2 }) }),
        run('CHECK', { conf: conf({ timeout: 2 }) }),
      ]);
      for (const answer of answers) {
        expect(answer).toMatchObject({
          exitCode: 1,
          error: { code: 11, msg: expect.stringContaining(member!.endpoint) },
          stderr: '',
        });
        expect(answer.ms).toBeLessThan(6000);
      }
      const status = await run('STATUS', { conf: conf({ timeout: 2 }) });
      expect(status).toMatchObject({ error: { code: 50, msg: expect.stringContaining(member!.endpoint) } });
      expect(await run('STATUS', { conf: conf({ timeout: 2, status: 'local' }) })).toMatchObject({ exitCode: 0 });
      if (how === 'dead') await member!.restart();
      else member!.cont();
      expect((await run('CHECK', { conf: conf() })).exitCode).toBe(0);
      for (const containerID of ['pod-1', 'new'])
        expect((await run('DEL', { conf: conf(), containerID })).exitCode).toBe(0);
      expect((await site.remains()).filter(key => !key.includes('/fences/'))).toEqual([]);
    },
  );

  it('6.4 DEL rides out an outage: etcd comes back within the budget', async () => {
    const [member] = ground.cluster!.members;
    await run('ADD', { conf: conf() });
    await member!.kill();
    const deleting = run('DEL', { conf: conf({ timeout: 60 }) });
    await sleep(1500);
    await member!.restart();
    expect(await deleting).toMatchObject({ exitCode: 0, stdout: '', stderr: '' });
    expect(await site.remains()).toEqual([]);
  });

  it('an endpoint that is no etcd, and one that nobody resolves', async () => {
    const etcdConfig = { etcdURL: 'http://etcd.invalid:2379,http://127.0.0.1:1', dialTimeout: '500ms' };
    const answer = await run('ADD', { conf: conf({ etcdConfig, timeout: 3 }) });
    expect(answer).toMatchObject({
      error: { code: 11, msg: expect.stringMatching(/etcd\.invalid.*127\.0\.0\.1:1/) },
      stderr: '',
    });
  });

  it('two hosts with the same container ID have nothing to do with each other', async () => {
    const on = (nodeName: string) => conf({ nodeName, timeout: '1h' });
    const [a, b] = [await call('ADD', { conf: on('node-a') }), await call('ADD', { conf: on('node-b') })];
    expect([a.addresses, b.addresses]).toEqual([['10.1.0.2'], ['10.1.0.3']]);
    expect((await call('DEL', { conf: on('node-a') })).exitCode).toBe(0);
    expect((await call('CHECK', { conf: on('node-b') })).exitCode).toBe(0);
    expect((await call('CHECK', { conf: on('node-a') })).error?.code).toBe(106);
    expect((await call('GC', { conf: { ...on('node-a'), 'cni.dev/valid-attachments': [] } })).exitCode).toBe(0);
    expect((await call('CHECK', { conf: on('node-b') })).exitCode).toBe(0);
  });

  it('a node with other ranges: the log says who recorded which, and addresses stay distinct', async () => {
    await call('ADD', { conf: conf({ timeout: '1h' }) });
    const other = conf({ timeout: '1h', nodeName: 'node-b', subnet: '10.1.0.0/16', exclude: ['10.1.9.9'] });
    const { addresses } = await call('ADD', { conf: other });
    expect(addresses).toEqual(['10.1.0.3']);
    const warning = site.events().find(({ level }) => level === 'warn');
    expect(warning).toMatchObject({
      event: expect.stringContaining('ranges differ'),
      recordedBy: 'node-a',
      network: 'net',
    });
    expect(warning?.ours).toContain('10.1.0.0/16');
    expect(site.events().filter(({ level }) => level === 'warn')).toHaveLength(1);
  });

  it('the same network in two spaces, and two networks in one', async () => {
    const spaces = [conf({ timeout: '1h' }), conf({ timeout: '1h', addressSpace: `${site.keys.space}-2` })];
    const given = [];
    for (const one of spaces) given.push((await call('ADD', { conf: one })).addresses);
    expect(given).toEqual([['10.1.0.2'], ['10.1.0.2']]);
    expect((await call('ADD', { conf: conf({ timeout: '1h' }, { name: 'net2' }) })).addresses).toEqual(['10.1.0.3']);
  });
});

describe('out of space', () => {
  beforeAll(async () => {
    await prepare(await startEtcd(anEngine(), { flags: smallQuota }));
    site = await ground.site();
  });
  afterAll(() => ground?.[Symbol.asyncDispose]());

  it('ADD gives code 104 with the cure; DEL works, with cooldown and with a doubt too', async () => {
    const of = conf({ timeout: '1h' });
    for (const containerID of ['a', 'b', 'c']) expect((await call('ADD', { conf: of, containerID })).exitCode).toBe(0);
    await fillUp(site);
    const { error } = await call('ADD', { conf: of, containerID: 'new' });
    expect(error).toMatchObject({ code: 104, msg: expect.stringMatching(/compact.*defrag.*alarm disarm/) });
    expect(await run('ADD', { conf: conf(), containerID: 'new' })).toMatchObject({ error: { code: 104 }, stderr: '' });
    const status = (mode: string) => run('STATUS', { conf: { ...conf({ status: mode }), cniVersion: '1.1.0' } });
    const refusal = { code: 50, msg: expect.stringMatching(/out of space.*alarm disarm/) };
    expect(await status('full')).toMatchObject({ exitCode: 1, error: refusal, stderr: '' });
    expect(await status('local')).toMatchObject({ exitCode: 0, stdout: '' });

    expect((await call('DEL', { conf: of, containerID: 'a' })).exitCode).toBe(0);
    expect((await call('DEL', { conf: conf({ timeout: '1h', cooldown: 60 }), containerID: 'b' })).exitCode).toBe(0);
    const doubt = sha256([site.node, 'net', 'c', 'eth0'].join('\0'));
    mkdirSync(join(site.folder, 'doubt'), { recursive: true });
    writeFileSync(join(site.folder, 'doubt', doubt), '');
    expect((await call('DEL', { conf: of, containerID: 'c' })).exitCode).toBe(0);
    expect(readdirSync(join(site.folder, 'doubt')), 'the doubt stays until a fence can be put').toEqual([doubt]);
    expect((await site.remains()).filter(key => !key.includes('/filler/'))).toEqual([]);
    expect(site.events().map(({ event }) => event)).toContain(
      'released without hold or fence: the store is out of space',
    );

    await ground.cluster!.ctl('alarm', 'list').then(text => expect(text).toContain('NOSPACE'));
    await freeUp(site, ground.cluster!);
    expect((await call('DEL', { conf: of, containerID: 'c' })).exitCode).toBe(0);
    expect(existsSync(join(site.folder, 'doubt', doubt))).toBe(false);
    expect((await site.remains()).filter(key => key.includes('/fences/'))).toHaveLength(1);
    expect((await call('ADD', { conf: of, containerID: 'new' })).addresses).toEqual([
      expect.stringMatching(/^10\.1\.0\.\d+$/),
    ]);
    expect(await site.remains()).toContain(site.keys.address(parseIp('10.1.0.5')!));
  }, 120_000);
});
