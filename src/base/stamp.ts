// Tells whether a file was replaced or rewritten since it was read: certificates and tokens are, under a running program.
import { statSync } from 'node:fs';

export interface StampedFile {
  readonly path: string;
  /** Taken before the file was read, so that a change during the reading is noticed. */
  readonly stamp: string;
}

/** Another text for another file or content behind the path; "absent" when there is none. */
export function stampOf(path: string): string {
  const stat = statSync(path, { throwIfNoEntry: false });
  return stat === undefined ? 'absent' : `${stat.ino}:${stat.size}:${stat.mtimeMs}`;
}

export function isUnchanged({ path, stamp }: StampedFile): boolean {
  return stampOf(path) === stamp;
}
