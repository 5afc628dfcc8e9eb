// What only etcd can do to us: dead and silent members, refusals, certificates, other servers in its place.
import { readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { inspect } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { deadlineIn } from '../../src/base/clock.ts';
import { FailureError } from '../../src/base/errors.ts';
import { endpointStatus, readableHistory } from '../../src/store/etcd/doctor.ts';
import { GatewayOffError, hintedTransport, openGateway } from '../../src/store/etcd/gateway.ts';
import { openGrpc } from '../../src/store/etcd/grpc.ts';
import {
  type Commit,
  type Kv,
  OutOfSpaceError,
  RefusedError,
  UnknownFateError,
  UnreachableError,
} from '../../src/store/kv.ts';
import type { EtcdTarget } from '../../src/store/target.ts';
import { type EtcdCluster, engines, freePorts, startEtcd } from '../helpers/etcd.ts';
import { startProxy } from '../helpers/tcp-proxy.ts';
import { httpAnswer, startBlackHole, startServer } from '../helpers/tcp-servers.ts';

const password = 'S3cret-of-the-test';
const all = engines();
const newest = all.at(-1)!;
const transports: readonly { readonly transport: string; readonly open: (target: EtcdTarget) => Kv }[] = [
  { transport: 'JSON gateway', open: openGateway },
  { transport: 'gRPC', open: openGrpc },
];
const everyWay = all.flatMap(engine => transports.map(way => ({ engine, version: engine.version, ...way })));

const soon = () => deadlineIn(20_000);
const putTo = (key: string, value = 'v') => ({ conditions: [], writes: [{ put: key, value }] });

/** The error of a call, which must be one foreseen and must show no secret however it is printed. */
async function failure(call: Promise<unknown>): Promise<FailureError> {
  const error = await call.then(
    value => {
      throw new Error(`it answered ${inspect(value)}`);
    },
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(FailureError);
  const shown = inspect(error, { depth: 12, showHidden: true });
  expect(shown).not.toContain(password);
  expect(shown).not.toMatch(/authorization|Bearer/i);
  return error as FailureError;
}

async function timed<T>(call: () => Promise<T>): Promise<{ readonly result: T; readonly ms: number }> {
  const start = performance.now();
  const result = await call();
  return { result, ms: performance.now() - start };
}

/** Repeats a commit that may be repeated, while its fate is unknown. */
async function eventually(kv: Kv, commit: Commit): Promise<boolean> {
  for (const limit = deadlineIn(60_000); ; ) {
    try {
      return (await kv.commit(commit, limit)).won;
    } catch (error) {
      if (!(error instanceof UnknownFateError || error instanceof UnreachableError) || limit.passed) throw error;
    }
  }
}

/** An etcd target that names no cluster of a test. */
function stray(endpoints: readonly string[], dataDir: string, changes: Partial<EtcdTarget> = {}): EtcdTarget {
  return { kind: 'etcd', endpoints, dialTimeout: 500, requestTimeout: 1000, dataDir, ...changes };
}

describe.each(all)('three members of etcd $version', engine => {
  let cluster: EtcdCluster;
  beforeAll(async () => {
    cluster = await startEtcd(engine, { members: 3 });
  }, 90_000);
  afterAll(() => cluster?.[Symbol.asyncDispose](), 60_000);

  const hint = (target: EtcdTarget) => JSON.parse(readFileSync(join(target.dataDir, 'endpoint.json'), 'utf8'));

  test.each(transports)('$transport: a dead member costs one try, the next process none', async ({ open }) => {
    const [dead] = await freePorts(1);
    const endpoints = [`http://127.0.0.1:${dead}`, ...cluster.endpoints];
    const target = cluster.target({ endpoints });
    await using kv = open(target);
    expect((await kv.commit(putTo('/dead/a'), soon())).won).toBe(true);
    expect(hint(target)).toMatchObject({ endpoints, endpoint: cluster.endpoints[0], transport: 'gateway' });
    expect(statSync(join(target.dataDir, 'endpoint.json')).mode & 0o777).toBe(0o600);

    await using silent = await startBlackHole();
    const withSilent = {
      ...target,
      endpoints: [silent.endpoint, ...cluster.endpoints],
      requestTimeout: 600,
      dialTimeout: 600,
    };
    await using first = open(withSilent);
    await first.read([{ key: '/dead/a' }], soon());
    const asked = silent.connections;
    expect(asked).toBeGreaterThan(0);
    await using second = open(withSilent);
    expect((await second.commit(putTo('/dead/b'), soon())).won).toBe(true);
    expect(silent.connections).toBe(asked);
  });

  test.each(transports)(
    '$transport: a stopped member: reads move on, a commit says that its fate is unknown',
    async ({ open }) => {
      const target = cluster.target({ requestTimeout: 800 });
      await using kv = open(target);
      await kv.read([{ key: '/stop/warm' }], soon());
      await cluster.members[0]!.stop();
      try {
        const lost = await timed(() => failure(kv.commit(putTo('/stop/a'), soon())));
        expect(lost.result).toBeInstanceOf(UnknownFateError);
        expect(lost.result.message).toContain(cluster.endpoints[0]);
        expect(lost.ms).toBeLessThan(3 * 800 + 1000);
        // The same client goes elsewhere from now on, and etcd has a quorum, if need be after an election.
        expect(await eventually(kv, putTo('/stop/b'))).toBe(true);
        await using fresh = open(cluster.target({ requestTimeout: 800 }));
        expect((await fresh.read([{ key: '/stop/b' }], deadlineIn(15_000))).answers[0]!.count).toBe(1);
      } finally {
        cluster.members[0]!.cont();
      }
      await cluster.ready();
    },
    180_000,
  );

  test.each(transports)(
    '$transport: without quorum reads are unreachable and commits of unknown fate, by the deadline',
    async ({ open }) => {
      await using kv = open(cluster.target());
      await kv.read([{ key: '/quorum/warm' }], soon());
      await cluster.members[1]!.stop();
      await cluster.members[2]!.stop();
      try {
        const read = await timed(() => failure(kv.read([{ key: '/quorum/a' }], deadlineIn(1500))));
        expect(read.result).toBeInstanceOf(UnreachableError);
        expect(read.ms).toBeLessThan(4500);
        await using other = open(cluster.target());
        const commit = await timed(() => failure(other.commit(putTo('/quorum/a'), deadlineIn(1500))));
        expect([UnknownFateError, UnreachableError]).toContain(commit.result.constructor);
        expect(commit.ms).toBeLessThan(4500);
      } finally {
        cluster.members[1]!.cont();
        cluster.members[2]!.cont();
      }
      await cluster.ready();
      // Whatever it came to, the cluster works again, and the key is there or not, in one piece.
      await using after = open(cluster.target());
      expect((await after.read([{ key: '/quorum/a' }], soon())).answers[0]!.count).toBeLessThan(2);
    },
    180_000,
  );

  test.each(transports)(
    '$transport: a member is killed under load: no answer is wrong, and none is missing',
    async ({ open }) => {
      await using kv = open(cluster.target());
      const key = `/kill/${open.name}`;
      let known = 0;
      let wins = 0;
      let unknown = 0;
      const until = performance.now() + 2500;
      let killed = false;
      while (performance.now() < until) {
        if (!killed && performance.now() > until - 2000) {
          killed = true;
          await cluster.members[0]!.kill();
        }
        try {
          const swap = {
            conditions: [known === 0 ? { absent: key } : { unchanged: key, revision: known }],
            writes: [{ put: key, value: 'v' }],
            otherwise: [{ key }],
          };
          const result = await kv.commit(swap, deadlineIn(10_000));
          if (result.won) wins++;
          known = result.won ? result.revision : result.answers[0]!.entries[0]!.revision;
        } catch (error) {
          if (!(error instanceof UnknownFateError) && !(error instanceof UnreachableError)) throw error;
          if (error instanceof UnknownFateError) unknown++;
        }
      }
      await cluster.members[0]!.restart();
      const history = await cluster.ctl('get', key, '-w', 'json');
      const { version } = JSON.parse(history).kvs[0] as { version: number };
      expect(wins).toBeGreaterThan(10);
      // Each win is one version of the key; a commit of unknown fate is one or none.
      expect(version).toBeGreaterThanOrEqual(wins);
      expect(version).toBeLessThanOrEqual(wins + unknown);
    },
    180_000,
  );

  test('the doctor sees every member, and the dead one', async () => {
    const [dead] = await freePorts(1);
    const target = cluster.target({ endpoints: [...cluster.endpoints, `http://127.0.0.1:${dead}`] });
    const found = await endpointStatus(target, soon());
    expect(found.map(one => one.reachable)).toEqual([true, true, true, false]);
    for (const one of found) {
      if (!one.reachable) continue;
      expect(one.health).toMatchObject({ version: engine.version, alarms: [], gateway: 'on', quota: 2 * 1024 ** 3 });
      expect(one.health.leader).not.toBe('0');
      expect(one.health.dbSize).toBeGreaterThanOrEqual(one.health.dbSizeInUse!);
      expect(one.health.latency).toBeGreaterThan(0);
    }
    expect(new Set(found.flatMap(one => (one.reachable ? [one.health.leader] : []))).size).toBe(1);
  });

  test('the oldest readable revision', async () => {
    const target = cluster.target();
    await using kv = openGrpc(target);
    const before = await readableHistory(target, soon());
    expect(before).toMatchObject({ oldest: 1 });
    const result = await kv.commit(putTo('/kube-ipam/v1/history'), soon());
    if (!result.won) throw new Error('lost');
    await kv.commit(putTo('/kube-ipam/v1/history'), soon());
    await cluster.ctl('compact', String(result.revision));
    const after = await readableHistory(target, soon());
    expect(after!.oldest).toBe(result.revision);
    expect(after!.revision).toBeGreaterThan(result.revision);
  });
});

describe.each(transports)('$transport, nobody there', ({ open }) => {
  let cluster: EtcdCluster;
  beforeAll(async () => {
    cluster = await startEtcd(newest);
  }, 90_000);
  afterAll(() => cluster?.[Symbol.asyncDispose](), 60_000);
  const dataDir = () => cluster.target().dataDir;

  test('all dead: the error names each endpoint and why, without what stands before the "@"', async () => {
    const ports = await freePorts(2);
    const endpoints = ports.map(port => `http://user:${password}@127.0.0.1:${port}`);
    await using kv = open(stray(endpoints, dataDir()));
    for (const call of [() => kv.read([{ key: '/a' }], soon()), () => kv.commit(putTo('/a'), soon())]) {
      const error = await failure(call());
      expect(error).toBeInstanceOf(UnreachableError);
      for (const port of ports) expect(error.message).toContain(`http://127.0.0.1:${port}: connection refused`);
    }
  });

  test('a host name that does not exist', async () => {
    await using kv = open(
      stray(['http://no-such-host.invalid:2379'], dataDir(), { dialTimeout: 5000, requestTimeout: 6000 }),
    );
    const error = await failure(kv.commit(putTo('/a'), soon()));
    expect(error).toBeInstanceOf(UnreachableError);
    expect(error.message).toContain('no-such-host.invalid');
  });

  test('a silent engine (SIGSTOP): the deadline holds, reads are unreachable, commits unknown', async () => {
    await using kv = open(cluster.target({ requestTimeout: 10_000 }));
    await kv.read([{ key: '/a' }], soon());
    await cluster.members[0]!.stop();
    try {
      const read = await timed(() => failure(kv.read([{ key: '/a' }], deadlineIn(700))));
      expect(read.result).toBeInstanceOf(UnreachableError);
      const commit = await timed(() => failure(kv.commit(putTo('/a'), deadlineIn(700))));
      expect(commit.result).toBeInstanceOf(
        commit.result instanceof UnreachableError ? UnreachableError : UnknownFateError,
      );
      for (const { ms } of [read, commit]) expect(ms).toBeLessThan(3 * 700);
    } finally {
      cluster.members[0]!.cont();
    }
    await cluster.ready();
  });

  test('a listener that never answers: the deadline holds', async () => {
    await using silent = await startBlackHole();
    await using kv = open(stray([silent.endpoint], dataDir(), { dialTimeout: 400, requestTimeout: 400 }));
    const read = await timed(() => failure(kv.read([{ key: '/a' }], soon())));
    expect(read.result).toBeInstanceOf(UnreachableError);
    const commit = await timed(() => failure(kv.commit(putTo('/a'), soon())));
    // HTTP has sent the commit by then; gRPC sends nothing before the server has greeted.
    expect(commit.result).toBeInstanceOf(open === openGateway ? UnknownFateError : UnreachableError);
    for (const { ms } of [read, commit]) expect(ms).toBeLessThan(3 * 400);
  });

  test('a deadline that has passed sends nothing', async () => {
    await using kv = open(cluster.target());
    expect(await failure(kv.commit(putTo('/late'), deadlineIn(0)))).toBeInstanceOf(UnreachableError);
    expect((await kv.read([{ key: '/late' }], soon())).answers[0]!.count).toBe(0);
  });

  test('proxies of the environment are not asked', async () => {
    await using proxy = await startServer(socket => socket.destroy());
    const names = ['http_proxy', 'HTTP_PROXY', 'https_proxy', 'grpc_proxy', 'all_proxy'];
    const before = names.map(name => process.env[name]);
    const direct = process.env.NODE_USE_ENV_PROXY;
    for (const name of names) process.env[name] = proxy.endpoint;
    process.env.NODE_USE_ENV_PROXY = '1';
    try {
      await using kv = open(cluster.target());
      expect((await kv.read([{ key: '/a' }], soon())).revision).toBeGreaterThan(0);
      expect(proxy.connections).toBe(0);
    } finally {
      for (const [place, name] of [...names.entries(), [names.length, 'NODE_USE_ENV_PROXY'] as const]) {
        const old = [...before, direct][place];
        if (old === undefined) delete process.env[name];
        else process.env[name] = old;
      }
    }
  });

  test('a state folder that cannot be written, and a broken hint, cost nothing', async () => {
    const blocked = cluster.target();
    writeFileSync(join(blocked.dataDir, 'file'), '');
    await using kv = open({ ...blocked, dataDir: join(blocked.dataDir, 'file', 'below') });
    expect((await kv.read([{ key: '/a' }], soon())).revision).toBeGreaterThan(0);
    const garbage = cluster.target();
    for (const text of ['{"endpoints":', 'null', '[]', '{"endpoints":["x"],"endpoint":7}']) {
      writeFileSync(join(garbage.dataDir, 'endpoint.json'), text);
      await using other = open(garbage);
      expect((await other.read([{ key: '/a' }], soon())).revision).toBeGreaterThan(0);
      expect(hintedTransport(garbage)).toBe('gateway');
    }
  });
});

describe("servers that are not etcd, behind the JSON gateway's port", () => {
  let cluster: EtcdCluster;
  beforeAll(async () => {
    cluster = await startEtcd(newest);
  }, 90_000);
  afterAll(() => cluster?.[Symbol.asyncDispose](), 60_000);

  const nonsense: readonly (readonly [string, string])[] = [
    ['bytes', '\x16\x03\x01garbage\r\n\r\n'],
    ['a web page', httpAnswer('200 OK', `<html>${password}</html>`)],
    ['an empty object', httpAnswer('200 OK', '{}')],
    ['a list', httpAnswer('200 OK', '[]')],
    ['half of an answer', 'HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{"header":{"rev'],
    ['fewer responses than asked for', httpAnswer('200 OK', '{"header":{"revision":"7"},"succeeded":true}')],
    [
      'a revision that is no number',
      httpAnswer('200 OK', '{"header":{"revision":"x"},"succeeded":true,"responses":[{}]}'),
    ],
    ['an error of a gateway before it', httpAnswer('502 Bad Gateway', `{"error":"${password}"}`)],
    ['an error that echoes', httpAnswer('500 Internal Server Error', `{"code":2,"message":"${password}"}`)],
  ];

  test.each(nonsense)('%s: a read goes on to the next endpoint, a commit is of unknown fate', async (_, text) => {
    await using server = await startServer(socket => socket.end(text, 'latin1'));
    const target = cluster.target({ endpoints: [server.endpoint, ...cluster.endpoints] });
    await using kv = openGateway(target);
    const error = await failure(kv.commit(putTo('/nonsense'), soon()));
    expect(error).toBeInstanceOf(UnknownFateError);
    expect(error.message).toContain(server.endpoint);
    await using reader = openGateway(cluster.target({ endpoints: [server.endpoint, ...cluster.endpoints] }));
    expect((await reader.read([{ key: '/nonsense' }], soon())).answers[0]!.count).toBe(0);
    await using alone = openGateway(cluster.target({ endpoints: [server.endpoint] }));
    expect(await failure(alone.read([{ key: '/nonsense' }], soon()))).toBeInstanceOf(UnreachableError);
  });

  test('an answer without end does not fill the memory', async () => {
    const piece = 'x'.repeat(1 << 20);
    await using server = await startServer(socket => {
      socket.write('HTTP/1.1 200 OK\r\n\r\n');
      const pour = () => {
        while (!socket.destroyed && socket.write(piece));
      };
      socket.on('drain', pour);
      pour();
    });
    await using kv = openGateway(cluster.target({ endpoints: [server.endpoint], requestTimeout: 15_000 }));
    const error = await failure(kv.read([{ key: '/a' }], soon()));
    expect(error.message).toContain('too large');
  });

  test('a page not found is a gateway switched off', async () => {
    await using server = await startServer(socket => socket.end(httpAnswer('404 Not Found', '404 page not found\n')));
    const target = cluster.target({ endpoints: [server.endpoint] });
    await using kv = openGateway(target);
    expect(await failure(kv.commit(putTo('/a'), soon()))).toBeInstanceOf(GatewayOffError);
    expect(hintedTransport(target)).toBe('grpc');
  });
});

describe.concurrent.each(everyWay)('etcd $version over $transport', ({ engine, open }) => {
  test('out of space: an error of its own that names the cure; deletes still pass; then the cure', async () => {
    await using cluster = await startEtcd(engine, { flags: ['--quota-backend-bytes', '2000000'] });
    await using kv = open(cluster.target());
    await kv.commit(putTo('/space/first'), soon());
    let error: unknown;
    // etcd measures its file, which it writes every 100 ms: some puts more than the quota holds may pass.
    for (let n = 0; n < 200 && error === undefined; n++) {
      if (n > 5) await sleep(50);
      error = await kv.commit(putTo(`/space/${n}`, 'x'.repeat(400_000)), soon()).then(
        () => undefined,
        (reason: unknown) => reason,
      );
    }
    expect(error).toBeInstanceOf(OutOfSpaceError);
    expect((error as Error).message).toMatch(/compact.*defrag.*alarm disarm/);
    const leased = {
      conditions: [],
      writes: [{ put: '/space/leased', value: 'v', ttl: 60 }, { delete: '/space/first' }],
    };
    expect(await failure(kv.commit(leased, soon()))).toBeInstanceOf(OutOfSpaceError);
    expect((await kv.read([{ key: '/space/first' }], soon())).answers[0]!.count).toBe(1);
    const { entries } = (await kv.read([{ from: '/space/', to: '/space0', keysOnly: true }], soon())).answers[0]!;
    const gone = {
      conditions: entries.map(({ key, revision }) => ({ unchanged: key, revision })),
      writes: entries.map(({ key }) => ({ delete: key })),
    };
    const deleted = await kv.commit(gone, soon());
    if (!deleted.won) throw new Error('lost');
    const [status] = await endpointStatus(cluster.target(), soon());
    if (!status!.reachable) throw new Error(status!.reason);
    expect(status!.health.alarms!.join()).toContain('NOSPACE');
    expect(status!.health.quota).toBe(2_000_000);
    await cluster.ctl('compact', String(deleted.revision));
    await cluster.ctl('defrag');
    await cluster.ctl('alarm', 'disarm');
    expect((await kv.commit(putTo('/space/again'), soon())).won).toBe(true);
  }, 60_000);

  test('a request that is too large is refused, not of unknown fate', async () => {
    await using cluster = await startEtcd(engine);
    await using kv = open(cluster.target());
    expect(await failure(kv.commit(putTo('/large', 'x'.repeat(1_700_000)), soon()))).toBeInstanceOf(RefusedError);
    const many = Array.from({ length: 129 }, (_, n) => ({ put: `/many/${n}`, value: 'v' }));
    expect(await failure(kv.commit({ conditions: [], writes: many }, soon()))).toBeInstanceOf(RefusedError);
    expect((await kv.read([{ key: '/large' }], soon())).answers[0]!.count).toBe(0);
  }, 60_000);

  test('user and password: limited to a prefix, token renewed, password changed, wrong password', async () => {
    await using cluster = await startEtcd(engine, { flags: ['--auth-token-ttl', '1'] });
    const file = (name: string, text: string) => {
      const path = join(cluster.folder, name);
      writeFileSync(path, text, { mode: 0o600 });
      return path;
    };
    const passwordFile = file('password', `${password}\n`);
    const login = { username: 'ipam', passwordFile };
    await using early = open(cluster.target(login));
    // etcd without authentication, though a user is configured: works.
    expect((await early.commit(putTo('/kube-ipam/early'), soon())).won).toBe(true);
    await limitUser(cluster, password);

    await using kv = open(cluster.target(login));
    for (const one of [early, kv]) expect((await one.commit(putTo('/kube-ipam/a'), soon())).won).toBe(true);
    // etcd's tokens live 1 s here, checked once a second: this one is gone, without a call that could have kept it.
    await new Promise(resolve => setTimeout(resolve, 3000));
    expect(
      (await kv.commit({ ...putTo('/kube-ipam/a'), writes: [{ put: '/kube-ipam/a', value: 'v', ttl: 60 }] }, soon()))
        .won,
    ).toBe(true);

    // Each change of users or roles makes etcd refuse, once, whoever logged in before it.
    let changing = true;
    const changes = (async () => {
      for (let n = 0; changing; n++) await cluster.ctl('--user', `root:${password}`, 'role', 'add', `passing-${n}`);
    })();
    for (let n = 0; n < 60; n++) expect((await kv.commit(putTo('/kube-ipam/a', String(n)), soon())).won).toBe(true);
    changing = false;
    await changes;

    const denied = await failure(kv.commit(putTo('/elsewhere/a'), soon()));
    expect(denied).toBeInstanceOf(RefusedError);
    expect(denied.message).toMatch(/user "ipam".*permission/);
    expect(await failure(kv.read([{ key: '/elsewhere/a' }], soon()))).toBeInstanceOf(RefusedError);

    const newPassword = `${password}-2`;
    await cluster.ctlWithInput(
      `${newPassword}\n`,
      '--user',
      `root:${password}`,
      'user',
      'passwd',
      'ipam',
      '--interactive=false',
    );
    writeFileSync(passwordFile, newPassword);
    await new Promise(resolve => setTimeout(resolve, 3000));
    expect((await kv.read([{ key: '/kube-ipam/a' }], soon())).answers[0]!.count).toBe(1);

    await using wrong = open(cluster.target({ username: 'ipam', passwordFile: file('wrong', 'not-the-password') }));
    const refused = await failure(wrong.commit(putTo('/kube-ipam/b'), soon()));
    expect(refused).toBeInstanceOf(RefusedError);
    expect(refused.message).toMatch(/user "ipam".*password/);
    expect(inspect(refused, { depth: 9, showHidden: true })).not.toContain('not-the-password');
    await using nobody = open(cluster.target());
    expect((await failure(nobody.read([{ key: '/kube-ipam/a' }], soon()))).message).toContain('etcdUsername');
    await using fileless = open(cluster.target({ username: 'ipam', passwordFile: join(cluster.folder, 'absent') }));
    expect((await failure(fileless.read([{ key: '/kube-ipam/a' }], soon()))).message).toContain('absent');
  }, 90_000);

  test('TLS by address: CA, client certificates, and what goes wrong with them', async () => {
    await using cluster = await startEtcd(engine, { tls: { verifyClients: true } });
    const { namelessClient, namedClient, otherCa } = cluster.certificates!;
    const nameless = { certFile: namelessClient.cert, keyFile: namelessClient.key };
    await using kv = open(cluster.target(nameless));
    expect((await kv.commit(putTo('/tls/a'), soon())).won).toBe(true);
    await using named = open(cluster.target({ certFile: namedClient.cert, keyFile: namedClient.key }));
    expect((await named.read([{ key: '/tls/a' }], soon())).answers[0]!.count).toBe(1);
    const byName = cluster.endpoints.map(endpoint => endpoint.replace('127.0.0.1', 'localhost'));
    await using local = open(cluster.target({ ...nameless, endpoints: byName }));
    expect((await local.read([{ key: '/tls/a' }], soon())).answers[0]!.count).toBe(1);

    // This address reaches the same member, but the certificate does not name it.
    await using elsewhere = await startProxy(Number(new URL(cluster.endpoints[0]!).port), '127.0.0.2');
    const wrong: readonly (readonly [Partial<EtcdTarget>, RegExp])[] = [
      [{ ...nameless, caFile: otherCa }, /certificate/],
      [{ ...nameless, endpoints: [`https://127.0.0.2:${elsewhere.port}`] }, /certificate|127\.0\.0\.2/],
      [{}, /certificate|connection closed|handshake|alert/],
      [
        { ...nameless, endpoints: cluster.endpoints.map(endpoint => endpoint.replace('https:', 'http:')) },
        /TLS|connect/i,
      ],
    ];
    for (const [changes, words] of wrong) {
      await using bad = open(cluster.target({ ...changes, dialTimeout: 1000 }));
      const error = await failure(bad.read([{ key: '/tls/a' }], soon()));
      expect(error).toBeInstanceOf(UnreachableError);
      expect(error.message).toMatch(words);
    }
    await using missing = open(cluster.target({ ...nameless, caFile: join(cluster.folder, 'no-such-ca') }));
    expect((await failure(missing.read([{ key: '/tls/a' }], soon()))).message).toContain('no-such-ca');
  }, 60_000);
});

describe.concurrent.each(all)('etcd $version', engine => {
  test('certificates that are replaced under a client that lives for weeks are used without a restart', async ({
    expect,
  }) => {
    await using cluster = await startEtcd(engine, { tls: { verifyClients: true } });
    const { ca, otherCa, namelessClient } = cluster.certificates!;
    const file = (name: string) => join(cluster.folder, name);
    const put = (from: { ca: string; cert: string; key: string }) => {
      for (const [name, path] of Object.entries(from)) {
        // As agent and kubelet do it: whole, under its name.
        writeFileSync(file(`${name}.new`), readFileSync(path));
        renameSync(file(`${name}.new`), file(name));
      }
    };
    put({ ca, ...namelessClient });
    await using kv = openGrpc(cluster.target({ caFile: file('ca'), certFile: file('cert'), keyFile: file('key') }));
    const says = () => kv.read([{ key: '/tls/renewed' }], soon()).then(() => 'fine', String);
    expect(await says()).toBe('fine');
    const poll = { timeout: 60_000, interval: 200 };
    put({ ca: otherCa, ...namelessClient });
    await expect.poll(says, poll).toMatch(/certificate/);
    put({ ca, ...namelessClient });
    await expect.poll(says, poll).toBe('fine');
    // One that is missing for a moment, and one that is no certificate at all.
    rmSync(file('cert'));
    await sleep(6000);
    expect(await says()).toBe('fine');
    writeFileSync(file('cert'), 'no PEM');
    await expect.poll(says, poll).toMatch(/certificates of etcdConfig .* cannot be used/);
    put({ ca, ...namelessClient });
    await expect.poll(says, poll).toBe('fine');
  }, 120_000);

  test('a client whose certificate names a user is sent from the gateway to gRPC, and served there', async () => {
    await using cluster = await startEtcd(engine, { tls: { verifyClients: true, commonName: 'ipam' } });
    const { namedClient, namelessClient } = cluster.certificates!;
    await limitUser(cluster, password);
    const target = cluster.target({ certFile: namedClient.cert, keyFile: namedClient.key });
    await using gateway = openGateway(target);
    const error = await failure(gateway.commit(putTo('/kube-ipam/a'), soon()));
    expect(error).toBeInstanceOf(GatewayOffError);
    expect(hintedTransport(target)).toBe('grpc');
    await using grpc = openGrpc(target);
    expect((await grpc.commit(putTo('/kube-ipam/a'), soon())).won).toBe(true);
    expect(await failure(grpc.commit(putTo('/elsewhere'), soon()))).toBeInstanceOf(RefusedError);
    // gRPC answers where the gateway does not, and must not overwrite what was found out about the gateway.
    expect(hintedTransport(target)).toBe('grpc');

    const passwordFile = join(cluster.folder, 'password');
    writeFileSync(passwordFile, password);
    const nameless = { certFile: namelessClient.cert, keyFile: namelessClient.key, username: 'ipam', passwordFile };
    await using kv = openGateway(cluster.target(nameless));
    expect((await kv.commit(putTo('/kube-ipam/b'), soon())).won).toBe(true);
    const [status] = await endpointStatus(target, soon());
    expect(status).toMatchObject({
      reachable: true,
      health: { gateway: 'off', version: engine.version, quota: 2 * 1024 ** 3 },
    });
  }, 60_000);

  test('a gateway switched off sends to gRPC, for an hour', async () => {
    await using cluster = await startEtcd(engine, { flags: ['--enable-grpc-gateway=false'] });
    const target = cluster.target();
    expect(hintedTransport(target)).toBe('gateway');
    await using gateway = openGateway(target);
    expect(await failure(gateway.read([{ key: '/a' }], soon()))).toBeInstanceOf(GatewayOffError);
    expect(await failure(gateway.commit(putTo('/a'), soon()))).toBeInstanceOf(GatewayOffError);
    expect(hintedTransport(target)).toBe('grpc');
    await using grpc = openGrpc(target);
    expect((await grpc.commit(putTo('/a'), soon())).won).toBe(true);
    expect(hintedTransport({ ...target, endpoints: ['http://127.0.0.1:1'] })).toBe('gateway');
    const file = join(target.dataDir, 'endpoint.json');
    const hint = JSON.parse(readFileSync(file, 'utf8')) as { since: number };
    writeFileSync(file, JSON.stringify({ ...hint, since: hint.since - 3_600_001 }));
    expect(hintedTransport(target)).toBe('gateway');
    const [status] = await endpointStatus(target, soon());
    expect(status).toMatchObject({ reachable: true, health: { gateway: 'off', quota: 2 * 1024 ** 3 } });
  }, 60_000);
});

/** Switches authentication on, with a user who may do what the product needs and no more. */
async function limitUser(cluster: EtcdCluster, secret: string): Promise<void> {
  await cluster.ctl('user', 'add', `root:${secret}`);
  await cluster.ctl('role', 'add', 'ipam');
  await cluster.ctl('role', 'grant-permission', 'ipam', '--prefix=true', 'readwrite', '/kube-ipam/');
  await cluster.ctl('user', 'add', `ipam:${secret}`);
  await cluster.ctl('user', 'grant-role', 'ipam', 'ipam');
  await cluster.ctl('auth', 'enable');
}
