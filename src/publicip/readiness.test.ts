// When a node counts as ready: not at the first sight of an endpoint, and not at the first loss of one.
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { Readiness } from './readiness.ts';

const wants = (...nodes: string[]) => [{ address: '10.0.0.1', nodesReady: new Set(nodes) }];

/** What counts at each of these moments, for one address. */
function follow(steps: readonly (readonly [now: number, nodes: readonly string[]])[]): string[] {
  const readiness = new Readiness();
  return steps.map(([now, nodes]) => [...readiness.settle(wants(...nodes), now).nodes.get('10.0.0.1')!].sort().join());
}

it('what is found at first counts at once', () => {
  expect(follow([[0, ['a', 'b']]])).toEqual(['a,b']);
});

it('a node counts after a second of being ready, without a break', () => {
  const steps: [number, string[]][] = [
    [0, []],
    [100, ['a']],
    [1099, ['a']],
    [1100, ['a']],
  ];
  expect(follow(steps)).toEqual(['', '', '', 'a']);
  const broken: [number, string[]][] = [
    [0, []],
    [100, ['a']],
    [900, []],
    [1000, ['a']],
    [1200, ['a']],
    [2000, ['a']],
  ];
  expect(follow(broken)).toEqual(['', '', '', '', '', 'a']);
});

it('and stops counting after three seconds of not being ready, without a break', () => {
  const steps: [number, string[]][] = [
    [0, ['a']],
    [100, []],
    [3099, []],
    [3100, []],
  ];
  expect(follow(steps)).toEqual(['a', 'a', 'a', '']);
  const broken: [number, string[]][] = [
    [0, ['a']],
    [100, []],
    [3000, ['a']],
    [3100, []],
    [6000, []],
    [6100, []],
  ];
  expect(follow(broken)).toEqual(['a', 'a', 'a', 'a', 'a', '']);
});

it('says when to look again', () => {
  const readiness = new Readiness();
  expect(readiness.settle(wants('a'), 0).after).toBeUndefined();
  expect(readiness.settle(wants('b'), 100).after).toBe(1000);
  expect(readiness.settle(wants('b'), 1100).after).toBe(2000);
  expect(readiness.settle(wants('b'), 3100).after).toBeUndefined();
});

it('forgets an address that is wanted no more, and speaks only of those that ask', () => {
  const readiness = new Readiness();
  readiness.settle(wants('a'), 0);
  expect(readiness.settle([{ address: '10.0.0.1' }], 100).nodes.size).toBe(0);
  expect([...readiness.settle(wants('b'), 200).nodes.get('10.0.0.1')!]).toEqual(['b']);
});

it('whatever comes and goes: looking only when told to shows the same as looking all the time', () => {
  const change = fc.record({ wait: fc.integer({ min: 1, max: 4000 }), nodes: fc.subarray(['a', 'b', 'c']) });
  fc.assert(
    fc.property(fc.array(change, { minLength: 1, maxLength: 12 }), changes => {
      const [often, seldom] = [new Readiness(), new Readiness()];
      const counts = (of: Readiness, nodes: readonly string[], now: number) => of.settle(wants(...nodes), now);
      let now = 0;
      let due: number | undefined;
      let nodes: readonly string[] = [];
      for (const step of changes) {
        for (const end = now + step.wait; now < end; now++) {
          const all = counts(often, nodes, now);
          if (due === undefined || now >= due) {
            const told = counts(seldom, nodes, now);
            due = now + (told.after ?? Number.POSITIVE_INFINITY);
            expect(told.nodes).toEqual(all.nodes);
          }
        }
        nodes = step.nodes;
        due = now;
      }
    }),
    { numRuns: 20 },
  );
});
