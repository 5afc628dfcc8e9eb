// The stream of a watch may be cut into pieces anywhere, also in the middle of a character.
import type { IncomingMessage } from 'node:http';
import { Readable } from 'node:stream';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { ApiTarget } from './config.ts';
import { follow } from './watch.ts';

const request = { verb: 'watch', path: '/api/v1/pods' };
const target: ApiTarget = {
  source: 'a test',
  server: 'https://127.0.0.1',
  host: '127.0.0.1',
  port: 443,
  basePath: '',
  tls: {},
  namespace: 'default',
  files: [],
};

async function eventsOf(pieces: readonly Buffer[]): Promise<unknown[]> {
  const response = Readable.from(pieces) as IncomingMessage;
  const events: unknown[] = [];
  for await (const event of follow(response, request, target, 5000, new AbortController().signal)) events.push(event);
  return events;
}

const text = fc.string({ unit: 'binary' });
const event = fc.record({
  type: fc.constantFrom('ADDED', 'MODIFIED', 'DELETED'),
  object: fc.record({
    metadata: fc.record({ name: text, uid: text, resourceVersion: text, labels: fc.dictionary(text, text) }),
  }),
});

test('all events come, whole and in order, however the bytes arrive', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(event, { maxLength: 10 }), fc.array(fc.nat(60)), async (sent, sizes) => {
      const bytes = Buffer.from(sent.map(one => `${JSON.stringify(one)}\n`).join(''));
      const pieces: Buffer[] = [];
      for (let from = 0, i = 0; from < bytes.length; i++) {
        const size = 1 + (sizes[i % sizes.length] ?? 7);
        pieces.push(bytes.subarray(from, from + size));
        from += size;
      }
      const expected = sent.map(one => ({ ...one, resourceVersion: one.object.metadata.resourceVersion }));
      expect(await eventsOf(pieces)).toEqual(JSON.parse(JSON.stringify(expected)));
    }),
    { numRuns: 200 },
  );
});

test('what follows the last end of line is no event', async () => {
  const line = '{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"7"}}}';
  expect(await eventsOf([Buffer.from(`${line}\n${line}`)])).toEqual([{ type: 'BOOKMARK', resourceVersion: '7' }]);
});
