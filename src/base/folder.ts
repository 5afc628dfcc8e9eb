// Makes a folder with all that lead to it. Node's own recursive mkdir never ends where the kernel denies a parent that it lists.
import { mkdirSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { systemCode } from './errors.ts';

/**
 * What is there already stays as it is; `mode` is for all that is made. Throws the system's error: also below /proc, and
 * in a process whose root folder was removed, where the kernel says ENOENT of a folder whose parent exists.
 */
export function makeFolder(folder: string, mode: number): void {
  try {
    mkdirSync(folder, { mode });
  } catch (error) {
    if (systemCode(error) === 'EEXIST' && statSync(folder).isDirectory()) return;
    const parent = dirname(folder);
    if (systemCode(error) !== 'ENOENT' || parent === folder) throw error;
    makeFolder(parent, mode);
    makeInside(folder, mode);
  }
}

/** The parent is there; somebody else may have been quicker. */
function makeInside(folder: string, mode: number): void {
  try {
    mkdirSync(folder, { mode });
  } catch (error) {
    if (systemCode(error) !== 'EEXIST' || !statSync(folder).isDirectory()) throw error;
  }
}
