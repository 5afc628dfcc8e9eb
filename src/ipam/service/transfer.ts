// Carries all records of a store to another one: at one revision out, and in without ever replacing an owner.
import { formatIp, sameIp } from '../../net/ip.ts';
import { parseKey, root } from '../../store/keys.ts';
import { afterPrefix, type Condition, type Entry, type Write } from '../../store/kv.ts';
import { describeOwner, describeWorkload } from '../describe.ts';
import {
  isPlainAttachment,
  namesAttachment,
  type OwnerRecord,
  parseAttachment,
  parseOwner,
  sameWorkload,
} from '../model.ts';
import { type Carried, lineOf, saysTheSame } from '../transfer.ts';
import { ipOfKey } from './look.ts';
import { batchSize, type PatientSurroundings, prepareStore, type Step, untilDone } from './patience.ts';
import { asRead } from './writes.ts';

/** The lines of every record, page by page, with the revision at which all of them were read. Without a space: of all. */
export async function* exportLines(
  around: PatientSurroundings,
  wholeStore: boolean,
): AsyncIterable<{ revision: number; lines: readonly string[] }> {
  const { kv, keys, deadline } = around;
  const prefix = wholeStore ? root : keys.prefix;
  deadline.renew();
  // A store without a record has a revision too.
  yield { revision: (await kv.read([{ from: prefix, to: `${prefix}!`, count: true }], deadline)).revision, lines: [] };
  deadline.renew();
  for await (const { revision, entries } of kv.scan(prefix, afterPrefix(prefix), deadline)) {
    const own = entries.filter(({ key }) => !['format', 'cluster'].includes(parseKey(key)?.type ?? ''));
    yield { revision, lines: own.flatMap(entry => lineOf(entry) ?? []) };
    deadline.renew();
  }
}

export interface Conflict {
  readonly key: string;
  /** For people: what it is about, and who is there. */
  readonly text: string;
}

export interface ImportResult {
  /** Records written, or that would be. */
  readonly written: number;
  /** There already, with the same owner. */
  readonly same: number;
  /** Hints and descriptions of the target that were kept although they differ: cursors, recorded ranges. */
  readonly kept: number;
  /** Holds whose time is over. */
  readonly expired: number;
  readonly conflicts: readonly Conflict[];
}

/** Records that arrive together or not at all: an attachment with its addresses, and the workload that keeps them. */
interface Unit {
  readonly records: readonly Carried[];
  /** Why they do not arrive, whatever the store holds: the file contradicts itself. */
  readonly contradiction?: Conflict;
}

/** Puts records into the store. What has another owner there stays, and is reported. May be repeated at any point. */
export async function importRecords(
  around: PatientSurroundings,
  records: readonly Carried[],
  options: { readonly dryRun: boolean },
  step: Step,
): Promise<ImportResult> {
  if (!options.dryRun) await prepareStore(around);
  const sum = { written: 0, same: 0, kept: 0, expired: 0, conflicts: [] as Conflict[] };
  let done = 0;
  for (const batch of batchesOf(unitsOf(records))) {
    const result = await untilDone(around, () => importBatch(around, batch, options.dryRun));
    sum.written += result.written;
    sum.same += result.same;
    sum.kept += result.kept;
    sum.expired += result.expired;
    sum.conflicts.push(...result.conflicts);
    done += recordsOf(batch).length;
    step(done);
  }
  if (!options.dryRun && sum.written > 0) around.log.info('imported', { records: sum.written });
  return sum;
}

function unitsOf(records: readonly Carried[]): Unit[] {
  const addresses = new Map<string, Carried>();
  for (const record of records) {
    const parsed = parseKey(record.key);
    if (parsed?.type === 'address') addresses.set(`${parsed.space} ${formatIp(parsed.ip)}`, record);
  }
  const unitOf = new Map<Carried, Carried[]>(records.map(record => [record, [record]]));
  const contradictions = new Map<Carried, Conflict>();
  for (const record of records) {
    const lister = listerOf(record);
    for (const ip of parseAttachment(lister === undefined ? '' : record.value)) {
      const address = addresses.get(`${lister!.space} ${formatIp(ip)}`);
      if (address === undefined) continue;
      if (lister!.mayList(parseOwner(address.value))) join(unitOf, record, address);
      else contradictions.set(record, contradictionOf(record, lister!.name, address));
    }
  }
  return [...new Set(unitOf.values())].map(members => {
    const contradiction = members.map(member => contradictions.get(member)).find(one => one !== undefined);
    return { records: members, ...(contradiction && { contradiction }) };
  });
}

/** Makes the units of two records one. */
function join(unitOf: Map<Carried, Carried[]>, one: Carried, other: Carried): void {
  const [unit, joined] = [unitOf.get(one)!, unitOf.get(other)!];
  if (unit === joined) return;
  unit.push(...joined);
  for (const record of joined) unitOf.set(record, unit);
}

/** A record that lists addresses. */
interface Lister {
  readonly space: string;
  /** For people. */
  readonly name: string;
  mayList(owner: OwnerRecord): boolean;
}

/** Undefined for a record of another kind. */
function listerOf({ key, value }: Carried): Lister | undefined {
  const parsed = parseKey(key);
  if (parsed?.type === 'attachment') {
    const { id, space } = parsed;
    // A DEL presumes that the records of one commit belong to the attachment of that commit, unless it says more.
    const mayList = (owner: OwnerRecord) => !isPlainAttachment(value) || namesAttachment(owner, id);
    return { space, name: `container ${id.containerID} ${id.ifname}`, mayList };
  }
  if (parsed?.type !== 'workload') return undefined;
  const { space, workload } = parsed;
  return { space, name: describeWorkload(workload), mayList: owner => sameWorkload(owner.workload, workload) };
}

function contradictionOf({ key, line }: Carried, name: string, foreign: Carried): Conflict {
  const owner = describeOwner(parseOwner(foreign.value));
  const text = `${name} (line ${line}) lists ${formatIp(ipOfKey(foreign.key)!)}, which belongs to ${owner} (line ${foreign.line}): it is left out`;
  return { key, text };
}

function recordsOf(units: readonly Unit[]): Carried[] {
  return units.flatMap(({ records }) => records);
}

function batchesOf(units: readonly Unit[]): Unit[][] {
  const batches: Unit[][] = [[]];
  let size = 0;
  for (const unit of units) {
    const { length } = unit.records;
    if (size > 0 && size + length > batchSize) {
      batches.push([]);
      size = 0;
    }
    batches.at(-1)!.push(unit);
    size += length;
  }
  return batches;
}

/** What a batch comes to; undefined when its commit lost. */
async function importBatch(around: PatientSurroundings, batch: readonly Unit[], dryRun: boolean) {
  const { kv, deadline } = around;
  const all = recordsOf(batch);
  const { answers } = await kv.read(
    all.map(({ key }) => ({ key })),
    deadline,
  );
  const there = new Map(all.map(({ key }, i) => [key, answers[i]!.entries[0]]));
  const result = { written: 0, same: 0, kept: 0, expired: 0, conflicts: [] as Conflict[] };
  const conditions: Condition[] = [];
  const writes: Write[] = [];
  for (const unit of batch) {
    const plan = planUnit(unit, there, around.now());
    result.same += plan.same;
    result.kept += plan.kept;
    result.expired += plan.expired;
    result.conflicts.push(...plan.conflicts);
    // What completes a unit counts on the rest of it: a DEL in between must not leave half of an attachment.
    if (plan.writes.length > 0) conditions.push(...plan.there.map(entry => asRead(entry.key, entry)));
    for (const write of plan.writes) {
      conditions.push({ absent: write.put });
      writes.push(write);
    }
  }
  result.written = writes.length;
  if (dryRun || writes.length === 0) return result;
  deadline.renew();
  return (await kv.commit({ conditions, writes }, deadline)).won ? result : undefined;
}

type Put = Extract<Write, { put: string }>;

function planUnit(unit: Unit, there: ReadonlyMap<string, Entry | undefined>, now: number) {
  const nothing = { same: 0, kept: 0, expired: 0, conflicts: [] as Conflict[] };
  const plan = { ...nothing, there: [] as Entry[], writes: [] as Put[] };
  if (unit.contradiction !== undefined) return { ...plan, conflicts: [unit.contradiction] };
  for (const record of unit.records) {
    const current = there.get(record.key);
    if (current !== undefined) {
      plan.there.push(current);
      const type = parseKey(record.key)?.type;
      if (saysTheSame(record, current.value)) plan.same++;
      else if (type === 'cursor' || type === 'network') plan.kept++;
      else plan.conflicts.push(conflictOf(record, current));
      continue;
    }
    const ttl = secondsLeft(record, now);
    if (ttl !== undefined && ttl <= 0) plan.expired++;
    else plan.writes.push({ put: record.key, value: record.value, ...(ttl !== undefined && { ttl }) });
  }
  plan.conflicts.push(...strangersAmong(plan.writes, plan.there));
  // Half an attachment would be a contradiction: with one conflict none of it comes.
  return plan.conflicts.length === 0 ? plan : { ...plan, writes: [] };
}

/** Attachments that would list an address which a workload has given to another pod since. */
function strangersAmong(writes: readonly Put[], there: readonly Entry[]): Conflict[] {
  return writes.flatMap(({ put, value }) => {
    const parsed = parseKey(put);
    if (parsed?.type !== 'attachment') return [];
    const listed = parseAttachment(value);
    const other = there.find(entry => {
      const [ip, owner] = [ipOfKey(entry.key), parseOwner(entry.value)];
      const isListed = ip !== undefined && listed.some(one => sameIp(one, ip));
      return isListed && owner.kind === 'sticky' && !namesAttachment(owner, parsed.id);
    });
    if (other === undefined) return [];
    const { containerID, ifname } = parsed.id;
    const owner = describeOwner(parseOwner(other.value));
    const text = `container ${containerID} ${ifname} does not come: ${formatIp(ipOfKey(other.key)!)} belongs to ${owner}`;
    return [{ key: put, text }];
  });
}

/** A hold goes on to its end; other records have none. */
function secondsLeft({ key, value }: Carried, now: number): number | undefined {
  if (parseKey(key)?.type !== 'address') return undefined;
  const { kind, until } = parseOwner(value);
  if (kind !== 'held') return undefined;
  const end = Date.parse(until ?? '');
  return Number.isNaN(end) ? 0 : Math.ceil((end - now) / 1000);
}

function conflictOf({ key, value, line }: Carried, { value: current }: Entry): Conflict {
  const ip = ipOfKey(key);
  if (ip === undefined) return { key, text: `${key} (line ${line}) is there with another content` };
  const [coming, owner] = [describeOwner(parseOwner(value)), describeOwner(parseOwner(current))];
  return { key, text: `${formatIp(ip)} belongs to ${owner}; not replaced by ${coming} (line ${line})` };
}
