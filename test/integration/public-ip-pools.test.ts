// From pool to wire: a Service gets an address of a pool, one node answers for it, and nobody else gets it before that ends.
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, test } from 'vitest';
import { deadlineIn } from '../../src/base/clock.ts';
import { parseOwner } from '../../src/ipam/model.ts';
import { parseYaml } from '../../src/kube/yaml.ts';
import { formatIp } from '../../src/net/ip.ts';
import { type GrpcKv, openGrpc } from '../../src/store/etcd/grpc.ts';
import { Keys, parseKey } from '../../src/store/keys.ts';
import { afterPrefix } from '../../src/store/kv.ts';
import { program } from '../helpers/plugin-process.ts';
import { project } from '../helpers/project.ts';
import type { PublicIpNode } from '../helpers/public-ip/node.ts';
import { eventually, World, whyNoWorld } from '../helpers/public-ip/world.ts';

const obstacle = await whyNoWorld();
const claimsPrefix = '/kiwi/publicips/';
const keys = new Keys('default');

if (obstacle !== undefined) test('public addresses of pools', ({ skip }) => skip(obstacle));

describe.skipIf(obstacle !== undefined)('public addresses of pools', () => {
  let world: World;
  let kv: GrpcKv;
  let allocator: AsyncDisposable;
  const pools = '/apis/kube-ipam.io/v1/addresspools';

  beforeAll(async () => {
    world = await World.start({ nodes: ['node-a', 'node-b'], flags: ['--ttl', '5', '--probe', 'off'] });
    kv = openGrpc(world.etcd.target());
    const crd = parseYaml(readFileSync(join(project, 'deploy/base/addresspools.yaml'), 'utf8'));
    await world.plane.api('POST', '/apis/apiextensions.k8s.io/v1/customresourcedefinitions', crd);
    const isServed = () =>
      world.plane.api('GET', pools).then(
        () => true,
        () => false,
      );
    while (!(await isServed())) await sleep(100);
    const ranges = [{ subnet: '192.168.0.0/16', rangeStart: '192.168.1.50', rangeEnd: '192.168.1.53' }];
    const pool = { apiVersion: 'kube-ipam.io/v1', kind: 'AddressPool', metadata: { name: 'public' }, spec: { ranges } };
    await world.plane.api('POST', pools, pool);
  });
  beforeEach(async () => {
    allocator = startAllocator();
    await world.startAll();
  });
  afterEach(async () => {
    await allocator[Symbol.asyncDispose]();
    await world.clear();
  });
  afterAll(async () => {
    await kv?.[Symbol.asyncDispose]();
    await world?.[Symbol.asyncDispose]();
  });

  function startAllocator(): AsyncDisposable {
    const etcd = ['--etcd-endpoint', world.etcd.endpoints.join(',')];
    const argv = [
      'public-ip',
      'allocator',
      '--kubeconfig',
      world.kubeconfig,
      ...etcd,
      '--conf-dir',
      world.plane.folder,
    ];
    const child = spawn(program, argv, { stdio: 'ignore', env: { PATH: process.env.PATH } });
    const ended = new Promise(resolve => child.on('close', resolve));
    const end = async () => {
      child.kill('SIGTERM');
      await ended;
    };
    return { [Symbol.asyncDispose]: end };
  }

  const create = (name: string, annotations: Record<string, string> = {}, port = 80) =>
    world.createService({
      name,
      addresses: [],
      annotations,
      ports: [{ port }],
      spec: { type: 'LoadBalancer', loadBalancerClass: 'kube-ipam.io/public-ip', allocateLoadBalancerNodePorts: false },
    });
  const naming = (address: string) => ({ 'kube-ipam.io/load-balancer-ips': address });
  const published = async (name: string): Promise<string | undefined> => {
    const path = `/api/v1/namespaces/default/services/${name}`;
    const { status } = await world.plane.api<{
      status: { loadBalancer: { ingress?: readonly { readonly ip: string }[] } };
    }>('GET', path);
    return status.loadBalancer.ingress?.[0]?.ip;
  };
  const carriers = async (address: string): Promise<PublicIpNode[]> => {
    const has = await Promise.all(
      world.nodes.map(async node => (await node.addresses()).some(shown => shown.address === address)),
    );
    return world.nodes.filter((_, i) => has[i]);
  };
  const carried = async (name: string): Promise<{ address: string; by: PublicIpNode }> => {
    let found: { address: string; by: PublicIpNode } | undefined;
    await eventually(async () => {
      const address = await published(name);
      const [by] = address === undefined ? [] : await carriers(address);
      expect(by, `who carries ${address}`).toBeDefined();
      found = { address: address!, by: by! };
    });
    return found!;
  };
  /** What is claimed, and what has an owner, at one revision of the store. */
  const state = async () => {
    const [from, records] = [claimsPrefix, keys.addresses()];
    const queries = [
      { from, to: afterPrefix(from) },
      { from: records, to: afterPrefix(records) },
    ];
    const { answers } = await kv.read(queries, deadlineIn(20_000));
    const claimed = answers[0]!.entries.map(({ key }) => key.slice(from.length));
    const owners = answers[1]!.entries.map(({ key, value }) => {
      const parsed = parseKey(key);
      return [parsed?.type === 'address' ? formatIp(parsed.ip) : '', parseOwner(value)] as const;
    });
    return { claimed, owners: new Map(owners) };
  };
  /** Fails when an address is claimed that nobody owns. */
  function watchOwners(): AsyncDisposable & { readonly unowned: readonly string[] } {
    const unowned: string[] = [];
    const end = new AbortController();
    const watching = (async () => {
      while (!end.signal.aborted) {
        const { claimed, owners } = await state();
        unowned.push(...claimed.filter(address => !owners.has(address)));
        await sleep(5);
      }
    })();
    const stop = async () => {
      end.abort();
      await watching;
    };
    return { unowned, [Symbol.asyncDispose]: stop };
  }

  it('a Service gets an address, one node carries it, and after the Service it is free again', async () => {
    await using watched = watchOwners();
    await create('web');
    const { address, by } = await carried('web');
    expect(address).toMatch(/^192\.168\.1\.5[0-3]$/);
    expect(await carriers(address)).toEqual([by]);
    expect((await state()).owners.get(address)).toMatchObject({ pool: 'public', holder: { name: 'web' } });
    await world.deleteService('web');
    await eventually(async () => expect(await carriers(address)).toEqual([]));
    await eventually(async () => expect((await state()).owners.size).toBe(0));
    expect(watched.unowned).toEqual([]);
  });

  it('a pool that has one address for two Services in turn never lets both have it', async () => {
    const others = ['192.168.1.51', '192.168.1.52', '192.168.1.53'];
    for (const [i, address] of others.entries()) await create(`other-${i}`, naming(address));
    for (const i of others.keys()) await carried(`other-${i}`);
    await create('first');
    const { address } = await carried('first');
    expect(address).toBe('192.168.1.50');
    await using judges = await world.judge([address]);
    await using watched = watchOwners();
    await create('second', {}, 81);
    await sleep(500);
    expect(await published('second')).toBeUndefined();
    await world.deleteService('first');
    const after = await carried('second');
    expect(after.address).toBe(address);
    expect((await state()).owners.get(address)).toMatchObject({ holder: { name: 'second' } });
    expect(judges.verdict()).toEqual([]);
    expect(watched.unowned).toEqual([]);
  });

  it('another wish: the new address is carried, and the old one is free once no node has it', async () => {
    await create('web', naming('192.168.1.50'));
    await carried('web');
    await using watched = watchOwners();
    await world.patchService('web', { metadata: { annotations: naming('192.168.1.53') } });
    await eventually(async () => expect(await published('web')).toBe('192.168.1.53'));
    await carried('web');
    await eventually(async () => expect(await carriers('192.168.1.50')).toEqual([]));
    await eventually(async () => expect([...(await state()).owners.keys()]).toEqual(['192.168.1.53']));
    expect(watched.unowned).toEqual([]);
  });

  it('two Services share an address: each node marks the packets of both, and the last one ends it', async () => {
    const sharing = { 'kube-ipam.io/allow-shared-ip': 'web' };
    await create('plain', sharing, 80);
    const { address, by } = await carried('plain');
    await create('secure', sharing, 443);
    await eventually(async () => expect(await published('secure')).toBe(address));
    await eventually(async () => {
      for (const node of world.nodes) expect(await node.rules()).toHaveLength(2);
    });
    await world.deleteService('plain');
    await eventually(async () => expect(await by.rules()).toEqual([expect.stringContaining('--dport 443')]));
    expect(await carriers(address)).toEqual([by]);
    expect((await state()).owners.get(address)).toMatchObject({ holder: { name: 'secure' } });
    await world.deleteService('secure');
    await eventually(async () => expect((await state()).owners.size).toBe(0));
    expect(await carriers(address)).toEqual([]);
  });

  it('the node dies: the address moves, and is the same Service’s', async () => {
    await create('web');
    const { address, by } = await carried('web');
    await using watched = watchOwners();
    await by.clear();
    await eventually(async () => {
      const now = await carriers(address);
      expect(now.map(({ name }) => name)).toEqual(world.nodes.filter(node => node !== by).map(({ name }) => name));
    });
    expect(await published('web')).toBe(address);
    expect((await state()).owners.get(address)).toMatchObject({ pool: 'public', holder: { name: 'web' } });
    expect(watched.unowned).toEqual([]);
  });
});
