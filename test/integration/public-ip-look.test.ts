// Looking at public addresses from outside: ls, why and plan, over a real API server and a real etcd.
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { deadlineIn } from '../../src/base/clock.ts';
import type { ServiceHolder } from '../../src/ipam/model.ts';
import { parseIp } from '../../src/net/ip.ts';
import { type AgentInfo, Claims } from '../../src/publicip/claims.ts';
import { type GrpcKv, openGrpc } from '../../src/store/etcd/grpc.ts';
import { Keys } from '../../src/store/keys.ts';
import { runProcess, type Said, sources } from '../helpers/command-line.ts';
import { type ControlPlane, startControlPlane } from '../helpers/kubernetes/control-plane.ts';

const ttl = 60;
const services = '/api/v1/namespaces/default/services';
const soon = () => deadlineIn(20_000);

let plane: ControlPlane;
let kv: GrpcKv;

beforeAll(async () => {
  plane = await startControlPlane();
  kv = openGrpc(plane.etcd.target());
  await createService('web', ['192.168.1.41', '10.9.9.9'], 80);
  await createService('more', ['192.168.1.41'], 443);
  await createService('free', ['192.168.1.42', '2001:db8::42'], 80);
  await createService('local', ['192.168.1.43'], 80, { type: 'NodePort', externalTrafficPolicy: 'Local' });
  await createService('clash', ['192.168.1.44'], 80);
  const reserved = { kind: 'reserved', cluster: 'default', since: '2026-01-01T00:00:00Z', reason: 'printer' };
  const key = new Keys('default').address(parseIp('192.168.1.44')!);
  await kv.commit({ conditions: [], writes: [{ put: key, value: JSON.stringify(reserved) }] }, soon());
  await join('node-a', {}, ['192.168.1.41', '192.168.1.99']);
  await join('node-b', { fit: false, why: 'interface eth0 is down' });
  await join('node-c', { refuses: ['192.168.1.42'], reasons: { '192.168.1.42': 'ForeignAddress: on eth1' } });
});
afterAll(async () => {
  await kv?.[Symbol.asyncDispose]();
  await plane?.[Symbol.asyncDispose]();
});

async function createService(name: string, externalIPs: readonly string[], port: number, more: object = {}) {
  const spec = { externalIPs, ports: [{ port }], selector: { app: name }, ...more };
  await plane.api('POST', services, { apiVersion: 'v1', kind: 'Service', metadata: { name }, spec });
}

/** An agent, and what it has claimed, as the store has them; nobody renews its lease. */
async function join(node: string, says: Partial<AgentInfo>, claimed: readonly string[] = []): Promise<void> {
  const records = { space: 'default', cluster: 'default' };
  await using claims = await Claims.open(kv, { prefix: '/kiwi/', id: node, ttl, records }, soon());
  const lease = (await kv.grant(ttl * 10, soon())).id;
  const place = { machine: `m-${node}`, boot: 'b', netns: '4:1' };
  const info = { node, cluster: 'default', ...place, version: '1', ttl, fit: true, ...says };
  expect(await claims.register(lease, info, soon())).toBe('done');
  const web: ServiceHolder = {
    feature: 'public-ip',
    group: '',
    kind: 'Service',
    namespace: 'default',
    name: 'web',
    uid: 'u',
  };
  for (const address of claimed) expect(await claims.claim(address, lease, web, soon())).toMatchObject({ won: true });
}

function run(argv: readonly string[]): Promise<Said> {
  const kubeconfig = plane.kubeconfig({ token: plane.adminToken });
  const access = [
    '--kubeconfig',
    kubeconfig,
    '--etcd-endpoint',
    plane.etcd.endpoints.join(','),
    '--conf-dir',
    '/nowhere',
  ];
  return runProcess(sources[0], [sources[1], ...argv, ...access, '--cidr-range', '192.168.0.0/16,2001:db8::/32']);
}

async function json(argv: readonly string[]): Promise<unknown> {
  const { code, stdout, stderr } = await run(argv);
  expect(stderr).toBe('');
  expect(code).toBe(0);
  return JSON.parse(stdout);
}

describe('public-ip ls', () => {
  it('one line for each address, with what is amiss', async () => {
    const { code, stdout, stderr } = await run(['public-ip', 'ls']);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const lines = stdout
      .trimEnd()
      .split('\n')
      .map(line => line.split(/ {2,}/));
    expect(lines[0]).toEqual(['ADDRESS', 'STATE', 'NODE', 'SERVICES', 'PORTS', 'REMARK']);
    expect(lines.slice(1)).toEqual([
      [
        '192.168.1.41',
        'held',
        'node-a',
        expect.stringMatching(/^default\/(web,default\/more|more,default\/web)$/),
        expect.any(String),
        '-',
      ],
      ['192.168.1.42', 'waiting', '-', 'default/free', '80/tcp', 'node-a is next'],
      [
        '192.168.1.43',
        'stuck',
        '-',
        'default/local',
        '80/tcp',
        expect.stringMatching(/no endpoint there is ready \(node-a, node-c\)/),
      ],
      ['192.168.1.44', 'taken', '-', 'default/clash', '80/tcp', expect.stringMatching(/reserved.*printer/)],
      ['2001:db8::42', 'waiting', '-', 'default/free', '80/tcp', 'node-c is next'],
      ['192.168.1.99', 'unwanted', 'node-a', '-', '-', expect.stringMatching(/^no Service wants it/)],
      ['10.9.9.9', 'refused', '-', 'default/web', '-', expect.stringMatching(/^OutsideRanges: /)],
    ]);
  });

  it('filtered, and for programs', async () => {
    const held = await json(['public-ip', 'ls', '--node', 'node-a', '--state', 'held', '-o', 'json']);
    expect(held).toMatchObject([
      { address: '192.168.1.41', state: 'held', owner: { id: 'node-a', node: 'node-a' }, since: expect.any(String) },
    ]);
    expect(await json(['public-ip', 'ls', '--namespace', 'shop', '-o', 'json'])).toEqual([]);
  });
});

describe('public-ip why', () => {
  it('says of each node what it may, and is fine only where the address is carried', async () => {
    const carried = await run(['public-ip', 'why', '192.168.1.41']);
    expect(carried.code).toBe(0);
    expect(carried.stdout).toMatch(/state +held: a node carries it\n {2}node +node-a\n/);
    const waiting = await run(['public-ip', 'why', '192.168.1.42']);
    expect(waiting.code).toBe(1);
    expect(waiting.stdout).toMatch(/not +node-b: interface eth0 is down\n/);
    expect(waiting.stdout).toMatch(/not +node-c: ForeignAddress: on eth1\n/);
  });

  it('knows Services by name, addresses in any spelling, and says when there is nothing', async () => {
    const both = await run(['public-ip', 'why', 'default/free']);
    expect(both.stdout.match(/state +waiting/g)).toHaveLength(2);
    expect((await run(['public-ip', 'why', '2001:DB8:0::42'])).stdout).toMatch(/^2001:db8::42\n/);
    const none = await run(['public-ip', 'why', '192.168.7.7']);
    expect(none).toEqual({
      code: 1,
      stdout: '',
      stderr: '192.168.7.7: no Service wants it, and no node has claimed it\n',
    });
  });
});

describe('plan', () => {
  it('is the same by both names, and changes nothing', async () => {
    const before = await plane.etcd.ctl('get', '--prefix', '/kiwi/');
    const made = await json(['public-ip', 'plan']);
    expect(await json(['plan', 'public-ip'])).toEqual(made);
    expect(await plane.etcd.ctl('get', '--prefix', '/kiwi/')).toBe(before);
    expect(made).toMatchObject({
      cluster: 'default',
      agents: [
        { id: 'node-a', fit: true },
        { id: 'node-b', fit: false, why: 'interface eth0 is down' },
        { id: 'node-c' },
      ],
      owners: { '192.168.1.41': 'node-a', '192.168.1.99': 'node-a' },
      lines: {
        '192.168.1.41': ['node-a', 'node-c'],
        '192.168.1.42': ['node-a'],
        '2001:db8::42': ['node-c', 'node-a'],
      },
      moves: [],
      nobody: { '192.168.1.43': expect.stringMatching(/no endpoint there is ready/) },
      refusals: [{ address: '10.9.9.9', reason: 'OutsideRanges' }],
    });
  });

  it('tells what cannot be reached, with exit code 3', async () => {
    const away = await runProcess(sources[0], [
      sources[1],
      ...['plan', 'public-ip', '--kubeconfig', plane.kubeconfig({ token: plane.adminToken })],
      ...['--etcd-endpoint', 'http://127.0.0.1:1', '--timeout', '2', '--conf-dir', '/nowhere'],
    ]);
    expect(away).toMatchObject({ code: 3, stdout: '', stderr: expect.stringMatching(/127\.0\.0\.1:1/) });
  });
});

describe('public-ip drain', () => {
  const nodePath = '/api/v1/nodes/node-d';
  const annotation = async () => {
    const node = await plane.api<{ metadata: { annotations?: Record<string, string> } }>('GET', nodePath);
    return node.metadata.annotations?.['kube-ipam.io/drain'];
  };
  const drain = async (...more: string[]) => {
    const access = ['--kubeconfig', plane.kubeconfig({ token: plane.adminToken }), '--conf-dir', '/nowhere'];
    const argv = ['public-ip', 'drain', 'node-d', ...access, '--etcd-endpoint', plane.etcd.endpoints.join(',')];
    return runProcess(sources[0], [sources[1], ...argv, ...more]);
  };

  beforeAll(async () => {
    await plane.api('POST', '/api/v1/nodes', { apiVersion: 'v1', kind: 'Node', metadata: { name: 'node-d' } });
  });

  it('tells the node, and waits until it has claimed nothing any more', async () => {
    await join('node-d', {}, ['192.168.1.98']);
    const late = await drain('--wait', '0.5');
    expect(late).toEqual({
      code: 1,
      stdout: '',
      stderr: 'node-d still has 1 address: 192.168.1.98; "kube-ipam public-ip why ADDRESS" says why\n',
    });
    expect(await annotation()).toBe('true');
    const waiting = drain('--wait', '60');
    await sleep(1000);
    await kv.commit({ conditions: [], writes: [{ delete: '/kiwi/publicips/192.168.1.98' }] }, soon());
    expect(await waiting).toEqual({ code: 0, stdout: 'node-d carries no public address\n', stderr: '' });
  });

  it('takes it back', async () => {
    expect(await drain('--undo')).toEqual({ code: 0, stdout: 'node-d may carry public addresses again\n', stderr: '' });
    expect(await annotation()).toBeUndefined();
    expect(await drain('--wait', '0')).toEqual({ code: 0, stdout: 'node-d is to carry none\n', stderr: '' });
  });

  it('knows a node that is none', async () => {
    const access = ['--kubeconfig', plane.kubeconfig({ token: plane.adminToken }), '--conf-dir', '/nowhere'];
    const gone = await runProcess(sources[0], [sources[1], 'public-ip', 'drain', 'node-z', ...access]);
    expect(gone).toMatchObject({ code: 1, stdout: '', stderr: expect.stringMatching(/node-z/) });
  });
});

describe('public-ip move', () => {
  const address = '192.168.1.97';
  const move = (...argv: string[]) =>
    runProcess(sources[0], [
      ...[sources[1], 'public-ip', 'move', ...argv],
      ...['--etcd-endpoint', plane.etcd.endpoints.join(','), '--conf-dir', '/nowhere'],
    ]);

  beforeAll(async () => {
    await join('node-e', {}, [address]);
    await join('node-f', {});
  });

  it('asks the owner, and tells when it keeps the address', async () => {
    expect(await move(address, 'node-f', '--wait', '0.5')).toEqual({
      code: 1,
      stdout: '',
      stderr: `${address} is still on node-e; "kube-ipam public-ip why ADDRESS" says who may carry it\n`,
    });
    const wish = (await kv.read([{ key: `/kiwi/moves/${address}` }], soon())).answers[0]!.entries[0];
    expect(wish).toMatchObject({ value: 'node-f', lease: expect.stringMatching(/^\d+$/) });
  });

  it('waits until another has it', async () => {
    const waiting = move(address, '--wait', '60');
    await sleep(1000);
    await kv.commit({ conditions: [], writes: [{ put: `/kiwi/publicips/${address}`, value: 'node-f' }] }, soon());
    expect(await waiting).toEqual({ code: 0, stdout: `${address} is on node-f now\n`, stderr: '' });
    expect(await move(address, 'node-f')).toEqual({ code: 0, stdout: `node-f has ${address} already\n`, stderr: '' });
  });

  it('asks nobody where there is nobody', async () => {
    expect(await move('192.168.1.3')).toMatchObject({ code: 1, stderr: '192.168.1.3: no node has claimed it\n' });
    expect(await move(address, 'node-z')).toMatchObject({ code: 1, stderr: 'node-z: no agent runs there\n' });
    expect(await move('web')).toMatchObject({ code: 2, stderr: expect.stringContaining('is no address') });
  });
});
