// Writes a file whole or not at all: under another name first, on disk before it takes its own.
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  existsSync,
  fchmodSync,
  fsyncSync,
  lstatSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { code, FailureError, messageOf } from '../base/errors.ts';

/** After so long, in milliseconds, nobody writes to a draft any more. */
const abandoned = 10 * 60_000;

export class AtomicFile implements Disposable {
  readonly #path: string;
  readonly #draft: string;
  readonly #fd: number;
  #open = true;

  /** @param mode of the finished file, whatever the umask says. */
  constructor(path: string, mode: number) {
    this.#path = path;
    // In containers every process may have the same number.
    this.#draft = `${path}.${process.pid}.${randomBytes(6).toString('hex')}.new`;
    sweepDrafts(path);
    this.#fd = attempt(path, () => openSync(this.#draft, 'wx', 0o600));
    attempt(path, () => fchmodSync(this.#fd, mode));
  }

  write(bytes: string | Buffer): void {
    const buffer = typeof bytes === 'string' ? Buffer.from(bytes) : bytes;
    for (let written = 0; written < buffer.length; ) {
      written += attempt(this.#path, () => writeSync(this.#fd, buffer, written));
    }
  }

  /** Complete and on disk, still under its other name, which is returned: nothing can be written any more. */
  seal(): string {
    attempt(this.#path, () => {
      if (this.#open) fsyncSync(this.#fd);
      this.#close();
    });
    return this.#draft;
  }

  /** On disk under its own name when this returns. */
  finish(): void {
    const draft = this.seal();
    attempt(this.#path, () => {
      renameSync(draft, this.#path);
      syncFolder(dirname(this.#path));
    });
  }

  [Symbol.dispose](): void {
    this.#close();
    rmSync(this.#draft, { force: true });
  }

  #close(): void {
    if (this.#open) closeSync(this.#fd);
    this.#open = false;
  }
}

export function writeAtomically(path: string, bytes: string | Buffer, mode: number): void {
  using file = new AtomicFile(path, mode);
  file.write(bytes);
  file.finish();
}

/**
 * Removes the drafts of processes that were killed while they wrote. Only their age tells: the writer of a younger one may
 * live in a container whose processes cannot be seen from here.
 */
function sweepDrafts(path: string): void {
  const folder = dirname(path);
  const draft = `${basename(path)}.`;
  for (const name of existsSync(folder) ? readdirSync(folder) : []) {
    if (!name.startsWith(draft) || !/^\d+(\.[0-9a-f]{12})?\.new$/.test(name.slice(draft.length))) continue;
    const left = join(folder, name);
    const draftFile = lstatSync(left, { throwIfNoEntry: false });
    if (draftFile?.isFile() && Date.now() - draftFile.mtimeMs > abandoned) rmSync(left, { force: true });
  }
}

/** Makes renames and removals in a folder durable. */
export function syncFolder(folder: string): void {
  const fd = openSync(folder, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

function attempt<T>(path: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw new FailureError(code.io, `${path} cannot be written: ${messageOf(error)}`, { cause: error });
  }
}
