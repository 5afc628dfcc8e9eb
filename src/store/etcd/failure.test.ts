// Which of etcd's errors prove that nothing was applied: a wrong "yes" here would give an address two owners.
import { describe, expect, test } from 'vitest';
import { judge } from './failure.ts';

describe('errors that leave the fate of a commit open', () => {
  test.each([
    [14, 'etcdserver: request timed out'],
    [14, 'etcdserver: request timed out, possibly due to previous leader failure'],
    [14, 'etcdserver: request timed out, possibly due to connection lost'],
    [14, 'etcdserver: request timed out, waiting for the applied index took too long'],
    [14, 'etcdserver: leader changed'],
    [14, 'etcdserver: server stopped'],
    [14, 'transport is closing'],
    [1, 'etcdserver: request canceled'],
    [4, 'etcdserver: context deadline exceeded'],
    [2, 'raft: stopped'],
    [2, 'something new'],
    [13, 'internal'],
    [10, 'aborted'],
    [99, 'a code of tomorrow'],
  ])('%i %s', (code, text) => {
    expect(judge(code, text).kind).toBe('unclear');
  });
});

describe('errors that prove that nothing was applied', () => {
  test.each([
    [8, 'etcdserver: mvcc: database space exceeded', 'space'],
    [8, 'etcdserver: too many requests', 'busy'],
    [14, 'etcdserver: no leader', 'busy'],
    [2, 'raft proposal dropped', 'busy'],
    [7, 'etcdserver: permission denied', 'permission'],
    [16, 'etcdserver: invalid auth token', 'token'],
    [3, 'etcdserver: revision of auth store is old', 'token'],
    [3, 'etcdserver: authentication failed, invalid user ID or password', 'login'],
    [3, 'etcdserver: user name is empty', 'login'],
    [9, 'etcdserver: authentication is not enabled', 'noLogin'],
    [11, 'etcdserver: mvcc: required revision has been compacted', 'compacted'],
    [5, 'etcdserver: requested lease not found', 'leaseGone'],
    [3, 'etcdserver: request is too large', 'refused'],
    [3, 'etcdserver: too many operations in txn request', 'refused'],
    [3, 'etcdserver: duplicate key given in txn request', 'refused'],
    [15, 'etcdserver: corrupt cluster', 'broken'],
    [12, 'unknown service', 'refused'],
  ] as const)('%i %s: %s', (code, text, kind) => {
    expect(judge(code, text).kind).toBe(kind);
  });
});

test('only words of etcd are shown', () => {
  expect(judge(3, 'etcdserver: request is too large').reason).toBe('etcdserver: request is too large');
  for (const echoed of [
    '{"password":"secret"}',
    'etcdserver: \u001b[2Jsecret',
    `etcdserver: ${'x'.repeat(500)}secret`,
  ]) {
    expect(judge(3, echoed).reason).toBe('error 3');
  }
});
