// Claims of public addresses on a real etcd: who owns what, who may take it next, and what a restart finds.
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { deadlineIn } from '../../src/base/clock.ts';
import { parseOwner, type ServiceHolder } from '../../src/ipam/model.ts';
import { renderService } from '../../src/ipam/records.ts';
import { parseIp } from '../../src/net/ip.ts';
import { type AgentInfo, Claims, type ClaimsEvent } from '../../src/publicip/claims.ts';
import { type GrpcKv, openGrpc } from '../../src/store/etcd/grpc.ts';
import { Keys } from '../../src/store/keys.ts';
import { type EtcdCluster, engines, startEtcd } from '../helpers/etcd.ts';
import { startProxy } from '../helpers/tcp-proxy.ts';

const soon = () => deadlineIn(20_000);
const records = { space: 'default', cluster: 'default' };
const ttl = 5;
const web = holder('web');

function holder(name: string): ServiceHolder {
  return { feature: 'public-ip', group: '', kind: 'Service', namespace: 'default', name, uid: `uid-${name}` };
}

function info(node: string, changes: Partial<AgentInfo> = {}): AgentInfo {
  const place = { machine: `m-${node}`, boot: 'b', netns: '4:1' };
  return { node, cluster: 'default', ...place, version: '1', ttl, fit: true, ...changes };
}

describe.each([engines()[0]!, engines().at(-1)!])('on etcd $version', engine => {
  let cluster: EtcdCluster;
  let kv: GrpcKv;
  let nextAddress = 1;
  let nextPrefix = 1;

  beforeAll(async () => {
    cluster = await startEtcd(engine);
    kv = openGrpc(cluster.target());
  });
  afterAll(async () => {
    await kv?.[Symbol.asyncDispose]();
    await cluster?.[Symbol.asyncDispose]();
  });

  /** Agents that see each other, under a prefix of their own. */
  function cell() {
    const prefix = `/kiwi${nextPrefix++}/`;
    const open = async (id: string, changes: { records?: undefined } = {}) => {
      const claims = await Claims.open(kv, { prefix, id, ttl, records, ...changes }, soon());
      const lease = (await kv.grant(60, soon())).id;
      return { claims, lease, [Symbol.asyncDispose]: () => claims[Symbol.asyncDispose]() };
    };
    const joined = async (id: string) => {
      const agent = await open(id);
      expect(await agent.claims.register(agent.lease, info(id), soon())).toBe('done');
      return agent;
    };
    return { prefix, open, joined };
  }

  const newAddress = () => `203.0.113.${nextAddress++}`;
  const recordKey = (address: string) => new Keys('default').address(parseIp(address)!);
  const read = async (key: string) => (await kv.read([{ key }], soon())).answers[0]!.entries[0];
  const put = (key: string, value: string) => kv.commit({ conditions: [], writes: [{ put: key, value }] }, soon());
  const remove = (key: string) => kv.commit({ conditions: [], writes: [{ delete: key }] }, soon());

  it('one of many wins an address, and the record names the Service', async () => {
    const { joined, prefix } = cell();
    const agents = await Promise.all(['a', 'b', 'c', 'd'].map(joined));
    const address = newAddress();
    const outcomes = await Promise.all(agents.map(({ claims, lease }) => claims.claim(address, lease, web, soon())));
    expect(outcomes.filter(({ won }) => won)).toHaveLength(1);
    const winner = agents[outcomes.findIndex(({ won }) => won)]!;
    const claim = await read(`${prefix}publicips/${address}`);
    expect(claim).toMatchObject({ lease: winner.lease });
    expect(parseOwner((await read(recordKey(address)))!.value)).toMatchObject({ kind: 'service', holder: web });
    for (const { claims } of agents) {
      await vi.waitFor(() => expect(claims.view().owners.get(address)?.lease).toBe(winner.lease), 10_000);
    }
    // Claimed again, as after a fence: the same claim at another revision.
    expect(await winner.claims.claim(address, winner.lease, web, soon())).toMatchObject({ won: true });
    expect((await read(`${prefix}publicips/${address}`))!.revision).toBeGreaterThan(claim!.revision);
    for (const { claims } of agents) await claims[Symbol.asyncDispose]();
  });

  it('never takes an address of a pod, of another cluster or another feature', async () => {
    const { joined, prefix } = cell();
    await using a = await joined('a');
    const taken = [
      JSON.stringify({ cluster: 'default', kind: 'dynamic', pod: { namespace: 'shop', name: 'p' } }),
      renderService(web, { cluster: 'other' }, 0),
      renderService({ ...web, feature: 'eip' }, { cluster: 'default' }, 0),
      'rubbish',
    ];
    for (const value of taken) {
      const address = newAddress();
      await put(recordKey(address), value);
      expect(await a.claims.claim(address, a.lease, web, soon())).toMatchObject({ won: false, reason: 'taken' });
      expect(await read(`${prefix}publicips/${address}`)).toBeUndefined();
      expect((await read(recordKey(address)))!.value).toBe(value);
    }
    // Claims in another store than the records: nothing there is looked at.
    await using b = await cell().open('b', { records: undefined });
    expect(await b.claims.claim(newAddress(), b.lease, web, soon())).toMatchObject({ won: true });
  });

  it('keeps a record for the oldest Service, and leaves that of a pool alone', async () => {
    const { joined } = cell();
    await using a = await joined('a');
    const [own, pooled] = [newAddress(), newAddress()];
    await put(recordKey(own), renderService(holder('gone'), { cluster: 'default' }, 0));
    await put(recordKey(pooled), renderService(holder('other'), { cluster: 'default', pool: 'p' }, 0));
    for (const address of [own, pooled]) {
      expect(await a.claims.claim(address, a.lease, web, soon())).toMatchObject({ won: true });
    }
    const names = await Promise.all([own, pooled].map(async at => parseOwner((await read(recordKey(at)))!.value)));
    expect(names.map(one => one.holder?.name)).toEqual(['web', 'other']);
  });

  it('hands over: key and mark in one commit, directed, and the next may claim at once', async () => {
    const { joined } = cell();
    await using a = await joined('a');
    await using b = await joined('b');
    const address = newAddress();
    await a.claims.claim(address, a.lease, web, soon());
    await vi.waitFor(() => expect(b.claims.view().owners.has(address)).toBe(true), 10_000);
    expect(await b.claims.release(address, {}, soon())).toBe(false);
    const seen: ClaimsEvent[] = [];
    b.claims.onChange((_, events) => seen.push(...events));
    expect(await a.claims.release(address, { to: 'b' }, soon())).toBe(true);
    expect(await a.claims.release(address, { to: 'b' }, soon())).toBe(false);
    await vi.waitFor(() => expect(b.claims.view().released.get(address)).toMatchObject({ id: 'a', to: 'b' }), 10_000);
    expect(seen).toContainEqual(expect.objectContaining({ type: 'owner', address, now: undefined }));
    expect(b.claims.view().freeFrom.get(address)).toBeLessThanOrEqual(performance.now());
    expect(await b.claims.claim(address, b.lease, web, soon())).toMatchObject({ won: true });
    // The old mark is gone, so it cannot pass for one of b's.
    await vi.waitFor(() => expect(a.claims.view().released.has(address)).toBe(false), 10_000);
  });

  it('carries the wish to move an address to its owner, until it is handed over', async () => {
    const { joined } = cell();
    await using a = await joined('a');
    await using b = await joined('b');
    const address = newAddress();
    expect(await b.claims.askToMove(address, 'b', soon())).toBe(false);
    await a.claims.claim(address, a.lease, web, soon());
    expect(await b.claims.askToMove(address, 'a', soon())).toBe(false);
    expect(await b.claims.askToMove(address, undefined, soon())).toBe(true);
    await vi.waitFor(() => expect(a.claims.view().moves.get(address)).toBe(''), 10_000);
    expect(await b.claims.askToMove(address, 'b', soon())).toBe(true);
    await vi.waitFor(() => expect(a.claims.view().moves.get(address)).toBe('b'), 10_000);
    expect(await a.claims.release(address, { to: 'b' }, soon())).toBe(true);
    expect(a.claims.view().moves.has(address)).toBe(false);
    await vi.waitFor(() => expect(b.claims.view().moves.has(address)).toBe(false), 10_000);
  });

  it('waits for the owner of a claim that somebody deleted, but for nobody who is gone', async () => {
    const { joined, prefix } = cell();
    await using a = await joined('a');
    await using b = await joined('b');
    const [deleted, ended] = [newAddress(), newAddress()];
    await a.claims.claim(deleted, a.lease, web, soon());
    await vi.waitFor(() => expect(b.claims.view().owners.has(deleted)).toBe(true), 10_000);
    const from = performance.now();
    await remove(`${prefix}publicips/${deleted}`);
    await vi.waitFor(() => expect(b.claims.view().owners.has(deleted)).toBe(false), 10_000);
    expect(await b.claims.claim(deleted, b.lease, web, soon())).toMatchObject({ won: false, reason: 'waiting' });
    expect(await b.claims.forget(deleted, soon())).toBe(false);
    // Its own owner knows that it does not answer any more.
    await vi.waitFor(() => expect(a.claims.view().owners.has(deleted)).toBe(false), 10_000);
    expect(a.claims.view().freeFrom.get(deleted)).toBeLessThanOrEqual(performance.now());
    await sleep(Math.max(0, b.claims.view().freeFrom.get(deleted)! - performance.now() + 5));
    expect(performance.now() - from).toBeGreaterThan(ttl * 1000);
    expect(await b.claims.claim(deleted, b.lease, web, soon())).toMatchObject({ won: true });

    await a.claims.claim(ended, a.lease, web, soon());
    await vi.waitFor(() => expect(b.claims.view().owners.has(ended)).toBe(true), 10_000);
    await cluster.ctl('lease', 'revoke', BigInt(a.lease).toString(16));
    await vi.waitFor(() => expect(b.claims.view().owners.has(ended)).toBe(false), 10_000);
    expect(await b.claims.claim(ended, b.lease, web, soon())).toMatchObject({ won: true });
  }, 60_000);

  it('takes a mark of an earlier release for no mark of the present owner', async () => {
    const { joined, prefix } = cell();
    await using a = await joined('a');
    await using b = await joined('b');
    const address = newAddress();
    await a.claims.claim(address, a.lease, web, soon());
    await put(`${prefix}released/${address}`, 'c');
    await vi.waitFor(() => expect(b.claims.view().released.has(address)).toBe(true), 10_000);
    await remove(`${prefix}publicips/${address}`);
    await vi.waitFor(() => expect(b.claims.view().owners.has(address)).toBe(false), 10_000);
    expect(b.claims.view().freeFrom.get(address)).toBeGreaterThan(performance.now() + 1000);
  });

  it('forgets a record only when nobody has the address, or has just let it go', async () => {
    const { joined, prefix } = cell();
    await using a = await joined('a');
    const address = newAddress();
    await a.claims.claim(address, a.lease, web, soon());
    expect(await a.claims.forget(address, soon())).toBe(false);
    await a.claims.release(address, {}, soon());
    expect(await a.claims.forget(address, soon())).toBe(false);
    await remove(`${prefix}released/${address}`);
    expect(await a.claims.forget(address, soon())).toBe(true);
    expect(await read(recordKey(address))).toBeUndefined();
    const others = [newAddress(), newAddress()];
    await put(recordKey(others[0]!), renderService(web, { cluster: 'default', pool: 'p' }, 0));
    await put(recordKey(others[1]!), renderService(web, { cluster: 'other' }, 0));
    for (const other of others) {
      expect(await a.claims.forget(other, soon())).toBe(false);
      expect(await read(recordKey(other))).toBeDefined();
    }
  });

  it('lets one of two clones have an id, and a restart take over what stood on its lease', async () => {
    const { open, prefix } = cell();
    await using first = await open('n');
    await using clone = await open('n');
    await using next = await open('n');
    expect(await first.claims.register(first.lease, info('n'), soon())).toBe('done');
    for (const other of [{ machine: 'm2' }, { boot: 'b2' }, { netns: '4:2' }]) {
      const outcome = await clone.claims.register(clone.lease, info('n', other), soon());
      expect(outcome).toMatchObject({ inUseBy: { node: 'n' } });
    }
    const addresses = Array.from({ length: 120 }, newAddress);
    await Promise.all(addresses.map(address => first.claims.claim(address, first.lease, web, soon())));
    // A claim of this id on a lease that no agent of this machine had is nobody's to adopt.
    const foreign = newAddress();
    await kv.commit(
      { conditions: [], writes: [{ put: `${prefix}publicips/${foreign}`, value: 'n', lease: clone.lease }] },
      soon(),
    );
    await vi.waitFor(() => expect(next.claims.view().owners.size).toBe(121), 10_000);
    // One is changed between the two: it is left to whoever changed it.
    const changed = addresses[7]!;
    expect(await next.claims.register(next.lease, info('n'), soon())).toBe('done');
    await put(`${prefix}publicips/${changed}`, 'somebody');
    const adopted = await next.claims.adopt(next.lease, soon());
    expect(new Set(adopted)).toEqual(new Set(addresses.filter(address => address !== changed)));
    const { owners, agents } = next.claims.view();
    expect(agents.get('n')?.lease).toBe(next.lease);
    expect(adopted.every(address => owners.get(address)?.lease === next.lease)).toBe(true);
    expect(owners.get(foreign)?.lease).toBe(clone.lease);
    // The process that was replaced touches nothing any more, even before it has noticed.
    expect(await first.claims.release(addresses[0]!, {}, soon())).toBe(false);
    expect(await read(`${prefix}publicips/${addresses[0]}`)).toMatchObject({ lease: next.lease });
  });

  it('sees through the watch what others write, and after a gap what was missed', async () => {
    const { joined, prefix } = cell();
    await using a = await joined('a');
    await put(`${prefix}agents/z`, 'rubbish');
    await put(`${prefix}elsewhere/x`, 'not ours');
    await put(`${prefix}publicips/a/b`, 'not ours');
    await vi.waitFor(() => expect(a.claims.view().agents.get('z')).toMatchObject({ fit: false, lease: '' }), 10_000);
    expect(a.claims.view().owners.size).toBe(0);
    const address = newAddress();
    await put(`${prefix}publicips/${address}`, 'z');
    const view = await a.claims.refresh(soon());
    expect(view.owners.get(address)).toMatchObject({ id: 'z', lease: '' });
    expect(await a.claims.claim(address, a.lease, web, soon())).toMatchObject({ won: false, reason: 'owned' });
  });

  it('learns from a list what the watch can tell no more, and judges it the same', async () => {
    const { prefix, joined } = cell();
    await using a = await joined('a');
    await using proxy = await startProxy(Number(new URL(cluster.endpoints[0]!).port));
    const target = cluster.target({ endpoints: [`http://127.0.0.1:${proxy.port}`], requestTimeout: 500 });
    await using far = openGrpc(target);
    await using b = await Claims.open(far, { prefix, id: 'b', ttl, records }, soon());
    const [released, deleted, kept, fresh] = [newAddress(), newAddress(), newAddress(), newAddress()];
    for (const address of [released, deleted, kept]) await a.claims.claim(address, a.lease, web, soon());
    await vi.waitFor(() => expect(b.view().owners.size).toBe(3), 10_000);
    const told: ClaimsEvent[] = [];
    b.onChange((_, events) => told.push(...events));
    proxy.blackHole(true);
    await a.claims.release(released, {}, soon());
    await remove(`${prefix}publicips/${deleted}`);
    await a.claims.claim(fresh, a.lease, web, soon());
    const { revision } = await kv.read([{ key: prefix }], soon());
    await cluster.ctl('compact', String(revision));
    proxy.blackHole(false);
    proxy.cut();
    await vi.waitFor(() => expect([...b.view().owners.keys()].sort()).toEqual([kept, fresh].sort()), 20_000);
    expect(b.view().freeFrom.get(released)).toBeLessThanOrEqual(performance.now());
    expect(b.view().freeFrom.get(deleted)).toBeGreaterThan(performance.now() + 1000);
    expect(told).toContainEqual(expect.objectContaining({ type: 'connection', trouble: expect.any(String) }));
    expect(told.filter(event => event.type === 'owner').map(({ address }) => address)).not.toContain(kept);
    // The watch goes on from the list.
    await remove(`${prefix}publicips/${fresh}`);
    await vi.waitFor(() => expect(b.view().owners.has(fresh)).toBe(false), 10_000);
  }, 60_000);
});
