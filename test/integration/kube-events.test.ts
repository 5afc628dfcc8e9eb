// What people see in the events of their pods: told once, counted, never too many, and never in anybody's way.
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it, test } from 'vitest';
import { deadlineIn } from '../../src/base/clock.ts';
import { type Client, openClient } from '../../src/kube/client.ts';
import { type EventLimits, EventRecorder, type EventSubject } from '../../src/kube/events.ts';
import type { KubeObject } from '../../src/kube/objects.ts';
import { pathOf, events as resource } from '../../src/kube/resources.ts';
import { type ControlPlane, startControlPlane, whyNoControlPlane } from '../helpers/kubernetes/control-plane.ts';
import { DamagingProxy } from '../helpers/kubernetes/damaging-proxy.ts';

const obstacle = whyNoControlPlane();
const soon = () => deadlineIn(30_000);
const slack = { timeout: 60_000, interval: 20 };

interface Event extends KubeObject {
  readonly count: number;
  readonly message: string;
}

if (obstacle !== undefined) test('events', ({ skip }) => skip(obstacle));

describe.skipIf(obstacle !== undefined)('events', () => {
  let plane: ControlPlane;
  let proxy: DamagingProxy;
  let client: Client;
  let count = 0;

  beforeAll(async () => {
    plane = await startControlPlane({ users: [{ name: 'eve', token: 'token-of-eve' }] });
    proxy = await DamagingProxy.start(plane);
    client = await openClient({ kubeconfig: plane.kubeconfig({ token: plane.adminToken }, proxy.url), env: {} });
  });

  afterEach(() => {
    proxy.damage = () => undefined;
    proxy.seen.length = 0;
  });

  afterAll(async () => {
    for (const one of [client, proxy, plane]) await one?.[Symbol.asyncDispose]();
  });

  const recorder = (limits: Partial<EventLimits> = {}) =>
    new EventRecorder(client, { component: 'kube-ipam', host: 'node-1', limits });
  const pod = (name = `pod-${++count}`): EventSubject => ({
    apiVersion: 'v1',
    kind: 'Pod',
    namespace: 'default',
    name,
    uid: `uid-of-${name}`,
  });
  const told = async ({ namespace = 'default', name }: EventSubject) => {
    const selection = { fieldSelector: `involvedObject.name=${name}` };
    return (await client.list<Event>(pathOf(resource, { namespace }), selection, soon())).items;
  };
  const counts = async (subject: EventSubject) => (await told(subject)).map(event => event.count);

  it('stand where people look for them', async () => {
    const container = { name: 'a', image: 'localhost/pause:1' };
    const manifest = { metadata: { name: 'web-0' }, spec: { containers: [container] } };
    const { metadata } = await plane.api<KubeObject>('POST', '/api/v1/namespaces/default/pods', manifest);
    await using events = recorder();
    const { uid } = metadata;
    events.record({ ...pod('web-0'), uid }, 'Warning', 'FixedAddressTaken', '10.1.0.5 is held by web-1');
    await expect.poll(async () => (await told(pod('web-0'))).length, slack).toBe(1);
    expect((await told(pod('web-0')))[0]).toMatchObject({
      type: 'Warning',
      reason: 'FixedAddressTaken',
      count: 1,
      involvedObject: { kind: 'Pod', name: 'web-0', uid },
      source: { component: 'kube-ipam', host: 'node-1' },
    });
    const description = await plane.kubectl(['describe', 'pod', 'web-0']);
    expect(description).toMatch(/Warning +FixedAddressTaken .* kube-ipam +10\.1\.0\.5 is held by web-1/);
  });

  it('of nodes stand in namespace default', async () => {
    await using events = recorder();
    const node = { apiVersion: 'v1', kind: 'Node', name: 'n1' };
    events.record(node, 'Normal', 'Collected', 'freed 3 addresses');
    await expect.poll(() => counts(node), slack).toEqual([1]);
  });

  it('that repeat themselves are counted in one', async () => {
    await using events = recorder({ gap: 300 });
    const subject = pod();
    const began = performance.now();
    for (let i = 0; i < 100; i++) events.record(subject, 'Warning', 'Taken', 'the same');
    await expect.poll(() => counts(subject), slack).toEqual([100]);
    for (let i = 0; i < 20; i++) {
      events.record(subject, 'Warning', 'Taken', 'the same');
      await sleep(20);
    }
    events.record(subject, 'Warning', 'Taken', 'another');
    await expect.poll(async () => (await counts(subject)).toSorted(), slack).toEqual([1, 120]);
    const requests = proxy.seen.filter(({ method }) => method !== 'GET').length;
    expect(requests).toBeLessThanOrEqual(3 + (performance.now() - began) / 300);
    // The API server forgets them after an hour.
    for (const { metadata } of await told(subject)) {
      await client.delete(pathOf(resource, { namespace: 'default', name: metadata.name }), soon());
    }
    events.record(subject, 'Warning', 'Taken', 'the same');
    await expect.poll(() => counts(subject), slack).toEqual([121]);
    expect(events.dropped).toBe(0);
  });

  it('go out slowly when there are many', async () => {
    await using events = recorder({ burst: 5, perSecond: 10 });
    const subject = pod();
    const began = performance.now();
    for (let i = 0; i < 25; i++) events.record(subject, 'Normal', 'Many', `number ${i}`);
    await expect.poll(async () => (await told(subject)).length, slack).toBe(25);
    expect(performance.now() - began).toBeGreaterThan(1900);
  });

  it('wait while the API server is away, up to a number', async () => {
    const events = recorder({ waiting: 50, burst: 100 });
    proxy.damage = () => ({ hangUp: true });
    const subject = pod();
    const began = performance.now();
    for (let i = 0; i < 1000; i++) events.record(subject, 'Normal', 'Away', `number ${i}`);
    expect(performance.now() - began).toBeLessThan(1000);
    expect(events.dropped).toBe(950);
    await expect.poll(() => events.trouble, slack).toMatch(/^create events in namespace default: .*connection closed/);
    proxy.damage = () => undefined;
    await expect.poll(async () => (await told(subject)).length, slack).toBe(50);
    expect(events.trouble).toBeUndefined();
    expect(events.dropped).toBe(950);
    await events[Symbol.asyncDispose]();
  });

  it('are given up after a while', async () => {
    await using events = recorder({ life: 0 });
    proxy.damage = () => ({ hangUp: true });
    events.record(pod(), 'Normal', 'Away', 'too late');
    await expect.poll(() => events.dropped, slack).toBe(1);
  });

  it('whose answer was lost are not told twice', async () => {
    await using events = recorder();
    const subject = pod();
    let lost = false;
    proxy.damage = ({ method }) => {
      if (method !== 'POST' || lost) return undefined;
      lost = true;
      return { alter: () => undefined };
    };
    events.record(subject, 'Normal', 'Once', 'said once');
    await expect.poll(() => proxy.seen.filter(({ method }) => method === 'POST').length, slack).toBe(2);
    await expect.poll(() => events.trouble, slack).toBeUndefined();
    expect(await counts(subject)).toEqual([1]);
  });

  it('that nobody may write are in nobody’s way', async () => {
    const kubeconfig = plane.kubeconfig({ token: 'token-of-eve' });
    await using eve = await openClient({ kubeconfig, env: {} });
    await using events = new EventRecorder(eve, { component: 'kube-ipam', host: 'node-1' });
    events.record(pod(), 'Normal', 'Silent', 'nobody will read this');
    await expect.poll(() => events.dropped, slack).toBe(1);
    expect(events.trouble).toContain('the right "create" on "events" in namespace default');
  });

  it('of any length, and of names of any length', async () => {
    await using events = recorder();
    const subject = pod(`${'a'.repeat(229)}.${'b'.repeat(20)}`);
    events.record(subject, 'Normal', 'Long', 'x'.repeat(5000));
    await expect.poll(() => counts(subject), slack).toEqual([1]);
    expect((await told(subject))[0]!.message).toHaveLength(1024);
  });

  it('are told to the end, for a short time at most', async () => {
    const subject = pod();
    const last = recorder();
    last.record(subject, 'Normal', 'Goodbye', 'the last words');
    await last[Symbol.asyncDispose]();
    expect(await counts(subject)).toEqual([1]);
    last.record(subject, 'Normal', 'Goodbye', 'too late');
    const held = recorder();
    proxy.damage = () => ({ silent: true });
    held.record(subject, 'Normal', 'Goodbye', 'never');
    const began = performance.now();
    await held[Symbol.asyncDispose]();
    expect(performance.now() - began).toBeLessThan(6000);
    proxy.damage = () => undefined;
    expect(await counts(subject)).toEqual([1]);
    await recorder()[Symbol.asyncDispose]();
  });
});
