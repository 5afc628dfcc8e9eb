// What a Service of our class wants of pools: its families, names, sharing; and which pools may give it, or why none does.
import { describe, expect, it } from 'vitest';
import { type Pool, readPool } from '../ipam/pool.ts';
import { formatIp } from '../net/ip.ts';
import { type Pools, poolsFor, readWish, type Wish, whyNotTogether } from './wishes.ts';

interface Options {
  readonly name?: string;
  readonly annotations?: object;
  readonly spec?: object;
  readonly status?: object;
  readonly metadata?: object;
}

function service({ name = 'web', annotations = {}, spec = {}, status = {}, metadata = {} }: Options = {}) {
  return {
    metadata: { namespace: 'shop', name, uid: `uid-of-${name}`, annotations, ...metadata },
    spec: {
      type: 'LoadBalancer',
      loadBalancerClass: 'kube-ipam.io/public-ip',
      ipFamilies: ['IPv4'],
      ports: [{ port: 80 }],
      ...spec,
    },
    status,
  };
}

const wish = (options: Options = {}): Wish => readWish(service(options))!;
const named = (options: Options) => {
  const { named: ips, fault } = wish(options);
  return fault ?? ips.map(formatIp);
};

describe('a wish', () => {
  it('is had by Services of our class alone, as long as they are to stay', () => {
    expect(wish()).toEqual({
      ref: { namespace: 'shop', name: 'web', uid: 'uid-of-web', created: '' },
      families: [4],
      named: [],
      ports: new Set(['80/tcp']),
      published: [],
    });
    for (const other of [
      service({ spec: { type: 'ClusterIP' } }),
      service({ spec: { loadBalancerClass: undefined } }),
      service({ spec: { loadBalancerClass: 'metallb' } }),
      service({ metadata: { deletionTimestamp: '2026-11-21T12:00:00Z' } }),
      undefined,
      { metadata: {} },
    ]) {
      expect(readWish(other)).toBeUndefined();
    }
  });

  it('is for each family of the Service, in its order', () => {
    expect(wish({ spec: { ipFamilies: ['IPv6', 'IPv4'] } }).families).toEqual([6, 4]);
    expect(wish({ spec: { ipFamilies: ['IPv6'] } }).families).toEqual([6]);
    expect(wish({ spec: { ipFamilies: undefined } }).families).toEqual([4]);
  });

  it('names addresses by annotation, or by the old field', () => {
    const dual = { ipFamilies: ['IPv4', 'IPv6'] };
    const annotations = { 'kube-ipam.io/load-balancer-ips': ' 192.0.2.7 ,2001:DB8::7' };
    expect(named({ annotations, spec: dual })).toEqual(['192.0.2.7', '2001:db8::7']);
    expect(named({ spec: { loadBalancerIP: '192.0.2.8' } })).toEqual(['192.0.2.8']);
    expect(named({ annotations, spec: { ...dual, loadBalancerIP: '192.0.2.8' } })).toEqual([
      '192.0.2.7',
      '2001:db8::7',
    ]);
    expect(named({ spec: { loadBalancerIP: '' } })).toEqual([]);
  });

  it.each([
    ['192.0.2', '"192.0.2" is no IP address'],
    ['192.0.2.7,192.0.2.8', '192.0.2.8 is the second IPv4 address that is asked for: one is given'],
    ['2001:db8::7', '2001:db8::7 is asked for, and spec.ipFamilies has no IPv6'],
  ])('%s names nothing', (written, why) => {
    expect(named({ annotations: { 'kube-ipam.io/load-balancer-ips': written } })).toBe(why);
  });

  it('knows its ports, and what its status has', () => {
    const ports = [
      { port: 53, protocol: 'UDP' },
      { port: 53, protocol: 'TCP' },
      { port: 0 },
      { port: 7, protocol: 'X' },
    ];
    const ingress = [{ ip: '192.0.2.7', ipMode: 'VIP' }, { hostname: 'x' }, { ip: '2001:db8::7' }];
    const read = wish({ spec: { ports }, status: { loadBalancer: { ingress } } });
    expect([...read.ports]).toEqual(['53/udp', '53/tcp']);
    expect(read.published).toEqual(['192.0.2.7', '2001:db8::7']);
  });
});

describe('the pools for a wish', () => {
  const pool = (name: string, spec: object): Pool => readPool({ metadata: { name }, spec });
  const v4 = pool('b', { ranges: [{ subnet: '192.0.2.0/24' }] });
  const shops = pool('a', {
    ranges: [{ subnet: '198.51.100.0/24' }, { subnet: '2001:db8::/64' }],
    namespaces: { matchLabels: { team: 'shop' } },
  });
  const far = pool('far', { ranges: [{ subnet: '203.0.113.0/24' }], space: 'elsewhere' });
  const pools: Pools = { space: 'default', pools: [v4, shops, far], faults: new Map([['bad', 'spec.ranges: none']]) };
  const ours = { team: 'shop' };
  const found = (options: Options, family: 4 | 6 = 4, labels: Record<string, string> = ours, among = pools) => {
    const result = poolsFor(wish(options), family, labels, among);
    return 'reason' in result ? `${result.reason}: ${result.message}` : result.map(({ name }) => name);
  };
  const asking = (name: string) => ({ annotations: { 'kube-ipam.io/pool': name } });
  const naming = (ip: string) => ({ annotations: { 'kube-ipam.io/load-balancer-ips': ip } });

  it('are all of its space that have its family and are for its namespace, by name', () => {
    expect(found({})).toEqual(['a', 'b']);
    expect(found({}, 4, {})).toEqual(['b']);
    expect(found({}, 6)).toEqual(['a']);
  });

  it('are those that it names, or that have the address which it names', () => {
    expect(found(asking('b'))).toEqual(['b']);
    expect(found(naming('192.0.2.7'))).toEqual(['b']);
    expect(found(naming('198.51.100.7'))).toEqual(['a']);
  });

  it.each([
    [found({}, 6, {}), 'NotPermitted: AddressPool a is not for namespace shop'],
    [found(asking('a'), 4, {}), 'NotPermitted: AddressPool a is not for namespace shop'],
    [found(naming('198.51.100.7'), 4, {}), 'NotPermitted: AddressPool a is not for namespace shop'],
    [found(asking('c')), 'PoolUnknown: there is no AddressPool c'],
    [found(asking('bad')), 'PoolUnknown: spec.ranges: none'],
    [found(asking('b'), 6), 'PoolUnknown: AddressPool b has no IPv6 addresses'],
    [
      found(asking('far')),
      'PoolUnknown: AddressPool far is of address space elsewhere; public addresses are recorded in default',
    ],
    [found(naming('203.0.113.7')), 'AddressForbidden: 203.0.113.7 lies in no AddressPool of address space default'],
    [
      found({ annotations: { ...asking('a').annotations, ...naming('192.0.2.7').annotations } }),
      'AddressForbidden: 192.0.2.7 lies outside of AddressPool a',
    ],
    [
      found({}, 4, ours, { ...pools, pools: [] }),
      'PoolUnknown: no AddressPool of address space default has IPv4 addresses',
    ],
  ])('%s', (result, expected) => {
    expect(result).toBe(expected);
  });
});

it('two Services share an address where both say the same word, and their ports do not clash', () => {
  const sharing = (name: string, key: string, ports: readonly object[]) =>
    wish({ name, annotations: { 'kube-ipam.io/allow-shared-ip': key }, spec: { ports } });
  const tcp = { port: 53 };
  const udp = { port: 53, protocol: 'UDP' };
  expect(whyNotTogether(sharing('a', 'dns', [tcp]), sharing('b', 'dns', [udp]))).toBeUndefined();
  expect(whyNotTogether(sharing('a', 'dns', [udp, tcp]), sharing('b', 'dns', [udp]))).toBe(
    'Service shop/b has port 53/udp, too',
  );
  for (const [a, b] of [
    ['dns', 'web'],
    ['', ''],
    ['dns', ''],
    ['', 'dns'],
  ] as const) {
    expect(whyNotTogether(sharing('a', a, [tcp]), sharing('b', b, [udp]))).toContain('kube-ipam.io/allow-shared-ip');
  }
});
