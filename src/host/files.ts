// Puts small files in their places on a node: whole, with the mode they need, and not at all where they are there already.
import { readFileSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { code, FailureError, messageOf } from '../base/errors.ts';
import { makeFolder } from '../base/folder.ts';
import { writeAtomically } from './atomic-file.ts';

/** Whether the file is there with these bytes and this mode. */
export function holds(path: string, bytes: string | Buffer, mode: number): boolean {
  const there = statSync(path, { throwIfNoEntry: false });
  if (there?.isFile() !== true || (there.mode & 0o777) !== mode) return false;
  const wanted = Buffer.from(bytes);
  return there.size === wanted.length && readFileSync(path).equals(wanted);
}

/** Writes the file, and the folders above it. Returns false, and writes nothing, where it is there already. */
export function putFile(path: string, bytes: string | Buffer, mode: number): boolean {
  if (holds(path, bytes, mode)) return false;
  try {
    makeFolder(dirname(path), 0o755);
  } catch (error) {
    throw new FailureError(code.io, `${dirname(path)} cannot be made: ${messageOf(error)}`, { cause: error });
  }
  writeAtomically(path, bytes, mode);
  return true;
}
