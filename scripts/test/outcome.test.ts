// The closing lines of a test run, as people and CI read them.
import { expect, it } from 'vitest';
import { closing, type Outcome, succeeded } from './outcome.ts';

const passed: Outcome = { name: 'a', state: 'passed' };
const failed: Outcome = { name: 'b', state: 'failed', reason: 'expected 1\nto be 2' };
const skipped: Outcome = { name: 'c', state: 'skipped', reason: 'no kernel module' };

it('ends with the counts, alone on the last line', () => {
  expect(closing([passed, failed, skipped, passed]).split('\n').slice(-2)).toEqual([
    '2 passed, 1 failed, 1 skipped',
    '',
  ]);
  expect(closing([]).trim()).toBe('0 passed, 0 failed, 0 skipped');
});

it('names failures with their reasons, and why a test was skipped', () => {
  const text = closing([passed, failed, skipped, { name: 'd', state: 'skipped' }]);
  expect(text).toContain('FAILED  b\n    expected 1\n    to be 2\n');
  expect(text).toContain('skipped c: no kernel module\nskipped d: no reason given\n');
});

it('is no success when something failed or nothing ran', () => {
  expect(succeeded([passed, skipped])).toBe(true);
  expect(succeeded([passed, failed])).toBe(false);
  expect(succeeded([skipped])).toBe(false);
  expect(succeeded([])).toBe(false);
});
