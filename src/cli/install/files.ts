// Puts small files in their places on a node: whole, with the mode they need, and not at all where they are there already.
import { chmodSync, mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { code, FailureError, messageOf } from '../../base/errors.ts';
import { writeAtomically } from '../../host/atomic-file.ts';
import { nodeFile, nodeFolder } from './places.ts';

/** Whether the file is there with these bytes and this mode. */
export function holds(path: string, bytes: string | Buffer, mode: number): boolean {
  const there = statSync(path, { throwIfNoEntry: false });
  if (there?.isFile() !== true || (there.mode & 0o777) !== mode) return false;
  const wanted = Buffer.from(bytes);
  return there.size === wanted.length && readFileSync(path).equals(wanted);
}

/** Writes the file, and the folders above it, unless it is there already; `say` hears what was or would be done. */
export function putFile(
  path: string,
  bytes: string | Buffer,
  mode: number,
  dryRun: boolean,
  say: (line: string) => void,
): void {
  if (holds(path, bytes, mode)) {
    say(`leave ${path}: it is the same`);
    return;
  }
  if (!dryRun) {
    try {
      mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
    } catch (error) {
      throw new FailureError(code.io, `${dirname(path)} cannot be made: ${messageOf(error)}`, { cause: error });
    }
    writeAtomically(path, bytes, mode);
  }
  say(`write ${path}`);
}

/** A state folder is root's alone; a kubelet that makes one for a volume leaves it open to all. */
export function closeNewFolder(path: string): void {
  const isFolder = statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
  // One with content may be somebody's, shared on purpose.
  if (isFolder && readdirSync(path).length === 0) chmodSync(path, 0o700);
}

/** More than any certificate or key has; whatever is larger is a mistake. */
const largest = 2 ** 20;

/** The files of a folder, by the paths that they have on the node. Hidden ones are how a kubelet swaps a Secret's content. */
export function certificatesIn(folder: string): ReadonlyMap<string, Buffer> {
  try {
    const names = readdirSync(folder).filter(name => !name.startsWith('.'));
    return new Map(names.sort().map(name => [join(nodeFolder, name), certificate(join(folder, name))]));
  } catch (error) {
    if (error instanceof FailureError) throw error;
    throw new FailureError(code.io, `${folder} cannot be read: ${messageOf(error)}`, { cause: error });
  }
}

function certificate(path: string): Buffer {
  if (basename(path) === basename(nodeFile)) {
    throw new FailureError(code.config, `${path}: ${nodeFile} holds the name of the node; give that file another name`);
  }
  const { size } = statSync(path);
  if (size > largest) throw new FailureError(code.config, `${path}: ${size} bytes are no certificate, key or password`);
  return readFileSync(path);
}
