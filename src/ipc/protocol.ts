// What plugin and agent say to each other over the agent's unix socket: one JSON object a line, three to each side at most.
import { isObject } from '../base/section.ts';

/** Raised when an agent could misunderstand a newer plugin; an agent that does not know the version says `self`. */
export const protocolVersion = 1;

/** Bytes of the longest line: a request holds a network configuration, and GC's list of attachments. */
export const longestLine = 4 * 2 ** 20;

/** Milliseconds for which a plugin waits for `taken`, and an agent for whole requests and `go`. */
export const handshakeTime = 2000;

/**
 * A file or folder as the plugin sees it, so that an agent in a container can tell whether the path means the same there;
 * both numbers are 0 where it is absent.
 */
export interface SameFile {
  readonly path: string;
  readonly dev: number;
  readonly ino: number;
}

/** The plugin's first message: all that the runtime gave it. */
export interface Request {
  readonly v: typeof protocolVersion;
  /** The variables of CNI, as they were set. */
  readonly env: Readonly<Record<string, string>>;
  /** All of stdin. */
  readonly conf: string;
  /** When the plugin's process started, on the clock that all processes of a host share (CLOCK_MONOTONIC), in milliseconds. */
  readonly started: number;
  /** When it gives up, on the same clock. */
  readonly deadline: number;
  /** What this node is called where the configuration does not say. */
  readonly node: string;
  readonly files: readonly SameFile[];
}

/** Lines for the log that the network configuration names: the plugin writes them, where that path means what it says. */
export interface LogLines {
  readonly file: string;
  readonly maxSize: number;
  readonly text: string;
}

/** What the plugin prints and ends with. */
export interface Answer {
  readonly exitCode: 0 | 1;
  readonly stdout: string;
  readonly log?: LogLines;
}

/** `self`: do the work yourself, and at once. `taken`: nothing has begun; it does when `go` comes. */
export type FromAgent =
  | { readonly type: 'self'; readonly why: string }
  | { readonly type: 'taken' }
  | ({ readonly type: 'answer' } & Answer);

export const go = line({ type: 'go' });

export function line(message: FromAgent | Request | { readonly type: 'go' }): string {
  return `${JSON.stringify(message)}\n`;
}

/** The request that a line holds; a text when it cannot be taken, and why. */
export function parseRequest(text: string): Request | string {
  const raw = parseObject(text);
  if (raw === undefined) return 'the request is not a JSON object';
  if (raw.v !== protocolVersion)
    return `the request has version ${String(raw.v)}, this agent speaks ${protocolVersion}`;
  const { env, conf, started, deadline, node, files } = raw;
  const isComplete =
    isObject(env) &&
    Object.values(env).every(value => typeof value === 'string') &&
    typeof conf === 'string' &&
    typeof started === 'number' &&
    typeof deadline === 'number' &&
    typeof node === 'string' &&
    Array.isArray(files) &&
    files.every(isSameFile);
  return isComplete ? (raw as unknown as Request) : 'the request is incomplete';
}

/** The agent's message; undefined for anything that no agent of this version says. */
export function parseFromAgent(text: string): FromAgent | undefined {
  const raw = parseObject(text);
  if (raw?.type === 'taken') return { type: 'taken' };
  if (raw?.type === 'self') return { type: 'self', why: String(raw.why) };
  const { type, exitCode, stdout, log } = raw ?? {};
  if (type !== 'answer' || (exitCode !== 0 && exitCode !== 1) || typeof stdout !== 'string') return undefined;
  return { type, exitCode, stdout, ...(isLogLines(log) && { log }) };
}

export function isGo(text: string): boolean {
  return parseObject(text)?.type === 'go';
}

function isSameFile(value: unknown): value is SameFile {
  return (
    isObject(value) && typeof value.path === 'string' && typeof value.dev === 'number' && typeof value.ino === 'number'
  );
}

function isLogLines(value: unknown): value is LogLines {
  return (
    isObject(value) &&
    typeof value.file === 'string' &&
    typeof value.maxSize === 'number' &&
    typeof value.text === 'string'
  );
}

function parseObject(text: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return isObject(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

/** Cuts what a socket delivers into lines. */
export class Lines {
  #parts: Buffer[] = [];
  #length = 0;

  /** The lines that are complete now, without their ends; undefined when one is longer than allowed. */
  add(piece: Buffer): string[] | undefined {
    const lines: string[] = [];
    let rest = piece;
    for (let end = rest.indexOf(10); end >= 0; end = rest.indexOf(10)) {
      if (this.#length + end > longestLine) return undefined;
      lines.push(Buffer.concat([...this.#parts, rest.subarray(0, end)]).toString('utf8'));
      this.#parts = [];
      this.#length = 0;
      rest = rest.subarray(end + 1);
    }
    if (rest.length > 0) this.#parts.push(rest);
    this.#length += rest.length;
    return this.#length > longestLine ? undefined : lines;
  }
}
