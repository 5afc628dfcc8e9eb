// containerd as a client, spoken to as a kubelet does: pods keep their addresses through its crash, and give them back.
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { type ConfList, confFor, type EtcdConf } from '../../src/cli/conf-templates.ts';
import { Containerd, whyNoContainerd } from '../helpers/containerd.ts';
import { CriError } from '../helpers/cri.ts';
import { joinMachines, Machine, whyNoMachine } from '../helpers/machine.ts';
import { pluginFolder, stockPlugins, type Traces, traces } from '../helpers/netns.ts';
import { isLasting, type NodeStore, startEtcd, startStore, storeKinds } from '../helpers/node-store.ts';

const timeout = 60_000;
const obstacle =
  (await whyNoMachine()) ??
  (await whyNoContainerd()) ??
  (stockPlugins() === undefined ? 'no stock CNI plugins here' : undefined);
const names = Array.from({ length: 9 }, (_, index) => `pod-${index + 1}`);

/** Nine addresses behind the gateway; without ipMasq, whose chain stock bridge forgets when DEL fails once. */
function network(etcd: EtcdConf | undefined, bridge = 'pods0', rangeEnd = '10.203.0.10'): ConfList {
  const ranges = [[{ subnet: '10.203.0.0/24', rangeStart: '10.203.0.2', rangeEnd }]];
  const list = confFor('bridge', { bridge, ranges, ...(etcd ? { etcd } : {}) });
  const first = list.plugins[0]!;
  const ipam = { ...(first.ipam as object), timeout: 5 };
  return { ...list, plugins: [{ ...first, isGateway: true, ipMasq: false, ipam }] };
}

if (obstacle !== undefined) test('containerd', ({ skip }) => skip(obstacle));

describe.each(obstacle === undefined ? storeKinds : [])('containerd on the %s store', kind => {
  let machine: Machine;
  let store: NodeStore;
  let containerd: Containerd;
  let before: Traces;

  beforeAll(async () => {
    machine = await Machine.start();
    store = await startStore(machine, kind);
    containerd = await Containerd.start(machine, await pluginFolder(machine), network(store.etcd));
    // The first pod makes the bridge, which stays.
    await containerd.run('first');
    await containerd.removeAll();
    before = await traces(machine);
  }, timeout);

  afterAll(async () => {
    await containerd?.[Symbol.asyncDispose]();
    await machine?.[Symbol.asyncDispose]();
  });

  afterEach(async () => {
    await containerd.removeAll();
    // A shim ends a moment after containerd has answered.
    await expect.poll(() => traces(machine), { timeout: 20_000 }).toEqual(before);
    expect((await store.keys()).filter(key => !isLasting(key))).toEqual([]);
  }, timeout);

  const addressOf = async (id: string) => (await containerd.cri.status(id)).ips[0];

  test('two pods ping each other', { timeout }, async () => {
    const [first, second] = [await containerd.run('pod-1'), await containerd.run('pod-2')];
    const [one, two] = [await addressOf(first), await addressOf(second)];
    expect(one).not.toBe(two);
    expect(await containerd.pings(first, String(two))).toBe(true);
    expect(await containerd.pings(second, String(one))).toBe(true);
    await containerd.cri.stopPod(first);
    await containerd.cri.stopPod(first);
    expect((await containerd.cri.status(first)).ready).toBe(false);
    expect((await store.keys()).some(key => key.includes(`/${first}/`))).toBe(false);
  });

  test('eight at once; then the range is full, and a kubelet is told so', { timeout }, async () => {
    const eight = await Promise.all(names.slice(0, 8).map(name => containerd.run(name)));
    const ninth = await containerd.run('pod-9');
    const addresses = await Promise.all([...eight, ninth].map(addressOf));
    expect(addresses.toSorted()).toEqual(names.map((_, index) => `10.203.0.${index + 2}`).toSorted());
    const refusal = await containerd.run('pod-10').then(String, (error: CriError) => error.message);
    expect(refusal).toContain('10.203.0.2-10.203.0.10');
    await containerd.cri.stopPod(ninth);
    expect(await addressOf(await containerd.run('pod-10'))).toBe(addresses.at(-1));
  });

  test('a pod keeps its address when containerd is killed and starts again', { timeout }, async () => {
    const first = await containerd.run('pod-1');
    const address = await addressOf(first);
    await containerd.crashAndRestart();
    expect(await containerd.cri.status(first)).toMatchObject({ ready: true, ips: [address] });
    const second = await containerd.run('pod-2');
    expect(await addressOf(second)).not.toBe(address);
    expect(await containerd.pings(second, String(address))).toBe(true);
  });

  test('a pod is torn down later when the store is away', { timeout }, async ({ skip }) => {
    skip(kind === 'embedded', 'the embedded store is a file: it is never away');
    const pod = await containerd.run('pod-1');
    await store[Symbol.asyncDispose]();
    const refusal = await containerd.cri.stopPod(pod).then(String, (error: CriError) => error.message);
    expect(refusal).toContain('127.0.0.1:2379');
    await expect(containerd.run('pod-2')).rejects.toThrow(CriError);
    store = await startStore(machine, kind);
    await containerd.cri.stopPod(pod);
    expect((await store.keys()).filter(key => !isLasting(key))).toEqual([]);
  });
});

describe.each(obstacle === undefined ? ['two nodes with one etcd'] : [])('%s', () => {
  let nodes: readonly Machine[] = [];
  let runtimes: readonly Containerd[] = [];
  let store: NodeStore;

  beforeAll(async () => {
    const [a, b] = [await Machine.start('node-a'), await Machine.start('node-b')];
    nodes = [a, b];
    store = await startEtcd(a, await joinMachines(a, b));
    runtimes = await Promise.all(
      nodes.map(async node =>
        Containerd.start(node, await pluginFolder(node), network(store.etcd, 'pods0', '10.203.0.200')),
      ),
    );
  }, timeout);

  afterAll(async () => {
    for (const runtime of runtimes) await runtime[Symbol.asyncDispose]();
    for (const node of nodes) await node[Symbol.asyncDispose]();
  });

  test('pods started on both at once all have different addresses', { timeout }, async () => {
    const started = runtimes.flatMap(runtime =>
      names.slice(0, 4).map(async name => {
        const id = await runtime.run(name);
        return (await runtime.cri.status(id)).ips[0];
      }),
    );
    const addresses = await Promise.all(started);
    expect(new Set(addresses).size).toBe(8);
    const keys = await store.keys();
    for (const node of nodes) {
      expect(keys.filter(key => key.includes(`/attachments/${node.hostname}/`))).toHaveLength(4);
    }
    for (const runtime of runtimes) await runtime.removeAll();
    expect((await store.keys()).filter(key => !isLasting(key))).toEqual([]);
  });
});
