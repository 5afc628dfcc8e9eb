// Many commands at once on one etcd: fewer transactions, and for each of them the outcome that it would have had alone.
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import { CheckingKv } from '../../src/agent/checked-kv.ts';
import { ClaimBooks } from '../../src/agent/claims.ts';
import { Cursors } from '../../src/agent/cursors.ts';
import { GatheringKv } from '../../src/agent/gather.ts';
import { VerdictBooks } from '../../src/agent/verdicts.ts';
import { type Deadline, deadlineIn } from '../../src/base/clock.ts';
import { code } from '../../src/base/errors.ts';
import { Log } from '../../src/base/log.ts';
import { readNetworkConfig } from '../../src/ipam/config.ts';
import { surroundingsOf } from '../../src/ipam/open.ts';
import type { CursorMemory } from '../../src/ipam/ports.ts';
import { allocate } from '../../src/ipam/service/allocate.ts';
import { release } from '../../src/ipam/service/release.ts';
import { formatIp, type Ip, parseIp } from '../../src/net/ip.ts';
import { openGrpc } from '../../src/store/etcd/grpc.ts';
import {
  type Commit,
  type Kv,
  OutOfSpaceError,
  type Query,
  RefusedError,
  UnknownFateError,
} from '../../src/store/kv.ts';
import { holdings } from '../helpers/agreement.ts';
import { confOf, Ground, type Site } from '../helpers/plugin.ts';

let ground: Ground;
let site: Site;
let real: Kv;
let counting: CountingKv;
let kv: GatheringKv;

/** Counts what reaches the store, and may behave in its own way before. */
class CountingKv extends CheckingKv {
  reads = 0;
  commits = 0;
  before: (commit: Commit) => void | Promise<void> = () => {};

  override read(queries: readonly Query[], deadline: Deadline) {
    this.reads++;
    return super.read(queries, deadline);
  }

  override async commit(commit: Commit, deadline: Deadline) {
    this.commits++;
    await this.before(commit);
    return super.commit(commit, deadline);
  }
}

beforeAll(async () => {
  ground = await Ground.make('etcd');
  real = openGrpc(ground.cluster!.target());
});
beforeEach(async () => {
  site = await ground.site();
  counting = new CountingKv(real);
  kv = new GatheringKv(counting);
});
afterAll(async () => {
  await real[Symbol.asyncDispose]();
  await ground[Symbol.asyncDispose]();
});

const soon = () => deadlineIn(20_000);
const key = (n: number | string) => `${site.keys.prefix}cursors/test/${n}`;
const putNew = (n: number | string, value = 'x'): Commit => ({
  conditions: [{ absent: key(n) }],
  writes: [{ put: key(n), value }],
  otherwise: [{ key: key(n) }],
});
const numbers = (count: number) => Array.from({ length: count }, (_, n) => n);
const valueAt = async (n: number | string) =>
  (await real.read([{ key: key(n) }], soon())).answers[0]!.entries[0]?.value;

it('reads of one moment are one transaction, and what two ask for is asked once', async () => {
  await site.put(key('a'), 'A');
  await site.put(key('b'), 'B');
  const answers = await Promise.all(
    numbers(50).map(n => kv.read([{ key: key('a') }, { key: key(n % 2 ? 'b' : 'absent') }], soon())),
  );
  expect(counting.reads).toBe(1);
  for (const [
    n,
    {
      revision,
      answers: [first, second],
    },
  ] of answers.entries()) {
    expect(revision).toBe(answers[0]!.revision);
    expect(first!.entries.map(({ value }) => value)).toEqual(['A']);
    expect(second!.entries.map(({ value }) => value)).toEqual(n % 2 ? ['B'] : []);
  }
});

it('more reads than one transaction holds are several', async () => {
  const all = await Promise.all(numbers(90).map(n => kv.read([{ key: key(n) }, { key: key(`${n}b`) }], soon())));
  expect(all).toHaveLength(90);
  expect(counting.reads).toBe(2);
});

it('commits of one moment are one transaction', async () => {
  const results = await Promise.all(numbers(30).map(n => kv.commit(putNew(n, `v${n}`), soon())));
  expect(counting.commits).toBe(1);
  expect(new Set(results.map(({ won, revision }) => `${won} ${revision}`)).size).toBe(1);
  expect(await Promise.all(numbers(30).map(valueAt))).toEqual(numbers(30).map(n => `v${n}`));
});

it('one transaction holds thirty of them at most, and fewer where they are large', async () => {
  const sizes: number[] = [];
  counting.before = ({ conditions, writes, otherwise = [] }) => {
    sizes.push(Math.max(conditions.length, writes.length, otherwise.length));
  };
  await Promise.all(numbers(70).map(n => kv.commit(putNew(n), soon())));
  expect(sizes).toEqual([30, 30, 10]);
  sizes.length = 0;
  const large = (n: number): Commit => {
    const keys = numbers(25).map(part => key(`${n}-${part}`));
    return { conditions: keys.map(absent => ({ absent })), writes: keys.map(put => ({ put, value: 'x' })) };
  };
  const results = await Promise.all(numbers(10).map(n => kv.commit(large(n), soon())));
  expect(results.every(({ won }) => won)).toBe(true);
  // etcd takes 128 operations in a transaction.
  expect(sizes).toEqual([100, 100, 50]);
});

it('of a batch that loses, only those lose that would have lost alone, and are told what is there', async () => {
  await site.put(key(7), 'taken');
  await site.put(key(20), 'taken too');
  const results = await Promise.all(numbers(30).map(n => kv.commit(putNew(n), soon())));
  expect(results.flatMap(({ won }, n) => (won ? [] : [n]))).toEqual([7, 20]);
  const lost = results[7]!;
  expect(!lost.won && lost.answers[0]!.entries[0]!.value).toBe('taken');
  // The losers are told apart at once, and the others go together once more.
  expect(counting.commits).toBe(2);
});

it('one that asks of a key what cannot be loses', async () => {
  await site.put(key('a'), 'A');
  const { revision } = (await real.read([{ key: key('a') }], soon())).answers[0]!.entries[0]!;
  const conditions = [{ absent: key('a') }, { unchanged: key('a'), revision }];
  for (const order of [conditions, conditions.toReversed()]) {
    const commit = { conditions: order, writes: [{ put: key('b'), value: 'x' }], otherwise: [{ key: key('a') }] };
    expect(await kv.commit(commit, soon())).toMatchObject({ won: false, answers: [{ count: 1 }] });
  }
  expect(await valueAt('b')).toBeUndefined();
});

it('two that want the same key: one wins', async () => {
  const results = await Promise.all([1, 2, 3].map(n => kv.commit(putNew('same', String(n)), soon())));
  expect(results.filter(({ won }) => won)).toHaveLength(1);
  expect(await valueAt('same')).toBe(String(results.findIndex(({ won }) => won) + 1));
});

it('a key that all put blindly holds what the last one put', async () => {
  const commits = numbers(10).map(n => ({
    conditions: [{ absent: key(n) }],
    writes: [
      { put: key(n), value: '' },
      { put: key('cursor'), value: String(n) },
    ],
  }));
  await Promise.all(commits.map(commit => kv.commit(commit, soon())));
  expect(counting.commits).toBe(1);
  expect(await valueAt('cursor')).toBe('9');
});

it('what is not wanted any more is not written, and the others are', async () => {
  const gone = () => {
    throw new Error('gone');
  };
  const results = await Promise.allSettled(
    numbers(10).map(n => kv.commit(putNew(n), soon(), n === 4 ? gone : undefined)),
  );
  expect(results.flatMap(({ status }, n) => (status === 'rejected' ? [n] : []))).toEqual([4]);
  expect(await valueAt(4)).toBeUndefined();
  expect(await valueAt(5)).toBe('x');
});

it('each has its own deadline', async () => {
  counting.before = () => new Promise(resolve => setTimeout(resolve, 300));
  const results = await Promise.allSettled([kv.commit(putNew(1), deadlineIn(100)), kv.commit(putNew(2), soon())]);
  expect(results[0]).toMatchObject({ status: 'rejected', reason: expect.any(UnknownFateError) });
  expect(results[1]).toMatchObject({ status: 'fulfilled', value: { won: true } });
  // The commit was on its way when the time was over: that is what "unknown" means.
  expect(await valueAt(1)).toBe('x');
});

it('a store that is full refuses those that put, and takes those that only delete', async () => {
  await site.put(key('old'), 'x');
  counting.before = ({ writes }) => {
    if (writes.some(write => 'put' in write)) throw new OutOfSpaceError('full');
  };
  const deleting: Commit = { conditions: [], writes: [{ delete: key('old') }] };
  const results = await Promise.allSettled([
    ...numbers(4).map(n => kv.commit(putNew(n), soon())),
    kv.commit(deleting, soon()),
  ]);
  expect(results.map(({ status }) => status)).toEqual([...numbers(4).map(() => 'rejected'), 'fulfilled']);
  expect(await valueAt('old')).toBeUndefined();
});

it('what the store refuses to one is not refused to the others', async () => {
  counting.before = ({ writes }) => {
    if (writes.some(write => 'put' in write && write.put === key(3))) throw new RefusedError('no permission');
  };
  const results = await Promise.allSettled(numbers(6).map(n => kv.commit(putNew(n), soon())));
  expect(results.flatMap(({ status }, n) => (status === 'rejected' ? [n] : []))).toEqual([3]);
});

it('no update is lost: twenty that count at once', async () => {
  await site.put(key('count'), '0');
  await Promise.all(
    numbers(20).map(async () => {
      for (let done = 0; done < 3; ) {
        const entry = (await kv.read([{ key: key('count') }], soon())).answers[0]!.entries[0]!;
        const conditions = [{ unchanged: key('count'), revision: entry.revision }];
        const writes = [{ put: key('count'), value: String(Number(entry.value) + 1) }];
        if ((await kv.commit({ conditions, writes }, soon())).won) done++;
      }
    }),
  );
  expect(await valueAt('count')).toBe('60');
}, 120_000);

it('an ADD needs one read while nobody else moves the cursor, and two when somebody does', async () => {
  const config = readNetworkConfig(confOf(site, { subnet: '10.1.0.0/24' }), '1.0.0');
  const cursors = new Cursors().of('here');
  let sandboxes = 0;
  const calls = async (memory: CursorMemory | undefined, requested: readonly Ip[] = []) => {
    const id = { node: site.node, network: 'net', containerID: `pod-${++sandboxes}`, ifname: 'eth0' };
    const around = {
      ...surroundingsOf(config, counting, soon(), new Log(config.log)),
      ...(memory && { cursors: memory }),
    };
    const before = counting.reads;
    const owner = { id, cluster: 'default', machine: '', boot: '', netns: '' };
    const { addresses } = await allocate(around, config, owner, requested);
    return [counting.reads - before, ...addresses.map(({ ip }) => formatIp(ip))];
  };
  expect(await calls(cursors)).toEqual([2, '10.1.0.2']);
  expect(await calls(cursors)).toEqual([2, '10.1.0.3']);
  expect(await calls(cursors)).toEqual([1, '10.1.0.4']);
  expect(await calls(cursors)).toEqual([1, '10.1.0.5']);
  // Another node's ADD.
  expect(await calls(undefined)).toEqual([2, '10.1.0.6']);
  expect(await calls(cursors)).toEqual([2, '10.1.0.7']);
  expect(await calls(cursors)).toEqual([2, '10.1.0.8']);
  expect(await calls(cursors)).toEqual([1, '10.1.0.9']);
  // One address that is named needs no cursor.
  expect(await calls(undefined, [parseIp('10.1.0.77')!])).toEqual([1, '10.1.0.77']);
});

it('an ADD of as many sets as a network may have is no larger than it is alone', async () => {
  const ranges = numbers(32).map(n => [{ subnet: `10.1.${n}.0/24` }]);
  const config = readNetworkConfig(confOf(site, { ranges }), '1.0.0');
  const owner = { cluster: 'default', machine: '', boot: '', netns: '' };
  for (const last of [2, 3, 4]) {
    const id = { node: site.node, network: 'net', containerID: `pod-${last}`, ifname: 'eth0' };
    const around = surroundingsOf(config, kv, soon(), new Log(config.log));
    const { addresses } = await allocate(around, config, { id, ...owner }, []);
    expect(addresses.map(({ ip }) => formatIp(ip))).toEqual(numbers(32).map(n => `10.1.${n}.${last}`));
  }
});

it('a hundred ADDs and DELs at once: each its own addresses, in few transactions', async () => {
  const config = readNetworkConfig(
    confOf(site, { ranges: [[{ subnet: '10.1.0.0/24' }], [{ subnet: 'fd00::/64' }]] }),
    '1.0.0',
  );
  const books = new ClaimBooks();
  const around = () => ({ ...surroundingsOf(config, kv, soon(), new Log(config.log)), claims: books.open('here') });
  const idOf = (n: number) => ({ node: site.node, network: 'net', containerID: `pod-${n}`, ifname: 'eth0' });
  const machine = { cluster: 'default', machine: '', boot: '', netns: '' };
  const all = await Promise.all(numbers(100).map(n => allocate(around(), config, { id: idOf(n), ...machine }, [])));
  const given = all.flatMap(({ addresses }) => addresses.map(({ ip }) => formatIp(ip)));
  expect(new Set(given).size).toBe(200);
  // Alone they would be 300 calls, and many more where they reach for the same address.
  expect(counting.reads + counting.commits).toBeLessThan(60);
  expect((await holdings(site)).owners.size).toBe(200);
  counting.commits = 0;
  await Promise.all(numbers(100).map(n => release(around(), idOf(n), { cooldown: 0 })));
  expect(counting.commits).toBeLessThan(15);
  expect(await site.remains()).toEqual([]);
});

it('that a range is full is found out once for all who ask within a second; an address that comes free is seen at once', async () => {
  const config = readNetworkConfig(confOf(site, { subnet: '10.1.0.0/25' }), '1.0.0');
  const idOf = (n: number) => ({ node: site.node, network: 'net', containerID: `pod-${n}`, ifname: 'eth0' });
  const books = new VerdictBooks();
  const around = () => ({ ...surroundingsOf(config, kv, soon(), new Log(config.log)), verdicts: books.of('here') });
  const add = (n: number) =>
    allocate(around(), config, { id: idOf(n), cluster: 'default', machine: '', boot: '', netns: '' }, []);
  for (const n of numbers(125)) await add(n);
  const costs = async (n: number) => {
    counting.reads = 0;
    await expect(add(n)).rejects.toMatchObject({
      code: code.exhausted,
      message: expect.stringContaining('125 by pods'),
    });
    return counting.reads;
  };
  const first = await costs(1000);
  const others = [await costs(1001), await costs(1002)];
  expect(Math.max(...others)).toBeLessThan(first);
  await release(around(), idOf(77), { cooldown: 0 });
  expect((await add(1003)).addresses).toHaveLength(1);
  // Later it is found out anew.
  await new Promise(resolve => setTimeout(resolve, 1500));
  expect(await costs(1004)).toBe(first);
});

it('more ADDs at once than there are addresses: each address goes to one, the others are told', async () => {
  const config = readNetworkConfig(confOf(site, { subnet: '10.1.0.0/26' }), '1.0.0');
  const books = new ClaimBooks();
  const results = await Promise.allSettled(
    numbers(80).map(n => {
      const around = { ...surroundingsOf(config, kv, soon(), new Log(config.log)), claims: books.open('here') };
      const id = { node: site.node, network: 'net', containerID: `pod-${n}`, ifname: 'eth0' };
      return allocate(around, config, { id, cluster: 'default', machine: '', boot: '', netns: '' }, []);
    }),
  );
  const won = results.flatMap(result => (result.status === 'fulfilled' ? result.value.addresses : []));
  expect(new Set(won.map(({ ip }) => formatIp(ip))).size).toBe(61);
  const lost = results.filter(({ status }) => status === 'rejected');
  expect(lost).toHaveLength(19);
  for (const { reason } of lost as PromiseRejectedResult[]) expect(reason.code).toBe(100);
});
