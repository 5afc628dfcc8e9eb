// Rings and windows: round robin in the order listed, and never an address that must not be given.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { cidrOf } from '../net/cidr.ts';
import { formatIp, type Ip, parseIp } from '../net/ip.ts';
import { parseSpan, type Span, spanContains, spanSize } from '../net/span.ts';
import { freeIn, type Ring, ringOf, slice, windowAfter, windowSize } from './candidates.ts';
import type { Range, RangeSet } from './range.ts';

function range(text: string, gateway: string, fixed?: string): Range {
  const span = parseSpan(text)!;
  return {
    ...span,
    subnet: cidrOf({ family: span.family, value: span.first }, span.family === 4 ? 8 : 32),
    gateway: parseIp(gateway)!,
    ...(fixed && { fixed: parseSpan(fixed)! }),
  };
}

const ring = (set: RangeSet, exclude: readonly Span[] = []) => ringOf(set, [set], exclude);
const texts = (spans: readonly Span[]) => freeIn(spans, new Set()).map(formatIp);
const behind = (of: Ring, cursor: string | undefined, most = 16) =>
  texts(windowAfter(of, cursor === undefined ? undefined : parseIp(cursor), most));

describe('a ring', () => {
  const two = [range('10.0.1.2-10.0.1.4', '10.0.1.1'), range('10.0.0.2-10.0.0.4', '10.0.0.1')];

  it('begins at the first range listed, whatever the numbers', () => {
    expect(behind(ring(two), undefined)).toEqual([
      '10.0.1.2',
      '10.0.1.3',
      '10.0.1.4',
      '10.0.0.2',
      '10.0.0.3',
      '10.0.0.4',
    ]);
  });

  it('goes on behind the cursor, over the end of a range, and round', () => {
    expect(behind(ring(two), '10.0.1.3')).toEqual([
      '10.0.1.4',
      '10.0.0.2',
      '10.0.0.3',
      '10.0.0.4',
      '10.0.1.2',
      '10.0.1.3',
    ]);
    expect(behind(ring(two), '10.0.1.4')[0]).toBe('10.0.0.2');
    expect(behind(ring(two), '10.0.0.4')[0]).toBe('10.0.1.2');
  });

  it('a cursor that stands on a gateway, an excluded or a fixed address keeps its place', () => {
    const set = [range('10.0.0.0-10.0.0.9', '10.0.0.5', '10.0.0.7-10.0.0.8')];
    const one = ring(set, [parseSpan('10.0.0.3')!]);
    expect(behind(one, undefined)).toEqual(['0', '1', '2', '4', '6', '9'].map(last => `10.0.0.${last}`));
    expect(behind(one, '10.0.0.5')[0]).toBe('10.0.0.6');
    expect(behind(one, '10.0.0.3')[0]).toBe('10.0.0.4');
    expect(behind(one, '10.0.0.7')[0]).toBe('10.0.0.9');
    expect(behind(one, '10.0.0.9')[0]).toBe('10.0.0.0');
  });

  it.each(['10.9.9.9', 'fd00::1'])('a cursor outside (%s) counts as none', cursor => {
    expect(behind(ring(two), cursor)[0]).toBe('10.0.1.2');
  });

  it('I5 neither the gateway nor a fixed span of another set of the network is among its addresses', () => {
    const first = [range('10.0.0.2-10.0.0.9', '10.0.0.200', '10.0.0.210-10.0.0.219')];
    const second = [range('10.0.0.190-10.0.0.230', '10.0.0.1')];
    const given = texts(ringOf(second, [first, second], []).spans);
    expect(given).not.toContain('10.0.0.200');
    expect(given).not.toContain('10.0.0.215');
    expect(given).toHaveLength(41 - 1 - 10);
  });

  it('of nothing but a gateway is empty', () => {
    expect(ring([range('10.0.0.1', '10.0.0.1')])).toMatchObject({ size: 0n, spans: [] });
    expect(behind(ring([range('10.0.0.1', '10.0.0.1')]), '10.0.0.1')).toEqual([]);
  });

  it('of a /64 costs no more than a small one', () => {
    const huge = ring([range('fd00::1-fd00::ffff:ffff:ffff:ffff', 'fd00::1')]);
    expect(huge.size).toBe(2n ** 64n - 2n);
    const window = behind(huge, 'fd00::fff0');
    expect(window).toHaveLength(256);
    expect(window[0]).toBe('fd00::fff1');
  });
});

describe('for any set, cursor and holes', () => {
  const base = 0x0a000000;
  const ranges = fc
    .uniqueArray(fc.nat(400), { minLength: 2, maxLength: 8 })
    .map(cuts => cuts.sort((a, b) => a - b))
    .chain(cuts => {
      const spans = cuts.slice(1).flatMap((cut, i) => (i % 2 === 0 ? [[cuts[i]!, cut] as const] : []));
      return fc.tuple(fc.shuffledSubarray([...spans], { minLength: 1 }), fc.infiniteStream(fc.nat(400)));
    })
    .map(
      ([spans, numbers]): RangeSet =>
        spans.map(([a, b]) => {
          const fixed = [base + numbers.next().value!, base + numbers.next().value!].sort((x, y) => x - y);
          return {
            family: 4,
            first: BigInt(base + a),
            last: BigInt(base + b),
            subnet: cidrOf({ family: 4, value: BigInt(base) }, 16),
            gateway: { family: 4, value: BigInt(base + numbers.next().value!) },
            ...(numbers.next().value! % 3 === 0 && {
              fixed: { family: 4, first: BigInt(fixed[0]!), last: BigInt(fixed[1]!) } as const,
            }),
          };
        }),
    );
  const holes = fc.array(
    fc.tuple(fc.nat(400), fc.nat(20)).map(
      ([first, length]): Span => ({
        family: 4,
        first: BigInt(base + first),
        last: BigInt(base + first + length),
      }),
    ),
    { maxLength: 5 },
  );
  const forbidden = (set: RangeSet, exclude: readonly Span[], ip: Ip) =>
    exclude.some(span => spanContains(span, ip)) ||
    set.some(({ gateway, fixed }) => gateway.value === ip.value || (fixed && spanContains(fixed, ip)));

  it('a window holds at most 256 addresses, each once, none forbidden, all inside', () => {
    fc.assert(
      fc.property(ranges, holes, fc.nat(420), fc.integer({ min: 1, max: 16 }), (set, exclude, at, most) => {
        const spans = windowAfter(ring(set, exclude), { family: 4, value: BigInt(base + at) }, most);
        const given = freeIn(spans, new Set());
        expect(spans.length).toBeLessThanOrEqual(most);
        expect(BigInt(given.length)).toBeLessThanOrEqual(windowSize);
        expect(new Set(given.map(ip => ip.value)).size).toBe(given.length);
        for (const ip of given) {
          expect(forbidden(set, exclude, ip)).toBe(false);
          expect(set.some(one => spanContains(one, ip))).toBe(true);
        }
      }),
      { numRuns: 500 },
    );
  });

  it('going on from the last address given reaches the whole ring, each address once, in one lap', () => {
    fc.assert(
      fc.property(ranges, holes, (set, exclude) => {
        const one = ring(set, exclude);
        const lap: bigint[] = [];
        let cursor: Ip | undefined;
        while (BigInt(lap.length) < one.size) {
          cursor = freeIn(windowAfter(one, cursor, 1), new Set())[0]!;
          lap.push(cursor.value);
        }
        const all = set.flatMap(({ first, last }) =>
          Array.from({ length: Number(last - first + 1n) }, (_, i) => first + BigInt(i)),
        );
        expect(lap).toEqual(all.filter(value => !forbidden(set, exclude, { family: 4, value })));
      }),
      { numRuns: 200 },
    );
  });

  it('slices cover the ring without overlap, none larger than its share', () => {
    fc.assert(
      fc.property(ranges, holes, fc.integer({ min: 1, max: 64 }), (set, exclude, most) => {
        const one = ring(set, exclude);
        const slices = slice(one.spans, most);
        expect(slices.flatMap(span => texts([span]))).toEqual(texts(one.spans));
        expect(slices.length).toBeLessThanOrEqual(most + one.spans.length);
        for (const span of slices) expect(spanSize(span)).toBeLessThanOrEqual(one.size / BigInt(most) + 1n);
      }),
    );
  });
});
