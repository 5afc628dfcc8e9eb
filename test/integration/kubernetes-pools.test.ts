// Services of a real API server get addresses of AddressPools: published, fixed, shared, two families, and given back.
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, test } from 'vitest';
import { parseAllDocuments } from 'yaml';
import { deadlineIn, renewableDeadline } from '../../src/base/clock.ts';
import { Log } from '../../src/base/log.ts';
import { Metrics } from '../../src/base/metrics.ts';
import { parseOwner } from '../../src/ipam/model.ts';
import { readPool } from '../../src/ipam/pool.ts';
import { renderService } from '../../src/ipam/records.ts';
import { inspect } from '../../src/ipam/service/inspect.ts';
import { lend } from '../../src/ipam/service/lend.ts';
import { type Client, openClient } from '../../src/kube/client.ts';
import { parseYaml } from '../../src/kube/yaml.ts';
import { formatIp, parseIp } from '../../src/net/ip.ts';
import { Allocator } from '../../src/publicip/allocator.ts';
import { Claims } from '../../src/publicip/claims.ts';
import { type GrpcKv, openGrpc } from '../../src/store/etcd/grpc.ts';
import { Keys } from '../../src/store/keys.ts';
import { afterPrefix } from '../../src/store/kv.ts';
import { sources } from '../helpers/command-line.ts';
import { freePorts } from '../helpers/etcd.ts';
import { ApiRefusal } from '../helpers/kubernetes/api.ts';
import { type ControlPlane, startControlPlane, whyNoControlPlane } from '../helpers/kubernetes/control-plane.ts';
import type { Rendered } from '../helpers/manifests.ts';
import { project } from '../helpers/project.ts';

const obstacle = whyNoControlPlane();
const soon = { timeout: 60_000, interval: 50 };
const pools = '/apis/kube-ipam.io/v1/addresspools';
const grace = 1000;

/** Everything is done with the rights that the manifests give, and no others. */
const account = { name: 'system:serviceaccount:kube-system:kube-ipam-allocator', token: 'token-of-the-allocator' };
const rbac = '/apis/rbac.authorization.k8s.io/v1';
const rights = Object.fromEntries(
  parseAllDocuments(readFileSync(join(project, 'deploy/allocator/rbac.yaml'), 'utf8'))
    .map(document => document.toJS() as Rendered)
    .map(object => [object.kind, object]),
);

interface Service {
  readonly metadata: { readonly name: string; readonly namespace: string; readonly uid: string };
  readonly status: {
    readonly loadBalancer: { readonly ingress?: readonly { readonly ip: string; ipMode?: string }[] };
  };
}

if (obstacle !== undefined) test('pools', ({ skip }) => skip(obstacle));

describe.skipIf(obstacle !== undefined)('a cluster with pools', () => {
  let plane: ControlPlane;
  let client: Client;
  let kv: GrpcKv;
  let keys: Keys;
  let prefix = '';
  let namespace = '';
  let tests = 0;

  beforeAll(async () => {
    plane = await startControlPlane({
      // The flag that comes last counts.
      flags: ['--service-cluster-ip-range', '10.96.0.0/16,fd00:96::/108'],
      users: [account],
    });
    client = await openClient({ kubeconfig: plane.kubeconfig({ token: account.token }), env: {} });
    const { ClusterRole, ClusterRoleBinding } = rights;
    await plane.api('POST', `${rbac}/clusterroles`, ClusterRole);
    await plane.api('POST', `${rbac}/clusterrolebindings`, ClusterRoleBinding);
    kv = openGrpc(plane.etcd.target());
    const crd = parseYaml(readFileSync(join(project, 'deploy/base/addresspools.yaml'), 'utf8'));
    await plane.api('POST', '/apis/apiextensions.k8s.io/v1/customresourcedefinitions', crd);
    const isServed = () =>
      plane.api('GET', pools).then(
        () => true,
        () => false,
      );
    while (!(await isServed())) await sleep(100);
  }, 120_000);

  beforeEach(async () => {
    tests++;
    keys = new Keys(`site-${tests}`);
    prefix = `/kiwi-${tests}/`;
    namespace = `shop-${tests}`;
    await makeNamespace(namespace, { team: `team-${tests}` });
  });

  // The next allocator has another space, in which none of them would get anything.
  afterEach(async () => {
    const { items } = await plane.api<{ items: readonly Service[] }>('GET', '/api/v1/services');
    const own = items.filter(({ metadata }) => metadata.name !== 'kubernetes');
    await Promise.all(own.map(({ metadata: { namespace: where, name } }) => plane.api('DELETE', pathOf(name, where))));
    await plane.api('DELETE', pools);
  });

  afterAll(async () => {
    await kv?.[Symbol.asyncDispose]();
    await client?.[Symbol.asyncDispose]();
    await plane?.[Symbol.asyncDispose]();
  });

  /** With the rights to a Lease in it, as the allocator has them in its own. */
  const makeNamespace = async (name: string, labels: object = {}) => {
    await plane.api('POST', '/api/v1/namespaces', { metadata: { name, labels } });
    const { Role, RoleBinding } = rights;
    for (const object of [Role!, RoleBinding!]) {
      const there = { ...object, metadata: { ...object.metadata, namespace: name } };
      await plane.api('POST', `${rbac}/namespaces/${name}/${object.kind.toLowerCase()}s`, there);
    }
  };
  /** A pool of this test's space, for its own namespaces. */
  const makePool = (name: string, spec: object) =>
    plane.api('POST', pools, {
      apiVersion: 'kube-ipam.io/v1',
      kind: 'AddressPool',
      metadata: { name: `${name}-${tests}` },
      spec: { space: keys.space, namespaces: { matchLabels: { team: `team-${tests}` } }, ...spec },
    });
  const range = (first: number, last = first) => ({
    ranges: [{ subnet: '192.0.2.0/24', rangeStart: `192.0.2.${first}`, rangeEnd: `192.0.2.${last}` }],
  });
  const pathOf = (name: string, where = namespace) => `/api/v1/namespaces/${where}/services/${name}`;
  const makeService = (name: string, annotations: object = {}, spec: object = {}, where = namespace) =>
    plane.api<Service>('POST', `/api/v1/namespaces/${where}/services`, {
      metadata: { name, annotations },
      spec: {
        type: 'LoadBalancer',
        loadBalancerClass: 'kube-ipam.io/public-ip',
        allocateLoadBalancerNodePorts: false,
        ports: [{ port: 80 }],
        ...spec,
      },
    });
  const patch = (path: string, body: object) =>
    plane.api('PATCH', path, body, { contentType: 'application/merge-patch+json' });
  const annotate = (name: string, annotations: object) => patch(pathOf(name), { metadata: { annotations } });
  const published = async (name: string, where = namespace) =>
    ((await plane.api<Service>('GET', pathOf(name, where))).status.loadBalancer.ingress ?? []).map(({ ip }) => ip);
  /** Of several free addresses any may be given: others write to this etcd all the time. */
  const given = async (name: string, where = namespace) => {
    await expect.poll(() => published(name, where), soon).toHaveLength(1);
    return (await published(name, where))[0]!;
  };
  const eventually = (name: string, addresses: readonly string[], where = namespace) =>
    expect.poll(() => published(name, where), soon).toEqual(addresses);
  const owners = async () => {
    const from = keys.addresses();
    const { answers } = await kv.read([{ from, to: afterPrefix(from) }], deadlineIn(20_000));
    return answers[0]!.entries.map(({ value }) => parseOwner(value));
  };
  const lentTo = async () => (await owners()).map(({ holder }) => holder?.name).sort();
  const reasons = async (name: string): Promise<string[]> => {
    const query = `fieldSelector=involvedObject.name=${name},source=kube-ipam-public-ip`;
    const list = await plane.api<{ items: { reason: string; message: string }[] }>(
      'GET',
      `/api/v1/namespaces/${namespace}/events?${query}`,
    );
    return list.items.map(({ reason, message }) => `${reason}: ${message}`);
  };
  const poolStatus = async (name: string) =>
    (await plane.api<{ status?: Record<string, unknown> }>('GET', `${pools}/${name}-${tests}`)).status;
  const inOrder = async () => {
    const log = new Log({ file: '/dev/null', level: 'off', maxSize: 1 });
    const doubts = { has: () => false, leave: () => {}, clear: () => {} };
    const machine = { machine: '', boot: '' };
    const around = { kv, keys, deadline: renewableDeadline(20_000), machine, doubts, log, now: Date.now };
    expect((await inspect(around, () => {})).findings).toEqual([]);
  };

  /** What a process that allocates has, with claims that are watched. */
  async function allocator(options: { readonly scan?: number } = {}) {
    const parts = new AsyncDisposableStack();
    const records = { space: keys.space, cluster: 'default' };
    const claims = parts.use(await Claims.open(kv, { prefix, id: 'allocator', ttl: 10, records }, deadlineIn(20_000)));
    const told: string[] = [];
    const { EventRecorder } = await import('../../src/kube/events.ts');
    const events = parts.use(new EventRecorder(client, { component: 'kube-ipam-public-ip', host: 'here' }));
    const metrics = new Metrics();
    const one = new Allocator({
      client,
      kv,
      keys,
      cluster: 'default',
      claims: {
        unclaimed: address => claims.unclaimed(address),
        forget: address => claims.forget(address, deadlineIn(20_000)),
      },
      namespace,
      identity: 'test',
      tell: (...event) => events.record(...event),
      metrics,
      log: new Log({ file: '', level: 'info', maxSize: 1 }, {}, (_, line) => told.push(line)),
      times: { scan: options.scan ?? 60_000, grace, election: { lease: 3000, renew: 2000, retry: 200 } },
    });
    await one.start();
    parts.defer(() => one.stop());
    return { told, metrics, one, [Symbol.asyncDispose]: () => parts.disposeAsync() };
  }

  it('Services get different addresses, in their status, and give them back', async () => {
    await makePool('public', range(10, 19));
    await using _ = await allocator();
    const names = Array.from({ length: 8 }, (_, i) => `web-${i}`);
    await Promise.all(names.map(name => makeService(name)));
    for (const name of names) await expect.poll(() => published(name), soon).toHaveLength(1);
    const addresses = (await Promise.all(names.map(name => published(name)))).flat();
    expect(new Set(addresses).size).toBe(8);
    const { status } = await plane.api<Service>('GET', pathOf('web-0'));
    expect(status.loadBalancer.ingress![0]!.ipMode).toBe('VIP');
    await inOrder();
    const counts = { ipv4: { total: 10, used: 8, free: 2 } };
    await expect.poll(() => poolStatus('public'), soon).toMatchObject({ ...counts, observedGeneration: 1 });
    expect(((await poolStatus('public'))!.conditions as object[])[0]).toMatchObject({ type: 'Ready', status: 'True' });
    await Promise.all(names.slice(1).map(name => plane.api('DELETE', pathOf(name))));
    await expect.poll(lentTo, soon).toEqual(['web-0']);
    await expect.poll(() => poolStatus('public'), soon).toMatchObject({ ipv4: { used: 1, free: 9 } });
    await inOrder();
    // Of another class, or of none: not ours.
    await patch(pathOf('web-0'), { spec: { type: 'ClusterIP', loadBalancerClass: null } });
    await expect.poll(lentTo, soon).toEqual([]);
    expect(await published('web-0')).toEqual([]);
  });

  it('what is not ours is left alone', async () => {
    await makePool('public', range(10));
    await using _ = await allocator();
    await makeService('other', {}, { loadBalancerClass: 'example.org/lb' });
    await makeService(
      'inner',
      {},
      { type: 'ClusterIP', loadBalancerClass: undefined, allocateLoadBalancerNodePorts: undefined },
    );
    await patch(`${pathOf('other')}/status`, { status: { loadBalancer: { ingress: [{ ip: '198.51.100.1' }] } } });
    await makeService('ours');
    await eventually('ours', ['192.0.2.10']);
    expect(await published('other')).toEqual(['198.51.100.1']);
    expect(await lentTo()).toEqual(['ours']);
  });

  it('a fixed address, by annotation or by loadBalancerIP; another one later, and the old one free once nobody has it', async () => {
    await makePool('public', range(10, 14));
    await using _ = await allocator();
    const asking = (ip: string) => ({ 'kube-ipam.io/load-balancer-ips': ip });
    await makeService('a', asking('192.0.2.13'));
    await makeService('b', {}, { loadBalancerIP: '192.0.2.14' });
    await eventually('a', ['192.0.2.13']);
    await eventually('b', ['192.0.2.14']);
    await makeService('c', asking('192.0.2.13'));
    await expect
      .poll(() => reasons('c'), soon)
      .toEqual([
        expect.stringMatching(/^AddressInUse: address 192\.0\.2\.13 .* held by Service shop-\d+\/a \(pool public-/),
      ]);
    await makeService('d', asking('198.51.100.1'));
    await expect
      .poll(() => reasons('d'), soon)
      .toEqual([`AddressForbidden: 198.51.100.1 lies in no AddressPool of address space ${keys.space}`]);
    // Somebody answers for the old one.
    await kv.commit(
      { conditions: [], writes: [{ put: `${prefix}publicips/192.0.2.13`, value: 'node-a' }] },
      deadlineIn(9000),
    );
    await annotate('a', asking('192.0.2.11'));
    await eventually('a', ['192.0.2.11']);
    await sleep(1500);
    expect((await owners()).map(({ holder }) => holder?.name)).toEqual(['a', 'a', 'b']);
    expect(await published('c')).toEqual([]);
    await inOrder();
    await kv.commit({ conditions: [], writes: [{ delete: `${prefix}publicips/192.0.2.13` }] }, deadlineIn(9000));
    // Whoever was denied is asked again as soon as an address comes back.
    await eventually('c', ['192.0.2.13']);
    await inOrder();
  });

  it('while a wish cannot be met, a Service keeps what it has', async () => {
    await makePool('public', range(10, 11));
    await using _ = await allocator();
    await makeService('a');
    const a = await given('a');
    await makeService('b');
    const b = await given('b');
    await annotate('a', { 'kube-ipam.io/load-balancer-ips': b });
    await expect.poll(() => reasons('a'), soon).toHaveLength(1);
    expect(await published('a')).toEqual([a]);
    await annotate('a', { 'kube-ipam.io/load-balancer-ips': 'nonsense' });
    await expect.poll(() => reasons('a'), soon).toContain('AddressInvalid: "nonsense" is no IP address');
    expect(await published('a')).toEqual([a]);
    // An edit of the pool takes nothing away from anybody.
    await patch(`${pools}/public-${tests}`, { spec: range(20) });
    await makeService('c');
    await eventually('c', ['192.0.2.20']);
    expect(await published('b')).toEqual([b]);
    await plane.api('DELETE', `${pools}/public-${tests}`);
    await makeService('d');
    await expect
      .poll(() => reasons('d'), soon)
      .toEqual([`PoolUnknown: no AddressPool of address space ${keys.space} has IPv4 addresses`]);
    const still = await Promise.all(['a', 'b', 'c'].map(name => published(name)));
    expect(still.flat()).toEqual([a, b, '192.0.2.20']);
  });

  it('an exhausted pool is told, and its next free address goes to who waits; another pool helps', async () => {
    await makePool('public', range(10, 11));
    await using running = await allocator();
    for (const name of ['a', 'b']) await makeService(name);
    for (const name of ['a', 'b']) await expect.poll(() => published(name), soon).toHaveLength(1);
    await makeService('c');
    await expect
      .poll(() => reasons('c'), soon)
      .toEqual([
        expect.stringMatching(/^PoolExhausted: .*pool\.public-\d+: no free address .* all 2 addresses are taken/),
      ]);
    expect(running.metrics.page()).toMatch(/kube_ipam_public_ip_denied_total\{reason="PoolExhausted"\} [1-9]/);
    const [freed] = await published('a');
    await plane.api('DELETE', pathOf('a'));
    await eventually('c', [freed!]);
    await makeService('d');
    await expect.poll(() => reasons('d'), soon).toHaveLength(1);
    await makePool('spare', range(30));
    await eventually('d', ['192.0.2.30']);
  });

  it('pools are for the namespaces that they choose, and one that is asked for by name is the only one', async () => {
    await makePool('first', range(10));
    await makePool('second', range(20));
    await makeNamespace(`bank-${tests}`);
    await using _ = await allocator();
    await makeService('a', { 'kube-ipam.io/pool': `second-${tests}` });
    await eventually('a', ['192.0.2.20']);
    await makeService('b', { 'kube-ipam.io/pool': 'third' });
    await expect.poll(() => reasons('b'), soon).toEqual(['PoolUnknown: there is no AddressPool third']);
    await makeService('c', {}, {}, `bank-${tests}`);
    await annotate('a', { 'kube-ipam.io/pool': `first-${tests}` });
    await eventually('a', ['192.0.2.10']);
    await expect.poll(lentTo, soon).toEqual(['a']);
    expect(await published('c', `bank-${tests}`)).toEqual([]);
    await patch(`/api/v1/namespaces/bank-${tests}`, { metadata: { labels: { team: `team-${tests}` } } });
    await eventually('c', ['192.0.2.20'], `bank-${tests}`);
    await inOrder();
  });

  it('both families', async () => {
    const v6 = {
      subnet: '2001:db8::/64',
      rangeStart: '2001:db8::2',
      rangeEnd: '2001:db8::2',
      fixedStart: '2001:db8::77',
      fixedEnd: '2001:db8::77',
    };
    await makePool('dual', { ranges: [...range(10, 11).ranges, v6] });
    await using _ = await allocator();
    const dual = { ipFamilyPolicy: 'RequireDualStack', ipFamilies: ['IPv6', 'IPv4'] };
    const both = (first: string) => [first, expect.stringMatching(/^192\.0\.2\.1[01]$/)];
    await makeService('a', {}, dual);
    await expect.poll(() => published('a'), soon).toEqual(both('2001:db8::2'));
    await makeService('b', { 'kube-ipam.io/load-balancer-ips': '2001:db8::77' }, dual);
    await expect.poll(() => published('b'), soon).toEqual(both('2001:db8::77'));
    await inOrder();
    await patch(pathOf('a'), { spec: { ipFamilyPolicy: 'SingleStack' } });
    await eventually('a', ['2001:db8::2']);
    await expect.poll(async () => (await owners()).length, soon).toBe(3);
    await inOrder();
  });

  it('Services that want to share an address do, as long as their ports do not clash', async () => {
    await makePool('public', range(10, 11));
    await using _ = await allocator();
    const sharing = { 'kube-ipam.io/allow-shared-ip': 'dns' };
    const [tcp, udp] = ['TCP', 'UDP'].map(protocol => ({ ports: [{ port: 53, protocol }] })) as [object, object];
    await makeService('tcp', sharing, tcp);
    const shared = await given('tcp');
    await makeService('udp', sharing, udp);
    await eventually('udp', [shared]);
    // It clashes, so it gets one of its own; asked for by name it is denied.
    await makeService('more', sharing, udp);
    expect(await given('more')).not.toBe(shared);
    await makeService('named', { ...sharing, 'kube-ipam.io/load-balancer-ips': shared }, tcp);
    await expect.poll(() => reasons('named'), soon).toEqual([expect.stringContaining('has port 53/tcp, too')]);
    await inOrder();
    await plane.api('DELETE', pathOf('tcp'));
    await eventually('named', [shared]);
    expect(await published('udp')).toEqual([shared]);
    await plane.api('DELETE', pathOf('udp'));
    await plane.api('DELETE', pathOf('named'));
    await expect.poll(lentTo, soon).toEqual(['more']);
    await inOrder();
  });

  it('an address of a node is given to nobody', async () => {
    await makePool('public', range(10, 11));
    const name = `node-${tests}`;
    await plane.api('POST', '/api/v1/nodes', { metadata: { name } });
    const addresses = [{ type: 'InternalIP', address: '192.0.2.10' }];
    await patch(`/api/v1/nodes/${name}/status`, { status: { addresses } });
    await using _ = await allocator();
    await makeService('a');
    await eventually('a', ['192.0.2.11']);
    await plane.api('DELETE', `/api/v1/nodes/${name}`);
  });

  describe('whoever allocates may come and go', () => {
    it('a Service that was deleted while nobody watched gives back its address after a grace', async () => {
      await makePool('public', range(10, 12));
      let former = '';
      {
        await using _ = await allocator();
        for (const name of ['a', 'b']) await makeService(name);
        await given('a');
        former = await given('b');
      }
      await plane.api('DELETE', pathOf('a'));
      // Of another cluster, and one that names its address itself; nobody here may judge the first.
      const away = { feature: 'public-ip', group: '', kind: 'Service', namespace, name: 'away', uid: 'u' } as const;
      const write = async (ip: string, value: string) => {
        const put = { put: keys.address(parseIp(ip)!), value };
        await kv.commit({ conditions: [], writes: [put] }, deadlineIn(9000));
      };
      const far = readPool({ metadata: { name: 'far' }, spec: range(40) });
      const around = { kv, keys, deadline: deadlineIn(20_000), machine: { machine: '', boot: '' }, now: Date.now };
      const doubts = { has: () => false, leave: () => {}, clear: () => {} };
      const log = new Log({ file: '/dev/null', level: 'off', maxSize: 1 });
      const options = { pool: far, family: 4, keptClear: [], whyNotShared: () => undefined } as const;
      const theirs = { ...options, object: away, cluster: `west-${tests}`, clusterUid: 'uid-of-west' };
      expect(formatIp(await lend({ ...around, doubts, log }, theirs))).toBe('192.0.2.40');
      await write('192.0.2.50', renderService({ ...away, name: 'named' }, { cluster: 'default' }, Date.now()));
      await write('192.0.2.51', renderService({ ...away, name: 'wanted' }, { cluster: 'default' }, Date.now()));
      await makeService(
        'wanted',
        {},
        {
          type: 'ClusterIP',
          loadBalancerClass: undefined,
          allocateLoadBalancerNodePorts: undefined,
          externalIPs: ['192.0.2.51'],
        },
      );
      const begun = performance.now();
      await using running = await allocator({ scan: 300 });
      await expect.poll(lentTo, soon).toEqual(['away', 'b', 'wanted']);
      expect(performance.now() - begun).toBeGreaterThan(grace);
      expect(await published('b')).toEqual([former]);
      expect(running.told.filter(line => /"event":"gc"/.test(line))).toHaveLength(2);
    });

    it('one leads; another goes on where it was, and nobody notices', async () => {
      await makePool('public', range(10, 30));
      await using first = await allocator();
      await expect.poll(() => first.one.state().ready, soon).toBe(true);
      await using second = await allocator();
      for (let i = 0; i < 4; i++) await makeService(`a-${i}`);
      for (let i = 0; i < 4; i++) await expect.poll(() => published(`a-${i}`), soon).toHaveLength(1);
      const before = await Promise.all([0, 1, 2, 3].map(i => published(`a-${i}`)));
      expect(second.told).toEqual([]);
      await first[Symbol.asyncDispose]();
      await makeService('late');
      await expect.poll(() => published('late'), soon).toHaveLength(1);
      expect(await Promise.all([0, 1, 2, 3].map(i => published(`a-${i}`)))).toEqual(before);
      await expect.poll(() => second.one.state(), soon).toEqual({ ready: true, detail: 'this process leads' });
      await inOrder();
    });

    it('two that believe to lead do no harm', async () => {
      await makePool('public', range(10, 40));
      // Each has a Lease of its own.
      const other = namespace;
      await using _ = await allocator();
      namespace = `${other}-b`;
      await makeNamespace(namespace, { team: `team-${tests}` });
      await using __ = await allocator();
      const names = Array.from({ length: 20 }, (_, i) => `web-${i}`);
      await Promise.all(names.map(name => makeService(name)));
      await Promise.all(names.slice(0, 10).map(name => plane.api('DELETE', pathOf(name))));
      const left = names.slice(10);
      for (const name of left) await expect.poll(() => published(name), soon).toHaveLength(1);
      await expect.poll(async () => (await owners()).length, soon).toBe(10);
      const addresses = (await Promise.all(left.map(name => published(name)))).flat();
      expect(new Set(addresses).size).toBe(10);
      await inOrder();
    });

    it('a store that lost everything is filled again with the addresses that Services have', async () => {
      await makePool('public', range(10, 19));
      {
        await using _ = await allocator();
        await makeService('a', { 'kube-ipam.io/load-balancer-ips': '192.0.2.17' });
        await makeService('b');
        await eventually('a', ['192.0.2.17']);
        await expect.poll(() => published('b'), soon).toHaveLength(1);
      }
      await annotate('a', { 'kube-ipam.io/load-balancer-ips': null });
      const before = await published('b');
      await plane.etcd.ctl('del', '--prefix', keys.prefix);
      await using _ = await allocator();
      await makeService('c');
      await expect.poll(() => published('c'), soon).toHaveLength(1);
      await expect.poll(lentTo, soon).toEqual(['a', 'b', 'c']);
      expect([await published('a'), await published('b')]).toEqual([['192.0.2.17'], before]);
      await inOrder();
    });

    it('what a Service has in its status is wiped out only where another owns it', async () => {
      await makeService('a');
      await makeService('b');
      const put = (name: string, ip: string) =>
        patch(`${pathOf(name)}/status`, { status: { loadBalancer: { ingress: [{ ip }] } } });
      await put('a', '192.0.2.77');
      await put('b', '192.0.2.78');
      const reserved = { put: keys.address(parseIp('192.0.2.78')!), value: '{"kind":"reserved","cluster":"default"}' };
      await kv.commit({ conditions: [], writes: [reserved] }, deadlineIn(9000));
      await using _ = await allocator();
      await eventually('b', []);
      expect(await published('a')).toEqual(['192.0.2.77']);
      await expect.poll(() => reasons('a'), soon).toEqual([expect.stringMatching(/^PoolUnknown: /)]);
      // Once there is a pool that has it, it is its own.
      await makePool('public', range(70, 79));
      await expect.poll(lentTo, soon).toEqual(['a', 'b', undefined]);
      expect(await published('a')).toEqual(['192.0.2.77']);
    });

    it('a record that is lost is written again, by the next scan', async () => {
      await makePool('public', range(10, 19));
      await using _ = await allocator({ scan: 300 });
      await makeService('a');
      const address = await given('a');
      await kv.commit({ conditions: [], writes: [{ delete: keys.address(parseIp(address)!) }] }, deadlineIn(9000));
      await expect.poll(lentTo, soon).toEqual(['a']);
      expect(await published('a')).toEqual([address]);
      await inOrder();
    });

    it('an API server that is away for a while', async () => {
      await makePool('public', range(10, 19));
      await using running = await allocator();
      await makeService('a');
      const address = await given('a');
      await plane.apiServer.stop();
      await sleep(4000);
      plane.apiServer.cont();
      await makeService('b');
      expect(await given('b')).not.toBe(address);
      await expect.poll(() => running.one.state().ready, soon).toBe(true);
      expect(await published('a')).toEqual([address]);
    }, 60_000);
  });

  it('as a process of its own, with flags and pages, that ends when it is told', { timeout: 120_000 }, async () => {
    await makePool('public', range(10));
    const [port] = await freePorts(1);
    const kubeconfig = plane.kubeconfig({ token: account.token });
    const etcd = ['--etcd-endpoint', plane.etcd.endpoints.join(), '--etcd-prefix', prefix, '--space', keys.space];
    const flags = [
      ...etcd,
      '--kubeconfig',
      kubeconfig,
      '--lease-namespace',
      namespace,
      '--listen',
      `127.0.0.1:${port}`,
    ];
    const argv = [...sources, 'public-ip', 'allocator', ...flags, '--conf-dir', plane.folder];
    const child = spawn(argv[0]!, argv.slice(1), { stdio: ['ignore', 'ignore', 'pipe'], env: { PATH: '' } });
    let log = '';
    child.stderr.on('data', chunk => {
      log += chunk;
    });
    const ended = new Promise<number | null>(resolve => child.on('close', resolve));
    try {
      await makeService('a');
      await eventually('a', ['192.0.2.10']);
      const page = async (path: string) => (await fetch(`http://127.0.0.1:${port}${path}`)).text();
      expect(await page('/metrics')).toContain('kube_ipam_public_ip_allocated_total 1\n');
      await expect.poll(() => page('/readyz'), soon).toContain('this process leads');
    } finally {
      child.kill('SIGTERM');
    }
    expect(await ended, log).toBe(0);
    expect(log).toMatch(/"event":"published".*"192\.0\.2\.10"/);
  });

  describe('the definition of AddressPool', () => {
    it.each([
      ['no range', {}],
      ['an empty list', { ranges: [] }],
      ['no subnet', { ranges: [{ rangeStart: '192.0.2.1' }] }],
      ['a bad subnet', { ranges: [{ subnet: '192.0.2.0' }] }],
      ['a bad address', { ranges: [{ subnet: '192.0.2.0/24', rangeStart: '192.0.2' }] }],
      ['a bad exclusion', { ...range(1), exclude: ['a b'] }],
      ['a bad space', { ...range(1), space: 'a/b' }],
      ['a bad operator', { ...range(1), namespaces: { matchExpressions: [{ key: 'a', operator: 'Is' }] } }],
    ])('refuses %s', async (_, spec) => {
      const pool = { apiVersion: 'kube-ipam.io/v1', kind: 'AddressPool', metadata: { name: 'bad' }, spec };
      await expect(plane.api('POST', pools, pool)).rejects.toBeInstanceOf(ApiRefusal);
    });

    it('takes all that can be meant, and what only we can judge shows in its status', async () => {
      const full = {
        ranges: [
          {
            name: 'a',
            subnet: '192.0.2.0/24',
            rangeStart: '192.0.2.10',
            rangeEnd: '192.0.2.19',
            gateway: '192.0.2.254',
          },
          { subnet: '2001:db8::/64', fixedStart: '2001:db8::10', fixedEnd: '2001:db8::1f' },
        ],
        exclude: ['192.0.2.12', '192.0.2.13 - 192.0.2.14', '2001:db8::80/121'],
      };
      await makePool('full', full);
      await makePool('bad', { ranges: [{ subnet: '192.0.2.1/24' }] });
      await makePool('far', { ...range(1), space: 'elsewhere' });
      await using _ = await allocator();
      await expect.poll(() => poolStatus('full'), soon).toMatchObject({ ipv4: { total: 7, used: 0, free: 7 } });
      expect((await poolStatus('full'))!.ipv6).toMatchObject({ free: Number.MAX_SAFE_INTEGER });
      const condition = async (name: string) => ((await poolStatus(name))?.conditions as object[] | undefined)?.[0];
      await expect.poll(() => condition('bad'), soon).toMatchObject({ status: 'False', reason: 'Invalid' });
      expect(await condition('bad')).toMatchObject({ message: expect.stringContaining('has host bits set') });
      await expect.poll(() => condition('far'), soon).toMatchObject({ status: 'False', reason: 'OtherSpace' });
      const table = await plane.kubectl(['get', 'addresspools', `full-${tests}`]);
      expect(table).toMatch(/NAME +READY +USED4 +FREE4 +USED6 +FREE6 +AGE\n\S+ +True +0 +7 +0 +9007199254740991 /);
    });
  });
});
