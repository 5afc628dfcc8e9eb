// The note of which IPv6 addresses are ours: they have no label, so that a restart could not tell them from others.
import { readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { makeFolder } from '../../base/folder.ts';
import { isObject } from '../../base/section.ts';
import { writeAtomically } from '../../host/atomic-file.ts';
import { formatIp, type Ip, parseIp } from '../../net/ip.ts';

/** Addresses and the interface they are on: `{"dev": "eth0", "addresses": ["2001:db8::1"]}`. */
export interface Noted {
  readonly dev: string;
  readonly addresses: readonly Ip[];
}

/** Undefined where there is no note, or none that can be read: what it named is then nobody's. */
export function readNotes(path: string): Noted | undefined {
  try {
    const value: unknown = JSON.parse(readFileSync(path, 'utf8'));
    if (!isObject(value) || typeof value.dev !== 'string' || !Array.isArray(value.addresses)) return undefined;
    return { dev: value.dev, addresses: value.addresses.flatMap(text => parseIp(String(text)) ?? []) };
  } catch {
    return undefined;
  }
}

/** The notes of one interface; each change is on disk when it returns. */
export class Notes {
  readonly #path: string;
  readonly #dev: string;
  #noted: ReadonlySet<string>;

  constructor(path: string, dev: string) {
    this.#path = path;
    this.#dev = dev;
    const there = readNotes(path);
    this.#noted = new Set(there?.dev === dev ? there.addresses.map(formatIp) : []);
  }

  has(ip: Ip): boolean {
    return this.#noted.has(formatIp(ip));
  }

  get all(): readonly string[] {
    return [...this.#noted];
  }

  /** Before an address is put. Throws FailureError. */
  add(addresses: readonly Ip[]): void {
    this.#set([...this.#noted, ...textsOf(addresses)]);
  }

  /** After an address is gone. */
  remove(addresses: readonly Ip[]): void {
    const gone = new Set(textsOf(addresses));
    this.#set(this.all.filter(text => !gone.has(text)));
  }

  #set(texts: readonly string[]): void {
    const next = new Set(texts);
    // Nothing is added and removed at once, so that the number tells.
    if (next.size === this.#noted.size) return;
    makeFolder(dirname(this.#path), 0o700);
    writeAtomically(this.#path, `${JSON.stringify({ dev: this.#dev, addresses: [...next].sort() })}\n`, 0o600);
    this.#noted = next;
  }
}

function textsOf(addresses: readonly Ip[]): string[] {
  return addresses.filter(({ family }) => family === 6).map(formatIp);
}
