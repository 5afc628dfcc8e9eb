// CNI_ARGS as every runtime writes them (contract 11.4, 11.5).
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FailureError } from '../base/errors.ts';
import { readArgs } from './args.ts';

const codeOf = (text: string) => {
  try {
    readArgs(text);
    return 0;
  } catch (error) {
    return error instanceof FailureError ? error.code : -1;
  }
};

it('11.5 containerd and CRI-O: pod by namespace, name and UID, in any order', () => {
  const pairs = [
    'IgnoreUnknown=1',
    'K8S_POD_NAMESPACE=shop',
    'K8S_POD_NAME=web-0',
    'K8S_POD_INFRA_CONTAINER_ID=abc',
    'K8S_POD_UID=uid-1',
  ];
  for (const order of [pairs, [...pairs].reverse()]) {
    expect(readArgs(order.join(';'))).toEqual({
      ip: undefined,
      pod: { namespace: 'shop', name: 'web-0', uid: 'uid-1' },
    });
  }
});

it('11.5 podman: a container name without a namespace, and an address', () => {
  expect(readArgs('IgnoreUnknown=1;K8S_POD_NAME=db;IP=10.88.0.5;MAC=02:00:00:00:00:01')).toEqual({
    ip: '10.88.0.5',
    pod: { namespace: '', name: 'db' },
  });
});

describe('11.4', () => {
  it.each(['', ';', ';;', 'IP=10.0.0.5;', 'IP='])('%j is fine', text => expect(codeOf(text)).toBe(0));
  it.each(['IP', 'IP=1=2', '=', 'a;b=c'])('%j is malformed or unknown', text => expect([2, 4]).toContain(codeOf(text)));

  it.each(['1', 'true', 'True', 'TRUE'])('IgnoreUnknown=%s lets unknown keys pass, in any place', yes => {
    expect(codeOf(`FOO=1;IgnoreUnknown=${yes}`)).toBe(0);
    expect(codeOf(`IgnoreUnknown=${yes};FOO=1`)).toBe(0);
  });

  it.each(['FOO=1', 'FOO=1;IgnoreUnknown=0', 'FOO=1;IgnoreUnknown=', 'ip=10.0.0.5', '__proto__=1', 'toString=1'])(
    '%s: code 2, naming key and value',
    text => {
      expect(codeOf(text)).toBe(2);
      expect(() => readArgs(text)).toThrow(JSON.stringify(text.split('=')[0]));
    },
  );
});

it('never throws anything but a failure, with a short message', () => {
  fc.assert(
    fc.property(fc.oneof(fc.string({ unit: 'binary' }), fc.string({ unit: fc.constantFrom(...'IP=;K8S_') })), text => {
      expect([0, 2, 4]).toContain(codeOf(text));
    }),
    { numRuns: 1000 },
  );
  expect(() => readArgs('x'.repeat(100_000))).toThrow(/^.{0,200}$/);
});

it('names longer than Kubernetes allows are cut, so that a record stays small', () => {
  const { pod } = readArgs(`K8S_POD_NAMESPACE=${'n'.repeat(5000)};K8S_POD_NAME=${'p'.repeat(5000)}`);
  expect(JSON.stringify(pod).length).toBeLessThan(600);
});
