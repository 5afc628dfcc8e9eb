// Commits that etcd applies long after their client gave up: a follower is stopped with the commit in its hands, the
// pod comes and goes through another member, the follower wakes up. Nothing may be left.
import { existsSync, mkdtempSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { deadlineIn } from '../../src/base/clock.ts';
import { FailureError } from '../../src/base/errors.ts';
import { readNetworkConfig } from '../../src/ipam/config.ts';
import { openSurroundings } from '../../src/ipam/open.ts';
import type { Surroundings } from '../../src/ipam/ports.ts';
import { allocate } from '../../src/ipam/service/allocate.ts';
import { release } from '../../src/ipam/service/release.ts';
import type { AttachmentId } from '../../src/store/keys.ts';
import type { Kv } from '../../src/store/kv.ts';
import { type EtcdCluster, startEtcd } from '../helpers/etcd.ts';
import { anEngine, confOf, Ground, type Site } from '../helpers/plugin.ts';

const rounds = 8;

let cluster: EtcdCluster;
let ground: Ground;
beforeAll(async () => {
  cluster = await startEtcd(anEngine(), { members: 3 });
  ground = await Ground.make('etcd', cluster);
});
afterAll(() => ground?.[Symbol.asyncDispose]());

/** A member that does not lead: what it takes, it passes on. */
async function follower() {
  const statuses = JSON.parse(await cluster.ctl('endpoint', 'status', '-w', 'json')) as {
    readonly Endpoint: string;
    readonly Status: { readonly header: { readonly member_id: number }; readonly leader: number };
  }[];
  const following = statuses.find(({ Status }) => Status.header.member_id !== Status.leader);
  const member = cluster.members.find(({ endpoint }) => endpoint === following?.Endpoint);
  if (member === undefined) throw new Error(`no member follows: ${JSON.stringify(statuses)}`);
  return member;
}

/** As the store, but `before` happens just before its first commit is sent. */
function beforeFirstCommit(kv: Kv, before: () => void): Kv {
  let first = true;
  return {
    read: (queries, deadline) => kv.read(queries, deadline),
    scan: (from, to, deadline) => kv.scan(from, to, deadline),
    commit(commit, deadline) {
      if (first) before();
      first = false;
      return kv.commit(commit, deadline);
    },
    [Symbol.asyncDispose]: () => kv[Symbol.asyncDispose](),
  };
}

const id = (containerID: string): AttachmentId => ({ node: 'node-a', network: 'net', containerID, ifname: 'eth0' });

/** What one command of the plugin works with; its endpoints in this order, and its own state folder. */
async function surroundings(site: Site, endpoints: readonly string[], dataDir: string, budget: number) {
  const etcdConfig = { etcdURL: endpoints.join(','), requestTimeout: '300ms', dialTimeout: '300ms' };
  const config = readNetworkConfig(confOf(site, { subnet: '10.1.0.0/24', etcdConfig, dataDir }), '1.0.0');
  const around = await openSurroundings(config, deadlineIn(budget));
  return { config, around };
}

const owner = (containerID: string, { machine }: Surroundings) => ({
  id: id(containerID),
  cluster: 'default',
  ...machine,
  netns: '',
});
const fences = async (site: Site) => (await site.remains()).filter(key => key.includes('/fences/'));
const others = async (site: Site) => (await site.remains()).filter(key => !key.includes('/fences/'));

/** Long enough for the member to rejoin and for what it kept to be applied, or refused. */
async function wake(member: { cont(): void }): Promise<void> {
  member.cont();
  await cluster.ready();
  await sleep(600);
}

describe('a follower that is stopped while it holds the commit of an ADD', () => {
  it(`${rounds} times: the second try wins through another member, DEL comes, the follower wakes: nothing is left`, async () => {
    const site = await ground.site();
    for (let round = 0; round < rounds; round++) {
      const stopped = await follower();
      const order = [stopped.endpoint, ...cluster.endpoints.filter(one => one !== stopped.endpoint)];
      const dataDir = mkdtempSync(join(ground.folder, 'state-'));
      const { config, around } = await surroundings(site, order, dataDir, 20_000);
      const pod = `pod-${round}`;
      try {
        const kv = beforeFirstCommit(around.kv, () => stopped.stop());
        const { addresses } = await allocate({ ...around, kv }, config, owner(pod, around), []);
        expect(addresses).toHaveLength(1);
        expect(await fences(site), 'the second try put the fence').toHaveLength(round + 1);
        expect(await release(around, id(pod), { cooldown: 0 })).toHaveLength(1);
      } finally {
        await wake(stopped);
      }
      expect(await others(site), `round ${round}`).toEqual([]);
      expect(existsSync(join(dataDir, 'doubt')), 'an ADD that answered leaves no doubt').toBe(false);
      await around.kv[Symbol.asyncDispose]();
    }
  }, 180_000);

  it(`${rounds} times: the ADD gives up and leaves a doubt, its DEL puts the fence, the follower wakes: nothing is left`, async () => {
    const site = await ground.site();
    for (let round = 0; round < rounds; round++) {
      const stopped = await follower();
      const dataDir = mkdtempSync(join(ground.folder, 'state-'));
      const doubts = () => (existsSync(join(dataDir, 'doubt')) ? readdirSync(join(dataDir, 'doubt')) : []);
      const pod = `pod-${round}`;
      const adding = await surroundings(site, [stopped.endpoint], dataDir, 1500);
      const deleting = await surroundings(site, cluster.endpoints, dataDir, 20_000);
      try {
        const kv = beforeFirstCommit(adding.around.kv, () => stopped.stop());
        const given = allocate({ ...adding.around, kv }, adding.config, owner(pod, adding.around), []);
        await expect(given).rejects.toBeInstanceOf(FailureError);
        await expect(given).rejects.toMatchObject({ code: 11 });
        expect(doubts(), 'the ADD left a doubt').toHaveLength(1);
        await release(deleting.around, id(pod), { cooldown: 0 });
        expect(await fences(site)).toHaveLength(round + 1);
        expect(doubts(), 'the fence stands for it now').toEqual([]);
      } finally {
        await wake(stopped);
      }
      expect(await others(site), `round ${round}`).toEqual([]);
      for (const { around } of [adding, deleting]) await around.kv[Symbol.asyncDispose]();
    }
  }, 180_000);

  it('a new ADD of the same container after the fence works, also when the fence runs out under its hands', async () => {
    const site = await ground.site();
    const { config, around } = await surroundings(
      site,
      cluster.endpoints,
      mkdtempSync(join(ground.folder, 'state-')),
      20_000,
    );
    const fence = site.keys.fence(id('pod'));
    await site.put(fence, { since: 'now' });
    expect((await allocate(around, config, owner('pod', around), [])).addresses).toHaveLength(1);
    await release(around, id('pod'), { cooldown: 0 });
    // etcd ends the fence's lease between the ADD's read and its commit.
    const expiring: Kv = {
      ...beforeFirstCommit(around.kv, () => {}),
      commit: async (commit, deadline) => {
        await site.remove(fence);
        return around.kv.commit(commit, deadline);
      },
    };
    expect((await allocate({ ...around, kv: expiring }, config, owner('pod', around), [])).addresses).toHaveLength(1);
    await release(around, id('pod'), { cooldown: 0 });
    expect(await site.remains()).toEqual([]);
    await around.kv[Symbol.asyncDispose]();
  });

  it('a DEL that puts a fence while the ADD is under way withdraws the ADD', async () => {
    const site = await ground.site();
    const { config, around } = await surroundings(
      site,
      cluster.endpoints,
      mkdtempSync(join(ground.folder, 'state-')),
      20_000,
    );
    let first = true;
    const withdrawing: Kv = {
      ...beforeFirstCommit(around.kv, () => {}),
      commit: async (commit, deadline) => {
        if (first) await site.put(site.keys.fence(id('pod')), { since: 'now' }, 60);
        first = false;
        return around.kv.commit(commit, deadline);
      },
    };
    const given = allocate({ ...around, kv: withdrawing }, config, owner('pod', around), []);
    await expect(given).rejects.toMatchObject({
      code: 11,
      message: expect.stringContaining('a DEL of this container came'),
    });
    expect(await others(site)).toEqual([]);
    await around.kv[Symbol.asyncDispose]();
  });
});
