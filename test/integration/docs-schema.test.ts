// Whether the JSON Schema and the program say the same of good and bad configurations.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { readAsPlugin, schemaProblems } from '../helpers/network-schema.ts';

const subnet = '10.188.0.0/16';
const etcdURL = 'https://10.0.0.1:2379';

function network(ipam: unknown, rest: Readonly<Record<string, unknown>> = {}) {
  return { cniVersion: '1.0.0', name: 'pods', type: 'bridge', ...rest, ipam };
}

function of(keys: Readonly<Record<string, unknown>>, rest: Readonly<Record<string, unknown>> = {}) {
  return network({ type: 'kube-ipam', subnet, ...keys }, rest);
}

const good: Readonly<Record<string, unknown>> = {
  'one subnet': of({}),
  'all keys of a range': of({ rangeStart: '10.188.0.10', rangeEnd: '10.188.0.99', gateway: '10.188.0.254' }),
  'a fixed span': of({ fixedStart: '10.188.1.1', fixedEnd: '10.188.1.9' }),
  'two families': network({ type: 'kube-ipam', ranges: [[{ subnet }], [{ subnet: 'fd00:1::/64' }]] }),
  'a ring of two ranges': network({
    type: 'kube-ipam',
    ranges: [
      [
        { subnet, name: 'a' },
        { subnet: '10.1.0.0/30', name: 'b' },
      ],
    ],
  }),
  'excluded of all kinds': of({ exclude: ['10.188.7.7', '10.188.8.0/24', '10.188.9.1-10.188.9.9', 'fd00::/64'] }),
  'routes of 1.1.0': of(
    { routes: [{ dst: '0.0.0.0/0', gw: '10.188.0.1', mtu: 1400, table: 0 }] },
    { cniVersion: '1.1.0' },
  ),
  'a route with host bits': of({ routes: [{ dst: '10.0.0.7/8', gw: '' }] }),
  durations: of({ cooldown: '1m30s', timeout: 2.5 }),
  'no cooldown': of({ cooldown: 0 }),
  sizes: of({ logMaxSize: '20 MiB' }),
  'everything null': of({
    rangeStart: null,
    ranges: null,
    exclude: null,
    routes: null,
    etcdConfig: null,
    status: null,
    logLevel: null,
  }),
  etcd: of({ etcdConfig: { etcdURL: `${etcdURL}, node2:2379` }, status: 'local' }),
  'etcd with certificates': of({
    etcdConfig: { etcdURL, etcdCertFile: '/a', etcdKeyFile: '/b', etcdTrustedCAFileFile: '/c' },
  }),
  'etcd with its CA under the straight name': of({ etcdConfig: { etcdURL, etcdTrustedCAFile: '/c' } }),
  'etcd with a user': of({ etcdConfig: { etcdURL, etcdUsername: 'u', etcdPasswordFile: '/p', dialTimeout: '500ms' } }),
  'the keys of old configurations': of({
    name: 'kube-subnet',
    kubeConfig: '/k',
    etcdConfig: { etcdURL, kubeConfig: '/k' },
  }),
  'keys of later releases, switched off': of({ nodeCIDR: false }),
  'what asks the Kubernetes API': of({ kubeConfig: '/k', sticky: 'statefulset', fixedHold: '10m' }),
  'the same, with kubeConfig in its old place': of({ sticky: true, etcdConfig: { etcdURL, kubeConfig: '/k' } }),
  'the same, switched off': of({ kubeConfig: '', sticky: false, pods: null }),
  'selectors of all kinds': network({
    type: 'kube-ipam',
    kubeConfig: '/k',
    ranges: [
      [
        {
          subnet,
          name: 'db',
          pods: { matchLabels: { 'app.kubernetes.io/name': 'db', tier: '' }, matchExpressions: null },
          nodes: {
            matchExpressions: [
              { key: 'zone', operator: 'In', values: ['a', 'b'] },
              { key: 'zone', operator: 'NotIn', values: ['c'] },
              { key: 'gpu', operator: 'Exists' },
              { key: 'old', operator: 'DoesNotExist', values: [] },
            ],
          },
          namespaces: {},
        },
      ],
    ],
  }),
  'selectors beside the subnet': of({ kubeConfig: '/k', nodes: { matchLabels: { a: 'b' } } }),
  'the ranges come from the runtime': network({ type: 'kube-ipam' }, { runtimeConfig: { ipRanges: [[{ subnet }]] } }),
  'addresses asked for': of({}, { args: { cni: { ips: ['10.188.0.9/16'] } }, runtimeConfig: { ips: ['10.188.0.9'] } }),
  'no version': { ...of({}), cniVersion: undefined },
  'IPv6 in another spelling': of({ subnet: 'FD00:0:0::/48', gateway: 'fd00::0001' }),
  'keys of the main plugin': of(
    {},
    { isGateway: true, master: 'eth0', mtu: 1400, capabilities: { ips: true }, dns: {} },
  ),
};

const bad: Readonly<Record<string, unknown>> = {
  'no name': { ...of({}), name: undefined },
  'a name with a slash': of({}, { name: 'a/b' }),
  'an unknown version': of({}, { cniVersion: '1.0.1' }),
  'no range': network({ type: 'kube-ipam' }),
  'no set': network({ type: 'kube-ipam', ranges: [] }),
  'an empty set': network({ type: 'kube-ipam', ranges: [[]] }),
  'a range without subnet': network({ type: 'kube-ipam', ranges: [[{ rangeStart: '10.0.0.1' }]] }),
  'ranges that are no lists': network({ type: 'kube-ipam', ranges: [{ subnet }] }),
  'a subnet without length': of({ subnet: '10.188.0.0' }),
  'an empty subnet': of({ subnet: '' }),
  'an octet too large': of({ subnet: '10.188.256.0/24' }),
  'leading zeros': of({ gateway: '10.188.000.001' }),
  'a subnet too small': of({ subnet: '10.188.0.0/31' }),
  'an IPv6 subnet too small': of({ subnet: 'fd00::/127' }),
  'an IPv6 prefix too long': of({ subnet: 'fd00::/129' }),
  'a number for an address': of({ rangeStart: 10 }),
  'half a fixed span': of({ fixedStart: '10.188.1.1' }),
  'an address with a length': of({ gateway: '10.188.0.1/16' }),
  'excluded: not a list': of({ exclude: '10.188.0.9' }),
  'excluded: no address': of({ exclude: ['gateway'] }),
  'excluded: half a span': of({ exclude: ['10.188.0.1-'] }),
  'a route without destination': of({ routes: [{ gw: '10.188.0.1' }] }),
  'a route to a name': of({ routes: [{ dst: 'default' }] }),
  'a route with a negative MTU': of({ routes: [{ dst: '0.0.0.0/0', mtu: -1 }] }),
  'a route with half a table': of({ routes: [{ dst: '0.0.0.0/0', table: 1.5 }] }),
  'a duration without unit': of({ cooldown: '5x' }),
  'a negative duration': of({ cooldown: -1 }),
  'a cooldown of years': of({ cooldown: 31_622_401 }),
  'hours for a command': of({ timeout: 3601 }),
  'a log in the result': of({ logFile: '/dev/stdout' }),
  'no time at all': of({ timeout: 0 }),
  'no time at all, as text': of({ timeout: '0s' }),
  'another status': of({ status: 'remote' }),
  'another level': of({ logLevel: 'trace' }),
  'no log size': of({ logMaxSize: 0 }),
  'a log size in words': of({ logMaxSize: 'large' }),
  'a relative folder': of({ dataDir: 'var/lib' }),
  'a relative log': of({ logFile: 'kube-ipam.log' }),
  'a relative socket': of({ agentSocket: 'agent.sock' }),
  'a space with a slash': of({ addressSpace: 'a/b' }),
  'a space of our own': of({ addressSpace: 'clusters' }),
  'a node name with a blank': of({ nodeName: 'node a' }),
  'etcd without endpoints': of({ etcdConfig: {} }),
  'etcd: no endpoint in the list': of({ etcdConfig: { etcdURL: ' , ' } }),
  'etcd: another scheme': of({ etcdConfig: { etcdURL: 'ftp://10.0.0.1:2379' } }),
  'etcd: a password in the URL': of({ etcdConfig: { etcdURL: 'https://root:secret@10.0.0.1:2379' } }),
  'etcd: a path in the URL': of({ etcdConfig: { etcdURL: 'https://10.0.0.1:2379/v3' } }),
  'etcd: a certificate without key': of({ etcdConfig: { etcdURL, etcdCertFile: '/a' } }),
  'etcd: a relative key': of({ etcdConfig: { etcdURL, etcdCertFile: '/a', etcdKeyFile: 'b' } }),
  'etcd: a user without password': of({ etcdConfig: { etcdURL, etcdUsername: 'u' } }),
  'etcd: a relative CA under its straight name': of({ etcdConfig: { etcdURL, etcdTrustedCAFile: 'c' } }),
  'etcd: not an object': of({ etcdConfig: etcdURL }),
  'a selector without kubeConfig': of({ pods: { matchLabels: { a: 'b' } } }),
  'a selector of a range without kubeConfig': network({ type: 'kube-ipam', ranges: [[{ subnet, nodes: {} }]] }),
  'sticky without kubeConfig': of({ sticky: true }),
  'sticky with an empty kubeConfig': of({ sticky: 'vm', kubeConfig: '' }),
  'another kind of sticky': of({ kubeConfig: '/k', sticky: 'deployment' }),
  'a relative kubeConfig': of({ kubeConfig: 'k' }),
  'a relative kubeConfig in its old place': of({ etcdConfig: { etcdURL, kubeConfig: 'k' } }),
  'a negative hold': of({ fixedHold: -1 }),
  'a hold of two years': of({ fixedHold: 63_244_800 }),
  'a range name with a comma': network({ type: 'kube-ipam', ranges: [[{ subnet, name: 'a,b' }]] }),
  'a selector with a misspelt key': of({ kubeConfig: '/k', pods: { matchlabels: { a: 'b' } } }),
  'a selector of bare labels': of({ kubeConfig: '/k', pods: { a: 'b' } }),
  'a selector: a value that is no label value': of({ kubeConfig: '/k', pods: { matchLabels: { a: 'b c' } } }),
  'a selector: a value that is none': of({ kubeConfig: '/k', pods: { matchLabels: { a: null } } }),
  'a selector: a key that is no label key': of({ kubeConfig: '/k', pods: { matchLabels: { 'a b': 'c' } } }),
  'a selector: another operator': of({
    kubeConfig: '/k',
    pods: { matchExpressions: [{ key: 'a', operator: 'Equals', values: ['b'] }] },
  }),
  'a selector: no values': of({ kubeConfig: '/k', pods: { matchExpressions: [{ key: 'a', operator: 'In' }] } }),
  'a selector: values too many': of({
    kubeConfig: '/k',
    pods: { matchExpressions: [{ key: 'a', operator: 'Exists', values: ['b'] }] },
  }),
  'a key of the router': of({ policy: {} }),
  'addresses asked for: no list': of({}, { runtimeConfig: { ips: '10.188.0.9' } }),
  'addresses asked for: no address': of({}, { args: { cni: { ips: ['any'] } } }),
};

/** What only the schema finds, because the CNI specification tells plugins to ignore keys that they do not know. */
const typos: Readonly<Record<string, unknown>> = {
  'in ipam': of({ rangeStrat: '10.188.0.10' }),
  'in a range': network({ type: 'kube-ipam', ranges: [[{ subnet, gatway: '10.188.0.1' }]] }),
  'in a route': of({ routes: [{ dst: '0.0.0.0/0', gateway: '10.188.0.1' }] }),
  'in etcdConfig': of({ etcdConfig: { etcdURL, etcdCaFile: '/c' } }),
};

/** JSON has no undefined: what is sent is what a file can hold. */
function asFile(value: unknown): Readonly<Record<string, unknown>> {
  return JSON.parse(JSON.stringify(value));
}

describe('the schema and the plugin accept', () => {
  it.each(Object.entries(good))('%s', (_, value) => {
    expect(readAsPlugin(asFile(value))).toBeUndefined();
    expect(schemaProblems(asFile(value))).toEqual([]);
  });
});

describe('the schema and the plugin refuse', () => {
  it.each(Object.entries(bad))('%s', (_, value) => {
    expect(readAsPlugin(asFile(value))).toEqual(expect.any(String));
    expect(schemaProblems(asFile(value))).not.toEqual([]);
  });
});

describe('the schema finds a misspelt key that the plugin must ignore', () => {
  it.each(Object.entries(typos))('%s', (_, value) => {
    expect(readAsPlugin(asFile(value))).toBeUndefined();
    expect(schemaProblems(asFile(value))).not.toEqual([]);
  });

  it('in one of several plugins, and in a delegate of Multus', () => {
    const inner = typos['in ipam'] as object;
    expect(schemaProblems({ cniVersion: '1.0.0', name: 'n', plugins: [{ type: 'tuning' }, inner] })).not.toEqual([]);
    expect(schemaProblems({ name: 'n', type: 'multus', delegates: [inner] })).not.toEqual([]);
  });
});

describe('for any change to a configuration', () => {
  const address = ['10.188.0.1', '10.188.3.7', '10.188.255.254', 'fd00::7', '10.1.0.1', '', '10.188.0.01', 7, null];
  const duration = [
    0,
    1.5,
    3600,
    3601,
    40_000_000,
    '1m',
    '0',
    '0s',
    '.5s',
    '1.s',
    '5x',
    -1,
    true,
    null,
    '1h2m',
    '00.10',
    '1 s',
    '1\u00b5s',
  ];
  const path = ['/a', '', 'a', '/a b', 3, null];
  const label = ['a', 'a.b-c_d', '', '-a', 'a/b', 'clusters', 4, null, 'a\n'];
  const cidr = [subnet, '10.188.0.0/30', 'fd00::/64', '10.188.0.0/31', '10.188.0.1/16', '', 'x', 5, null];
  const selector = [
    {},
    { matchLabels: { a: 'b' } },
    { matchLabels: { a: 'b c' } },
    { matchLabels: { a: null } },
    { matchExpressions: [{ key: 'a/b', operator: 'In', values: ['', 'x'] }] },
    { matchExpressions: [{ key: 'a', operator: 'Exists', values: null }] },
    { matchExpressions: [{ key: 'a', operator: 'Exists', values: ['x'] }] },
    { matchExpressions: [{ key: 'a', operator: 'In' }] },
    { matchExpressions: [null] },
    false,
    null,
  ];
  const kubeConfig = ['/k', '', 'k', 5, null];
  const ofRange = {
    rangeStart: address,
    rangeEnd: address,
    gateway: address,
    fixedStart: address,
    fixedEnd: address,
    pods: selector,
  };
  const ofRoute = { gw: address, mtu: [0, 1400, -1, 1.5, 'x', null, 2 ** 53], dst: ['::/0', '10.0.0.1/8', 'x', null] };
  const urls = [
    'h',
    'h:1,',
    ',',
    '',
    'ftp://h',
    'http://u@h',
    'HTTP://h:2379/',
    'h/p',
    '[::1]:2379',
    ' h , i ',
    4,
    null,
  ];
  // Not etcdTrustedCAFile: where both spellings are given, the program looks at one, the schema at each.
  const ofEtcd = {
    etcdURL: urls,
    etcdCertFile: path,
    etcdKeyFile: path,
    etcdTrustedCAFileFile: path,
    etcdUsername: ['u', '', 4, null],
    etcdPasswordFile: path,
    dialTimeout: duration,
    requestTimeout: duration,
    kubeConfig,
  };
  const ofIpam = {
    ...ofRange,
    subnet: cidr,
    exclude: [['10.188.0.9'], ['10.188.0.0/24'], ['10.188.0.9 - 10.188.0.12'], ['a-b'], ['::-::5'], [4], {}, null],
    resolvConf: ['/etc/resolv.conf', '', 'x', 4, null],
    dataDir: path,
    agentSocket: ['/run/a.sock', '', 'run/a.sock', 4, null],
    logFile: path,
    addressSpace: label,
    cluster: label,
    nodeName: label,
    name: ['a', '', 4, null],
    cooldown: duration,
    fixedHold: duration,
    kubeConfig,
    sticky: [false, true, 'vm', 'statefulset', '', null],
    nodes: selector,
    timeout: duration,
    status: ['full', 'local', '', 'x', null],
    logLevel: ['debug', 'off', 'x', null],
    logMaxSize: [1, 0, '20MB', '0', '1 kib', '1KBB', '1b', 1.5, null],
    ranges: [
      [],
      [[]],
      [[{ subnet: 'fd00::/64' }]],
      [[{ subnet: '10.1.0.0/24' }, { subnet: '10.2.0.0/24' }]],
      [
        [
          { subnet: '10.1.0.0/24', name: 'a' },
          { subnet: '10.2.0.0/24', name: 'b c' },
        ],
      ],
      [[{ subnet: '10.1.0.0/24', namespaces: { matchLabels: { a: 'b' } } }]],
      'x',
      null,
    ],
  };

  /** One to three keys of an object, each with one of its values. */
  function some(values: Readonly<Record<string, readonly unknown[]>>) {
    const change = fc
      .constantFrom(...Object.keys(values))
      .chain(key => fc.tuple(fc.constant(key), fc.constantFrom(...values[key]!)));
    return fc.array(change, { minLength: 1, maxLength: 3 }).map(changes => Object.fromEntries(changes));
  }

  const changed = fc.oneof(
    some(ofIpam).map(keys => of(keys)),
    some(ofIpam).map(keys => of({ kubeConfig: '/k', ...keys })),
    some(ofRange).map(keys => network({ type: 'kube-ipam', ranges: [[{ subnet, ...keys }]] })),
    some(ofRange).map(keys => network({ type: 'kube-ipam', kubeConfig: '/k', ranges: [[{ subnet, ...keys }]] })),
    some(ofRoute).map(keys => of({ routes: [{ dst: '0.0.0.0/0', ...keys }] })),
    some(ofEtcd).map(keys => of({ etcdConfig: { etcdURL, ...keys } })),
  );

  it('the schema never finds fault with what the plugin serves', () => {
    let served = 0;
    fc.assert(
      fc.property(changed, change => {
        const conf = asFile(change);
        if (readAsPlugin(conf) !== undefined) return;
        served++;
        expect(schemaProblems(conf)).toEqual([]);
      }),
      { numRuns: 20_000 },
    );
    expect(served).toBeGreaterThan(1000);
  });
});
