// Random lives of pods against a model that is plain maps: created, deleted, forced, ended, their nodes lost and back, their
// sandboxes added, deleted and killed in any order. After each step the records are counted (I1 to I4), on both stores, and
// who is dead is what a real API server says.
import { setTimeout as sleep } from 'node:timers/promises';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import type { Holder } from '../../src/ipam/model.ts';
import { type Holdings, holdings } from '../helpers/agreement.ts';
import { type PodOptions, type PodRef, statefulSet, vmInstance } from '../helpers/kubernetes/cluster.ts';
import { type OnCluster, onCluster, type Sandbox } from '../helpers/kubernetes/on-cluster.ts';
import type { Answer } from '../helpers/plugin.ts';
import { start } from '../helpers/plugin-process.ts';

/** Twelve random addresses, one of which pods want as a fixed one too. */
const ring = [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13].map(last => `10.1.0.${last}`);
const [inside, outside] = ['10.1.0.5', '10.1.0.20'];
const ipam = {
  ranges: [[{ subnet: '10.1.0.0/27', rangeEnd: '10.1.0.13' }], [{ subnet: 'fd00::/64' }]],
  sticky: true,
};

const fixed = (ip: string): PodOptions => ({ annotations: { 'kube-ipam.ip': ip } });
const migrating = { 'kubevirt.io/migrationJobUID': 'job' };
const kinds: Readonly<Record<string, PodOptions>> = {
  'in-a': fixed(inside),
  'in-b': fixed(inside),
  'out-a': fixed(outside),
  'out-b': fixed(outside),
  'web-0': { owner: statefulSet('web') },
  'web-1': { owner: statefulSet('web') },
  'vm-source': { owner: vmInstance('vm') },
  'vm-one': { owner: vmInstance('vm'), labels: migrating },
  'vm-two': { owner: vmInstance('vm'), labels: migrating },
  plain: {},
};
const names = Object.keys(kinds);

type Of = { readonly name: string; readonly sandbox: number; readonly former: boolean };
type Step =
  | ({ readonly do: 'ADD' | 'DEL' } & Of)
  | ({ readonly do: 'kill'; readonly after: number } & Of)
  | { readonly do: 'create'; readonly name: string; readonly node: number }
  | { readonly do: 'delete' | 'force' | 'end'; readonly name: string }
  | { readonly do: 'node'; readonly node: number; readonly lost: boolean };

const name = fc.constantFrom(...names);
const node = fc.nat(1);
const of = { name, sandbox: fc.nat(1), former: fc.integer({ min: 0, max: 5 }).map(n => n === 0) };
const just = <T>(value: T) => fc.constant(value);
const steps = fc.array(
  fc.oneof(
    { weight: 3, arbitrary: fc.record({ do: just('create' as const), name, node }) },
    { weight: 16, arbitrary: fc.record({ do: just('ADD' as const), ...of }) },
    { weight: 5, arbitrary: fc.record({ do: just('DEL' as const), ...of }) },
    { weight: 1, arbitrary: fc.record({ do: just('kill' as const), ...of, after: fc.nat(90) }) },
    {
      weight: 4,
      arbitrary: fc.record({ do: fc.constantFrom('delete' as const, 'force' as const, 'end' as const), name }),
    },
    { weight: 2, arbitrary: fc.record({ do: just('node' as const), node, lost: fc.boolean() }) },
  ),
  { minLength: 15, maxLength: 60 },
);

/** A pod as the API has it, or had it. */
interface Life {
  readonly pod: PodRef;
  readonly node: number;
  readonly ended: boolean;
  readonly deleting: boolean;
}

/** What happens to the records when an ADD succeeds. */
interface Expected {
  /** By set; undefined: any free one. */
  readonly addresses: readonly (string | undefined)[];
  /** Attachments that go. */
  readonly gone: readonly string[];
}

class World {
  readonly #here: OnCluster;
  readonly #namespace: string;
  readonly #nodes: readonly string[];
  readonly #lost = [false, false];
  readonly #lives = new Map<string, Life>();
  readonly #former = new Map<string, Life>();
  /** Every sandbox that was ever asked for. */
  readonly sandboxes = new Map<string, [PodRef, Sandbox]>();

  private constructor(here: OnCluster, namespace: string, nodes: readonly string[]) {
    this.#here = here;
    this.#namespace = namespace;
    this.#nodes = nodes;
  }

  static async make(here: OnCluster): Promise<World> {
    const { cluster } = here;
    return new World(here, await cluster.namespace(), [await cluster.node(), await cluster.node()]);
  }

  async create(name: string, node: number): Promise<void> {
    await this.force(name);
    const pod = await this.#here.cluster.pod({
      ...kinds[name],
      name,
      namespace: this.#namespace,
      node: this.#nodes[node]!,
    });
    this.#lives.set(name, { pod, node, ended: false, deleting: false });
  }

  async force(name: string): Promise<void> {
    const life = this.#lives.get(name);
    if (life === undefined) return;
    await this.#here.cluster.remove(life.pod);
    this.#former.set(name, life);
    this.#lives.delete(name);
  }

  /** One that has ended needs no kubelet to go. */
  async delete(name: string): Promise<void> {
    const life = this.#lives.get(name);
    if (life?.ended) return this.force(name);
    if (life === undefined) return;
    await this.#here.cluster.askDeletion(life.pod);
    this.#lives.set(name, { ...life, deleting: true });
  }

  async end(name: string): Promise<void> {
    const life = this.#lives.get(name);
    if (life === undefined || life.deleting) return;
    await this.#here.cluster.setPhase(life.pod, 'Succeeded');
    this.#lives.set(name, { ...life, ended: true });
  }

  async setLost(node: number, lost: boolean): Promise<void> {
    await this.#here.cluster.setReady(this.#nodes[node]!, lost ? 'Unknown' : 'True', 400);
    this.#lost[node] = lost;
  }

  /** The sandbox that a step means; undefined when there was no such pod yet. */
  sandboxOf({
    name,
    sandbox,
    former,
  }: Of): { readonly pod: PodRef; readonly options: Sandbox & { containerID: string } } | undefined {
    const life = (former ? this.#former : this.#lives).get(name);
    if (life === undefined) return undefined;
    const containerID = `${name}-${sandbox}-${life.pod.uid}`;
    const options = { containerID, node: this.#nodes[life.node]! };
    this.sandboxes.set(containerID, [life.pod, options]);
    return { pod: life.pod, options };
  }

  isDead({ pod }: Holder): boolean {
    const life = this.#lives.get(pod!.name);
    if (life === undefined || life.pod.uid !== pod!.uid || life.ended) return true;
    return life.deleting && this.#lost[life.node]!;
  }

  exists(pod: PodRef): boolean {
    return this.#lives.get(pod.name)?.pod.uid === pod.uid;
  }

  /** What an ADD is to do, or the code it is to fail with. */
  judge(pod: PodRef, containerID: string, before: Holdings): Expected | number {
    if (!this.exists(pod)) return 11;
    const held = before.attachments.get(`${containerID}/eth0`);
    const others = (holders: readonly Holder[]) => holders.filter(holder => holder.containerID !== containerID);
    const isOld = (holder: Holder) => holder.pod?.uid === pod.uid;
    const wanted = kinds[pod.name]!.annotations?.['kube-ipam.ip'];
    if (wanted !== undefined) {
      const record = before.owners.get(wanted);
      // By chance it may have been given to a workload, which keeps it whether a pod uses it or not.
      if (record?.kind === 'sticky') return 11;
      const rivals = others(record?.holders ?? []);
      if (rivals.some(rival => !isOld(rival) && !this.isDead(rival))) return 11;
      return { addresses: [wanted, held?.[1]], gone: rivals.map(rival => rival.containerID) };
    }
    const { owner, labels } = kinds[pod.name]!;
    const workload =
      owner && `${this.#namespace}/${owner.kind === 'StatefulSet' ? `StatefulSet/${pod.name}` : 'VirtualMachine/vm'}`;
    const kept = before.workloads.get(`${workload}/eth0`);
    if (kept === undefined) {
      const isFull = ring.every(ip => before.owners.has(ip));
      return held === undefined && isFull ? 100 : { addresses: held ?? [undefined, undefined], gone: [] };
    }
    const { holders } = before.owners.get(kept[0]!)!;
    const alive = others(holders).filter(holder => !isOld(holder) && !this.isDead(holder));
    const room = labels !== undefined || holders.some(isOld) ? 1 : 0;
    if (alive.length > room) return 11;
    const gone = others(holders).filter(holder => !alive.includes(holder));
    return { addresses: kept, gone: gone.map(holder => holder.containerID) };
  }
}

function expectDone({ addresses, gone }: Expected, containerID: string, before: Holdings, after: Holdings): void {
  const own = after.attachments.get(`${containerID}/eth0`)!;
  const attachments = new Map(before.attachments);
  for (const id of gone) attachments.delete(`${id}/eth0`);
  attachments.set(`${containerID}/eth0`, own);
  expect(after.attachments).toEqual(attachments);
  for (const [set, ip] of own.entries()) {
    if (addresses[set] !== undefined) expect(ip).toBe(addresses[set]);
    else {
      expect(before.owners.has(ip), `${ip} was free`).toBe(false);
      if (set === 0) expect(ring).toContain(ip);
    }
  }
  expect(own).toHaveLength(2);
}

onCluster(ipam, here => {
  const state = () => holdings(here.site);

  it('what is held, what is answered and what is left behind are as in the model', async () => {
    const seen: Record<string, number> = {};
    const count = (what: string | number) => {
      seen[what] = (seen[what] ?? 0) + 1;
    };
    await fc.assert(
      fc.asyncProperty(steps, async sequence => {
        const world = await World.make(here);
        for (const [n, one] of names.entries()) await world.create(one, n % 2);
        let before = await state();
        for (const step of sequence) before = await take(world, step, before, count);
        for (const [pod, options] of world.sandboxes.values()) expect((await here.del(pod, options)).exitCode).toBe(0);
        const { owners, attachments } = await state();
        expect(attachments.size, 'I7').toBe(0);
        for (const { kind } of owners.values()) expect(['sticky', 'held']).toContain(kind);
        await here.site.remove(...(await here.site.remains()));
      }),
      { numRuns: 30, endOnFailure: true },
    );
    // The steps reach what they are meant to reach.
    for (const what of ['given', 'taken over', 'again', 'shared', 11])
      expect(seen[what], String(what)).toBeGreaterThan(0);
  });

  async function take(world: World, step: Step, before: Holdings, count: (what: string | number) => void) {
    switch (step.do) {
      case 'create':
        await world.create(step.name, step.node);
        return before;
      case 'node':
        await world.setLost(step.node, step.lost);
        return before;
      case 'delete':
      case 'force':
      case 'end':
        await world[step.do](step.name);
        return before;
    }
    const sandbox = world.sandboxOf(step);
    if (sandbox === undefined) return before;
    const { pod, options } = sandbox;
    if (step.do === 'DEL') {
      expect(await here.del(pod, options)).toMatchObject({ exitCode: 0, stdout: '' });
      const after = await state();
      expectReleased(options.containerID, before, after);
      return after;
    }
    const expected = world.judge(pod, options.containerID, before);
    if (step.do === 'kill') {
      const { child, ended } = start('ADD', here.callOf(pod, { ...options, ipam: { timeout: 60 } }));
      await sleep(step.after);
      child.kill('SIGKILL');
      await ended;
      // What etcd was asked for in the last moment comes a moment later.
      await sleep(100);
      const after = await state();
      if (JSON.stringify([...after.attachments]) !== JSON.stringify([...before.attachments])) {
        expect(expected, 'I2: all of it or nothing').toBeTypeOf('object');
        expectDone(expected as Expected, options.containerID, before, after);
      }
      return after;
    }
    const answer = await here.add(pod, options);
    const after = await state();
    expectAnswer(expected, answer, options.containerID, before, after);
    if (typeof expected === 'number') count(expected);
    else {
      count('given');
      if (expected.gone.length > 0) count('taken over');
      if (before.attachments.has(`${options.containerID}/eth0`)) count('again');
      if (after.owners.get(answer.addresses[0]!)!.holders.length > 1) count('shared');
    }
    return after;
  }

  function expectAnswer(
    expected: Expected | number,
    answer: Answer,
    id: string,
    before: Holdings,
    after: Holdings,
  ): void {
    if (typeof expected === 'number') {
      expect(answer.error, answer.stdout).toMatchObject({ code: expected });
      expect(after).toEqual(before);
      return;
    }
    expect(answer.error?.msg).toBeUndefined();
    expect(answer.addresses).toEqual(after.attachments.get(`${id}/eth0`));
    expectDone(expected, id, before, after);
  }

  /** I4: its own goes, or stays for its workload, or is on hold; all else is as it was. */
  function expectReleased(containerID: string, before: Holdings, after: Holdings): void {
    const own = before.attachments.get(`${containerID}/eth0`) ?? [];
    expect([...after.attachments]).toEqual([...before.attachments].filter(([id]) => id !== `${containerID}/eth0`));
    expect(after.workloads).toEqual(before.workloads);
    for (const [ip, owner] of before.owners) {
      const now = after.owners.get(ip);
      if (!own.includes(ip)) expect(now).toEqual(owner);
      else if (owner.kind === 'sticky') expect(now?.kind).toBe('sticky');
      else expect(now?.kind).toBe(owner.kind === 'fixed' && ip === inside ? 'held' : undefined);
    }
    expect([...after.owners.keys()].filter(ip => !before.owners.has(ip))).toEqual([]);
  }
});
