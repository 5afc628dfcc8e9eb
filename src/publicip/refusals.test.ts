// How long an address is left alone, and what others are told of it.
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { Refusals } from './refusals.ts';

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['performance'] });
});
afterEach(() => vi.useRealTimers());

const restOf = (refusals: Refusals, address: string) => refusals.untils.get(address)! - performance.now();

it('is left alone for longer with each try, five minutes at most, until it is held', () => {
  const refusals = new Refusals();
  let least = 5000;
  for (let tries = 1; tries <= 10; tries++) {
    refusals.refuse('a', 'broken');
    expect(restOf(refusals, 'a')).toBeGreaterThanOrEqual(Math.min(least, 150_000));
    expect(restOf(refusals, 'a')).toBeLessThanOrEqual(Math.min(2 * least, 300_000));
    least *= 2;
  }
  expect(refusals.tries('a')).toBe(10);
  refusals.forget('a');
  expect([refusals.tries('a'), refusals.untils.size]).toEqual([0, 0]);
});

it('is postponed for a moment that nobody hears of, and that counts as a try or not', () => {
  const refusals = new Refusals();
  refusals.postpone('a', false);
  expect([refusals.tries('a'), restOf(refusals, 'a')]).toEqual([0, 300]);
  refusals.postpone('a', true);
  refusals.postpone('a', true);
  expect(refusals.tries('a')).toBe(2);
  expect(refusals.published()).toEqual({});
});

it('tells others what is refused now, with its reason, and no more than fits into a key', () => {
  const refusals = new Refusals();
  refusals.refuse('a', 'somebody has it', 'ForeignAddress');
  refusals.refuse('b', 'x'.repeat(1000));
  refusals.postpone('c', true);
  expect(refusals.published()).toEqual({
    refuses: ['a', 'b'],
    reasons: { a: 'ForeignAddress: somebody has it', b: 'x'.repeat(200) },
  });
  expect(refusals.refusedFor('ForeignAddress')).toEqual(['a']);
  for (let i = 0; i < 50; i++) refusals.refuse(`n${i}`, 'why');
  const { refuses = [], reasons = {} } = refusals.published();
  expect([refuses.length, Object.keys(reasons).length]).toEqual([52, 20]);
  vi.advanceTimersByTime(301_000);
  expect(refusals.published()).toEqual({});
});
