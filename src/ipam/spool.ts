// DELs that wait on this node's disk until their store can be reached again.
import {
  closeSync,
  existsSync,
  fsyncSync,
  lstatSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { code, FailureError, messageOf } from '../base/errors.ts';
import { makeFolder } from '../base/folder.ts';
import { isObject } from '../base/section.ts';
import { sha256 } from '../base/sha256.ts';
import type { AttachmentId } from '../store/keys.ts';

/** What a runtime asked to delete, with the network configuration it came with, which leads to the store. */
export interface WaitingDel {
  readonly id: AttachmentId;
  readonly conf: Readonly<Record<string, unknown>>;
}

/** One file for each, `<dataDir>/spool/<hash>`. Whoever deletes by such a file checks right before that it still stands. */
export class Spool {
  readonly #folder: string;

  constructor(dataDir: string) {
    this.#folder = join(dataDir, 'spool');
  }

  has(id: AttachmentId): boolean {
    return existsSync(this.#fileOf(id));
  }

  /** Durable when it returns. Throws code 11: then the runtime must ask again, or the address leaks. */
  keep(del: WaitingDel): void {
    const draft = join(this.#folder, `.new-${process.pid}-${Math.random().toString(36).slice(2)}`);
    try {
      makeFolder(this.#folder, 0o700);
      writeFileSync(draft, JSON.stringify(del), { mode: 0o600, flag: 'wx', flush: true });
      renameSync(draft, this.#fileOf(del.id));
      for (const folder of [this.#folder, join(this.#folder, '..')]) synchronize(folder);
    } catch (error) {
      if (existsSync(draft)) rmSync(draft);
      throw new FailureError(
        code.tryAgain,
        `the store is away, and this DEL cannot be kept in ${this.#folder} until it is back (${messageOf(error)}): free some disk space, or DEL again later`,
      );
    }
  }

  /** An ADD does this first: from now on the attachment lives. Throws code 11 when the file stays. */
  remove(id: AttachmentId): void {
    // Nearly always there is none, and to look costs less than to try.
    if (!this.has(id)) return;
    try {
      rmSync(this.#fileOf(id), { force: true });
    } catch (error) {
      throw new FailureError(
        code.tryAgain,
        `${this.#fileOf(id)}, a DEL that waits for the store, cannot be removed (${messageOf(error)})`,
      );
    }
  }

  /** All that wait, oldest first. A file that cannot be understood is nobody's DEL, and is left alone. */
  list(): WaitingDel[] {
    const found = names(this.#folder).flatMap(name => {
      const file = lstatSync(join(this.#folder, name), { throwIfNoEntry: false });
      return file?.isFile() ? [{ name, at: file.mtimeMs }] : [];
    });
    this.#sweep(found);
    const dels = found.sort((a, b) => a.at - b.at).map(({ name }) => ({ name, del: read(join(this.#folder, name)) }));
    return dels.flatMap(({ name, del }) => (del !== undefined && hashOf(del.id) === name ? [del] : []));
  }

  /** A draft that is a minute old belongs to a process that was killed. */
  #sweep(found: readonly { readonly name: string; readonly at: number }[]): void {
    for (const { name, at } of found) {
      if (name.startsWith('.new-') && Date.now() - at > 60_000) rmSync(join(this.#folder, name), { force: true });
    }
  }

  #fileOf(id: AttachmentId): string {
    return join(this.#folder, hashOf(id));
  }
}

function hashOf(id: AttachmentId): string {
  return sha256([id.node, id.network, id.containerID, id.ifname].join('\0'));
}

function names(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

function synchronize(folder: string): void {
  const fd = openSync(folder, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

function read(file: string): WaitingDel | undefined {
  try {
    const { id, conf } = JSON.parse(readFileSync(file, 'utf8'));
    const texts = ['node', 'network', 'containerID', 'ifname'].map(key => id[key]);
    return isObject(conf) && texts.every(text => typeof text === 'string') ? { id, conf } : undefined;
  } catch {
    return undefined;
  }
}
