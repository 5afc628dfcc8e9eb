// The embedded store: one SQLite file, for clusters of one machine.
import type { DatabaseSync, SQLInputValue, StatementSync } from 'node:sqlite';
import { backoff, type Deadline, pause } from '../../base/clock.ts';
import {
  type Answer,
  type Commit,
  type CommitResult,
  type Condition,
  type Entry,
  type Kv,
  type Page,
  type Query,
  type Snapshot,
  UnknownFateError,
  UnreachableError,
  type Write,
} from '../kv.ts';
import { connect, openDatabase, sqliteCode, translate } from './file.ts';

const busy = 5;
const ioError = 10;
const pageSize = 1000;

/**
 * An entry lives until its expiry. One that lies further ahead than its own length was written before the clock was
 * set back: it has expired too, or it would stay for as long as the clock was wrong. A minute is left for small steps.
 */
const dead = 'expires IS NOT NULL AND (expires <= :now OR expires - ttl > :now + 60000)';
const bounds = 'key >= :from AND key < :to';
const columns = 'key, value, created, revision';

/** Opens the store in that folder, making it when absent. */
export async function openEmbedded(dataDir: string): Promise<Kv> {
  return new EmbeddedKv(openDatabase(dataDir), `${dataDir}/store.db`);
}

class EmbeddedKv implements Kv {
  readonly #db: DatabaseSync;
  readonly #path: string;
  readonly #statements = new Map<string, StatementSync>();

  constructor(db: DatabaseSync, path: string) {
    this.#db = db;
    this.#path = path;
  }

  read(queries: readonly Query[], deadline: Deadline): Promise<Snapshot> {
    return this.#inTransaction('BEGIN', deadline, () => this.#snapshot(queries));
  }

  commit(commit: Commit, deadline: Deadline): Promise<CommitResult> {
    return this.#inTransaction('BEGIN IMMEDIATE', deadline, (): CommitResult => {
      this.#run(`DELETE FROM kv WHERE ${dead}`, { now: Date.now() });
      if (!commit.conditions.every(condition => this.#holds(condition))) {
        return { won: false, ...this.#snapshot(commit.otherwise ?? []) };
      }
      const revision = this.#revision() + 1;
      this.#run('UPDATE meta SET revision = :revision', { revision });
      for (const write of commit.writes) this.#write(write, revision);
      return { won: true, revision };
    });
  }

  async *scan(from: string, to: string, deadline: Deadline): AsyncIterable<Page> {
    // A connection of its own keeps its snapshot while the other one goes on writing.
    const reader = await this.#retry(deadline, () => new EmbeddedKv(connect(this.#path), this.#path));
    try {
      await reader.#retry(deadline, () => reader.#db.exec('BEGIN'));
      const revision = await reader.#retry(deadline, () => reader.#revision());
      const sql = `SELECT ${columns} FROM kv WHERE ${bounds} AND NOT (${dead}) ORDER BY key LIMIT ${pageSize}`;
      for (let next = from; ; ) {
        const page = { from: next, to, now: Date.now() };
        const entries = await reader.#retry(deadline, () => reader.#all(sql, page));
        if (entries.length > 0) yield { revision, entries };
        if (entries.length < pageSize) return;
        next = `${entries.at(-1)!.key}\0`;
      }
    } finally {
      await reader[Symbol.asyncDispose]();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#db.isOpen) this.#db.close();
  }

  /** Runs `work` between BEGIN and COMMIT, all of it at once, and waits for other processes as long as allowed. */
  #inTransaction<T>(begin: string, deadline: Deadline, work: () => T): Promise<T> {
    return this.#retry(deadline, () => {
      this.#db.exec(begin);
      let result: T;
      try {
        result = work();
      } catch (error) {
        this.#rollback();
        throw error;
      }
      try {
        this.#db.exec('COMMIT');
      } catch (error) {
        this.#rollback();
        if (sqliteCode(error) !== ioError) throw error;
        throw new UnknownFateError(`${this.#path}: the disk failed while a change was written`, { cause: error });
      }
      return result;
    });
  }

  async #retry<T>(deadline: Deadline, work: () => T): Promise<T> {
    for (let tries = 1; ; tries++) {
      try {
        return work();
      } catch (error) {
        if (sqliteCode(error) !== busy) throw translate(error, this.#path);
        if (deadline.passed) {
          throw new UnreachableError(`${this.#path} is locked by another process; nothing was changed`, {
            cause: error,
          });
        }
      }
      await pause(backoff(tries, 1, 20), deadline);
    }
  }

  #rollback(): void {
    if (this.#db.isTransaction) this.#db.exec('ROLLBACK');
  }

  #snapshot(queries: readonly Query[]): Snapshot {
    return { revision: this.#revision(), answers: queries.map(query => this.#answer(query)) };
  }

  #answer(query: Query): Answer {
    const now = Date.now();
    if ('key' in query) {
      const entries = this.#all(`SELECT ${columns} FROM kv WHERE key = :key AND NOT (${dead})`, {
        key: query.key,
        now,
      });
      return { entries, count: entries.length };
    }
    const { from, to } = query;
    if ('count' in query) {
      // The key index alone answers the first count; those that expired are few and have an index of their own.
      const sql = `SELECT (SELECT count(*) FROM kv WHERE ${bounds})
        - (SELECT count(*) FROM kv INDEXED BY kv_expires WHERE ${bounds} AND ${dead}) AS count`;
      return { entries: [], count: Number(this.#prepared(sql).get({ from, to, now })!.count) };
    }
    const what = query.keysOnly ? `key, '' AS value, created, revision` : columns;
    const entries = this.#all(`SELECT ${what} FROM kv WHERE ${bounds} AND NOT (${dead}) ORDER BY key`, {
      from,
      to,
      now,
    });
    return { entries, count: entries.length };
  }

  #holds(condition: Condition): boolean {
    const key = 'absent' in condition ? condition.absent : condition.unchanged;
    const row = this.#prepared('SELECT revision FROM kv WHERE key = :key').get({ key });
    return 'absent' in condition ? row === undefined : row?.revision === condition.revision;
  }

  #write(write: Write, revision: number): void {
    if ('delete' in write) {
      this.#run('DELETE FROM kv WHERE key = :key', { key: write.delete });
      return;
    }
    const ttl = write.ttl === undefined ? null : write.ttl * 1000;
    const expires = ttl === null ? null : Date.now() + ttl;
    this.#run(
      `INSERT INTO kv (key, value, created, revision, expires, ttl) VALUES (:key, :value, :revision, :revision, :expires, :ttl)
       ON CONFLICT (key) DO UPDATE SET value = :value, revision = :revision, expires = :expires, ttl = :ttl`,
      { key: write.put, value: write.value, revision, expires, ttl },
    );
  }

  #revision(): number {
    return Number(this.#prepared('SELECT revision FROM meta').get()!.revision);
  }

  #all(sql: string, values: Record<string, SQLInputValue>): Entry[] {
    return this.#prepared(sql)
      .all(values)
      .map(row => ({
        key: String(row.key),
        value: String(row.value),
        created: Number(row.created),
        revision: Number(row.revision),
      }));
  }

  #run(sql: string, values: Record<string, SQLInputValue>): void {
    this.#prepared(sql).run(values);
  }

  #prepared(sql: string): StatementSync {
    let statement = this.#statements.get(sql);
    if (statement === undefined) {
      statement = this.#db.prepare(sql);
      this.#statements.set(sql, statement);
    }
    return statement;
  }
}
