// Failures: what becomes of anything that is thrown.
import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { code, FailureError, messageOf, systemCode } from './errors.ts';

it('every code of ours is its own, and those above 99 are ours by the CNI specification', () => {
  const codes = Object.values(code);
  expect(new Set(codes).size).toBe(codes.length);
  expect(codes.filter(one => one >= 12 && one <= 49)).toEqual([]);
});

it('a failure keeps code, cause and details', () => {
  const cause = new Error('inner');
  const failure = new FailureError(code.tryAgain, 'outer', { cause, details: 'more' });
  expect(failure).toMatchObject({ name: 'FailureError', code: 11, message: 'outer', cause, details: 'more' });
  expect('cause' in new FailureError(7, 'x')).toBe(false);
});

it('a message steers no terminal, whatever it quotes; lines stay', () => {
  const quoted = 'held by \u001b[2Jpod\u009b1m\r\u0007\u007f\n  line two: ü, 日本';
  const failure = new FailureError(code.tryAgain, quoted);
  expect(failure.message).toBe('held by ?[2Jpod?1m???\n  line two: ü, 日本');
  expect(messageOf(new Error(quoted))).toBe('held by ?[2Jpod?1m ?? line two: ü, 日本');
});

it('messageOf gives one line of anything', () => {
  expect(messageOf(new Error(' a\n  b '))).toBe('a b');
  expect(messageOf('text')).toBe('text');
  expect(messageOf(undefined)).toBe('undefined');
  expect(messageOf({ toString: () => 'odd' })).toBe('odd');
});

it('systemCode knows the system by its word only', () => {
  let thrown: unknown;
  try {
    readFileSync('/nonexistent/file');
  } catch (error) {
    thrown = error;
  }
  expect(systemCode(thrown)).toBe('ENOENT');
  expect(systemCode(new FailureError(5, 'x'))).toBeUndefined();
  expect(systemCode(null)).toBeUndefined();
  expect(systemCode('ENOENT')).toBeUndefined();
});
