// A copy of a real API server's objects stays true: whatever breaks in between, nothing is missed and nothing made up.
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, test } from 'vitest';
import { deadlineIn } from '../../src/base/clock.ts';
import { type Client, openClient } from '../../src/kube/client.ts';
import { Informer, type InformerOptions, type InformerState } from '../../src/kube/informer.ts';
import type { KubeObject } from '../../src/kube/objects.ts';
import { pathOf, pods, type Resource } from '../../src/kube/resources.ts';
import { type ControlPlane, startControlPlane, whyNoControlPlane } from '../helpers/kubernetes/control-plane.ts';
import { type Damage, DamagingProxy, type Seen } from '../helpers/kubernetes/damaging-proxy.ts';

const obstacle = whyNoControlPlane();
const soon = () => deadlineIn(30_000);
const slack = { timeout: 60_000, interval: 20 };
const configMaps: Resource = { apiVersion: 'v1', kind: 'ConfigMap', plural: 'configmaps' };

interface ConfigMap extends KubeObject {
  readonly data?: Readonly<Record<string, string>>;
}

function configMap(name: string, value: string): object {
  return { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name }, data: { value } };
}

/** What is kept of a ConfigMap. */
interface Value {
  readonly name: string;
  readonly uid: string;
  readonly value: string;
}

const keep = ({ metadata: { name, uid }, data }: ConfigMap): Value => ({ name, uid, value: data?.value ?? '' });
const timing = { firstWait: 50, longestWait: 300 };

const isWatch = ({ path }: Seen) => path.includes('watch=1');
const isList = ({ path }: Seen) => path.includes('limit=');

/** An informer with everything that it told. */
class Told implements AsyncDisposable {
  readonly informer: Informer<ConfigMap, Value>;
  readonly changes: string[] = [];
  readonly states: InformerState[] = [];
  readonly bugs: unknown[] = [];

  constructor(client: Client, path: string, options: Partial<InformerOptions<ConfigMap, Value>> = {}) {
    this.informer = new Informer<ConfigMap, Value>(client, path, {
      keep,
      onChange: (old, now) => this.changes.push(`${old ? `${old.name}=${old.value}` : '-'} ${now?.value ?? '-'}`),
      onState: state => this.states.push(state),
      onBug: error => this.bugs.push(error),
      ...options,
      timing: { ...timing, ...options.timing },
    }).start();
  }

  static async synced(client: Client, path: string, options: Partial<InformerOptions<ConfigMap, Value>> = {}) {
    const told = new Told(client, path, options);
    expect(await told.informer.whenSynced(soon())).toBe(true);
    return told;
  }

  get values(): Record<string, string> {
    return Object.fromEntries(this.informer.list().map(({ name, value }) => [name, value]));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.informer.close();
  }
}

if (obstacle !== undefined) test('informer', ({ skip }) => skip(obstacle));

describe.skipIf(obstacle !== undefined)('an informer', () => {
  let plane: ControlPlane;
  let proxy: DamagingProxy;
  let client: Client;
  let direct: Client;
  let namespace = '';
  let count = 0;

  beforeAll(async () => {
    plane = await startControlPlane({ users: [{ name: 'eve', token: 'token-of-eve' }] });
    proxy = await DamagingProxy.start(plane);
    client = await openClient({ kubeconfig: plane.kubeconfig({ token: plane.adminToken }, proxy.url), env: {} });
    direct = await openClient({ kubeconfig: plane.adminKubeconfig, env: {} });
  });

  beforeEach(async () => {
    namespace = `informer-${++count}`;
    await direct.create('/api/v1/namespaces', { metadata: { name: namespace } }, soon());
  });

  afterEach(() => {
    proxy.damage = () => undefined;
    proxy.seen.length = 0;
  });

  afterAll(async () => {
    for (const one of [client, direct, proxy, plane]) await one?.[Symbol.asyncDispose]();
  });

  const path = (name?: string) => pathOf(configMaps, { namespace, name });
  const set = (name: string, value: string) => direct.patch(path(name), 'apply', configMap(name, value), soon());
  const remove = (name: string) => direct.delete(path(name), soon());
  const lists = () => proxy.seen.filter(isList).length;
  const watches = () => proxy.seen.filter(isWatch).length;
  /** Nobody gets through, until the answer is called. */
  function away(damage: Damage = { hangUp: true }): () => void {
    proxy.damage = () => damage;
    proxy.cut();
    return () => {
      proxy.damage = () => undefined;
    };
  }

  it('lists, then follows every change', async () => {
    await set('a', '1');
    await set('b', '1');
    await using told = await Told.synced(client, path(), { indexBy: ({ value }) => [value] });
    const { informer } = told;
    expect(told.values).toEqual({ a: '1', b: '1' });
    expect(informer.get(namespace, 'a')).toMatchObject({ name: 'a', value: '1' });
    expect(informer.indexed('1').map(({ name }) => name)).toEqual(['a', 'b']);
    await set('a', '2');
    await remove('b');
    await set('c', '2');
    await expect.poll(() => told.values, slack).toEqual({ a: '2', c: '2' });
    expect(told.changes).toEqual(['- 1', '- 1', 'a=1 2', 'b=1 -', '- 2']);
    expect(informer.get(namespace, 'b')).toBeUndefined();
    expect(informer.indexed('1')).toEqual([]);
    expect(informer.indexed('2').map(({ name }) => name)).toEqual(['a', 'c']);
    expect(informer.size).toBe(2);
    expect(informer.trouble).toBeUndefined();
    expect(informer.silentFor).toBeLessThan(60_000);
    expect(told.states).toEqual([{ connected: true }]);
    expect(proxy.seen.find(isWatch)?.path).toMatch(/allowWatchBookmarks=true.*timeoutSeconds=[345]\d\d$/);
  });

  it('sees only what its selectors select', async () => {
    await set('a', '1');
    await set('b', '1');
    await using told = await Told.synced(client, path(), { fieldSelector: 'metadata.name=b' });
    await set('a', '2');
    await set('b', '2');
    await expect.poll(() => told.changes, slack).toEqual(['- 1', 'b=1 2']);
  });

  it('reads long lists in pages', async () => {
    for (let i = 0; i < 600; i += 50) await Promise.all(Array.from({ length: 50 }, (_, j) => set(`n${i + j}`, '1')));
    await using told = await Told.synced(client, path());
    expect(told.informer.size).toBe(600);
    expect(lists()).toBe(2);
  });

  it('goes on where it was when its connection is cut, without a new list', async () => {
    await set('a', '1');
    await using told = await Told.synced(client, path());
    const back = away();
    await expect
      .poll(() => told.informer.trouble, slack)
      .toMatch(/^watch configmaps in namespace .*: connection closed$/);
    await set('a', '2');
    await set('b', '1');
    back();
    await expect.poll(() => told.changes, slack).toEqual(['- 1', 'a=1 2', '- 1']);
    await expect.poll(() => told.informer.trouble, slack).toBeUndefined();
    expect(lists()).toBe(1);
    expect(told.states.at(-1)).toEqual({ connected: true });
  });

  it('goes on from the version of a bookmark', async () => {
    await set('a', '1');
    let version = '';
    const alter = (piece: Buffer) => {
      // The server has nothing to tell, but that it has come so far.
      version = JSON.parse(String(piece)).object.metadata.resourceVersion;
      return Buffer.from(
        `${JSON.stringify({ type: 'BOOKMARK', object: { metadata: { resourceVersion: version } } })}\n`,
      );
    };
    proxy.damage = seen => (isWatch(seen) && version === '' ? { alter } : undefined);
    await using told = await Told.synced(client, path());
    await expect.poll(watches, slack).toBe(1);
    await set('a', '2');
    await expect.poll(() => version, slack).not.toBe('');
    const back = away();
    await expect.poll(() => told.informer.trouble, slack).toBeDefined();
    back();
    await expect.poll(() => told.informer.trouble, slack).toBeUndefined();
    await set('a', '3');
    await expect.poll(() => told.changes, slack).toEqual(['- 1', 'a=1 3']);
    expect(proxy.seen.findLast(isWatch)?.path).toContain(`resourceVersion=${version}&`);
    expect(lists()).toBe(1);
  });

  it('misses no change while connections break all the time', async () => {
    await using told = await Told.synced(client, path());
    let cutting = true;
    const cutter = (async () => {
      while (cutting) {
        await sleep(30 + Math.random() * 60);
        proxy.cut();
      }
    })();
    for (let i = 1; i <= 150; i++) {
      await set('counter', String(i));
      await sleep(5);
    }
    cutting = false;
    await cutter;
    await expect.poll(() => told.values.counter, slack).toBe('150');
    expect(told.changes).toEqual(['- 1', ...Array.from({ length: 149 }, (_, i) => `counter=${i + 1} ${i + 2}`)]);
    expect(lists()).toBe(1);
    expect(watches()).toBeGreaterThan(5);
  });

  it('an API server that dies and comes back', async () => {
    await set('a', '1');
    await using told = await Told.synced(client, path());
    await plane.apiServer.kill();
    await expect.poll(() => told.informer.trouble, slack).toBeDefined();
    await plane.apiServer.restart();
    await set('a', '2');
    await expect.poll(() => told.changes, slack).toEqual(['- 1', 'a=1 2']);
    await expect.poll(() => told.informer.trouble, slack).toBeUndefined();
  });

  it('an API server that hangs is found out, and nothing is missed', async () => {
    await set('a', '1');
    await using told = await Told.synced(client, path(), { timing: { silence: 1000 } });
    await expect.poll(() => told.informer.trouble, slack).toBeUndefined();
    await plane.apiServer.stop();
    await expect.poll(() => told.informer.trouble, slack).toMatch(/silent for 1 s$/);
    plane.apiServer.cont();
    await set('a', '2');
    await expect.poll(() => told.values, slack).toEqual({ a: '2' });
  });

  it('410 after a compaction: lists again, and tells what went in between', async () => {
    await set('stays', '1');
    await set('changes', '1');
    await set('goes', '1');
    await set('returns', '1');
    await using told = await Told.synced(client, path());
    told.changes.length = 0;
    const back = away();
    await set('changes', '2');
    await remove('goes');
    await remove('returns');
    await set('returns', '2');
    await set('comes', '1');
    // The API server remembers some history itself; with neither that nor etcd's there is none.
    await plane.compact();
    await plane.apiServer.restart();
    back();
    await expect.poll(() => told.values, slack).toEqual({ stays: '1', changes: '2', returns: '2', comes: '1' });
    // Another object of the same name is another object.
    expect(told.changes.toSorted()).toEqual(['- 1', '- 2', 'changes=1 2', 'goes=1 -', 'returns=1 -'].toSorted());
    expect(lists()).toBe(2);
    await set('stays', '2');
    await expect.poll(() => told.values.stays, slack).toBe('2');
  });

  it.each<[string, string, number]>([
    ['410 in the middle', '{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired"}}\n', 2],
    ['500 in the middle', '{"type":"ERROR","object":{"kind":"Status","code":500,"message":"oh"}}\n', 1],
    ['no JSON', 'hello\n', 1],
    ['half a line', '{"type":"MODIFIED","object":{"meta\n', 1],
    ['an unknown event', '{"type":"RENAMED","object":{"metadata":{"name":"a","uid":"u","resourceVersion":"1"}}}\n', 1],
    ['an event without object', '{"type":"DELETED"}\n', 1],
    ['an event about nothing', '{"type":"DELETED","object":{"metadata":{"resourceVersion":"7"}}}\n', 1],
  ])('%s: starts anew, and misses nothing', async (_what, garbage, expectedLists) => {
    await set('a', '1');
    let spoilt = false;
    // The first event of the first watch is replaced.
    const alter = (piece: Buffer) => {
      if (spoilt) return piece;
      spoilt = true;
      return Buffer.from(garbage);
    };
    proxy.damage = seen => (isWatch(seen) && !spoilt ? { alter } : undefined);
    await using told = await Told.synced(client, path());
    await expect.poll(watches, slack).toBe(1);
    await set('a', '2');
    await expect.poll(() => told.changes, slack).toEqual(['- 1', 'a=1 2']);
    expect(lists()).toBe(expectedLists);
  });

  it('a watch that only ever brings nonsense is not resumed for ever', async () => {
    await set('a', '1');
    await using told = new Told(client, path());
    proxy.damage = seen => (isWatch(seen) ? { alter: () => Buffer.from('hello\n') } : undefined);
    for (let i = 2; lists() < 3; i++) {
      await set('a', String(i));
      await sleep(20);
    }
    expect(told.values.a).toMatch(/^\d+$/);
    // A version is doubted the second time only.
    expect(watches()).toBeGreaterThanOrEqual(4);
  });

  it('a watch without a word is given up', async () => {
    await set('a', '1');
    let swallow = true;
    proxy.damage = seen => (isWatch(seen) && swallow ? { alter: () => Buffer.alloc(0) } : undefined);
    await using told = await Told.synced(client, path(), { timing: { silence: 1000 } });
    await set('a', '2');
    await expect.poll(() => told.informer.trouble, slack).toMatch(/silent for 1 s$/);
    expect(told.values).toEqual({ a: '1' });
    swallow = false;
    await expect.poll(() => told.changes, slack).toEqual(['- 1', 'a=1 2']);
  });

  it.each([429, 500, 503])('%i to lists and watches: waits, longer each time, and says so', async status => {
    await set('a', '1');
    const answer = { status, body: '{"kind":"Status","message":"not now"}' };
    let refused = 0;
    proxy.damage = () => (refused++ < 4 ? { answer } : undefined);
    await using told = new Told(client, path());
    await expect.poll(() => told.informer.trouble, slack).toMatch(/^list configmaps .*not now\)$/);
    expect(await told.informer.whenSynced(soon())).toBe(true);
    await expect.poll(() => told.informer.trouble, slack).toBeUndefined();
    refused = 0;
    proxy.cut();
    await expect.poll(() => told.informer.trouble, slack).toMatch(/^watch configmaps .*not now\)$/);
    await set('a', '2');
    await expect.poll(() => told.changes, slack).toEqual(['- 1', 'a=1 2']);
    await expect.poll(() => told.informer.trouble, slack).toBeUndefined();
  });

  it('does not ask without end what ends at once', async () => {
    proxy.damage = seen => (isWatch(seen) ? { answer: { status: 200, body: '' } } : undefined);
    await using told = await Told.synced(client, path(), { timing: { firstWait: 200, longestWait: 400 } });
    await sleep(1500);
    expect(watches()).toBeLessThan(12);
    expect(told.informer.trouble).toMatch(/ended the watch at once/);
  });

  it('is asked by the server to come back every few minutes, and does', async () => {
    await set('a', '1');
    await using told = await Told.synced(client, path(), { timing: { watch: 1000 } });
    for (let i = 2; watches() < 4; i++) {
      await set('a', String(i));
      await sleep(100);
    }
    const last = told.changes.length;
    await set('a', 'last');
    await expect.poll(() => told.values, slack).toEqual({ a: 'last' });
    expect(told.changes.length).toBeGreaterThan(last);
    expect(lists()).toBe(1);
    expect(told.states).toEqual([{ connected: true }]);
  });

  it('without rights it says which, and begins when it has them', async () => {
    await set('a', '1');
    const eve = await openClient({ kubeconfig: plane.kubeconfig({ token: 'token-of-eve' }, proxy.url), env: {} });
    await using _eve = eve;
    await using told = new Told(eve, path());
    const missing = (verb: string) =>
      RegExp(`^${verb} configmaps in namespace .* the right "${verb}" on "configmaps" in namespace ${namespace} `);
    await expect.poll(() => told.informer.trouble, slack).toMatch(missing('list'));
    expect(told.informer.isSynced).toBe(false);
    expect(await told.informer.whenSynced(deadlineIn(100))).toBe(false);
    const grant = async (...verbs: readonly string[]) => {
      const role = `${verbs.join('-')}-${namespace}`;
      const rights = [...verbs.map(verb => `--verb=${verb}`), '--resource=configmaps'];
      await plane.kubectl(['create', 'role', role, '-n', namespace, ...rights]);
      await plane.kubectl(['create', 'rolebinding', role, '-n', namespace, `--role=${role}`, '--user=eve']);
    };
    await grant('list');
    await expect.poll(() => told.informer.trouble, slack).toMatch(missing('watch'));
    expect(told.values).toEqual({ a: '1' });
    await grant('watch');
    await expect.poll(() => told.informer.trouble, slack).toBeUndefined();
    await set('a', '2');
    await expect.poll(() => told.values, slack).toEqual({ a: '2' });
  });

  it('handlers that throw are told of, and change nothing', async () => {
    await set('a', '1');
    const fail = (what: string) => () => {
      throw new Error(what);
    };
    await using told = await Told.synced(client, path(), { onChange: fail('change'), onState: fail('state') });
    await set('a', '2');
    await expect.poll(() => told.values, slack).toEqual({ a: '2' });
    expect(told.bugs.map(String).toSorted()).toEqual(['Error: change', 'Error: change', 'Error: state']);
  });

  it('closes at once, whatever it waits for', async () => {
    await set('a', '1');
    const watching = await Told.synced(client, path());
    proxy.damage = () => ({ silent: true });
    const listing = new Told(client, path());
    await expect.poll(lists, slack).toBe(2);
    const { port } = new URL(proxy.url);
    const refused = await openClient({
      kubeconfig: plane.kubeconfig({ token: plane.adminToken }, `https://127.0.0.2:${port}`),
      env: {},
    });
    const waiting = new Told(refused, path(), { timing: { firstWait: 60_000, longestWait: 60_000 } });
    await expect.poll(() => waiting.states.length, slack).toBe(1);
    const synced = Promise.all([listing, waiting].map(({ informer }) => informer.whenSynced(soon())));
    const began = performance.now();
    await Promise.all([watching, listing, waiting].map(told => told.informer.close()));
    expect(performance.now() - began).toBeLessThan(3000);
    expect(await synced).toEqual([false, false]);
    await refused[Symbol.asyncDispose]();
    const { changes } = watching;
    await set('a', '2');
    await sleep(100);
    expect(changes).toEqual(['- 1']);
  });

  it('objects of all namespaces and of none', async () => {
    await using all = await Told.synced(client, pathOf(configMaps));
    await set('everywhere', '1');
    await expect.poll(() => all.informer.get(namespace, 'everywhere'), slack).toMatchObject({ value: '1' });
    await using namespaces = new Informer(client, '/api/v1/namespaces', {
      keep: ({ metadata }) => metadata.name,
    }).start();
    expect(await namespaces.whenSynced(soon())).toBe(true);
    expect(namespaces.get(undefined, namespace)).toBe(namespace);
    await using none = new Informer(client, pathOf(pods), { keep: ({ metadata }) => metadata.name }).start();
    expect(await none.whenSynced(soon())).toBe(true);
    expect(none.list()).toEqual([]);
  });
});

describe.skipIf(obstacle !== undefined)('a cluster restored from an old backup', () => {
  it('is noticed, although its versions begin anew', async () => {
    await using plane = await startControlPlane();
    await using client = await openClient({ kubeconfig: plane.adminKubeconfig, env: {} });
    const path = (name?: string) => pathOf(configMaps, { namespace: 'default', name });
    const set = (value: string) => client.patch(path('a'), 'apply', configMap('a', value), soon());
    for (let i = 0; i < 600; i += 50) await Promise.all(Array.from({ length: 50 }, (_, j) => set(String(i + j))));
    await using told = await Told.synced(client, path(), { timing: { silence: 3000 } });
    expect(told.informer.size).toBe(1);
    await plane.apiServer.kill();
    const [member] = plane.etcd.members;
    await member!.kill();
    rmSync(join(plane.etcd.folder, 'm0'), { recursive: true });
    await member!.restart();
    await plane.apiServer.restart();
    await expect.poll(() => told.informer.size, slack).toBe(0);
    await set('new');
    await expect.poll(() => told.values, slack).toEqual({ a: 'new' });
  });
});
