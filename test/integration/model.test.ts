// Random sequences of ADD, DEL, GC and killed commands against a model that is plain arrays, on both stores.
import { setTimeout as sleep } from 'node:timers/promises';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { parseAttachment, parseOwner } from '../../src/ipam/model.ts';
import { formatIp, parseIp } from '../../src/net/ip.ts';
import { parseKey } from '../../src/store/keys.ts';
import { onEachStore } from '../helpers/each-store.ts';
import { type Answer, call, confOf, type Json, type Site } from '../helpers/plugin.ts';
import { start } from '../helpers/plugin-process.ts';

const pods = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'];

/** 10.1.0.1-14: gateway .1, excluded .4 and .5, fixed .10 and .11; so nine random addresses. IPv6: fd00::2 to fd00::9. */
const ipam = {
  ranges: [
    [{ subnet: '10.1.0.0/28', fixedStart: '10.1.0.10', fixedEnd: '10.1.0.11' }],
    [{ subnet: 'fd00::/64', rangeEnd: 'fd00::9' }],
  ],
  exclude: ['10.1.0.4/31'],
};
const rings = [
  [2, 3, 6, 7, 8, 9, 12, 13, 14].map(last => `10.1.0.${last}`),
  [2, 3, 4, 5, 6, 7, 8, 9].map(last => `fd00::${last}`),
];
const mayBeAsked = [[...rings[0]!, '10.1.0.10', '10.1.0.11'], rings[1]!];
const cursors = [
  '010.001.000.001-010.001.000.014',
  'fd00:0000:0000:0000:0000:0000:0000:0001-fd00:0000:0000:0000:0000:0000:0000:0009',
];

type Step =
  | { readonly do: 'ADD' | 'DEL'; readonly pod: string; readonly ip?: string }
  | { readonly do: 'GC'; readonly keep: readonly string[] }
  | { readonly do: 'kill'; readonly command: 'ADD' | 'DEL'; readonly pod: string; readonly after: number };

const pod = fc.constantFrom(...pods);
const asked = fc.constantFrom(
  '10.1.0.7',
  '10.1.0.10',
  '10.1.0.1',
  '10.1.0.4',
  '10.1.0.0',
  '10.2.0.1',
  'fd00::5',
  'fd00::1',
);
const steps = fc.array(
  fc.oneof(
    { weight: 10, arbitrary: fc.record({ do: fc.constant('ADD' as const), pod }) },
    { weight: 3, arbitrary: fc.record({ do: fc.constant('ADD' as const), pod, ip: asked }) },
    { weight: 7, arbitrary: fc.record({ do: fc.constant('DEL' as const), pod }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('GC' as const), keep: fc.subarray(pods) }) },
    {
      weight: 1,
      arbitrary: fc.record({
        do: fc.constant('kill' as const),
        command: fc.constantFrom('ADD' as const, 'DEL' as const),
        pod,
        after: fc.nat(80),
      }),
    },
  ),
  { minLength: 5, maxLength: 40 },
);

/** What the store says, after it was checked that its records and attachments agree (I1, I2). */
interface State {
  readonly held: ReadonlyMap<string, readonly string[]>;
  readonly taken: ReadonlySet<string>;
  readonly cursor: readonly (string | undefined)[];
}

async function stateOf(site: Site): Promise<State> {
  const held = new Map<string, readonly string[]>();
  const owner = new Map<string, string>();
  const cursor: (string | undefined)[] = [undefined, undefined];
  for (const { key, value } of await site.entries()) {
    const parsed = parseKey(key);
    if (parsed?.type === 'address') owner.set(formatIp(parsed.ip), parseOwner(value).containerID);
    if (parsed?.type === 'attachment') held.set(parsed.id.containerID, parseAttachment(value).map(formatIp));
    if (parsed?.type === 'cursor') cursor[cursors.indexOf(parsed.set)] = value;
  }
  const claimed = [...held].flatMap(([id, ips]) => ips.map(ip => [ip, id] as const));
  expect(new Map(claimed), 'records and attachments agree').toEqual(owner);
  expect(claimed, 'no address has two attachments').toHaveLength(owner.size);
  return { held, taken: new Set(owner.keys()), cursor };
}

/** The next free address of a set behind its cursor, worked out the slow way. */
function nextFree(set: number, { taken, cursor }: State): string | undefined {
  const value = (ip: string) => parseIp(ip)!.value;
  const ring = rings[set]!;
  const at = cursor[set];
  const from = at === undefined ? 0 : ring.findIndex(ip => value(ip) > value(at));
  const order = from < 0 ? ring : [...ring.slice(from), ...ring.slice(0, from)];
  return order.find(ip => !taken.has(ip));
}

function expectAdd(
  before: State,
  after: State,
  { pod, ip }: { readonly pod: string; readonly ip?: string },
  answer: Answer,
): void {
  const own = before.held.get(pod);
  const set = ip === undefined ? -1 : mayBeAsked.findIndex(ips => ips.includes(ip));
  const wanted = rings.map((_, n) => {
    if (n === set) return ip;
    const kept = own?.find(one => mayBeAsked[n]!.includes(one));
    return kept ?? nextFree(n, before);
  });
  const refusal = refusalOf(ip, set, before, own, wanted);
  if (refusal === 0) {
    expect(answer.addresses, answer.stdout).toEqual(wanted);
    expect(after.held.get(pod)).toEqual(wanted);
  } else {
    expect(answer.error, answer.stdout).toMatchObject({ code: refusal });
    expect(after).toEqual(before);
  }
}

function refusalOf(
  ip: string | undefined,
  set: number,
  { taken }: State,
  own: readonly string[] | undefined,
  wanted: readonly (string | undefined)[],
): number {
  if (ip !== undefined && set < 0) return 7;
  if (ip !== undefined && taken.has(ip) && !own?.includes(ip)) return 11;
  return wanted.includes(undefined) ? 100 : 0;
}

onEachStore(here => {
  const kills = here.kind === 'etcd' ? 40 : 60;

  it('what is held, what is answered and what is left behind are as in the model', async () => {
    await fc.assert(
      fc.asyncProperty(steps, async sequence => {
        const site = await here.ground.site();
        const conf = confOf(site, ipam, { cniVersion: '1.1.0' });
        let before = await stateOf(site);
        for (const step of sequence) {
          before = await take(site, conf, step, before);
        }
        for (const containerID of pods) expect((await call('DEL', { conf, containerID })).exitCode).toBe(0);
        expect(await site.remains(), 'I7: DEL of everything leaves nothing').toEqual([]);
        await site.kv[Symbol.asyncDispose]();
      }),
      { numRuns: kills, endOnFailure: true },
    );
  });

  async function take(site: Site, conf: Json, step: Step, before: State): Promise<State> {
    if (step.do === 'kill') {
      const { child, ended } = start(step.command, {
        conf: { ...conf, ipam: { ...(conf.ipam as Json), timeout: 20 } },
        containerID: step.pod,
      });
      await sleep(step.after);
      child.kill('SIGKILL');
      await ended;
      const after = await stateOf(site);
      // Whatever the instant: all of the command, or nothing of it.
      for (const one of pods) if (one !== step.pod) expect(after.held.get(one)).toEqual(before.held.get(one));
      if (step.command === 'DEL')
        expect([undefined, before.held.get(step.pod)]).toContainEqual(after.held.get(step.pod));
      else expect(after.held.get(step.pod) ?? []).toSatisfy((ips: string[]) => [0, 2].includes(ips.length));
      return after;
    }
    if (step.do === 'GC') {
      const list = step.keep.map(containerID => ({ containerID, ifname: 'eth0' }));
      expect((await call('GC', { conf: { ...conf, 'cni.dev/valid-attachments': list } })).exitCode).toBe(0);
      const after = await stateOf(site);
      expect([...after.held]).toEqual([...before.held].filter(([id]) => step.keep.includes(id)));
      return after;
    }
    const args = step.ip === undefined ? '' : `IP=${step.ip}`;
    const answer = await call(step.do, { conf, containerID: step.pod, args });
    const after = await stateOf(site);
    if (step.do === 'ADD') expectAdd(before, after, step, answer);
    else {
      expect(answer).toMatchObject({ exitCode: 0, stdout: '' });
      expect([...after.held]).toEqual([...before.held].filter(([id]) => id !== step.pod));
    }
    return after;
  }
});
