// The protocol's part of stdin: JSON, name, version, GC's list, prevResult (contract 3, 8).
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FailureError } from '../base/errors.ts';
import { parseIp } from '../net/ip.ts';
import { checkConf, parseConf, previousAddresses, spokenVersion, validAttachments, versions } from './netconf.ts';

function codeOf(work: () => unknown): number {
  try {
    work();
    return 0;
  } catch (error) {
    return error instanceof FailureError ? error.code : -1;
  }
}

describe('3.1 stdin', () => {
  it.each(['', ' ', '{', '{}x', '{} {}', '[]', 'null', '5', '"x"', '\u0000{}', '\ufeff{}', '{"a":1,}', "{'a':1}"])(
    '%j: error 6',
    text => expect(codeOf(() => parseConf(Buffer.from(text)))).toBe(6),
  );

  it('any bytes: an object or error 6', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), bytes => {
        expect([0, 6]).toContain(codeOf(() => parseConf(Buffer.from(bytes))));
      }),
    );
  });

  it('very deep nesting is no stack overflow', () => {
    const deep = `{"name":${'['.repeat(200_000)}${']'.repeat(200_000)}}`;
    expect(codeOf(() => checkConf(parseConf(Buffer.from(deep)), 'ADD'))).toBe(7);
  });
});

describe('3.2 name', () => {
  it.each([undefined, null, '', 5, {}, [], ' a', 'a b', 'a\n', '-a', 'a/b', 'ü', '\ufffd'])('%j: error 7', name => {
    expect(codeOf(() => checkConf({ name, cniVersion: '1.0.0' }, 'ADD'))).toBe(7);
  });

  it.each(['a', 'a.b_c-D', '0'])('%s is fine', name => {
    expect(codeOf(() => checkConf({ name, cniVersion: '1.0.0' }, 'DEL'))).toBe(0);
  });

  it('a name of a megabyte gives a short message', () => {
    const huge = `/${'x'.repeat(1_000_000)}`;
    expect(() => checkConf({ name: huge }, 'ADD')).toThrow(/^.{0,300}$/);
    expect(() => checkConf({ name: 'a', cniVersion: huge }, 'ADD')).toThrow(/^.{0,300}$/);
  });

  it('2.4 is judged before the version', () => {
    expect(codeOf(() => checkConf({ name: '', cniVersion: '9.9.9' }, 'ADD'))).toBe(7);
  });
});

describe('cniVersion', () => {
  it.each([undefined, null, ''])('3.3 %j means 0.1.0', cniVersion => {
    expect(spokenVersion({ cniVersion })).toBe('0.1.0');
    expect(checkConf({ name: 'a', cniVersion }, 'ADD').version).toBe('0.1.0');
  });

  it.each(['1.0.1', '0.3', '1.1', 'v1.0.0', '1.0.0 ', '1.2.0', 1, {}, 'toString'])(
    '3.4 %j: error 1, on DEL too',
    cniVersion => {
      for (const command of ['ADD', 'DEL'] as const) {
        expect(codeOf(() => checkConf({ name: 'a', cniVersion }, command))).toBe(1);
      }
      expect(() => checkConf({ name: 'a', cniVersion }, 'ADD')).toThrow(JSON.stringify(cniVersion));
    },
  );

  it.each(versions)('4.4 %s is spoken', version => {
    expect(checkConf({ name: 'a', cniVersion: version }, 'ADD').version).toBe(version);
  });

  it.each([
    ['CHECK', ['0.1.0', '0.2.0', '0.3.0', '0.3.1']],
    ['GC', ['0.1.0', '0.4.0', '1.0.0']],
    ['STATUS', ['0.1.0', '0.4.0', '1.0.0']],
  ] as const)('7.1, 8.4, 9.3 %s does not exist in %j: error 1', (command, older) => {
    for (const cniVersion of older) expect(codeOf(() => checkConf({ name: 'a', cniVersion }, command))).toBe(1);
    expect(codeOf(() => checkConf({ name: 'a', cniVersion: '1.1.0' }, command))).toBe(0);
  });
});

describe('GC’s list', () => {
  const pair = { containerID: 'c', ifname: 'eth0' };
  const newer = 'cni.dev/valid-attachments';

  it('8.1 pairs, and what else an item holds does not matter', () => {
    expect(validAttachments({ [newer]: [{ ...pair, more: 1 }] })).toEqual([pair]);
  });

  it('8.2 the key of the first text alone is read too, and the new one wins', () => {
    expect(validAttachments({ 'cni.dev/attachments': [pair] })).toEqual([pair]);
    expect(validAttachments({ 'cni.dev/attachments': [], [newer]: [pair] })).toEqual([pair]);
  });

  it('8.3 null and [] are the empty list; no key at all is refused', () => {
    expect(validAttachments({ [newer]: null })).toEqual([]);
    expect(validAttachments({ [newer]: [] })).toEqual([]);
    expect(codeOf(() => validAttachments({}))).toBe(7);
  });

  it.each([
    'x',
    {},
    5,
    [5],
    [null],
    [{}],
    [{ containerID: 'c' }],
    [{ containerID: '', ifname: 'eth0' }],
    [{ containerID: 'c', ifname: 5 }],
    [pair, undefined],
    [pair, 'x'],
  ])('8.2 %j is malformed: refused as a whole', list => {
    expect(codeOf(() => validAttachments({ [newer]: list }))).toBe(7);
  });
});

it('7.2 prevResult: its addresses, with or without prefix; whatever else it holds is passed over', () => {
  const ips = [{ address: '10.1.0.2/24' }, { address: 'fd00::2' }, { address: 'x' }, {}, null, 5, { address: 7 }];
  expect(previousAddresses({ prevResult: { ips, interfaces: [{}] } })).toEqual([
    parseIp('10.1.0.2'),
    parseIp('fd00::2'),
  ]);
  for (const prevResult of [null, undefined, 'x', [], {}, { ips: null }, { ips: {} }]) {
    expect(previousAddresses({ prevResult })).toEqual([]);
  }
});
