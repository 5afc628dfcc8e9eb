// Lines and messages: cut at any byte, too long, of another version, or from somebody who speaks something else.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Lines, line, longestLine, parseFromAgent, parseRequest, type Request } from './protocol.ts';

const request: Request = {
  v: 1,
  env: { CNI_COMMAND: 'ADD' },
  conf: '{}',
  started: 900,
  deadline: 1000.5,
  node: 'n1',
  files: [],
};

describe('Lines', () => {
  it('gives the same lines however the bytes are cut', () => {
    const texts = fc.array(fc.string({ unit: 'grapheme' }).map(text => text.replaceAll('\n', ' ')));
    fc.assert(
      fc.property(texts, fc.array(fc.nat(20)), (wanted, sizes) => {
        const bytes = Buffer.from(wanted.map(text => `${text}\n`).join(''));
        const lines = new Lines();
        const found: string[] = [];
        for (let at = 0, i = 0; at < bytes.length; i++) {
          const size = (sizes[i % (sizes.length || 1)] ?? 3) + 1;
          found.push(...lines.add(bytes.subarray(at, at + size))!);
          at += size;
        }
        expect(found).toEqual(wanted);
      }),
    );
  });

  it('refuses a line that is too long, whether or not its end has come', () => {
    const half = Buffer.alloc(longestLine / 2 + 1, 'x');
    const open = new Lines();
    expect(open.add(half)).toEqual([]);
    expect(open.add(half)).toBeUndefined();
    const ended = new Lines();
    expect(ended.add(half)).toEqual([]);
    expect(ended.add(Buffer.concat([half, Buffer.from('\n')]))).toBeUndefined();
  });
});

describe('messages', () => {
  it('a request survives its line', () => {
    const files = [{ path: '/var/lib/cni/kube-ipam', dev: 1, ino: 2 }];
    expect(parseRequest(line({ ...request, files }))).toEqual({ ...request, files });
  });

  it.each([
    ['{"v":2}', 'the request has version 2, this agent speaks 1'],
    ['{}', 'the request has version undefined, this agent speaks 1'],
    ['GET / HTTP/1.1', 'the request is not a JSON object'],
    ['[]', 'the request is not a JSON object'],
    ['{"v":1}', 'the request is incomplete'],
    [line({ ...request, env: { CNI_COMMAND: 7 } } as unknown as Request), 'the request is incomplete'],
    [line({ ...request, files: [{ path: '/' }] } as unknown as Request), 'the request is incomplete'],
  ])('%s: %s', (text, why) => {
    expect(parseRequest(text)).toBe(why);
  });

  it.each([
    '',
    '{"type":"go"}',
    '{"type":"answer"}',
    '{"type":"answer","exitCode":2,"stdout":""}',
    '{"type":"answer","exitCode":0}',
  ])('no agent says %s', text => {
    expect(parseFromAgent(text)).toBeUndefined();
  });

  it('an answer is taken without a log that is none', () => {
    const answer = { type: 'answer', exitCode: 1, stdout: 'x' };
    expect(parseFromAgent(JSON.stringify({ ...answer, log: { file: 5 } }))).toEqual(answer);
    const log = { file: '/var/log/a', maxSize: 1, text: '{}\n' };
    expect(parseFromAgent(JSON.stringify({ ...answer, log }))).toEqual({ ...answer, log });
  });
});
