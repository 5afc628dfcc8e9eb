// The configuration: every key with good and bad values, all problems at once, and what DEL takes all the same.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FailureError } from '../base/errors.ts';
import { formatIp } from '../net/ip.ts';
import { formatSpan } from '../net/span.ts';
import { readAccessConfig, readNetworkConfig } from './config.ts';

type Json = Record<string, unknown>;
const base = { subnet: '10.1.0.0/24' };
const read = (ipam: Json, more: Json = {}, version = '1.0.0') =>
  readNetworkConfig({ name: 'net', ipam, ...more }, version);

function problem(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    if (!(error instanceof FailureError)) throw error;
    expect(error.code).toBe(7);
    return error.message;
  }
  throw new Error('accepted');
}

const refused = (ipam: Json, more: Json = {}, version = '1.0.0') => problem(() => read(ipam, more, version));

describe('defaults', () => {
  it('are those of the reference', () => {
    expect(read(base)).toMatchObject({
      network: 'net',
      space: 'default',
      cluster: 'default',
      nodeName: undefined,
      store: { kind: 'embedded', dataDir: '/var/lib/cni/kube-ipam' },
      cooldown: 0,
      timeout: 10_000,
      log: { file: '/var/log/kube-ipam.log', level: 'info', maxSize: 20 * 2 ** 20 },
      exclude: [],
      routes: [],
      status: 'full',
      requested: [],
      kubeConfig: undefined,
      sticky: { statefulSets: false, vms: false },
      fixedHold: 3600,
      unsupportedKeys: [],
    });
  });

  it('null leaves every key at its default (3.5, 3.6)', () => {
    const keys = Object.keys(good).concat(['ranges', 'rangeStart', 'rangeEnd', 'gateway', 'kubeConfig', 'routes']);
    const nulls = Object.fromEntries(keys.map(key => [key, null]));
    const more = { args: null, runtimeConfig: null, dns: null, prevResult: null };
    expect(read({ ...nulls, ...base }, more)).toEqual(read(base));
  });

  it('12.3 gateway and start are the first host address, the end is the last: before broadcast, or the very last of IPv6', () => {
    const text = (subnet: string) => {
      const range = read({ subnet }).sets[0]![0]!;
      return [formatIp(range.gateway), formatSpan(range)];
    };
    expect(text('10.1.0.0/24')).toEqual(['10.1.0.1', '10.1.0.1-10.1.0.254']);
    expect(text('10.1.0.0/30')).toEqual(['10.1.0.1', '10.1.0.1-10.1.0.2']);
    expect(text('fd00::/126')).toEqual(['fd00::1', 'fd00::1-fd00::3']);
    expect(text('FD00:0::0/64')).toEqual(['fd00::1', 'fd00::1-fd00::ffff:ffff:ffff:ffff']);
  });
});

const good: Readonly<Record<string, readonly unknown[]>> = {
  timeout: [1, '5', '1m', 0.5],
  dataDir: ['/data', '/a b'],
  addressSpace: ['blue', 'a.b-c_1'],
  nodeName: ['node-1', 'node.example.org'],
  cluster: ['blue'],
  cooldown: [0, 60, '1m', '24h'],
  fixedHold: [0, 60, '1m', '24h'],
  kubeConfig: ['/etc/kubernetes/admin.conf', ''],
  sticky: [false],
  status: ['full', 'local'],
  logFile: ['/x.log'],
  logLevel: ['debug', 'info', 'warn', 'error', 'off'],
  logMaxSize: [1, 5_000_000, '20MB', '20 MB', '512K', '1g', '1GiB'],
  resolvConf: ['/etc/resolv.conf', ''],
  exclude: [[], ['10.1.0.5', '10.1.0.16/28', '10.1.0.7-10.1.0.9']],
  rangeStart: ['10.1.0.5', ''],
  rangeEnd: ['10.1.0.50'],
  gateway: ['10.1.0.254', '10.1.0.0'],
  routes: [[], [{ dst: '0.0.0.0/0' }]],
  name: ['anything', ''],
  somethingElse: [{ deep: [1] }],
};

describe('good values', () => {
  const all = Object.entries(good).flatMap(([key, values]) => values.map(value => [key, value] as const));
  it.each(all)('%s %j', (key, value) => {
    expect(() => read({ ...base, [key]: value })).not.toThrow();
  });
});

const bad: Readonly<Record<string, readonly unknown[]>> = {
  timeout: [0, -1, 'soon', '2h', 1e300, [], true],
  dataDir: ['data', './data', '', 5, '/a\0b', '/proc/x'],
  addressSpace: ['', 'a/b', 'a b', 5, '.a', 'format', 'clusters'],
  nodeName: ['a/b', '', 5, 'a\n'],
  cluster: ['a/b', 5],
  cooldown: [-1, 'long', {}, 1e300, '9000h'],
  fixedHold: [-1, 'long', {}, 1e300, '9000h', true],
  kubeConfig: ['k', './k', 5, true, {}, '/a\0b'],
  sticky: [true, 'vm', 'statefulset', 'both', '', 5, {}],
  namespaces: [{}, false, 'x', []],
  nodes: [{}, { matchLabels: { a: 'b' } }],
  pods: [{ matchLabels: 5 }],
  status: ['none', '', 5, true],
  logFile: ['log', 5, '/dev/stdout', '/proc/self/fd/1', '//dev/fd/1'],
  logLevel: ['trace', 5],
  logMaxSize: [0, -1, 1.5, 'big', '0', '1TB'],
  resolvConf: [5, {}],
  exclude: ['10.1.0.5', ['x'], [5], ['10.1.0.9-10.1.0.5'], ['10.1.0.5/24'], {}],
  rangeStart: ['x', 5, '10.2.0.1', '10.1.0.300', 'fd00::1'],
  rangeEnd: ['10.2.0.1', '10.1.1.0'],
  gateway: ['10.2.0.1', 'x', 5],
  fixedStart: ['10.1.0.5', '10.2.0.5'],
  fixedEnd: ['10.1.0.5'],
  routes: [{}, ['x'], [{}]],
  subnet: ['', '10.1.0.0', '10.1.0.5/24', '10.1.0.0/31', '10.1.0.0/32', 'fd00::/127', 'fd00::/128', 5, '10.1.0.0/33'],
  ranges: [{}, 'x', [[]], [{}], [[{}]], [[{ subnet: 'x' }]], [['x']]],
  etcdConfig: ['x', [], {}, { etcdURL: '' }, { etcdURL: 5 }, { etcdURL: 'x y' }, { etcdURL: 'ftp://a' }],
};

describe('3.9 bad values: code 7, naming network, key and value', () => {
  const all = Object.entries(bad).flatMap(([key, values]) => values.map(value => [key, value] as const));
  it.each(all)('%s %j', (key, value) => {
    const message = refused({ ...base, [key]: value });
    expect(message).toContain('network "net": ');
    expect(message).toContain(key);
  });

  it('a message tells key, value and rule', () => {
    expect(refused({ subnet: '10.1.0.5/24' })).toBe(
      'network "net": ipam.subnet "10.1.0.5/24": has host bits set: write 10.1.0.0/24',
    );
    expect(refused({ ...base, timeout: 'soon' })).toMatch(/ipam\.timeout "soon": must be a number of seconds or/);
  });

  it.each(['::/0', '::/64', '::/80', '::fffe:0:0/95'])('%s would hold addresses that read back as IPv4', subnet => {
    expect(refused({ subnet })).toContain('contains ::ffff:0:0/96');
  });

  it.each(['::/96', '::fffe:0:0/96', '::1:0:0:0/80', '64:ff9b::/96'])('%s is as good as any subnet', subnet => {
    expect(read({ subnet }).sets[0]![0]!.family).toBe(6);
  });

  it('host bits in a subnet hide nothing of what is wrong inside it', () => {
    const message = refused({
      subnet: '10.1.0.5/24',
      gateway: '10.9.0.1',
      rangeStart: '10.1.0.9',
      rangeEnd: '10.1.0.2',
    });
    expect(message).toContain('host bits');
    expect(message).toContain('ipam.gateway "10.9.0.1": must lie inside subnet 10.1.0.0/24');
    expect(message).toContain('ipam.rangeStart "10.1.0.9": start lies behind the end');
    expect(message).toContain('(3 problems)');
  });

  it('all problems at once, from every part', () => {
    const ranges = [[{ subnet: '10.2.0.0/31' }, { subnet: '10.3.0.0/24', gateway: '10.9.0.1' }], [{}]];
    const etcdConfig = { etcdURL: 'x y', etcdCertFile: '/c', etcdUsername: 'u', dialTimeout: 'x' };
    const ipam = { ...base, rangeStart: 'a', rangeEnd: 'b', timeout: 0, ranges, routes: [{ dst: 'c' }], etcdConfig };
    const message = refused(ipam, { runtimeConfig: { ips: ['d'], ipRanges: [[{ subnet: 'e' }]] }, args: { cni: 5 } });
    for (const part of [
      'ipam.rangeStart "a"',
      'ipam.rangeEnd "b"',
      'ipam.timeout 0',
      'ipam.ranges[0][0].subnet "10.2.0.0/31"',
      'ipam.ranges[0][1].gateway "10.9.0.1"',
      'ipam.ranges[1][0].subnet',
      'ipam.routes[0].dst "c"',
      'ipam.etcdConfig.etcdURL',
      'ipam.etcdConfig.etcdCertFile',
      'ipam.etcdConfig.etcdUsername',
      'ipam.etcdConfig.dialTimeout "x"',
      'runtimeConfig.ips[0] "d"',
      'runtimeConfig.ipRanges[0][0].subnet "e"',
      'args.cni 5',
    ]) {
      expect(message).toContain(part);
    }
    expect(message).toMatch(/\(\d\d problems\)$/);
  });

  it.each([
    {},
    { ipam: null },
    { ipam: 'x' },
    { ipam: [] },
    { ipam: {} },
    { ipam: { ranges: [] } },
    { ipam: { ranges: null } },
  ])('%j gives out nothing', conf => {
    expect(problem(() => readNetworkConfig({ name: 'net', ...conf }, '1.0.0'))).toMatch(/ipam/);
  });
});

describe('sets', () => {
  const firsts = (ipam: Json, more: Json = {}) =>
    read(ipam, more).sets.map(set => set.map(({ first, family }) => formatIp({ family, value: first })));

  it('11.7, 12.1 ipRanges come first, then the range written directly, then ranges', () => {
    const runtimeConfig = { ipRanges: [[{ subnet: '10.3.0.0/24' }]] };
    const ipam = { ...base, ranges: [[{ subnet: '10.2.0.0/24' }, { subnet: '10.4.0.0/24' }]] };
    expect(firsts(ipam, { runtimeConfig })).toEqual([['10.3.0.1'], ['10.1.0.1'], ['10.2.0.1', '10.4.0.1']]);
  });

  it('"" beside ranges is no range written directly', () => {
    expect(firsts({ rangeStart: '', gateway: '', ranges: [[{ subnet: '10.2.0.0/24' }]] })).toEqual([['10.2.0.1']]);
  });

  it.each([
    ['two sets that overlap', [[{ subnet: '10.1.0.0/24' }], [{ subnet: '10.1.0.0/25' }]], 'overlaps ipam.ranges[0][0]'],
    ['two ranges of a set that overlap', [[{ subnet: '10.1.0.0/24' }, { subnet: '10.1.0.0/16' }]], 'overlaps'],
    ['families mixed in a set', [[{ subnet: '10.1.0.0/24' }, { subnet: 'fd00::/64' }]], 'mixes IPv4 and IPv6'],
    [
      'a name given twice',
      [[{ subnet: '10.1.0.0/24', name: 'a' }], [{ subnet: '10.2.0.0/24', name: 'a' }]],
      'names must be unique',
    ],
    ['start behind end', [[{ subnet: '10.1.0.0/24', rangeStart: '10.1.0.9', rangeEnd: '10.1.0.5' }]], 'behind the end'],
    ['a fixed span the wrong way round', [[{ ...base, fixedStart: '10.1.0.9', fixedEnd: '10.1.0.5' }]], 'fixedStart'],
    ['half a fixed span', [[{ ...base, fixedStart: '', fixedEnd: '10.1.0.5' }]], 'needs both'],
  ])('%s', (_, ranges, rule) => expect(refused({ ranges })).toContain(rule));

  it('at most 32', () => {
    const ranges = (count: number) => Array.from({ length: count }, (_, n) => [{ subnet: `10.${n}.0.0/24` }]);
    expect(read({ ranges: ranges(32) }).sets).toHaveLength(32);
    expect(refused({ ranges: ranges(33) })).toContain('at most 32 sets');
  });

  it.each(['0.1.0', '0.2.0'])('12.4 %s: one set of each family', version => {
    const two = { ...base, ranges: [[{ subnet: '10.2.0.0/24' }]] };
    expect(refused(two, {}, version)).toContain('IPv4');
    expect(read({ ...base, ranges: [[{ subnet: 'fd00::/64' }]] }, {}, version).sets).toHaveLength(2);
    expect(read(two, {}, '0.3.0').sets).toHaveLength(2);
  });

  it('`name` in ipam names no range, in a range it does', () => {
    expect(read({ ...base, name: 'old' }).sets[0]![0]).not.toHaveProperty('name');
    expect(read({ ranges: [[{ ...base, name: 'web' }]] }).sets[0]![0]).toMatchObject({ name: 'web' });
  });

  it('a name is one that an annotation can list', () => {
    expect(read({ ranges: [[{ ...base, name: '' }]] }).sets[0]![0]).not.toHaveProperty('name');
    for (const name of ['a b', 'a,b', 'a=b', '.a', 5]) {
      expect(refused({ ranges: [[{ ...base, name }]] })).toContain('ipam.ranges[0][0].name');
    }
  });

  it('a fixed span is part of its range', () => {
    const { fixed } = read({ ...base, fixedStart: '10.1.0.10', fixedEnd: '10.1.0.19' }).sets[0]![0]!;
    expect(formatSpan(fixed!)).toBe('10.1.0.10-10.1.0.19');
  });
});

describe('etcdConfig', () => {
  const target = (etcdConfig: Json, ipam: Json = {}) => read({ ...base, ...ipam, etcdConfig }).store;

  it.each([
    ['http://a:2379', ['http://a:2379']],
    ['a:2379, b:2380 ,', ['http://a:2379', 'http://b:2380']],
    ['a', ['http://a:2379']],
    ['https://a', ['https://a:2379']],
    ['https://a:443', ['https://a:443']],
    ['https://[fd00::1]:2379/', ['https://[fd00::1]:2379']],
    ['http://a:2379,http://a:2379', ['http://a:2379']],
  ])('endpoints %s', (etcdURL, endpoints) => expect(target({ etcdURL })).toMatchObject({ endpoints }));

  it.each([
    'http://u:pw-4711@a',
    'u:pw-4711@a:2379',
    'http://a/path',
    'http://a?x',
    'http://',
    'a:99999',
    'http://a:b',
  ])('refuses %s, without a word of a password', etcdURL =>
    expect(refused({ ...base, etcdConfig: { etcdURL } })).not.toContain('4711'),
  );

  it('certificates, user and timeouts', () => {
    const etcdConfig = {
      etcdURL: 'https://a:2379',
      etcdCertFile: '/cert',
      etcdKeyFile: '/key',
      etcdTrustedCAFileFile: '/ca',
      etcdUsername: 'ipam',
      etcdPasswordFile: '/password',
      dialTimeout: '500ms',
      requestTimeout: 2,
    };
    const all = {
      kind: 'etcd',
      endpoints: ['https://a:2379'],
      certFile: '/cert',
      keyFile: '/key',
      caFile: '/ca',
      username: 'ipam',
      passwordFile: '/password',
      dialTimeout: 500,
      requestTimeout: 2000,
      dataDir: '/var/lib/cni/kube-ipam',
    };
    expect(target(etcdConfig)).toEqual(all);
    const { etcdTrustedCAFileFile: _, ...straight } = etcdConfig;
    expect(target({ ...straight, etcdTrustedCAFile: '/ca' })).toEqual(all);
    expect(target({ etcdURL: 'a' })).toMatchObject({ dialTimeout: 1000, requestTimeout: 3000 });
  });

  it.each([
    { etcdCertFile: '/c' },
    { etcdKeyFile: '/k' },
    { etcdUsername: 'u' },
    { etcdPasswordFile: '/p' },
    { etcdCertFile: 'relative', etcdKeyFile: '/k' },
    { etcdTrustedCAFile: 'relative' },
    { requestTimeout: '2h' },
  ])('%j is half a configuration, or none', part => {
    expect(refused({ ...base, etcdConfig: { etcdURL: 'a', ...part } })).toContain('ipam.etcdConfig.');
  });

  it('a password in the place of its file is not repeated', () => {
    const message = refused({ ...base, etcdConfig: { etcdURL: 'a', etcdUsername: 'u', etcdPasswordFile: 'pw-4711' } });
    expect(message).toContain('etcdPasswordFile');
    expect(message).not.toContain('4711');
  });

  it('"" means absent, as the published samples write it', () => {
    const empty = {
      etcdCertFile: '',
      etcdKeyFile: '',
      etcdTrustedCAFileFile: '',
      etcdUsername: '',
      etcdPasswordFile: '',
    };
    expect(target({ etcdURL: 'a', ...empty })).not.toHaveProperty('certFile');
  });

  it('an etcdConfig that cannot be read never becomes a store of this node alone', () => {
    for (const etcdConfig of ['x', [], 5, false]) expect(refused({ ...base, etcdConfig })).toContain('etcdConfig');
  });
});

describe('requested addresses', () => {
  const ips = ['10.1.0.5', '10.1.0.6/24', 'FD00::5'];

  it('11.2 runtimeConfig wins over args.cni', () => {
    expect(read(base, { runtimeConfig: { ips }, args: { cni: { ips: ['10.1.0.9'] } } }).requested).toEqual(ips);
    expect(read(base, { args: { cni: { ips } } }).requested).toEqual(ips);
    expect(read(base, { runtimeConfig: { ips: [] }, args: { cni: { ips } } }).requested).toEqual(ips);
  });

  it.each(['x', '10.1.0.5/33', '10.1.0.5/', '', 5, null, {}])('%j is none', item => {
    expect(refused(base, { runtimeConfig: { ips: [item] } })).toContain('runtimeConfig.ips[0]');
  });

  it('11.8 other capabilities and arguments are ignored', () => {
    const runtimeConfig = { mac: 'x', portMappings: [{}], bandwidth: 5, dns: null };
    expect(read(base, { runtimeConfig, args: { cni: { labels: [{}] }, other: 5 } }).requested).toEqual([]);
  });
});

describe('keys that need the Kubernetes API', () => {
  const kubeConfig = '/k';

  it('kubeConfig stands in ipam, or where the first releases had it', () => {
    const of = (ipam: Json) => read({ ...base, ...ipam }).kubeConfig;
    const etcd = (old: unknown) => ({ etcdConfig: { etcdURL: 'a', kubeConfig: old } });
    expect(of({ kubeConfig })).toBe('/k');
    expect(of(etcd('/old'))).toBe('/old');
    expect(of({ kubeConfig, ...etcd('/old') })).toBe('/k');
    expect(of({ kubeConfig: '', ...etcd('/old') })).toBe('/old');
    expect(of({ kubeConfig: '', ...etcd('') })).toBeUndefined();
    expect(refused({ ...base, ...etcd('old') })).toContain(
      'ipam.etcdConfig.kubeConfig "old": must be an absolute path',
    );
  });

  it.each([
    [false, { statefulSets: false, vms: false }],
    ['statefulset', { statefulSets: true, vms: false }],
    ['vm', { statefulSets: false, vms: true }],
    [true, { statefulSets: true, vms: true }],
  ])('sticky %j', (sticky, expected) => expect(read({ ...base, kubeConfig, sticky }).sticky).toEqual(expected));

  it.each(['StatefulSet', 'both', '', 0, []])('sticky %j is refused', sticky => {
    expect(refused({ ...base, kubeConfig, sticky })).toContain('must be false, "statefulset", "vm" or true');
  });

  it('selectors belong to a range, wherever it is written', () => {
    const pods = { matchLabels: { app: 'db' } };
    const nodes = { matchExpressions: [{ key: 'zone', operator: 'Exists' }] };
    const runtimeConfig = { ipRanges: [[{ subnet: '10.3.0.0/24', pods }]] };
    const ipam = {
      ...base,
      nodes,
      namespaces: {},
      ranges: [[{ subnet: '10.2.0.0/24' }, { subnet: '10.4.0.0/24', pods }]],
    };
    const { sets } = read({ kubeConfig, ...ipam }, { runtimeConfig });
    const db = { pods: [{ key: 'app', operator: 'In', values: ['db'] }] };
    const zone = { nodes: [{ key: 'zone', operator: 'Exists', values: [] }], namespaces: [] };
    expect(sets.map(set => set.map(({ accepts }) => accepts))).toEqual([[db], [zone], [undefined, db]]);
  });

  it('a selector without a range beside it selects nothing, and is refused', () => {
    const ranges = [[{ subnet: '10.2.0.0/24' }]];
    expect(refused({ kubeConfig, ranges, pods: { matchLabels: { app: 'db' } } })).toContain('ipam.subnet: is missing');
  });

  it('what is wrong in a selector is told with its place', () => {
    const pods = { matchLabels: { a: 'b c' }, matchExpressions: [{ key: 'a', operator: 'Is' }] };
    const message = refused({ kubeConfig, ranges: [[{ ...base, pods }]] });
    expect(message).toContain('ipam.ranges[0][0].pods.matchLabels.a "b c"');
    expect(message).toContain('ipam.ranges[0][0].pods.matchExpressions[0].operator "Is": must be one of In, NotIn');
  });

  it('without kubeConfig they are refused, each by its name: code 7', () => {
    const selector = { matchLabels: { a: 'b' } };
    const message = refused(
      { ...base, sticky: true, nodes: selector, ranges: [[{ subnet: '10.2.0.0/24', namespaces: selector }]] },
      { runtimeConfig: { ipRanges: [[{ subnet: '10.3.0.0/24', pods: selector }]] } },
    );
    for (const key of [
      'ipam.sticky true',
      'ipam.nodes',
      'ipam.ranges[0][0].namespaces',
      'runtimeConfig.ipRanges[0][0].pods',
    ]) {
      expect(message).toContain(key);
    }
    expect(message.match(/needs kubeConfig/g)).toHaveLength(4);
  });
});

describe('keys of later versions', () => {
  it('are named, for an ADD to be refused', () => {
    const ranges = [[{ subnet: '10.2.0.0/24', policy: {} }]];
    expect(read({ ranges, nodeCIDR: true }).unsupportedKeys).toEqual(['ipam.nodeCIDR', 'ipam.ranges[0][0].policy']);
    expect(read({ ...base, nodeCIDR: false }).unsupportedKeys).toEqual([]);
  });
});

describe('6.6 DEL needs name, store access, addressSpace and nodeName only', () => {
  const access = (ipam: Json) => readAccessConfig({ name: 'net', ipam });
  const etcdConfig = { etcdURL: 'http://a:2379' };
  const tolerated = [
    ...['timeout', 'cooldown', 'status', 'logFile', 'logLevel', 'logMaxSize', 'resolvConf', 'exclude', 'cluster'],
    ...['rangeStart', 'rangeEnd', 'gateway', 'fixedStart', 'routes', 'subnet', 'ranges'],
    ...['kubeConfig', 'sticky', 'fixedHold', 'namespaces', 'nodes', 'pods'],
  ];
  it.each(tolerated.flatMap(key => bad[key]!.map(value => [key, value] as const)))(
    '%s %j does not stop it',
    (key, value) => {
      expect(() => access({ [key]: value })).not.toThrow();
      expect(access({ [key]: value })).toMatchObject({ timeout: 10_000, cooldown: 0, log: { level: 'info' } });
    },
  );

  it('nor timeouts of single calls, nor a state folder that etcd does not need', () => {
    const config = access({ dataDir: 'x', etcdConfig: { ...etcdConfig, dialTimeout: 'x', requestTimeout: -1 } });
    expect(config.store).toMatchObject({ dialTimeout: 1000, requestTimeout: 3000, dataDir: '/var/lib/cni/kube-ipam' });
  });

  it.each([
    ['addressSpace', 'a/b'],
    ['nodeName', 'a/b'],
    ['dataDir', 'relative'],
    ['etcdConfig', 'x'],
    ['etcdConfig', {}],
    ['etcdConfig', { etcdURL: 'x y' }],
    ['etcdConfig', { etcdURL: 'a', etcdCertFile: '/c' }],
  ])('%s %j does: nobody would know where to look', (key, value) => {
    expect(problem(() => access({ [key]: value }))).toContain(key);
  });
});

it('whatever the configuration holds, it is read or refused with code 7', () => {
  const key = fc.constantFrom(
    ...Object.keys(good),
    ...Object.keys(bad),
    'runtimeConfig',
    'kubeConfig',
    'sticky',
    'pods',
  );
  const leaf = fc.oneof(
    fc.constantFrom('10.1.0.0/24', '10.1.0.5', 'fd00::/64', '', '/x', 'http://a:2379', 0, -1, 1e300, true, null),
    fc.constantFrom(...Object.values(good).flat(), ...Object.values(bad).flat()),
    fc.jsonValue({ maxDepth: 2 }),
  );
  const object = fc.dictionary(key, leaf, { maxKeys: 6 });
  const ipam = fc
    .tuple(object, fc.option(fc.array(fc.array(object, { maxLength: 3 }), { maxLength: 3 })))
    .map(([one, ranges]) => ({ ...base, ...one, ...(ranges && { ranges }) }));
  const conf = fc.record({ ipam: fc.oneof(ipam, leaf), args: leaf, runtimeConfig: fc.oneof(object, leaf) });
  fc.assert(
    fc.property(conf, fc.constantFrom('0.1.0', '0.4.0', '1.1.0'), (one, version) => {
      for (const work of [
        () => readNetworkConfig({ name: 'net', ...one }, version),
        () => readAccessConfig({ name: 'net', ...one }),
      ]) {
        try {
          const config = work();
          if ('sets' in config) expect((config as { sets: unknown[] }).sets.length).toBeGreaterThan(0);
        } catch (error) {
          if (!(error instanceof FailureError)) throw error;
          expect(error.code).toBe(7);
        }
      }
    }),
    { numRuns: 3000 },
  );
});
