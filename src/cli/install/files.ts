// The small files that an installation puts on a node, and what it says of each.
import { chmodSync, readdirSync, statSync } from 'node:fs';
import { holds, putFile } from '../../host/files.ts';

/** Writes a file unless it is there already; `say` hears what was or would be done. */
export function installFile(
  path: string,
  bytes: string | Buffer,
  mode: number,
  dryRun: boolean,
  say: (line: string) => void,
): void {
  const written = dryRun ? !holds(path, bytes, mode) : putFile(path, bytes, mode);
  say(written ? `write ${path}` : `leave ${path}: it is the same`);
}

/** A state folder is root's alone; a kubelet that makes one for a volume leaves it open to all. */
export function closeNewFolder(path: string): void {
  const isFolder = statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
  // One with content may be somebody's, shared on purpose.
  if (isFolder && readdirSync(path).length === 0) chmodSync(path, 0o700);
}
