// The database file: made whole, private, durable, and told apart from what only looks like it.
import {
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { code, FailureError } from '../../base/errors.ts';
import { DamagedError, OutOfSpaceError } from '../kv.ts';
import { openDatabase, translate } from './file.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'kube-ipam-file-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

it('makes folder and file for root alone, and leaves no draft', () => {
  const dataDir = join(folder, 'a', 'b');
  using db = openDatabase(dataDir);
  expect(statSync(dataDir).mode & 0o777).toBe(0o700);
  expect(statSync(join(dataDir, 'store.db')).mode & 0o777).toBe(0o600);
  expect(readdirSync(dataDir).filter(name => name.startsWith('.new-'))).toEqual([]);
  expect(db.prepare('PRAGMA synchronous').get()).toEqual({ synchronous: 2 });
  expect(db.prepare('PRAGMA journal_mode').get()).toEqual({ journal_mode: 'wal' });
  expect(db.prepare('PRAGMA busy_timeout').get()).toEqual({ timeout: 0 });
});

it('a second opener finds the first one’s revision, not a new store', () => {
  using first = openDatabase(folder);
  first.exec('UPDATE meta SET revision = 41');
  using second = openDatabase(folder);
  expect(second.prepare('SELECT revision FROM meta').get()).toEqual({ revision: 41 });
});

it('drafts of processes that were killed long ago are swept, fresh ones are left', () => {
  for (const name of ['.new-1-old', '.new-2-fresh', 'other']) writeFileSync(join(folder, name), '');
  const longAgo = Date.now() / 1000 - 600;
  utimesSync(join(folder, '.new-1-old'), longAgo, longAgo);
  openDatabase(folder).close();
  expect(
    readdirSync(folder)
      .filter(name => !name.startsWith('store.db'))
      .sort(),
  ).toEqual(['.new-2-fresh', 'other']);
});

it('a second name of the file, left by a process killed while it made it, does no harm', () => {
  openDatabase(folder).close();
  linkSync(join(folder, 'store.db'), join(folder, '.new-3-linked'));
  using db = openDatabase(folder);
  expect(db.prepare('SELECT revision FROM meta').get()).toEqual({ revision: 1 });
});

describe('refused', () => {
  it('an empty file, another database, a log without its database', () => {
    for (const [name, file] of [
      ['empty', 'store.db'],
      ['text', 'store.db'],
      ['log', 'store.db-wal'],
    ] as const) {
      const dataDir = join(folder, name);
      mkdirSync(dataDir);
      writeFileSync(join(dataDir, file), name === 'empty' ? '' : 'x'.repeat(5000));
      expect(() => openDatabase(dataDir)).toThrow(DamagedError);
      expect(existsSync(join(dataDir, 'store.db'))).toBe(name !== 'log');
    }
  });

  it('a folder that cannot hold a database, in words for people', () => {
    writeFileSync(join(folder, 'file'), '');
    expect(() => openDatabase(join(folder, 'file'))).toThrow(expect.objectContaining({ code: code.io }));
  });
});

describe('translate', () => {
  const sqlite = (errcode: number) => Object.assign(new Error('text'), { code: 'ERR_SQLITE_ERROR', errcode });
  const system = (name: string) => Object.assign(new Error('text'), { code: name });

  it.each([
    [sqlite(13), OutOfSpaceError],
    [sqlite(4874), OutOfSpaceError],
    [system('ENOSPC'), OutOfSpaceError],
    [system('EDQUOT'), OutOfSpaceError],
    [sqlite(11), DamagedError],
    [sqlite(26), DamagedError],
    [sqlite(267), DamagedError],
    [sqlite(8), FailureError],
    [sqlite(14), FailureError],
    [sqlite(778), FailureError],
    [system('EROFS'), FailureError],
  ])('%o', (error, kind) => {
    const translated = translate(error, '/d/store.db');
    expect(translated).toBeInstanceOf(kind);
    expect((translated as Error).message).toContain('/d/store.db');
    expect((translated as Error).cause).toBe(error);
  });

  it('a failure stays what it is, and a bug stays a bug', () => {
    const failure = new FailureError(7, 'x');
    const bug = new TypeError('x');
    expect([translate(failure, 'p'), translate(bug, 'p')]).toEqual([failure, bug]);
  });
});
