// Durations: numbers are seconds, strings are Go's.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseDeadline, parseDuration, parsePositiveDuration } from './duration.ts';

it.each<[unknown, number]>([
  [5, 5000],
  [0, 0],
  [0.25, 250],
  ['5', 5000],
  ['0', 0],
  ['1.5', 1500],
  ['1m30s', 90_000],
  ['1.5h', 5_400_000],
  ['300ms', 300],
  ['.5s', 500],
  ['1.s', 1000],
  ['2h45m0.5s', 9_900_500],
  ['1000us', 1],
  ['1000µs', 1],
  ['1000μs', 1],
  ['1000000ns', 1],
  ['0s', 0],
])('%j is %d ms', (text, ms) => expect(parseDuration(text)).toBeCloseTo(ms, 6));

it.each([
  '',
  ' ',
  '5 s',
  's',
  '5x',
  '5m30',
  '-5s',
  '+5s',
  '1e3',
  '1.2.3s',
  '.s',
  '1d',
  '5S',
  -1,
  Number.NaN,
  Number.POSITIVE_INFINITY,
  null,
  undefined,
  true,
  [5],
  {},
])('%j is no duration', text => expect(parseDuration(text)).toBeUndefined());

it('never throws, and what it gives is a number that is not negative', () => {
  fc.assert(
    fc.property(fc.oneof(fc.anything(), fc.string({ unit: fc.constantFrom(...'0123456789.hmsuµn') })), value => {
      const ms = parseDuration(value);
      expect(ms === undefined || ms >= 0).toBe(true);
    }),
    { numRuns: 2000 },
  );
});

describe('a deadline', () => {
  it('is above 0 and at most an hour', () => {
    expect([parseDeadline(0), parseDeadline('0s')]).toEqual([undefined, undefined]);
    expect([parseDeadline('1h'), parseDeadline('60m0.001s')]).toEqual([3_600_000, undefined]);
    expect(parseDeadline(1e300)).toBeUndefined();
    expect([parsePositiveDuration(0), parsePositiveDuration(7)]).toEqual([undefined, 7000]);
  });
});
