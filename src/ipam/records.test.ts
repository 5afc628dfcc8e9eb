// What is written: who owns an address, holds and for whom they are, the recorded ranges.
import { describe, expect, it } from 'vitest';
import { readNetworkConfig } from './config.ts';
import { type OwnerRecord, parseOwner, type ServiceHolder } from './model.ts';
import {
  afterRelease,
  describeRanges,
  endsOf,
  holderOf,
  holdIsFor,
  isOfFeature,
  type Owner,
  renderOwner,
  renderService,
  renderSticky,
  renewOwner,
  renewService,
} from './records.ts';

const now = Date.UTC(2026, 0, 2, 3, 4, 5, 678);
const owner: Owner = {
  id: { node: 'n', network: 'w', containerID: 'c', ifname: 'eth0' },
  cluster: 'default',
  machine: 'm',
  boot: 'b',
  netns: '/run/netns/x',
  pod: { namespace: 'ns', name: 'p', uid: 'u1' },
};

it('an owner is written with all that tells whose it is', () => {
  expect(JSON.parse(renderOwner(owner, 'dynamic', 0, now))).toEqual({
    cluster: 'default',
    kind: 'dynamic',
    since: '2026-01-02T03:04:05Z',
    node: 'n',
    machine: 'm',
    boot: 'b',
    network: 'w',
    containerID: 'c',
    ifname: 'eth0',
    netns: '/run/netns/x',
    pod: { namespace: 'ns', name: 'p', uid: 'u1' },
  });
});

it('renewed, it keeps since when and what a later version wrote', () => {
  const old = parseOwner(JSON.stringify({ ...JSON.parse(renderOwner(owner, 'dynamic', 0, now)), later: [1] }));
  const renewed = JSON.parse(renewOwner(old, { ...owner, boot: 'b2', netns: '/run/netns/y' }));
  expect(renewed).toMatchObject({ since: '2026-01-02T03:04:05Z', later: [1], boot: 'b2', netns: '/run/netns/y' });
});

const held = (former: OwnerRecord, cooldown = 90) => {
  const after = afterRelease(former, { ...former }, cooldown, now);
  expect(after?.ttl).toBe(90);
  return parseOwner(after!.value);
};

describe('after its release', () => {
  it('an address is free, unless a cooldown holds it', () => {
    expect(afterRelease(parseOwner(renderOwner(owner, 'dynamic', 0, now)), owner.id, 0, now)).toBeUndefined();
  });

  it('a fixed one is held for whoever names it, and the cooldown is not for it', () => {
    const hold = held(parseOwner(renderOwner(owner, 'fixed', 90, now)), 5);
    expect(hold).toMatchObject({ kind: 'held', byName: true });
    expect(holdIsFor(hold, { ...owner, pod: { namespace: 'ns', name: 'other', uid: 'u2' } })).toBe(true);
    expect(holdIsFor(hold, { ...owner, cluster: 'other' })).toBe(false);
    expect(afterRelease(parseOwner(renderOwner(owner, 'fixed', 0, now)), owner.id, 90, now)).toBeUndefined();
  });

  it('one of a workload stays, less this holder', () => {
    const second = { ...holderOf(owner), containerID: 'c2' };
    const workload = { namespace: 'ns', kind: 'StatefulSet' as const, name: 'web-0' };
    const sticky = parseOwner(renderSticky(owner, workload, [holderOf(owner), second], undefined, now));
    expect(sticky).toMatchObject({ kind: 'sticky', cluster: 'default', workload, network: 'w', ifname: 'eth0' });
    expect(sticky.holders).toEqual([holderOf(owner), second]);
    const after = afterRelease(sticky, owner.id, 90, now)!;
    expect(after).not.toHaveProperty('ttl');
    expect(parseOwner(after.value)).toMatchObject({ kind: 'sticky', workload, holders: [second] });
  });
});

describe('a hold', () => {
  const hold = (former: Partial<Owner> = {}) =>
    held(parseOwner(renderOwner({ ...owner, ...former }, 'dynamic', 0, now)));
  const withoutPod = { id: owner.id, cluster: 'default', machine: 'm', boot: 'b', netns: '' };

  it('tells whose it was, and until when', () => {
    expect(hold()).toMatchObject({ kind: 'held', until: '2026-01-02T03:05:35Z', containerID: 'c', pod: { uid: 'u1' } });
  });

  it('is for the same pod in any sandbox, and for no other pod in the same', () => {
    expect(holdIsFor(hold(), { ...owner, id: { ...owner.id, node: 'n2', containerID: 'new' } })).toBe(true);
    expect(holdIsFor(hold(), { ...owner, pod: { namespace: 'ns', name: 'p', uid: 'u2' } })).toBe(false);
    expect(holdIsFor(hold(), withoutPod)).toBe(false);
  });

  it('without a pod is for the same container on the same node', () => {
    const { pod: _, ...bare } = owner;
    const left = held(parseOwner(renderOwner(bare, 'dynamic', 0, now)));
    expect(holdIsFor(left, bare)).toBe(true);
    expect(holdIsFor(left, { ...bare, id: { ...owner.id, node: 'n2' } })).toBe(false);
    expect(holdIsFor(left, { ...bare, id: { ...owner.id, containerID: 'c2' } })).toBe(false);
  });

  it('is for nobody of another cluster, and no other kind is a hold', () => {
    expect(holdIsFor(hold(), { ...owner, cluster: 'other' })).toBe(false);
    expect(holdIsFor(parseOwner(renderOwner(owner, 'dynamic', 0, now)), owner)).toBe(false);
    expect(holdIsFor(parseOwner('{"kind":"reserved"}'), owner)).toBe(false);
  });
});

describe('recorded ranges', () => {
  const read = (ipam: Record<string, unknown>) => readNetworkConfig({ name: 'w', ipam }, '1.0.0');

  it('two ways to write the same are the same', () => {
    const short = read({ subnet: 'FD00::/64', exclude: ['10.0.0.4/30'] });
    const long = {
      subnet: 'fd00:0::/64',
      rangeStart: 'fd00::1',
      rangeEnd: 'fd00::ffff:ffff:ffff:ffff',
      gateway: 'fd00::1',
    };
    expect(describeRanges(read({ ranges: [[long]], exclude: ['10.0.0.4-10.0.0.7'] }))).toEqual(describeRanges(short));
  });

  it.each([
    { subnet: '10.1.0.0/25' },
    { subnet: '10.1.0.0/24', gateway: '10.1.0.9' },
    { subnet: '10.1.0.0/24', exclude: ['10.1.0.9'] },
    { subnet: '10.1.0.0/24', fixedStart: '10.1.0.9', fixedEnd: '10.1.0.9' },
    { subnet: '10.1.0.0/24', rangeEnd: '10.1.0.9' },
  ])('%j is something else', ipam => {
    expect(describeRanges(read(ipam))).not.toEqual(describeRanges(read({ subnet: '10.1.0.0/24' })));
  });

  it('a cursor is named by the ends of its set, in the order configured', () => {
    const [set] = read({ ranges: [[{ subnet: '10.2.0.0/24' }, { subnet: '10.1.0.0/24' }]] }).sets;
    expect(endsOf(set!)).toEqual({ first: { family: 4, value: 0x0a020001n }, last: { family: 4, value: 0x0a0100fen } });
  });
});

describe('of a feature', () => {
  const web: ServiceHolder = {
    feature: 'public-ip',
    group: '',
    kind: 'Service',
    namespace: 'shop',
    name: 'web',
    uid: 'u1',
  };
  const api: ServiceHolder = { ...web, name: 'api', uid: 'u2' };

  it('a record names the object that wants the address, and the pool that gave it', () => {
    const record = parseOwner(renderService(web, { cluster: 'east', pool: 'public' }, now));
    expect(record).toMatchObject({ kind: 'service', cluster: 'east', since: '2026-01-02T03:04:05Z', pool: 'public' });
    expect(record.holder).toEqual(web);
    expect(record.holders).toEqual([]);
    expect(record.sharers).toBeUndefined();
    expect(parseOwner(renderService(web, { cluster: 'east' }, now))).not.toHaveProperty('pool');
  });

  it('it is only the feature’s own, in its own cluster', () => {
    const record = parseOwner(renderService(web, { cluster: 'east' }, now));
    expect(isOfFeature(record, 'public-ip', 'east')).toBe(true);
    expect(isOfFeature(record, 'eip', 'east')).toBe(false);
    expect(isOfFeature(record, 'public-ip', 'west')).toBe(false);
    for (const raw of [
      { ...record.raw, kind: 'dynamic' },
      { ...record.raw, holder: { feature: 'newer' } },
    ]) {
      expect(isOfFeature(parseOwner(JSON.stringify(raw)), 'public-ip', 'east')).toBe(false);
    }
  });

  it('another holder and other sharers leave the rest as it is', () => {
    const first = renderService(web, { cluster: 'east', pool: 'public' }, now);
    const old = parseOwner(JSON.stringify({ ...JSON.parse(first), later: [1] }));
    const shared = parseOwner(renewService(old, web, [api]));
    expect(shared).toMatchObject({ holder: web, sharers: [api], pool: 'public', since: old.since });
    expect(shared.raw.later).toEqual([1]);
    const inherited = parseOwner(renewService(shared, api, []));
    expect(inherited.holder).toEqual(api);
    expect(inherited.raw).not.toHaveProperty('sharers');
    expect(inherited.raw.later).toEqual([1]);
    expect(parseOwner(renewService(shared, web)).sharers).toEqual([api]);
  });
});
