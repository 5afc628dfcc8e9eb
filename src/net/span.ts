// Unbroken runs of addresses of one family, and the arithmetic on lists of them.
import { cidrOf, lastOf, parseIpWithPrefix } from './cidr.ts';
import { type Family, formatIp, type Ip, parseIp } from './ip.ts';

/** All addresses from `first` to `last`, both included. */
export interface Span {
  readonly family: Family;
  readonly first: bigint;
  readonly last: bigint;
}

export function spanOf(ip: Ip): Span {
  return { family: ip.family, first: ip.value, last: ip.value };
}

/** Reads an address, a CIDR or `first-last`. Undefined for anything else, host bits in a CIDR included. */
export function parseSpan(text: string): Span | undefined {
  const dash = text.indexOf('-');
  if (dash >= 0) {
    const first = parseIp(text.slice(0, dash).trim());
    const last = parseIp(text.slice(dash + 1).trim());
    if (first === undefined || last === undefined || first.family !== last.family) return undefined;
    return first.value <= last.value ? { family: first.family, first: first.value, last: last.value } : undefined;
  }
  if (!text.includes('/')) {
    const ip = parseIp(text);
    return ip && spanOf(ip);
  }
  const parsed = parseIpWithPrefix(text);
  if (parsed === undefined) return undefined;
  const cidr = cidrOf(parsed.ip, parsed.prefix);
  if (cidr.base !== parsed.ip.value) return undefined;
  return { family: cidr.family, first: cidr.base, last: lastOf(cidr) };
}

export function formatSpan(span: Span): string {
  const first = formatIp({ family: span.family, value: span.first });
  return span.first === span.last ? first : `${first}-${formatIp({ family: span.family, value: span.last })}`;
}

export function spanSize(span: Span): bigint {
  return span.last - span.first + 1n;
}

export function spanContains(span: Span, ip: Ip): boolean {
  return ip.family === span.family && ip.value >= span.first && ip.value <= span.last;
}

export function spansOverlap(a: Span, b: Span): boolean {
  return a.family === b.family && a.first <= b.last && b.first <= a.last;
}

/** What is left of `span` without any address of `holes`, in ascending order. */
export function subtractSpans(span: Span, holes: readonly Span[]): Span[] {
  const relevant = holes.filter(hole => spansOverlap(span, hole)).sort((a, b) => (a.first < b.first ? -1 : 1));
  const left: Span[] = [];
  let next = span.first;
  for (const hole of relevant) {
    if (hole.first > next) left.push({ family: span.family, first: next, last: hole.first - 1n });
    if (hole.last >= next) next = hole.last + 1n;
  }
  if (next <= span.last) left.push({ family: span.family, first: next, last: span.last });
  return left;
}

/** The number of addresses in all the spans together. */
export function totalSize(spans: readonly Span[]): bigint {
  return spans.reduce((sum, span) => sum + spanSize(span), 0n);
}
