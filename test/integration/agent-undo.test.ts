// Taking back an ADD whose plugin has left: exactly what it made, whatever became of the commit, and nothing that lives.
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import { GuardedKv } from '../../src/agent/guard.ts';
import { undo } from '../../src/agent/undo.ts';
import { deadlineIn } from '../../src/base/clock.ts';
import { readNetworkConfig } from '../../src/ipam/config.ts';
import { openSurroundings } from '../../src/ipam/open.ts';
import type { Surroundings } from '../../src/ipam/ports.ts';
import type { Owner } from '../../src/ipam/records.ts';
import { allocate } from '../../src/ipam/service/allocate.ts';
import type { Commit, CommitResult, Kv } from '../../src/store/kv.ts';
import { UnknownFateError } from '../../src/store/kv.ts';
import { call, confOf, Ground, type Site } from '../helpers/plugin.ts';

let ground: Ground;
let site: Site;
let around: Surroundings;

beforeAll(async () => {
  ground = await Ground.make('etcd');
});
beforeEach(async () => {
  site = await ground.site();
  around = await openSurroundings(configOf(), deadlineIn(60_000));
});
afterAll(() => ground[Symbol.asyncDispose]());

const ipam = { ranges: [[{ subnet: '10.1.0.0/24' }], [{ subnet: 'fd00::/64' }]] };
const configOf = () => readNetworkConfig(confOf(site, ipam), '1.0.0');
const fences = async () => (await site.remains()).filter(key => key.includes('/fences/'));
const holdings = async () => (await site.remains()).filter(key => !key.includes('/fences/'));

function owner(): Owner {
  const id = { node: site.node, network: 'net', containerID: 'pod-1', ifname: 'eth0' };
  return { id, cluster: 'default', ...around.machine, netns: '/run/netns/pod-1' };
}

/** An ADD as the agent does it, on a store whose commits may behave in their own way. */
async function add(commitsOf: (real: Kv) => Kv['commit'] = real => real.commit.bind(real)): Promise<GuardedKv> {
  const real = around.kv;
  const kv: Kv = {
    read: real.read.bind(real),
    scan: real.scan.bind(real),
    commit: commitsOf(real),
    [Symbol.asyncDispose]: async () => {},
  };
  const guarded = new GuardedKv(kv, () => {});
  await allocate({ ...around, kv: guarded, deadline: deadlineIn(200) }, configOf(), owner(), []).catch(() => {});
  return guarded;
}

/** What the plugin's other processes do meanwhile, for the same container. */
const plugin = (command: 'ADD' | 'DEL') => call(command, { conf: confOf(site, ipam) });

it('an ADD that won: all of it goes', async () => {
  const { made } = await add();
  expect(await holdings()).toHaveLength(3);
  expect(await undo(around, made!)).toBe(true);
  expect(await site.remains()).toEqual([]);
});

it('one that was deleted meanwhile: nothing to do', async () => {
  const { made } = await add();
  await plugin('DEL');
  expect(await undo(around, made!)).toBe(false);
  expect(await site.remains()).toEqual([]);
});

it('one that another process has answered with since: it lives', async () => {
  const { made } = await add();
  const { addresses } = await plugin('ADD');
  expect(await undo(around, made!)).toBe(false);
  expect(await holdings()).toHaveLength(3);
  expect((await plugin('ADD')).addresses).toEqual(addresses);
});

it('one that had its addresses already: it lives', async () => {
  await plugin('ADD');
  const { made } = await add();
  expect(made).toBeUndefined();
});

/** Sends the commit and loses the answer. */
const applied =
  (real: Kv) =>
  async (commit: Commit): Promise<CommitResult> => {
    await real.commit(commit, deadlineIn(5000));
    throw new UnknownFateError('no answer');
  };

it('a commit that was applied and said nothing: it stays for DEL or gc, behind a fence', async () => {
  let first = true;
  const { made } = await add(real => async commit => {
    if (!first) throw new UnknownFateError('no answer either');
    first = false;
    return applied(real)(commit);
  });
  expect(made).toMatchObject({ revision: undefined });
  expect(await undo(around, made!)).toBe(false);
  expect(await holdings()).toHaveLength(3);
  expect(await fences()).toHaveLength(1);
  await plugin('DEL');
  expect(await holdings()).toEqual([]);
});

it('a commit that is applied only later: the fence turns it away', async () => {
  const sent: Commit[] = [];
  const { made } = await add(() => async commit => {
    sent.push(commit);
    throw new UnknownFateError('no answer');
  });
  expect(await undo(around, made!)).toBe(false);
  expect(await fences()).toHaveLength(1);
  for (const commit of sent) expect((await around.kv.commit(commit, deadlineIn(5000))).won).toBe(false);
  expect(await holdings()).toEqual([]);
});

it('a commit of unknown fate that lost against another process of the same container: that one lives', async () => {
  const { made } = await add(() => async () => {
    throw new UnknownFateError('no answer');
  });
  const { addresses } = await plugin('ADD');
  expect(await undo(around, made!)).toBe(false);
  expect(await holdings()).toHaveLength(3);
  expect((await plugin('ADD')).addresses).toEqual(addresses);
});

it('a commit of unknown fate that another process has taken up: that one lives', async () => {
  let first = true;
  const { made } = await add(real => async commit => {
    if (!first) throw new UnknownFateError('no answer either');
    first = false;
    return applied(real)(commit);
  });
  const { addresses } = await plugin('ADD');
  expect(await undo(around, made!)).toBe(false);
  expect((await plugin('ADD')).addresses).toEqual(addresses);
});
