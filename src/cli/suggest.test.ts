// Which name somebody most likely meant.
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { distance, nearest } from './suggest.ts';

it.each([
  ['usge', 'usage'],
  ['lss', 'ls'],
  ['SUBNET', 'subnet'],
  ['rnage', 'range'],
  ['etcdTrustedCAFilefile', 'etcdTrustedCAFileFile'],
  ['xyz', undefined],
])('%s means %s', (word, meant) => {
  expect(nearest(word, ['usage', 'ls', 'subnet', 'range', 'etcdTrustedCAFileFile', 'show'])).toBe(meant);
});

it('is a distance: nothing between equal words, the same both ways, one for one edit', () => {
  const word = fc.string({ maxLength: 12 });
  fc.assert(
    fc.property(word, word, fc.nat(), (a, b, at) => {
      expect(distance(a, a)).toBe(0);
      expect(distance(a, b)).toBe(distance(b, a));
      expect(distance(a, b)).toBeLessThanOrEqual(Math.max(a.length, b.length));
      const place = at % (a.length + 1);
      expect(distance(a, `${a.slice(0, place)}*${a.slice(place)}`)).toBe(1);
    }),
  );
});
