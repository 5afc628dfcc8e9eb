// A lock that one process of this host holds, and that ends with it, however it ends.
import { dirname } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { makeFolder } from '../base/folder.ts';

/** SQLite's code for a lock that another process holds. */
const busy = 5;

/**
 * Takes the lock that the file stands for, making it and its folder (mode 0700); undefined when another process has it.
 * The kernel keeps it (fcntl, which Node offers through SQLite alone), so what a killed process leaves locks nobody out.
 */
export function takeLock(file: string): Disposable | undefined {
  makeFolder(dirname(file), 0o700);
  const db = new DatabaseSync(file, { timeout: 0 });
  try {
    db.exec('PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE;');
  } catch (error) {
    db.close();
    if (error instanceof Error && 'errcode' in error && error.errcode === busy) return undefined;
    throw error;
  }
  return { [Symbol.dispose]: () => db.close() };
}
