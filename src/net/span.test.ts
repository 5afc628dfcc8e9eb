// Spans: reading them, and subtraction against a plain set of numbers.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseIp } from './ip.ts';
import {
  formatSpan,
  parseSpan,
  type Span,
  spanContains,
  spanSize,
  spansOverlap,
  subtractSpans,
  totalSize,
} from './span.ts';

const small = fc
  .tuple(fc.nat(60), fc.nat(60))
  .map(([a, b]): Span => ({ family: 4, first: BigInt(Math.min(a, b)), last: BigInt(Math.max(a, b)) }));

function members(span: Span): bigint[] {
  return Array.from({ length: Number(spanSize(span)) }, (_, i) => span.first + BigInt(i));
}

describe('subtractSpans', () => {
  it('leaves exactly what no hole covers, ascending, without overlap and without empty spans', () => {
    fc.assert(
      fc.property(small, fc.array(small, { maxLength: 6 }), (span, holes) => {
        const left = subtractSpans(span, holes);
        const wanted = members(span).filter(value => !holes.some(hole => spanContains(hole, { family: 4, value })));
        expect(left.flatMap(members)).toEqual(wanted);
        expect(totalSize(left)).toBe(BigInt(wanted.length));
        expect(left.every(({ first, last }) => first <= last)).toBe(true);
      }),
      { numRuns: 1000 },
    );
  });

  it('is deaf to holes of the other family', () => {
    const span = parseSpan('10.0.0.1-10.0.0.9')!;
    expect(subtractSpans(span, [{ family: 6, first: 0n, last: 2n ** 128n - 1n }])).toEqual([span]);
  });
});

describe('parseSpan', () => {
  it.each([
    ['10.1.0.5', '10.1.0.5'],
    ['10.1.0.0/30', '10.1.0.0-10.1.0.3'],
    ['10.1.0.5-10.1.0.9', '10.1.0.5-10.1.0.9'],
    ['10.1.0.5 - 10.1.0.9', '10.1.0.5-10.1.0.9'],
    ['10.1.0.5-10.1.0.5', '10.1.0.5'],
    ['fd00::/127', 'fd00::-fd00::1'],
  ])('%s is %s', (text, formatted) => expect(formatSpan(parseSpan(text)!)).toBe(formatted));

  it.each([
    '',
    '-',
    '10.1.0.5-',
    '10.1.0.9-10.1.0.5',
    '10.1.0.1-fd00::1',
    '10.1.0.5/24',
    '10.1.0.0/33',
    'a-b',
    '1-2-3',
  ])('refuses %j', text => expect(parseSpan(text)).toBeUndefined());
});

it('two spans overlap if and only if they share an address', () => {
  fc.assert(
    fc.property(small, small, (a, b) => {
      const shared = members(a).some(value => spanContains(b, { family: 4, value }));
      expect(spansOverlap(a, b)).toBe(shared);
    }),
  );
  expect(spanContains(parseSpan('10.0.0.0/8')!, { ...parseIp('10.1.1.1')!, family: 6 })).toBe(false);
});
