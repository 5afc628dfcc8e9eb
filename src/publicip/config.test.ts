// The configuration of public addresses: kiwi's flags, ours, what they mean together, and every problem told at once.
import { describe, expect, it } from 'vitest';
import { Problems } from '../base/section.ts';
import { formatCidr } from '../net/cidr.ts';
import { formatIp } from '../net/ip.ts';
import type { EtcdTarget } from '../store/target.ts';
import { configOf, type Origin } from './config.ts';

const etcdAt = (...endpoints: string[]): EtcdTarget => ({
  kind: 'etcd',
  endpoints,
  dialTimeout: 1000,
  requestTimeout: 3000,
  dataDir: '/var/lib/x',
});

const read = (flags: Readonly<Record<string, unknown>> = {}, origin: Partial<Origin> = {}) =>
  configOf(flags, {
    node: 'worker-1',
    env: {},
    etcd: etcdAt('http://localhost:2379'),
    networkEtcd: undefined,
    cluster: undefined,
    logFile: undefined,
    problems: new Problems(),
    ...origin,
  });

function problemsOf(flags: Readonly<Record<string, unknown>>, origin: Partial<Origin> = {}): string {
  try {
    read(flags, origin);
  } catch (error) {
    return (error as Error).message;
  }
  return '';
}

it('without flags it is what kiwi was, on this node', () => {
  expect(read()).toEqual({
    node: 'worker-1',
    cluster: 'default',
    id: 'worker-1',
    interface: 'eth0',
    etcd: etcdAt('http://localhost:2379'),
    store: undefined,
    space: 'default',
    prefix: '/kiwi/',
    ttl: 10,
    kubernetes: { endpoint: 'http://localhost:8080', env: {} },
    ranges: [],
    clusterRanges: [],
    namespaces: undefined,
    nodeSelector: [],
    chain: 'KUBE-PUBLIC',
    mark: { value: 1, mask: undefined },
    gateways: [],
    drives: true,
    probe: true,
    sysctl: true,
    rebalance: true,
    onExit: 'handover',
    garpInterval: 60_000,
    reconnect: 5000,
    listen: undefined,
    stateDir: '/var/lib/kube-ipam',
    runDir: '/run/kube-ipam',
    log: { file: undefined, level: 'info' },
  });
  expect(Object.isFrozen(read())).toBe(true);
});

it('every flag of kiwi means what it meant', () => {
  const config = read({
    'agent-id': 'a-1',
    'refresh-interval': '7',
    'reconnect-interval': '3',
    'kube-endpoint': 'http://127.0.0.1:8080',
    'etcd-prefix': '/site/kiwi',
    interface: 'em1',
    fwchain: 'MY-CHAIN',
    fwmark: '0x10',
    'cidr-range': ['192.168.0.0/16', '10.1.2.3/8', '203.0.113.7'],
    'no-driver': true,
    debug: true,
  });
  expect(config).toMatchObject({
    id: 'a-1',
    ttl: 14,
    reconnect: 3000,
    kubernetes: { endpoint: 'http://127.0.0.1:8080' },
    prefix: '/site/kiwi/',
    interface: 'em1',
    chain: 'MY-CHAIN',
    mark: { value: 16, mask: undefined },
    drives: false,
    log: { level: 'debug' },
  });
  expect(config.ranges.map(formatCidr)).toEqual(['192.168.0.0/16', '10.0.0.0/8', '203.0.113.7/32']);
});

describe('how long a claim lives', () => {
  it.each([
    [{}, 10],
    [{ ttl: '6' }, 6],
    [{ ttl: '1m' }, 60],
    [{ ttl: '5500ms' }, 6],
    [{ ttl: '6', 'refresh-interval': '20' }, 6],
    [{ 'refresh-interval': '10' }, 20],
    [{ 'refresh-interval': '1' }, 5],
  ])('%j: %d s', (flags, ttl) => expect(read(flags).ttl).toBe(ttl));

  it.each(['4', '0', '-1', 'soon', '4s', '2h'])('--ttl %s is refused', ttl =>
    expect(problemsOf({ ttl })).toBe(
      `--ttl "${ttl}": must be a number of seconds or a duration like "10s", from 5 s to an hour`,
    ),
  );

  it.each(['0', '1801', 'x'])('--refresh-interval %s is refused', interval =>
    expect(problemsOf({ 'refresh-interval': interval })).toMatch(/^--refresh-interval /),
  );
});

describe('who this is', () => {
  it('the node, behind the name of its cluster where it has one', () => {
    expect(read({ cluster: 'east' })).toMatchObject({ cluster: 'east', id: 'east.worker-1' });
    expect(read({}, { cluster: 'west' })).toMatchObject({ cluster: 'west', id: 'west.worker-1' });
    expect(read({ cluster: 'east' }, { cluster: 'west' }).cluster).toBe('east');
    expect(read({}, { cluster: 'default' }).id).toBe('worker-1');
    expect(read({ id: 'me', cluster: 'east' }).id).toBe('me');
  });

  it('an id that would be another key, or a direction of a release, is refused', () => {
    for (const id of ['a/b', 'a>b', '', '../x', 'a b']) expect(problemsOf({ 'agent-id': id })).toMatch(/^--agent-id /);
    expect(problemsOf({ 'agent-id': 'a', id: 'b' })).toMatch(/^--id "b": is another name of --agent-id/);
    expect(read({ 'agent-id': 'a', id: 'a' }).id).toBe('a');
  });
});

describe('how the API is reached', () => {
  const pod = { KUBERNETES_SERVICE_HOST: '10.96.0.1' };

  it('by the endpoint, the kubeconfig, the pod, KUBECONFIG, else where kiwi looked', () => {
    const env = { ...pod, KUBECONFIG: '/root/.kube/config' };
    expect(read({ 'kube-endpoint': 'https://api:6443' }, { env }).kubernetes).toEqual({
      endpoint: 'https://api:6443',
      env,
    });
    expect(read({ kubeconfig: '/k' }, { env }).kubernetes).toEqual({ kubeconfig: '/k', env });
    expect(read({}, { env }).kubernetes).toEqual({ env });
    const outside = { KUBECONFIG: '/root/.kube/config' };
    expect(read({}, { env: outside }).kubernetes).toEqual({ kubeconfig: '/root/.kube/config', env: outside });
    expect(read().kubernetes).toEqual({ endpoint: 'http://localhost:8080', env: {} });
  });

  it('not in two ways, nor by a URL with a password', () => {
    expect(problemsOf({ 'kube-endpoint': 'http://a:1', kubeconfig: '/k' })).toMatch(/^--kubeconfig .*give one of them/);
    expect(problemsOf({ 'kube-endpoint': 'localhost:8080' })).toMatch(/^--kube-endpoint /);
    const secret = problemsOf({ 'kube-endpoint': 'http://root:hunter2@a:1' });
    expect(secret).toMatch(/^--kube-endpoint /);
    expect(secret).not.toContain('hunter2');
  });
});

describe('where owner records are', () => {
  it('beside the claims, unless this node’s network is kept in another etcd', () => {
    const a = etcdAt('http://10.0.0.1:2379', 'http://10.0.0.2:2379');
    const b = etcdAt('http://10.0.0.2:2379');
    const other = etcdAt('http://10.9.9.9:2379');
    expect(read({}, { etcd: a }).store).toBeUndefined();
    expect(read({}, { etcd: a, networkEtcd: b }).store).toBeUndefined();
    expect(read({}, { etcd: a, networkEtcd: other }).store).toBe(other);
  });
});

describe('the mark', () => {
  it.each([
    ['1', 1, undefined],
    ['0xFFFFFFFF', 0xffffffff, undefined],
    ['0x1/0xff', 1, 255],
    ['0x80000000/0x80000000', 0x80000000, 0x80000000],
  ])('%s', (text, value, mask) => expect(read({ fwmark: text }).mark).toEqual({ value, mask }));

  it.each(['0', '0x1ffffffff', '1/', '1/0', '2/1', '0x80000000/0x1', '1/1/1', 'x', '-1', '1.5'])(
    '%s is refused',
    fwmark => expect(problemsOf({ fwmark })).toMatch(/^--fwmark /),
  );
});

describe('names that reach the kernel or the store', () => {
  it.each(['em1', 'enp175s0f0np0', 'br-0123456789ab', 'eth0.100', 'ünï'])('interface %s', name =>
    expect(read({ interface: name }).interface).toBe(name),
  );

  it.each(['', '.', '..', 'a/b', 'a b', 'eth0:1', 'interface-too-long', 'ééééé12345678'])(
    'interface %j is refused',
    name => expect(problemsOf({ interface: name })).toMatch(/^--interface /),
  );

  it.each(['', '-A', 'A B', 'x'.repeat(29), 'a;b'])('chain %j is refused', fwchain =>
    expect(problemsOf({ fwchain })).toMatch(/^--fwchain /),
  );

  it.each(['', 'kiwi', '/', '//', '/a//b', '/kube-ipam', '/kube-ipam/v1', '/a b'])('prefix %j is refused', prefix =>
    expect(problemsOf({ 'etcd-prefix': prefix })).toMatch(/^--etcd-prefix /),
  );

  it('a prefix may end in a slash', () => expect(read({ 'etcd-prefix': '/a/b/' }).prefix).toBe('/a/b/'));

  it.each(['state', 'run'])('--%s-dir must be a folder that can be made', what => {
    expect(problemsOf({ [`${what}-dir`]: 'relative' })).toMatch(/absolute path/);
    expect(problemsOf({ [`${what}-dir`]: '/proc/x' })).toMatch(/absolute path/);
  });
});

it('lists may be given as several flags, or with commas', () => {
  const config = read({
    'allow-namespace': ['shop', 'web,db'],
    'service-cidr': ['10.96.0.0/16,fd00:96::/112'],
    'pod-cidr': ['10.244.0.0/16'],
    gateway: ['192.168.1.1', '2001:db8::1'],
  });
  expect([...(config.namespaces ?? [])]).toEqual(['shop', 'web', 'db']);
  expect(config.clusterRanges.map(formatCidr)).toEqual(['10.96.0.0/16', 'fd00:96::/112', '10.244.0.0/16']);
  expect(config.gateways.map(formatIp)).toEqual(['192.168.1.1', '2001:db8::1']);
});

it('what can be switched', () => {
  const flags = {
    probe: 'off',
    'no-sysctl': true,
    rebalance: 'off',
    'on-exit': 'keep',
    'garp-interval': '0',
    listen: '127.0.0.1:20246',
    'node-selector': 'edge=yes,!retired',
    'log-file': '-',
    'log-level': 'warn',
    verbose: true,
  };
  expect(read(flags, { logFile: '/var/log/kiwi/kiwi.log' })).toMatchObject({
    probe: false,
    sysctl: false,
    rebalance: false,
    onExit: 'keep',
    garpInterval: 0,
    listen: { host: '127.0.0.1', port: 20_246 },
    nodeSelector: [
      { key: 'edge', operator: 'In', values: ['yes'] },
      { key: 'retired', operator: 'DoesNotExist', values: [] },
    ],
    log: { file: undefined, level: 'warn' },
  });
  expect(read({}, { logFile: '/var/log/kiwi/kiwi.log' }).log.file).toBe('/var/log/kiwi/kiwi.log');
  expect(read({ listen: 'off' }).listen).toBeUndefined();
});

it('tells every problem at once, and those of others first', () => {
  const problems = new Problems();
  problems.lines.push('--etcd-endpoint "x": must be better');
  const told = problemsOf(
    {
      ttl: '1',
      interface: 'a/b',
      'cidr-range': ['10.0.0.0/33', '10.0.0.0/8,nonsense'],
      gateway: ['10.0.0.1', '10.0.0.2'],
      'allow-namespace': ['Shop'],
      'node-selector': '=',
      listen: '80',
      'garp-interval': 'often',
      'log-file': 'kiwi.log',
      space: 'a/b',
    },
    { problems },
  );
  expect(told.split('; ').map(line => line.split(' ')[0])).toEqual([
    '--etcd-endpoint',
    '--interface',
    '--space',
    '--ttl',
    '--cidr-range',
    '--cidr-range',
    '--allow-namespace',
    '--node-selector',
    '--gateway',
    '--garp-interval',
    '--listen',
    '--log-file',
  ]);
});
