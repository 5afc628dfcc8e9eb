// Keys: each is built, parsed back, and no two things share one.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FailureError } from '../base/errors.ts';
import { type Ip, parseIp } from '../net/ip.ts';
import { type AttachmentId, clusterKey, formatKey, Keys, parseKey } from './keys.ts';
import { afterPrefix } from './kv.ts';

const keys = new Keys('default');
const name = fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9_.-]{0,12}$/);
const ifname = fc.stringMatching(/^[a-z0-9@!#é-]{1,8}$/).filter(text => text !== '.' && text !== '..');
const id = fc.record({ node: name, network: name, containerID: name, ifname });
const ip = fc.oneof(
  fc.bigInt({ min: 0n, max: 2n ** 32n - 1n }).map((value): Ip => ({ family: 4, value })),
  fc.bigInt({ min: 0n, max: 2n ** 128n - 1n }).map((value): Ip => ({ family: 6, value })),
);

describe('every key is read back as what it was made of', () => {
  it('addresses', () => {
    fc.assert(
      fc.property(ip, one => {
        expect(parseKey(keys.address(one))).toEqual({ type: 'address', space: 'default', ip: one });
      }),
    );
  });

  it('attachments and fences, which never share a key', () => {
    fc.assert(
      fc.property(id, one => {
        expect(parseKey(keys.attachment(one))).toEqual({ type: 'attachment', space: 'default', id: one });
        expect(parseKey(keys.fence(one))).toEqual({ type: 'fence', space: 'default', id: one });
      }),
    );
  });

  it('workloads', () => {
    const workload = fc.record({ namespace: name, kind: fc.constantFrom('StatefulSet', 'VirtualMachine'), name });
    fc.assert(
      fc.property(name, name, workload, ifname, (cluster, network, one, interfaceName) => {
        const key = keys.workload(cluster, network, one, interfaceName);
        const parsed = { type: 'workload', space: 'default', cluster, network, workload: one, ifname: interfaceName };
        expect(parseKey(key)).toEqual(parsed);
        for (const prefix of [keys.workloads(), keys.workloads(cluster), keys.workloads(cluster, network)]) {
          expect(key.startsWith(prefix)).toBe(true);
        }
      }),
    );
    expect(keys.workload('blue', 'net', { namespace: 'ns', kind: 'StatefulSet', name: 'web-0' }, 'eth0')).toBe(
      '/kube-ipam/v1/default/workloads/blue/net/ns/StatefulSet/web-0/eth0',
    );
  });

  it('cursors, networks, format, clusters', () => {
    const [first, last] = [parseIp('10.1.0.2')!, parseIp('10.1.0.9')!];
    const cursor = keys.cursor('net', first, last);
    expect(cursor).toBe('/kube-ipam/v1/default/cursors/net/010.001.000.002-010.001.000.009');
    expect(parseKey(cursor)).toEqual({
      type: 'cursor',
      space: 'default',
      network: 'net',
      set: '010.001.000.002-010.001.000.009',
    });
    expect(parseKey(keys.network('net'))).toEqual({ type: 'network', space: 'default', network: 'net' });
    expect(parseKey(formatKey)).toEqual({ type: 'format' });
    expect(clusterKey('blue')).toBe('/kube-ipam/v1/clusters/blue');
    expect(parseKey(clusterKey('blue'))).toEqual({ type: 'cluster', name: 'blue' });
  });

  it('5.14 two attachments have one key only if they are the same, however alike their names', () => {
    fc.assert(
      fc.property(id, id, (a, b) => {
        expect(keys.attachment(a) === keys.attachment(b)).toBe(JSON.stringify(a) === JSON.stringify(b));
      }),
    );
    const of = (containerID: string, ifname: string): AttachmentId => ({
      node: 'n',
      network: 'w',
      containerID,
      ifname,
    });
    expect(keys.attachment(of('a-b', 'c'))).not.toBe(keys.attachment(of('a', 'b-c')));
    expect(keys.attachment(of('A', 'c'))).not.toBe(keys.attachment(of('a', 'c')));
  });
});

describe('bounds', () => {
  it('the keys of a span are those of its addresses and of no others', () => {
    fc.assert(
      fc.property(fc.nat(300), fc.nat(300), fc.nat(300), fc.constantFrom(4 as const, 6 as const), (a, b, c, family) => {
        const [first, last] = [BigInt(Math.min(a, b)), BigInt(Math.max(a, b))];
        const { from, to } = keys.addressSpan({ family, first, last });
        const key = keys.address({ family, value: BigInt(c) });
        expect(from <= key && key < to).toBe(first <= BigInt(c) && BigInt(c) <= last);
      }),
    );
  });

  it('the last address of all has an end too', () => {
    const last = 2n ** 128n - 1n;
    const { from, to } = keys.addressSpan({ family: 6, first: last, last });
    const key = keys.address({ family: 6, value: last });
    expect(from <= key && key < to).toBe(true);
    expect(to < afterPrefix(keys.addresses(6))).toBe(true);
  });

  it('a node whose name begins like another is not among its keys', () => {
    const prefix = keys.attachments('node-1');
    const other = keys.attachment({ node: 'node-10', network: 'w', containerID: 'c', ifname: 'eth0' });
    const own = keys.attachment({ node: 'node-1', network: 'w', containerID: 'c', ifname: 'eth0' });
    expect(own >= prefix && own < afterPrefix(prefix)).toBe(true);
    expect(other >= prefix && other < afterPrefix(prefix)).toBe(false);
  });
});

describe('refused', () => {
  it.each(['', 'a/b', '.a', 'a b', 'a\n', '../x', 'ü', 'clusters', 'format'])('address space %j', space => {
    expect(() => new Keys(space)).toThrow(FailureError);
  });

  it.each([
    { node: 'a/b', network: 'w', containerID: 'c', ifname: 'eth0' },
    { node: 'n', network: '', containerID: 'c', ifname: 'eth0' },
    { node: 'n', network: 'w', containerID: '../c', ifname: 'eth0' },
    { node: 'n', network: 'w', containerID: 'c', ifname: 'a/b' },
    { node: 'n', network: 'w', containerID: 'c', ifname: '..' },
    { node: 'n', network: 'w', containerID: 'c', ifname: 'a b' },
    { node: 'n', network: 'w', containerID: 'c', ifname: '\u0085' },
  ])('attachment %j', one => {
    expect(() => keys.attachment(one)).toThrow(FailureError);
  });

  it.each([
    ['a/b', 'w', { namespace: 'ns', kind: 'StatefulSet', name: 'web-0' }, 'eth0'],
    ['c', '', { namespace: 'ns', kind: 'StatefulSet', name: 'web-0' }, 'eth0'],
    ['c', 'w', { namespace: '', kind: 'StatefulSet', name: 'web-0' }, 'eth0'],
    ['c', 'w', { namespace: 'ns', kind: 'StatefulSet', name: '../0' }, 'eth0'],
    ['c', 'w', { namespace: 'ns', kind: 'StatefulSet', name: 'web-0' }, 'a/b'],
  ] as const)('workload in cluster %j, network %j: %j, interface %j', (cluster, network, workload, interfaceName) => {
    expect(() => keys.workload(cluster, network, workload, interfaceName)).toThrow(FailureError);
  });

  it('cluster a/b', () => expect(() => clusterKey('a/b')).toThrow(FailureError));

  it.each([
    '/kube-ipam/v2/default/networks/a',
    '/kube-ipam/v1/default',
    '/kube-ipam/v1/default/addresses/4/10.0.0.1',
    '/kube-ipam/v1/default/addresses/5/010.000.000.001',
    '/kube-ipam/v1/default/attachments/n/w/c',
    '/kube-ipam/v1/default/workloads/c/w/ns/StatefulSet/web-0',
    '/kube-ipam/v1/default/workloads/c/w/ns/StatefulSet/web-0/eth0/x',
    '/kube-ipam/v1/default/something/else',
    '/kiwi/publicips/10.0.0.1',
    '',
  ])('key %j is not one of ours', key => {
    expect(parseKey(key)).toBeUndefined();
  });
});
