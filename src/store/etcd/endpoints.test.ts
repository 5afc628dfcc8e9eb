// The order of endpoints and the hint that survives the process.
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { EtcdTarget } from '../target.ts';
import { Endpoints, hintedTransport, origins } from './endpoints.ts';

let dataDir = '';
beforeEach(() => {
  dataDir = mkdtempSync(join(tmpdir(), 'kube-ipam-endpoints-'));
});
afterEach(() => rmSync(dataDir, { recursive: true, force: true }));

const [a, b, c] = ['http://10.0.0.1:2379', 'http://10.0.0.2:2379', 'http://10.0.0.3:2379'] as const;
const target = (endpoints: readonly string[] = [a, b, c]): EtcdTarget => ({
  kind: 'etcd',
  endpoints,
  dialTimeout: 1000,
  requestTimeout: 3000,
  dataDir,
});

test('as configured at first, and no file is written while that holds', () => {
  const endpoints = new Endpoints(target());
  expect(endpoints.order()).toEqual([a, b, c]);
  endpoints.answered(a, 'gateway');
  expect(readdirSync(dataDir)).toEqual([]);
});

test('the one that answered last comes first, here and in the next process; those that failed come last', () => {
  const endpoints = new Endpoints(target());
  endpoints.failed(a);
  expect(endpoints.order()).toEqual([b, c, a]);
  endpoints.answered(b, 'gateway');
  expect(endpoints.order()).toEqual([b, c, a]);
  expect(new Endpoints(target()).order()).toEqual([b, a, c]);
  endpoints.failed(b);
  endpoints.answered(a, 'gateway');
  expect(endpoints.order()).toEqual([a, c, b]);
  expect(readdirSync(dataDir)).toEqual(['endpoint.json']);
});

test('a hint for another list of endpoints does not count', () => {
  new Endpoints(target()).answered(c, 'gateway');
  expect(new Endpoints(target([c, a])).order()).toEqual([c, a]);
  expect(new Endpoints(target([b, a, c])).order()).toEqual([b, a, c]);
  expect(new Endpoints(target()).order()).toEqual([c, a, b]);
});

test('gRPC is hinted for an hour, and an answer over gRPC changes nothing about that', () => {
  const endpoints = new Endpoints(target());
  endpoints.gatewayOff(a);
  expect(hintedTransport(target())).toBe('grpc');
  endpoints.answered(b, 'grpc');
  expect(hintedTransport(target())).toBe('grpc');
  const file = join(dataDir, 'endpoint.json');
  const hint = JSON.parse(readFileSync(file, 'utf8')) as { since: number };
  for (const [shift, transport] of [
    [3_599_000, 'grpc'],
    [3_600_001, 'gateway'],
    [-60_000, 'gateway'],
  ] as const) {
    writeFileSync(file, JSON.stringify({ ...hint, since: Date.now() - shift }));
    expect(hintedTransport(target())).toBe(transport);
  }
  endpoints.answered(b, 'gateway');
  expect(hintedTransport(target())).toBe('gateway');
});

test('URLs lose user, password and path; others are refused without showing a password', () => {
  const found = origins(
    target([
      'https://user:secret@etcd.example:2379/',
      '10.0.0.1:2379',
      'http://[fd00::1]:2379',
      'https://etcd.example',
    ]),
  );
  expect(found).toEqual([
    'https://etcd.example:2379',
    'http://10.0.0.1:2379',
    'http://[fd00::1]:2379',
    'https://etcd.example:443',
  ]);
  for (const bad of ['ftp://user:secret@host:1', 'http://user:secret@', '', 'unix:///run/etcd']) {
    expect(() => origins(target([bad]))).toThrow(/etcdURL/);
    try {
      origins(target([bad]));
    } catch (error) {
      expect(String(error)).not.toContain('secret');
    }
  }
});
