// What Services want, out of objects as an API server has them, and what is refused to them and why.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Cidr, cidrOf, parseIpWithPrefix } from '../net/cidr.ts';
import { formatIp, parseIp } from '../net/ip.ts';
import { type Around, readWants, WantsReader } from './model.ts';

const ip = (text: string) => parseIp(text)!;

function cidr(text: string): Cidr {
  const parsed = parseIpWithPrefix(text)!;
  return cidrOf(parsed.ip, parsed.prefix);
}

const nothing: Around = { ranges: [], nodes: [], addresses: [], gateways: [], clusterRanges: [] };

interface Given {
  readonly namespace?: string;
  readonly created?: string;
  readonly annotations?: Record<string, string>;
  readonly spec?: Record<string, unknown>;
  readonly status?: unknown;
  readonly metadata?: Record<string, unknown>;
}

function service(name: string, { namespace = 'default', created, annotations, spec, status, metadata }: Given = {}) {
  return {
    metadata: {
      namespace,
      name,
      uid: `uid-${namespace}-${name}`,
      creationTimestamp: created ?? '2026-01-01T00:00:00Z',
      ...(annotations && { annotations }),
      ...metadata,
    },
    spec: { ports: [{ port: 80, protocol: 'TCP' }], ...spec },
    ...(status !== undefined && { status }),
  };
}

const external = (...externalIPs: string[]) => ({ spec: { externalIPs } });

function slice(of: string, endpoints: readonly unknown[], { addressType = 'IPv4', namespace = 'default' } = {}) {
  const labels = { 'kubernetes.io/service-name': of };
  return { metadata: { namespace, name: `${of}-x`, uid: 'u', labels }, addressType, endpoints };
}

const read = (services: readonly unknown[], around: Partial<Around> = {}, slices: readonly unknown[] = []) =>
  readWants(services, slices, { ...nothing, ...around });

const addresses = (services: readonly unknown[], around?: Partial<Around>) =>
  read(services, around).wants.map(({ address }) => address);

const reasons = (services: readonly unknown[], around?: Partial<Around>) =>
  read(services, around).refusals.map(({ address, reason }) => [address, reason]);

describe('where a Service names its addresses', () => {
  it('in externalIPs', () => {
    const { wants, refusals } = read([service('web', external('192.168.1.41', '192.168.1.40'))]);
    expect(wants).toEqual([
      {
        ip: ip('192.168.1.40'),
        address: '192.168.1.40',
        services: [{ namespace: 'default', name: 'web', uid: 'uid-default-web', created: '2026-01-01T00:00:00Z' }],
        ports: [{ protocol: 'tcp', port: 80, comment: 'default/web' }],
        local: false,
      },
      expect.objectContaining({ address: '192.168.1.41' }),
    ]);
    expect(refusals).toEqual([]);
  });

  it('in the fields that old API servers had, each address once', () => {
    const spec = { externalIPs: ['10.0.0.1'], deprecatedPublicIPs: ['10.0.0.1', '10.0.0.2'], publicIPs: ['10.0.0.3'] };
    expect(addresses([service('web', { spec })])).toEqual(['10.0.0.1', '10.0.0.2', '10.0.0.3']);
  });

  it('in the annotation, as a comma list with blanks', () => {
    const annotations = { 'kube-ipam.io/public-ips': ' 10.0.0.1 ,2001:DB8::0001,' };
    expect(addresses([service('web', { annotations })])).toEqual(['10.0.0.1', '2001:db8::1']);
  });

  const balancer = (spec: object, ingress: readonly unknown[], annotations: Record<string, string> = {}) =>
    service('web', {
      spec: { type: 'LoadBalancer', ...spec },
      status: { loadBalancer: { ingress } },
      annotations,
    });

  it('in the status of a load balancer of our class, or where the annotation says so', () => {
    const ours = { loadBalancerClass: 'kube-ipam.io/public-ip' };
    const ingress = [{ ip: '10.0.0.1' }, { ip: '10.0.0.2', ipMode: 'VIP' }, { ip: '10.0.0.3', ipMode: 'Proxy' }];
    expect(addresses([balancer(ours, ingress)])).toEqual(['10.0.0.1', '10.0.0.2']);
    expect(addresses([balancer({}, ingress, { 'kube-ipam.io/public-ip': 'true' })])).toEqual(['10.0.0.1', '10.0.0.2']);
    expect(addresses([balancer({}, ingress)])).toEqual([]);
    expect(addresses([balancer({ loadBalancerClass: 'other/lb' }, ingress)])).toEqual([]);
    expect(addresses([balancer({ ...ours, type: 'ClusterIP' }, ingress)])).toEqual([]);
    expect(addresses([balancer(ours, [{ hostname: 'lb.example.com' }])])).toEqual([]);
  });

  it('nowhere, once it is being deleted, or when it is an alias', () => {
    const metadata = { deletionTimestamp: '2026-01-02T00:00:00Z' };
    expect(addresses([service('web', { ...external('10.0.0.1'), metadata })])).toEqual([]);
    expect(addresses([service('web', { spec: { type: 'ExternalName', externalIPs: ['10.0.0.1'] } })])).toEqual([]);
  });

  it('in any spelling: one address is one want', () => {
    const { wants } = read([service('web', external('2001:db8::1', '2001:DB8:0:0::1', '::ffff:10.0.0.1', '10.0.0.1'))]);
    expect(wants.map(({ address }) => address)).toEqual(['10.0.0.1', '2001:db8::1']);
    expect(wants.every(({ services }) => services.length === 1)).toBe(true);
  });
});

describe('what is no use', () => {
  it('a text that is no address is refused, and spoils nothing else', () => {
    expect(addresses([service('web', external('10.0.0.1', '10.0.0.300', 'lb.example.com'))])).toEqual(['10.0.0.1']);
    expect(reasons([service('web', external('10.0.0.1', '10.0.0.300', 'lb.example.com'))])).toEqual([
      ['10.0.0.300', 'AddressInvalid'],
      ['lb.example.com', 'AddressInvalid'],
    ]);
  });

  it('objects of any shape never throw, and leave the good ones as they are', () => {
    const good = service('web', {
      ...external('10.0.0.1'),
      spec: { externalIPs: ['10.0.0.1'], externalTrafficPolicy: 'Local' },
    });
    const path = fc.constantFrom('metadata', 'spec', 'status', 'endpoints', 'addressType');
    const odd = fc.oneof(fc.anything(), fc.dictionary(path, fc.anything()));
    const odder = fc.anything().map(spec => ({ ...service('odd'), spec }));
    fc.assert(
      fc.property(fc.array(fc.oneof(odd, odder)), fc.array(odd), fc.array(odd), (services, slices, nodes) => {
        const { wants } = read([...services, good], { nodes }, [...slices, slice('web', [{ nodeName: 'a' }])]);
        expect(wants.find(({ address }) => address === '10.0.0.1')?.nodesReady).toEqual(new Set(['a']));
      }),
    );
  });
});

describe('what is forbidden, whoever asks', () => {
  it.each([
    '0.0.0.0',
    '0.1.2.3',
    '127.0.0.1',
    '169.254.169.254',
    '224.0.0.18',
    '239.255.255.255',
    '255.255.255.255',
    '::',
    '::1',
    'fe80::1',
    'ff02::1',
  ])('%s, on every machine', address => {
    expect(reasons([service('web', external(address))])).toEqual([[address, 'AddressForbidden']]);
  });

  const around: Around = {
    ...nothing,
    nodes: [
      {
        metadata: { name: 'worker-1' },
        spec: { podCIDR: '10.244.1.0/24', podCIDRs: ['10.244.1.0/24', 'fd00:244:1::/64'] },
        status: {
          addresses: [
            { type: 'InternalIP', address: '192.168.1.11' },
            { type: 'InternalIP', address: '2001:db8::11' },
            { type: 'ExternalIP', address: '203.0.113.11' },
            { type: 'Hostname', address: 'worker-1' },
          ],
        },
      },
    ],
    addresses: [
      { ip: ip('192.168.1.12'), prefix: 24 },
      { ip: ip('2001:db8::12'), prefix: 64 },
      { ip: ip('192.168.1.77'), prefix: 32 },
      { ip: ip('2001:db8::77'), prefix: 128 },
      { ip: ip('172.16.0.1'), prefix: 31 },
    ],
    gateways: [ip('192.168.1.1'), ip('2001:db8::ff')],
    clusterRanges: [cidr('10.96.0.0/16')],
  };

  it.each([
    ['192.168.1.11', 'an address of node worker-1'],
    ['203.0.113.11', 'an address of node worker-1'],
    ['2001:db8::11', 'an address of node worker-1'],
    ['10.244.1.7', 'a pod address of node worker-1'],
    ['fd00:244:1::7', 'a pod address of node worker-1'],
    ['192.168.1.12', "an address of this node's interfaces"],
    ['172.16.0.1', "an address of this node's interfaces"],
    ['192.168.1.0', 'the network address of 192.168.1.0/24'],
    ['192.168.1.255', 'the broadcast address of 192.168.1.0/24'],
    ['2001:db8::', 'the network address of 2001:db8::/64'],
    ['192.168.1.1', 'a gateway of this node'],
    ['2001:db8::ff', 'a gateway of this node'],
    ['10.96.0.10', 'in 10.96.0.0/16, which belongs to the cluster'],
    ['10.200.0.9', 'the ClusterIP of Service kube-system/dns'],
    ['fd00:200::9', 'the ClusterIP of Service kube-system/dns'],
  ])('%s: %s', (address, what) => {
    const dns = service('dns', {
      namespace: 'kube-system',
      spec: { clusterIP: '10.200.0.9', clusterIPs: ['10.200.0.9', 'fd00:200::9'] },
    });
    const { wants, refusals } = read([dns, service('web', external(address))], around);
    expect(wants).toEqual([]);
    expect(refusals).toEqual([
      {
        service: expect.objectContaining({ name: 'web' }),
        address,
        reason: 'AddressForbidden',
        message: `${address} cannot be a public address: it is ${what}`,
      },
    ]);
  });

  it.each(['192.168.1.77', '2001:db8::77', '172.16.0.0', '2001:db8::ffff', '192.168.1.2'])(
    'not %s: a /32 may be the public address itself, and the others are nothing',
    address => expect(addresses([service('web', external(address))], around)).toEqual([address]),
  );

  it('a headless Service has no ClusterIP', () => {
    expect(addresses([service('web', { spec: { clusterIP: 'None', externalIPs: ['10.0.0.1'] } })])).toEqual([
      '10.0.0.1',
    ]);
  });
});

describe('what the operator allows', () => {
  it('only addresses of the ranges; without ranges, all', () => {
    const services = [service('web', external('192.168.1.41', '10.0.0.1', '2001:db8::1'))];
    const ranges = [cidr('192.168.0.0/16'), cidr('2001:db8::/32')];
    expect(addresses(services, { ranges })).toEqual(['192.168.1.41', '2001:db8::1']);
    expect(read(services, { ranges }).refusals).toEqual([
      {
        service: expect.objectContaining({ name: 'web' }),
        address: '10.0.0.1',
        reason: 'OutsideRanges',
        message: '10.0.0.1 is left alone: it lies outside of 192.168.0.0/16, 2001:db8::/32',
      },
    ]);
    expect(addresses(services)).toHaveLength(3);
  });

  it('only Services of the namespaces', () => {
    const services = [
      service('web', external('10.0.0.1')),
      service('web', { namespace: 'shop', ...external('10.0.0.2') }),
    ];
    expect(addresses(services, { namespaces: new Set(['shop']) })).toEqual(['10.0.0.2']);
    expect(reasons(services, { namespaces: new Set(['shop']) })).toEqual([['10.0.0.1', 'NamespaceNotAllowed']]);
    expect(addresses(services, { namespaces: new Set() })).toEqual([]);
  });
});

describe('several Services on one address', () => {
  const at = (created: string, ...ports: object[]): Given => ({ created, spec: { externalIPs: ['10.0.0.1'], ports } });
  const tcp = (port: number) => ({ port, protocol: 'TCP' });

  it('all their ports count, and the oldest is the holder', () => {
    const [want] = read([
      service('young', at('2026-03-01T00:00:00Z', tcp(443))),
      service('old', at('2026-01-01T00:00:00Z', tcp(80), { port: 53, protocol: 'UDP' }, { port: 9, protocol: 'SCTP' })),
    ]).wants;
    expect(want?.services.map(({ name }) => name)).toEqual(['old', 'young']);
    expect(want?.ports).toEqual([
      { protocol: 'tcp', port: 80, comment: 'default/old' },
      { protocol: 'udp', port: 53, comment: 'default/old' },
      { protocol: 'sctp', port: 9, comment: 'default/old' },
      { protocol: 'tcp', port: 443, comment: 'default/young' },
    ]);
  });

  it('a port that two have is the older one’s; another protocol is another port', () => {
    const { wants, refusals } = read([
      service('young', at('2026-03-01T00:00:00Z', tcp(80), tcp(443))),
      service('old', at('2026-01-01T00:00:00Z', tcp(80))),
      service('udp', at('2026-04-01T00:00:00Z', { port: 80, protocol: 'UDP' })),
    ]);
    expect(wants[0]?.ports.map(({ port, protocol, comment }) => `${port}/${protocol} ${comment}`)).toEqual([
      '80/tcp default/old',
      '443/tcp default/young',
      '80/udp default/udp',
    ]);
    expect(refusals).toEqual([
      {
        service: expect.objectContaining({ name: 'young' }),
        address: '10.0.0.1',
        reason: 'PortTaken',
        message: 'port 80/tcp of 10.0.0.1 belongs to Service default/old, which is older',
      },
    ]);
  });

  it('of the same second, the order of the list does not matter', () => {
    const all = ['a', 'b', 'c', 'd'].map(name => service(name, at('2026-01-01T00:00:00Z', tcp(80))));
    fc.assert(
      fc.property(fc.shuffledSubarray(all, { minLength: 4 }), shuffled => {
        expect(read(shuffled)).toEqual(read(all));
      }),
    );
  });

  it('ports of no known protocol, or out of bounds, are left out', () => {
    const odd = [{ port: 0 }, { port: 65_536 }, { port: '80' }, { port: 80, protocol: 'ICMP' }, null, { port: 81 }];
    expect(read([service('web', at('', ...(odd as object[])))]).wants[0]?.ports).toEqual([
      { protocol: 'tcp', port: 81, comment: 'default/web' },
    ]);
  });
});

describe('externalTrafficPolicy Local', () => {
  const local = (name: string, created: string, policy = 'Local') =>
    service(name, { created, spec: { externalIPs: ['10.0.0.1', '2001:db8::1'], externalTrafficPolicy: policy } });
  const on = (nodeName: string, conditions: object = {}) => ({ nodeName, conditions });
  const nodes = (services: readonly unknown[], slices: readonly unknown[], address = '10.0.0.1') => {
    const found = read(services, {}, slices).wants.find(want => want.address === address);
    return found?.nodesReady && [...found.nodesReady].sort();
  };
  const web = local('web', '2026-01-01T00:00:00Z');

  it('the nodes with a ready endpoint, of all slices of the Service and of no other', () => {
    const slices = [
      slice('web', [on('a', { ready: true }), on('b', { ready: false }), on('c')]),
      slice('web', [on('d', { ready: true })]),
      slice('other', [on('e', { ready: true })]),
      slice('web', [on('f', { ready: true })], { namespace: 'shop' }),
    ];
    expect(nodes([web], slices)).toEqual(['a', 'c', 'd']);
  });

  it('each family by its own endpoints', () => {
    const slices = [slice('web', [on('a')]), slice('web', [on('b')], { addressType: 'IPv6' })];
    expect(nodes([web], slices)).toEqual(['a']);
    expect(nodes([web], slices, '2001:db8::1')).toEqual(['b']);
  });

  it('an endpoint that is being ended but still serves counts while none is ready', () => {
    const ending = on('a', { ready: false, serving: true, terminating: true });
    const ended = on('b', { ready: false, serving: false, terminating: true });
    expect(nodes([web], [slice('web', [ending, ended])])).toEqual(['a']);
    expect(nodes([web], [slice('web', [ending, on('c', { ready: true })])])).toEqual(['c']);
  });

  it('no endpoint at all: no node', () => {
    expect(nodes([web], [])).toEqual([]);
    expect(nodes([web], [slice('web', [{ conditions: { ready: true } }])])).toEqual([]);
  });

  it('two Services: a node that is ready for both, else for the older; one without that policy asks nothing', () => {
    const young = local('young', '2026-02-01T00:00:00Z');
    const slices = [slice('web', [on('a'), on('b')]), slice('young', [on('b'), on('c')])];
    expect(nodes([young, web], slices)).toEqual(['b']);
    expect(nodes([young, web], [slice('web', [on('a')]), slice('young', [on('c')])])).toEqual(['a']);
    expect(nodes([local('any', '2025-01-01T00:00:00Z', 'Cluster'), young], slices)).toEqual(['b', 'c']);
    expect(read([local('any', '', 'Cluster')], {}, slices).wants[0]).toMatchObject({ local: false });
    expect(nodes([local('any', '', 'Cluster')], slices)).toBeUndefined();
  });
});

it('an address is wanted or refused, never both and never neither', () => {
  const address = fc.oneof(fc.ipV4(), fc.ipV6(), fc.constantFrom('192.168.1.1', '192.168.1.2', '10.0.0.1'));
  const around: Around = { ...nothing, ranges: [cidr('0.0.0.0/1'), cidr('::/1')], gateways: [ip('192.168.1.1')] };
  fc.assert(
    fc.property(fc.array(address), externalIPs => {
      const { wants, refusals } = read([service('web', { spec: { externalIPs, ports: [] } })], around);
      const canonical = (text: string) => formatIp(ip(text));
      const told = [...wants.map(want => want.address), ...refusals.map(refusal => refusal.address)];
      expect(new Set(told)).toEqual(new Set(externalIPs.map(canonical)));
      expect(wants.every(want => !refusals.some(refusal => refusal.address === want.address))).toBe(true);
    }),
  );
});

it('who reads again and again reads the same as who reads once', () => {
  const name = fc.constantFrom('a', 'b', 'c');
  const some = fc.constantFrom('10.0.0.1', '10.0.0.2', '10.1.0.1', '10.2.0.5');
  const one = fc
    .record({ name, externalIPs: fc.array(some, { maxLength: 3 }), clusterIP: fc.option(some, { nil: undefined }) })
    .map(({ name, ...spec }) => service(name, { spec }));
  const node = fc
    .record({ name, podCIDR: fc.constantFrom('10.1.0.0/24', '10.2.0.0/24'), address: some })
    .map(({ name, podCIDR, address }) => ({
      metadata: { name },
      spec: { podCIDR },
      status: { addresses: [{ type: 'InternalIP', address }] },
    }));
  const byName = { selector: (object: { metadata: { name: string } }) => object.metadata.name };
  fc.assert(
    fc.property(
      fc.uniqueArray(one, byName),
      fc.uniqueArray(node, byName),
      fc.infiniteStream(fc.nat(9)),
      (all, nodes, dice) => {
        const reader = new WantsReader();
        for (let round = 0; round < 4; round++) {
          const now = all.filter(() => dice.next().value! > 2);
          const there = { ...nothing, nodes: nodes.filter(() => dice.next().value! > 2) };
          expect(reader.read(now, [], there)).toEqual(readWants(structuredClone(now), [], there));
        }
      },
    ),
  );
});
