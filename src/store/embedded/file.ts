// The database file of the embedded store: made whole or not at all, and never mistaken for a new one.
import {
  closeSync,
  existsSync,
  fsyncSync,
  linkSync,
  openSync,
  readdirSync,
  rmSync,
  statfsSync,
  statSync,
} from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { code, FailureError, messageOf, systemCode } from '../../base/errors.ts';
import { makeFolder } from '../../base/folder.ts';
import { DamagedError, OutOfSpaceError } from '../kv.ts';

/** "kipm" in SQLite's application_id, so that `file` and we know whose database it is. */
const applicationId = 0x6b69706d;
const schemaVersion = 1;

const schema = `
  PRAGMA application_id = ${applicationId};
  PRAGMA user_version = ${schemaVersion};
  CREATE TABLE meta (id INTEGER PRIMARY KEY CHECK (id = 1), revision INTEGER NOT NULL);
  INSERT INTO meta VALUES (1, 1);
  CREATE TABLE kv (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, value TEXT NOT NULL,
    created INTEGER NOT NULL, revision INTEGER NOT NULL,
    expires INTEGER, ttl INTEGER
  );
  CREATE UNIQUE INDEX kv_key ON kv (key);
  CREATE INDEX kv_expires ON kv (expires) WHERE expires IS NOT NULL;
`;

/** Types of statfs(2) whose locks or shared memory do not hold between hosts. FUSE may be any of them. */
const networkFileSystems: ReadonlyMap<number, string> = new Map([
  [0x6969, 'NFS'],
  [0x517b, 'SMB'],
  [0xff534d42, 'CIFS'],
  [0xfe534d42, 'SMB2'],
  [0x01021997, '9P'],
  [0x5346414f, 'AFS'],
  [0x00c36400, 'Ceph'],
  [0x0bd00bd0, 'Lustre'],
  [0x01161970, 'GFS2'],
  [0x7461636f, 'OCFS2'],
  [0x47504653, 'GPFS'],
  [0x65735546, 'FUSE'],
]);

/** Opens `store.db` in the folder, making both when they are absent. */
export function openDatabase(dataDir: string): DatabaseSync {
  const path = join(dataDir, 'store.db');
  try {
    makeFolder(dataDir, 0o700);
    refuseNetworkFileSystem(dataDir);
    if (!existsSync(path)) create(dataDir, path);
    if (statSync(path).size === 0) throw new DamagedError(damaged(path, 'it is empty'));
    const db = connect(path);
    verify(db, path);
    return db;
  } catch (error) {
    throw translate(error, path);
  }
}

/** Sets up one connection: every commit is on disk before it is answered, and waiting for a lock is ours to do. */
export function connect(path: string): DatabaseSync {
  // The first look at the file waits inside SQLite: it may meet the recovery after a crash, which locks everybody out.
  const db = new DatabaseSync(path, { timeout: 3000 });
  db.exec('PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 200; PRAGMA user_version; PRAGMA busy_timeout = 0;');
  return db;
}

function refuseNetworkFileSystem(dataDir: string): void {
  const name = networkFileSystems.get(statfsSync(dataDir).type);
  if (name === undefined) return;
  throw new FailureError(
    code.config,
    `dataDir ${dataDir} lies on a network file system (${name}), where two hosts could give out the same address: use a local folder, or etcdConfig`,
  );
}

/** Fills a database under another name and links it to its own, so that whoever sees the file sees all of it. */
function create(dataDir: string, path: string): void {
  if (existsSync(`${path}-wal`)) {
    // Another process may have made the file, and opened it, since we looked for it.
    if (existsSync(path)) return;
    throw new DamagedError(damaged(path, 'it is missing beside its write-ahead log'));
  }
  const draft = join(dataDir, `.new-${process.pid}-${Math.random().toString(36).slice(2)}`);
  try {
    closeSync(openSync(draft, 'wx', 0o600));
    const db = new DatabaseSync(draft);
    // The draft is complete in one file once closed: WAL mode is a mark in its header.
    db.exec(`PRAGMA synchronous = FULL; PRAGMA journal_mode = WAL; BEGIN; ${schema} COMMIT;`);
    db.close();
    linkSync(draft, path);
    const folder = openSync(dataDir, 'r');
    fsyncSync(folder);
    closeSync(folder);
  } catch (error) {
    if (systemCode(error) !== 'EEXIST' || !existsSync(path)) throw error;
  } finally {
    for (const suffix of ['', '-wal', '-shm', '-journal']) rmSync(draft + suffix, { force: true });
    sweepDrafts(dataDir);
  }
}

/** Removes what processes that were killed while creating left behind a minute or more ago. */
function sweepDrafts(dataDir: string): void {
  for (const name of readdirSync(dataDir)) {
    if (!name.startsWith('.new-')) continue;
    const file = join(dataDir, name);
    if (Date.now() - (statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? Date.now()) > 60_000) {
      rmSync(file, { force: true });
    }
  }
}

function verify(db: DatabaseSync, path: string): void {
  const id = db.prepare('PRAGMA application_id').get()?.application_id;
  const version = Number(db.prepare('PRAGMA user_version').get()?.user_version);
  if (id !== applicationId) throw new DamagedError(damaged(path, 'it is not a database of kube-ipam'));
  if (version > schemaVersion) {
    throw new FailureError(
      code.newerFormat,
      `${path} has layout ${version}, written by a newer kube-ipam; this one knows ${schemaVersion}: install the newer release`,
    );
  }
}

function damaged(path: string, what: string): string {
  return `the store ${path} cannot be used: ${what}. No address is given out, because it could have an owner: restore the file from a backup, or, when no container runs on this machine, remove ${path}*`;
}

/** SQLite's primary result code of an error, if it is one of SQLite. */
export function sqliteCode(error: unknown): number | undefined {
  if (typeof error !== 'object' || error === null || !('errcode' in error)) return undefined;
  return typeof error.errcode === 'number' ? error.errcode & 0xff : undefined;
}

/** SQLITE_IOERR_SHMSIZE: the index of the write-ahead log could not grow, which only a full disk prevents. */
function noRoomForSharedMemory(error: unknown): boolean {
  return typeof error === 'object' && error !== null && 'errcode' in error && error.errcode === 4874;
}

/** Turns what SQLite or the file system threw into what a person can act on. */
export function translate(error: unknown, path: string): unknown {
  if (error instanceof FailureError) return error;
  const sqlite = sqliteCode(error);
  const system = systemCode(error);
  const text = messageOf(error);
  if (sqlite === 13 || noRoomForSharedMemory(error) || system === 'ENOSPC' || system === 'EDQUOT') {
    return new OutOfSpaceError(`the disk of ${path} is full: free some space and try again (${text})`, {
      cause: error,
    });
  }
  if (sqlite === 11 || sqlite === 26) return new DamagedError(damaged(path, text), { cause: error });
  if (sqlite !== undefined || system !== undefined) {
    return new FailureError(
      code.io,
      `cannot use the store ${path}: ${text}. Check that its folder exists, can be written by root and is on a healthy disk`,
      { cause: error },
    );
  }
  return error;
}
