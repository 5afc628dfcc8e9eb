// Which addresses may be given out next: pure arithmetic on a range set seen as a ring.
import type { Family, Ip } from '../net/ip.ts';
import { type Span, spanContains, spanOf, spanSize, subtractSpans, totalSize } from '../net/span.ts';
import type { RangeSet } from './range.ts';

/** The addresses of a set that may be given out at random, in the order of the ring. */
export interface Ring {
  readonly family: Family;
  readonly spans: readonly Span[];
  readonly size: bigint;
  /** The ranges as configured: a cursor may stand on an address that is not given out. */
  readonly ranges: RangeSet;
}

/**
 * The ring of a set: its ranges less gateways, excluded addresses and fixed spans. Those of every set of the network
 * count: two sets may share a subnet, and then the gateway of one may lie among the addresses of the other.
 */
export function ringOf(set: RangeSet, sets: readonly RangeSet[], exclude: readonly Span[]): Ring {
  const ranges = sets.flat();
  const holes = [...exclude, ...ranges.flatMap(({ gateway, fixed }) => [spanOf(gateway), ...(fixed ? [fixed] : [])])];
  const spans = set.flatMap(range => subtractSpans(range, holes));
  return Object.freeze({ family: set[0]!.family, spans, size: totalSize(spans), ranges: set });
}

/** Bounds of what one look at a set reads. */
export const windowSize = 256n;

/**
 * The next addresses behind the cursor, round the ring at most once, as spans: at most `windowSize` addresses in at
 * most `mostSpans` spans. A cursor outside the ranges counts as none.
 */
export function windowAfter(ring: Ring, cursor: Ip | undefined, mostSpans: number): Span[] {
  const taken: Span[] = [];
  let left = windowSize;
  for (const span of fromCursor(ring, cursor)) {
    if (left === 0n || taken.length === mostSpans) break;
    const size = spanSize(span) < left ? spanSize(span) : left;
    taken.push({ ...span, last: span.first + size - 1n });
    left -= size;
  }
  return taken;
}

/** The ring's spans, cut so that the first address is the one that follows the cursor. */
function fromCursor(ring: Ring, cursor: Ip | undefined): Span[] {
  const at = cursor === undefined ? -1 : ring.ranges.findIndex(range => spanContains(range, cursor));
  if (cursor === undefined || at < 0) return [...ring.spans];
  const before: Span[] = [];
  const after: Span[] = [];
  for (const span of ring.spans) {
    const place = ring.ranges.findIndex(range => range.first <= span.first && span.last <= range.last);
    if (place !== at) (place < at ? before : after).push(span);
    else {
      if (span.first <= cursor.value) {
        before.push(span.last <= cursor.value ? span : { ...span, last: cursor.value });
      }
      if (span.last > cursor.value) {
        after.push(span.first > cursor.value ? span : { ...span, first: cursor.value + 1n });
      }
    }
  }
  return [...after, ...before];
}

/** The addresses of the spans that nobody holds, in order. */
export function freeIn(spans: readonly Span[], taken: ReadonlySet<bigint>): Ip[] {
  const free: Ip[] = [];
  for (const { family, first, last } of spans) {
    for (let value = first; value <= last; value++) if (!taken.has(value)) free.push({ family, value });
  }
  return free;
}

/** Cuts spans into at most about `most` slices of nearly equal size; each lies within one span. */
export function slice(spans: readonly Span[], most: number): Span[] {
  const total = totalSize(spans);
  const size = total / BigInt(most) + (total % BigInt(most) === 0n ? 0n : 1n);
  return spans.flatMap(span => {
    const slices: Span[] = [];
    for (let first = span.first; first <= span.last; first += size) {
      const last = first + size - 1n;
      slices.push({ family: span.family, first, last: last < span.last ? last : span.last });
    }
    return slices;
  });
}
