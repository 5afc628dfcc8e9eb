// One of several leads, by a real Lease: whoever is cut off stops before another begins, whatever its clock says.
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, test } from 'vitest';
import { deadlineIn } from '../../src/base/clock.ts';
import { type Client, openClient } from '../../src/kube/client.ts';
import { Election, type ElectionOptions } from '../../src/kube/election.ts';
import type { KubeObject } from '../../src/kube/objects.ts';
import { leases, pathOf } from '../../src/kube/resources.ts';
import { type ControlPlane, startControlPlane, whyNoControlPlane } from '../helpers/kubernetes/control-plane.ts';
import { DamagingProxy } from '../helpers/kubernetes/damaging-proxy.ts';

const obstacle = whyNoControlPlane();
const soon = () => deadlineIn(30_000);
const slack = { timeout: 60_000, interval: 10 };
const namespace = 'default';
const timing = { lease: 3000, renew: 2000, retry: 200 };

interface Lease extends KubeObject {
  readonly spec: Readonly<Record<string, string | number>>;
}

interface Term {
  readonly from: number;
  to: number;
}

/** A candidate with a connection of its own, which can be cut. */
class Candidate implements AsyncDisposable {
  readonly #parts = new AsyncDisposableStack();
  readonly election: Election;
  readonly proxy: DamagingProxy;
  /** When it led, by the clock of this process; the end of the present term is infinite. */
  readonly terms: Term[] = [];
  readonly bugs: unknown[] = [];

  constructor(proxy: DamagingProxy, client: Client, name: string, options: Partial<ElectionOptions>) {
    this.proxy = this.#parts.use(proxy);
    this.#parts.use(client);
    const lead = async (signal: AbortSignal) => {
      const term = { from: performance.now(), to: Number.POSITIVE_INFINITY };
      this.terms.push(term);
      await new Promise(resolve => signal.addEventListener('abort', resolve));
      term.to = performance.now();
    };
    const onBug = (error: unknown) => this.bugs.push(error);
    this.election = new Election(client, { namespace, name, identity: 'node', lead, onBug, timing, ...options });
    this.#parts.use(this.election.start());
  }

  static async start(plane: ControlPlane, name: string, options: Partial<ElectionOptions> = {}, token?: string) {
    const proxy = await DamagingProxy.start(plane);
    const kubeconfig = plane.kubeconfig({ token: token ?? plane.adminToken }, proxy.url);
    return new Candidate(proxy, await openClient({ kubeconfig, env: {} }), name, options);
  }

  get leads(): boolean {
    return this.terms.at(-1)?.to === Number.POSITIVE_INFINITY;
  }

  /** Its requests arrive nowhere; those under way are lost. */
  cut(): void {
    this.proxy.damage = () => ({ silent: true });
    this.proxy.cut();
  }

  reconnect(): void {
    this.proxy.damage = () => undefined;
    this.proxy.cut();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#parts.disposeAsync();
  }
}

if (obstacle !== undefined) test('election', ({ skip }) => skip(obstacle));

describe.skipIf(obstacle !== undefined)('an election', () => {
  let plane: ControlPlane;
  let direct: Client;
  let name = '';
  let count = 0;
  let candidates: Candidate[] = [];

  beforeAll(async () => {
    plane = await startControlPlane({ users: [{ name: 'eve', token: 'token-of-eve' }] });
    direct = await openClient({ kubeconfig: plane.adminKubeconfig, env: {} });
  });

  beforeEach(() => {
    name = `leader-${++count}`;
  });

  afterEach(async () => {
    await Promise.all(candidates.map(candidate => candidate[Symbol.asyncDispose]()));
    candidates = [];
  });

  afterAll(async () => {
    for (const one of [direct, plane]) await one?.[Symbol.asyncDispose]();
  });

  const start = async (options: Partial<ElectionOptions> = {}, token?: string) => {
    const candidate = await Candidate.start(plane, name, options, token);
    candidates.push(candidate);
    return candidate;
  };
  const path = () => pathOf(leases, { namespace, name });
  const read = async () => (await direct.get<Lease>(path(), soon()))!.object;
  const leader = async () => {
    await expect.poll(() => candidates.filter(({ leads }) => leads).length, slack).toBe(1);
    return candidates.find(({ leads }) => leads)!;
  };

  it('has one leader, who is followed at once when it stops', async () => {
    const first = await start();
    await expect.poll(() => first.leads, slack).toBe(true);
    const second = await start();
    await expect.poll(() => second.election.leader, slack).toMatch(/^node_/);
    expect(first.election.isLeader).toBe(true);
    expect((await read()).spec).toMatchObject({ leaseDurationSeconds: 3, leaseTransitions: 0 });
    await sleep(timing.lease + 1000);
    expect([first.terms.length, second.terms.length]).toEqual([1, 0]);
    const stopped = performance.now();
    await first.election.stop();
    expect(first.leads).toBe(false);
    expect((await read()).spec.holderIdentity).not.toBe(first.election.leader);
    await expect.poll(() => second.leads, slack).toBe(true);
    expect(second.terms[0]!.from - stopped).toBeLessThan(timing.lease);
    const { spec } = await read();
    expect(spec.holderIdentity).toBe(second.election.leader);
    expect(String(spec.renewTime)).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/);
  });

  it('a leader that is cut off stops before another begins, and waits its turn when it is back', async () => {
    const old = await start();
    await expect.poll(() => old.leads, slack).toBe(true);
    const next = await start();
    await expect.poll(() => next.election.leader, slack).toBeDefined();
    old.cut();
    await expect.poll(() => next.leads, slack).toBe(true);
    expect(old.leads).toBe(false);
    expect(old.election.isLeader).toBe(false);
    expect(old.terms[0]!.to).toBeLessThan(next.terms[0]!.from);
    expect(old.election.trouble).toMatch(/^update leases\.coordination\.k8s\.io\/|^get leases/);
    old.reconnect();
    await expect.poll(() => old.election.leader, slack).toBe(next.election.leader);
    await sleep(1000);
    expect(old.terms).toHaveLength(1);
    expect((await read()).spec.leaseTransitions).toBe(1);
  });

  it('never has two leaders, while three candidates are cut off at random', async () => {
    for (let i = 0; i < 3; i++) await start();
    const until = performance.now() + 15_000;
    let changes = 0;
    while (performance.now() < until) {
      const cut = await leader();
      cut.cut();
      changes++;
      await expect.poll(() => candidates.some(one => one !== cut && one.leads), slack).toBe(true);
      cut.reconnect();
      await sleep(Math.random() * 500);
    }
    expect(changes).toBeGreaterThan(2);
    await Promise.all(candidates.map(({ election }) => election.stop()));
    const terms = candidates.flatMap(candidate => candidate.terms).sort((a, b) => a.from - b.from);
    expect(terms.length).toBeGreaterThan(changes);
    for (const [i, { from }] of terms.entries()) if (i > 0) expect(terms[i - 1]!.to).toBeLessThanOrEqual(from);
  });

  it('a leader that was paused for too long knows it before it does anything', async () => {
    const paused = await start();
    await expect.poll(() => paused.leads, slack).toBe(true);
    const cell = new Int32Array(new SharedArrayBuffer(4));
    Atomics.wait(cell, 0, 0, timing.renew + 200);
    expect(paused.election.isLeader).toBe(false);
    await expect.poll(() => paused.terms.length, slack).toBe(2);
    expect(paused.election.isLeader).toBe(true);
  });

  it.each(['2001-01-01T00:00:00.000000Z', '2099-01-01T00:00:00.000000Z'])(
    'the clock of a dead leader (%s) counts for nothing: what counts is how long its Lease stands still',
    async time => {
      const spec = { holderIdentity: 'dead', leaseDurationSeconds: 2, acquireTime: time, renewTime: time };
      await direct.create(pathOf(leases, { namespace }), { metadata: { name }, spec }, soon());
      const began = performance.now();
      const candidate = await start();
      await expect.poll(() => candidate.leads, slack).toBe(true);
      expect(candidate.terms[0]!.from - began).toBeGreaterThanOrEqual(2000);
      expect((await read()).spec.leaseTransitions).toBe(1);
    },
  );

  it('a Lease that was deleted is made anew, and what others wrote beside it stays', async () => {
    const candidate = await start();
    await expect.poll(() => candidate.leads, slack).toBe(true);
    await direct.delete(path(), soon());
    await expect.poll(async () => (await direct.get(path(), soon())) !== undefined, slack).toBe(true);
    await direct.patch(path(), 'merge', { metadata: { labels: { seen: 'yes' } } }, soon());
    const renewals = async () => (await read()).spec.renewTime;
    const before = await renewals();
    await expect.poll(renewals, slack).not.toBe(before);
    expect((await read()).metadata.labels).toEqual({ seen: 'yes' });
    expect(candidate.terms).toHaveLength(1);
  });

  it('a leader from whom the Lease is taken stops', async () => {
    const candidate = await start();
    await expect.poll(() => candidate.leads, slack).toBe(true);
    const thief = { spec: { holderIdentity: 'thief', leaseDurationSeconds: 2 } };
    await direct.patch(path(), 'merge', thief, soon());
    await expect.poll(() => candidate.leads, slack).toBe(false);
    expect(candidate.election.leader).toBe('thief');
    expect(candidate.election.trouble).toBeUndefined();
    await expect.poll(() => candidate.leads, slack).toBe(true);
    expect(candidate.terms[1]!.from - candidate.terms[0]!.to).toBeGreaterThan(1000);
  });

  it('work that fails is told of, and another may try', async () => {
    const first = await start({
      lead: async () => {
        throw new Error('broken');
      },
    });
    await expect.poll(() => first.bugs.map(String), slack).toContain('Error: broken');
    const second = await start();
    await expect.poll(() => second.leads, slack).toBe(true);
  });

  it('an API server that goes away ends the leader, and begins a new term when it is back', async () => {
    const candidate = await start();
    await expect.poll(() => candidate.leads, slack).toBe(true);
    const away = performance.now();
    await plane.apiServer.kill();
    await expect.poll(() => candidate.leads, slack).toBe(false);
    expect(candidate.terms[0]!.to - away).toBeLessThan(timing.renew + 3000);
    await plane.apiServer.restart();
    await expect.poll(() => candidate.leads, slack).toBe(true);
  });

  it('without rights nobody leads, and it says which are missing', async () => {
    const eve = await start({}, 'token-of-eve');
    await expect
      .poll(() => eve.election.trouble, slack)
      .toContain('the right "get" on "leases.coordination.k8s.io" in namespace default');
    await plane.kubectl(['create', 'role', 'look', '--verb=get', '--resource=leases.coordination.k8s.io']);
    await plane.kubectl(['create', 'rolebinding', 'look', '--role=look', '--user=eve']);
    await expect.poll(() => eve.election.trouble, slack).toContain('the right "create" on "leases.coord');
    expect(eve.terms).toEqual([]);
  });

  it('stops at once, whatever it waits for', async () => {
    const leading = await start();
    await expect.poll(() => leading.leads, slack).toBe(true);
    const waiting = await start();
    await expect.poll(() => waiting.election.leader, slack).toBeDefined();
    const asking = await start({ timing: { ...timing, renew: 60_000 } });
    asking.cut();
    await sleep(500);
    const began = performance.now();
    await Promise.all([asking, waiting, leading].map(({ election }) => election.stop()));
    expect(performance.now() - began).toBeLessThan(2000);
  });
});
