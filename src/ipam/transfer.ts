// The lines that carry a store's records to another store: what is written, and how a record is judged on arrival. Pure.
import { code, FailureError } from '../base/errors.ts';
import { isObject } from '../base/section.ts';
import { parseKey, root } from '../store/keys.ts';
import type { Entry } from '../store/kv.ts';
import { parseAttachment, parseOwner } from './model.ts';

export const transferFormat = 'kube-ipam-export';
export const transferVersion = 1;

/** The first line. */
export interface TransferHeader {
  readonly format: typeof transferFormat;
  readonly version: number;
  /** Version of the program that wrote it; for people. */
  readonly program: string;
  readonly store: 'embedded' | 'etcd';
  /** Revision of the store at which every record was read. */
  readonly revision: number;
  readonly space: string | undefined;
  /** Name of the node that wrote it, as a store shared by nodes knows it. */
  readonly node: string;
  readonly time: string;
}

/** A record on its way. */
export interface Carried {
  readonly key: string;
  readonly value: string;
  /** Line of the file, from 1. */
  readonly line: number;
}

/** The line of an entry; undefined for what has no meaning elsewhere: a fence guards one store's late commits. */
export function lineOf({ key, value }: Pick<Entry, 'key' | 'value'>): string | undefined {
  return parseKey(key)?.type === 'fence' ? undefined : `${JSON.stringify({ key, value: readable(value) })}\n`;
}

/** JSON objects stand as such in the file, so that people and tools can read them. */
function readable(value: string): unknown {
  try {
    const parsed: unknown = JSON.parse(value);
    if (isObject(parsed) && JSON.stringify(parsed) === value) return parsed;
  } catch {
    // Plain text, as a cursor's.
  }
  return value;
}

/** Reads a whole file. Throws a FailureError (6) that names the line. */
export function parseTransfer(bytes: Buffer): { header: TransferHeader; records: Carried[] } {
  let header: TransferHeader | undefined;
  const records: Carried[] = [];
  let line = 0;
  for (let start = 0; start < bytes.length; ) {
    const newline = bytes.indexOf(10, start);
    const end = newline < 0 ? bytes.length : newline;
    const text = bytes.toString('utf8', start, end).trim();
    start = end + 1;
    line++;
    if (text === '') continue;
    const value = parseLine(text, line);
    if (header === undefined) header = readHeader(value);
    else records.push(readRecord(value, line));
  }
  if (header === undefined) throw new FailureError(code.decode, 'there is nothing to import: the input is empty');
  return { header, records };
}

function parseLine(text: string, line: number): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(text);
    if (isObject(value)) return value;
  } catch {
    // Told below, as for any other value.
  }
  throw new FailureError(code.decode, `line ${line} is no JSON object: the file is cut short or is not an export`);
}

function readHeader(value: Readonly<Record<string, unknown>>): TransferHeader {
  const { format, version, program, store, revision, space, node, time } = value;
  if (format !== transferFormat) {
    throw new FailureError(code.decode, 'line 1 is not the head of an export: "kube-ipam export" writes one');
  }
  if (version !== transferVersion) {
    throw new FailureError(
      code.newerFormat,
      `the export has version ${JSON.stringify(version)} and this kube-ipam knows ${transferVersion}: import it with a newer release`,
    );
  }
  return {
    format: transferFormat,
    version: transferVersion,
    program: String(program ?? ''),
    store: store === 'embedded' ? 'embedded' : 'etcd',
    revision: typeof revision === 'number' ? revision : 0,
    space: typeof space === 'string' ? space : undefined,
    node: typeof node === 'string' ? node : '',
    time: String(time ?? ''),
  };
}

function readRecord({ key, value }: Readonly<Record<string, unknown>>, line: number): Carried {
  const isCarried = typeof key === 'string' && /^[^/]+\/[^/]+\/./.test(key.slice(root.length)) && key.startsWith(root);
  const isSpace = isCarried && parseKey(key)?.type !== 'cluster';
  if (!isSpace)
    throw new FailureError(code.decode, `line ${line}: ${JSON.stringify(key)} is no key of an address space`);
  if (typeof value !== 'string' && !isObject(value)) {
    throw new FailureError(code.decode, `line ${line}: the value of ${key} is neither text nor an object`);
  }
  return { key, value: typeof value === 'string' ? value : JSON.stringify(value), line };
}

/** What changes on the way: another name for a node, another space. */
export interface Renaming {
  readonly nodes: ReadonlyMap<string, string>;
  readonly space?: string;
}

export function renamed(record: Carried, renaming: Renaming): Carried {
  const [space = '', section = '', ...rest] = record.key.slice(root.length).split('/');
  const node = section === 'attachments' || section === 'fences' ? renaming.nodes.get(rest[0] ?? '') : undefined;
  if (node !== undefined) rest[0] = node;
  const key = `${root}${[renaming.space ?? space, section, ...rest].join('/')}`;
  return { ...record, key, value: section === 'addresses' ? renamedValue(record.value, renaming) : record.value };
}

/** The value of an owner record, with the nodes of all its holders. */
function renamedValue(value: string, { nodes }: Renaming): string {
  const { raw } = parseOwner(value);
  const rename = (object: Readonly<Record<string, unknown>>) => {
    const node = nodes.get(String(object.node));
    return node === undefined ? object : { ...object, node };
  };
  const holders: readonly unknown[] | undefined = Array.isArray(raw.holders) ? raw.holders : undefined;
  const renamedHolders = holders?.map(holder => (isObject(holder) ? rename(holder) : holder));
  const text = JSON.stringify({ ...rename(raw), ...(renamedHolders && { holders: renamedHolders }) });
  return text === JSON.stringify(raw) ? value : text;
}

/** Throws a FailureError (6) where two records have one key. */
export function refuseRepeated(records: readonly Carried[]): void {
  const lines = new Map<string, number>();
  for (const { key, line } of records) {
    const before = lines.get(key);
    if (before !== undefined)
      throw new FailureError(code.decode, `lines ${before} and ${line} have the same key ${key}`);
    lines.set(key, line);
  }
}

/** Whether the record that is there says the same as the one that comes: then nothing is to be done. */
export function saysTheSame(coming: Carried, there: string): boolean {
  if (coming.value === there) return true;
  const type = parseKey(coming.key)?.type;
  if (type === 'attachment' || type === 'workload') {
    const list = (value: string) =>
      JSON.stringify(parseAttachment(value).map(({ family, value: ip }) => `${family} ${ip}`));
    return list(coming.value) === list(there);
  }
  if (type !== 'address') return false;
  const [a, b] = [parseOwner(coming.value), parseOwner(there)];
  // Times, boots and what a repeated ADD renews may differ: it is the owner that counts.
  const identity = ({ kind, cluster, network, ifname, workload, node, containerID, pod, holder, pool }: typeof a) => {
    // Pods of a workload come and go, and it owns the address all the while.
    const owner = workload ?? (kind === 'service' ? [holder, pool] : [node, containerID, pod?.uid]);
    return JSON.stringify([kind, cluster, network, ifname, owner]);
  };
  return a.kind !== 'unknown' && identity(a) === identity(b);
}
