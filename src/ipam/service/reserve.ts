// Keeps addresses from being given out because a person says so, and ends that again.
import { formatIp, type Ip } from '../../net/ip.ts';
import { type Span, spanSize } from '../../net/span.ts';
import type { Condition, Entry, Write } from '../../store/kv.ts';
import { type OwnerRecord, parseOwner } from '../model.ts';
import { ipOfKey } from './look.ts';
import { batchSize, type PatientSurroundings, prepareStore, type Step, untilDone } from './patience.ts';
import { asRead } from './writes.ts';

/** Beyond so many addresses a reservation is a matter of the configuration: its key `exclude` costs no record each. */
export const mostReserved = 4096n;

export interface HeldAddress {
  readonly ip: Ip;
  readonly owner: OwnerRecord;
}

export interface Reservation {
  readonly reserved: readonly Ip[];
  /** Reserved before; left as they are, with their reason. */
  readonly before: readonly HeldAddress[];
  /** Held by somebody, and not reserved. */
  readonly held: readonly HeldAddress[];
}

/** What was done with a reservation that ends. */
export interface Unreservation {
  readonly freed: readonly Ip[];
  /** Held by somebody, and left alone. */
  readonly held: readonly HeldAddress[];
}

/** Reserves every address of the span that nobody holds; `value` is the record to write. May be repeated at any point. */
export async function reserve(
  around: PatientSurroundings,
  span: Span,
  value: string,
  step: Step,
): Promise<Reservation> {
  await prepareStore(around);
  const reserved: Ip[] = [];
  const taken: HeldAddress[] = [];
  for (const batch of batches(span)) {
    const free = await untilDone(around, repeated => reserveBatch(around, batch, value, repeated));
    reserved.push(...free.reserved);
    taken.push(...free.taken);
    step(reserved.length + taken.length);
  }
  const isReserved = ({ owner }: HeldAddress) => owner.kind === 'reserved';
  if (reserved.length > 0) around.log.info('reserved', { address: reserved.map(formatIp) });
  return { reserved, before: taken.filter(isReserved), held: taken.filter(one => !isReserved(one)) };
}

async function reserveBatch(around: PatientSurroundings, batch: Span, value: string, repeated: boolean) {
  const { kv, keys, deadline } = around;
  const found = (await kv.read([keys.addressSpan(batch)], deadline)).answers[0]!.entries;
  const taken = new Map(found.map(entry => [ipOfKey(entry.key)?.value, entry]));
  const all = addressesOf(batch);
  const free = all.filter(({ value: number }) => !taken.has(number));
  const conditions: Condition[] = free.map(ip => ({ absent: keys.address(ip) }));
  const writes: Write[] = free.map(ip => ({ put: keys.address(ip), value }));
  if (writes.length > 0 && !(await kv.commit({ conditions, writes }, deadline)).won) return undefined;
  const before = all.flatMap(ip => {
    const entry = taken.get(ip.value);
    return entry === undefined ? [] : [{ ip, entry }];
  });
  // What an earlier try of unknown fate wrote is there now, in our own words.
  const isOurs = ({ entry }: { entry: Entry }) => repeated && entry.value === value;
  const others = before.filter(one => !isOurs(one));
  return {
    reserved: [...free, ...before.filter(isOurs).map(({ ip }) => ip)],
    taken: others.map(({ ip, entry }): HeldAddress => ({ ip, owner: parseOwner(entry.value) })),
  };
}

/** Ends every reservation in the span, and touches nothing else. May be repeated at any point. */
export async function unreserve(around: PatientSurroundings, span: Span, step: Step): Promise<Unreservation> {
  await prepareStore(around);
  const freed = new Map<bigint, Ip>();
  const held: HeldAddress[] = [];
  for (const batch of batches(span)) {
    const others = await untilDone(around, () => unreserveBatch(around, batch, freed));
    held.push(...others);
    step(Number(batch.last - span.first) + 1);
  }
  if (freed.size > 0) around.log.info('unreserved', { address: [...freed.values()].map(formatIp) });
  return { freed: [...freed.values()], held };
}

async function unreserveBatch(around: PatientSurroundings, batch: Span, freed: Map<bigint, Ip>) {
  const { kv, keys, deadline } = around;
  const found = (await kv.read([keys.addressSpan(batch)], deadline)).answers[0]!.entries;
  const records = found.flatMap(entry => {
    const ip = ipOfKey(entry.key);
    return ip === undefined ? [] : [{ ip, entry, owner: parseOwner(entry.value) }];
  });
  const ours = records.filter(({ owner }) => owner.kind === 'reserved');
  for (const { ip } of ours) freed.set(ip.value, ip);
  const conditions = ours.map(({ entry }) => asRead(entry.key, entry));
  const writes = ours.map(({ entry }) => ({ delete: entry.key }));
  if (writes.length > 0 && !(await kv.commit({ conditions, writes }, deadline)).won) {
    for (const { ip } of ours) freed.delete(ip.value);
    return undefined;
  }
  return records.filter(record => !ours.includes(record)).map(({ ip, owner }): HeldAddress => ({ ip, owner }));
}

function batches(span: Span): Span[] {
  const size = BigInt(batchSize);
  const list: Span[] = [];
  for (let first = span.first; first <= span.last; first += size) {
    const last = first + size - 1n;
    list.push({ ...span, first, last: last < span.last ? last : span.last });
  }
  return list;
}

function addressesOf(span: Span): Ip[] {
  const { family, first } = span;
  return Array.from({ length: Number(spanSize(span)) }, (_, i) => ({ family, value: first + BigInt(i) }));
}
