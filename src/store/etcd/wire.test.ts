// Answers that are not what was asked for must never pass for success.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { BrokenAnswerError, commitAnswer, commitRequest, integer, readAnswer, readRequest } from './wire.ts';

const header = { cluster_id: '1', revision: '7' };
const base64 = (text: string) => Buffer.from(text).toString('base64');
const kv = { key: base64('/k'), value: base64('ü'), mod_revision: '5', create_revision: '3' };
const writes = [{ put: '/k', value: 'v' }, { delete: '/d' }] as const;
const done = [{ response_put: {} }, { response_delete_range: {} }];

test('a read: absent keys, counts and values', () => {
  const responses = [
    { response_range: { kvs: [kv], count: '1' } },
    { response_range: {} },
    { response_range: { count: '9' } },
  ];
  expect(readAnswer({ header, succeeded: true, responses }, 3)).toEqual({
    revision: 7,
    answers: [
      { entries: [{ key: '/k', value: 'ü', revision: 5, created: 3 }], count: 1 },
      { entries: [], count: 0 },
      { entries: [], count: 9 },
    ],
  });
});

test('gRPC gives bytes where the gateway gives base64', () => {
  const bytes = { ...kv, key: Buffer.from('/k'), value: Buffer.from('ü') };
  const read = readAnswer(
    { header, succeeded: true, responses: [{ response_range: { kvs: [bytes], count: '1' } }] },
    1,
  );
  expect(read.answers[0]!.entries[0]).toEqual({ key: '/k', value: 'ü', revision: 5, created: 3 });
});

test('a commit won, and one lost (`succeeded` is left out)', () => {
  expect(commitAnswer({ header, succeeded: true, responses: done }, writes, 1)).toEqual({ won: true, revision: 7 });
  expect(commitAnswer({ header, responses: [{ response_range: {} }] }, writes, 1)).toEqual({
    won: false,
    revision: 7,
    answers: [{ entries: [], count: 0 }],
  });
});

test.each([
  ['no header', { succeeded: true, responses: done }],
  ['no revision', { header: {}, succeeded: true, responses: done }],
  ['no responses, as to a misspelt request', { header, succeeded: true }],
  ['one too few', { header, succeeded: true, responses: done.slice(1) }],
  ['one too many', { header, succeeded: true, responses: [...done, ...done] }],
  ['the wrong ones', { header, succeeded: true, responses: [...done].reverse() }],
  ['lost, without what was to be read', { header, responses: [] }],
  ['lost, with something else', { header, responses: [{ response_put: {} }] }],
  ['numbers for lists', { header, succeeded: true, responses: 2 }],
])('a commit answered with %s is not understood', (_, answer) => {
  expect(() => commitAnswer(answer, writes, 1)).toThrow(BrokenAnswerError);
});

test('a read that "loses", or has entries without revision, is not understood', () => {
  const range = (entry: object) => ({
    header,
    succeeded: true,
    responses: [{ response_range: { kvs: [entry], count: '1' } }],
  });
  expect(() => readAnswer({ header, responses: [{ response_range: {} }] }, 1)).toThrow(BrokenAnswerError);
  expect(() => readAnswer(range({ key: kv.key }), 1)).toThrow(BrokenAnswerError);
  expect(() => readAnswer(range({ ...kv, key: 7 }), 1)).toThrow(BrokenAnswerError);
  expect(readAnswer(range(kv), 1).answers[0]!.count).toBe(1);
});

test('numbers: strings of digits, safe ones, nothing for 0', () => {
  expect([integer(undefined), integer('0'), integer('9007199254740991'), integer(12)]).toEqual([
    0, 0, 9007199254740991, 12,
  ]);
  for (const bad of ['', '1e3', '0x10', '9007199254740993', '1.5', 1.5, null, {}, true]) {
    expect(() => integer(bad)).toThrow(BrokenAnswerError);
  }
});

test('whatever a server answers, it is understood or refused as broken, never anything else', () => {
  fc.assert(
    fc.property(fc.dictionary(fc.constantFrom('header', 'succeeded', 'responses', 'x'), fc.jsonValue()), answer => {
      for (const understand of [() => commitAnswer(answer, writes, 1), () => readAnswer(answer, 2)]) {
        try {
          understand();
        } catch (error) {
          expect(error).toBeInstanceOf(BrokenAnswerError);
        }
      }
    }),
  );
});

test('requests are JSON in the names and forms of etcd', () => {
  const range = { from: '/a', to: '/b' };
  expect(
    readRequest([{ key: '/k' }, { ...range, keysOnly: true }, { ...range, count: true }], { revision: 9 }),
  ).toEqual({
    success: [
      { request_range: { key: base64('/k'), revision: '9' } },
      { request_range: { key: base64('/a'), range_end: base64('/b'), revision: '9', keys_only: true } },
      { request_range: { key: base64('/a'), range_end: base64('/b'), revision: '9', count_only: true } },
    ],
  });
  const conditions = [{ absent: '/k' }, { unchanged: '/u', revision: 4 }];
  expect(
    commitRequest(conditions, [{ put: '/k', value: 'v', lease: '12' }, { delete: '/d' }], [{ key: '/k' }]),
  ).toEqual({
    compare: [
      { result: 0, target: 1, key: base64('/k'), create_revision: '0' },
      { result: 0, target: 2, key: base64('/u'), mod_revision: '4' },
    ],
    success: [
      { request_put: { key: base64('/k'), value: base64('v'), lease: '12' } },
      { request_delete_range: { key: base64('/d') } },
    ],
    failure: [{ request_range: { key: base64('/k') } }],
  });
});
