// The embedded store under a clock that is set back, crashes of other processes, and a lock that is never given back.
import { spawn } from 'node:child_process';
import { copyFileSync, existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { call, confOf, Ground, type Json, type Site } from '../helpers/plugin.ts';
import { run, start } from '../helpers/plugin-process.ts';

let ground: Ground;
let site: Site;
let conf: Json;
let file: string;
beforeEach(async () => {
  ground = await Ground.make('embedded');
  site = await ground.site();
  conf = confOf(site, { subnet: '10.1.0.0/24', timeout: 30 }, { cniVersion: '1.1.0' });
  file = join(site.folder, 'store.db');
});
afterEach(() => ground[Symbol.asyncDispose]());

/** Every connection gone, as after a reboot. */
const closeAll = () => site.kv[Symbol.asyncDispose]();

/** ADDs once and closes the store, so that all of it is in one file. */
async function addAndClose(): Promise<void> {
  expect((await run('ADD', { conf })).exitCode).toBe(0);
  await closeAll();
}

describe('the clock', () => {
  afterEach(() => {
    vi.useRealTimers();
  });
  const cooling = () =>
    confOf(site, { subnet: '10.1.0.0/24', rangeStart: '10.1.0.2', rangeEnd: '10.1.0.2', cooldown: 3600 });
  const at = (offset: number) => {
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + offset });
  };
  const heldThen = async (offset: number) => {
    await call('ADD', { conf: cooling(), containerID: 'a' });
    await call('DEL', { conf: cooling(), containerID: 'a' });
    at(offset);
    return call('ADD', { conf: cooling(), containerID: 'b' });
  };

  it('a hold ends when its time is over, not before', async () => {
    expect((await heldThen(3_590_000)).error?.code).toBe(100);
    at(15_000);
    expect((await call('ADD', { conf: cooling(), containerID: 'b' })).addresses).toEqual(['10.1.0.2']);
  });

  it('set back by seconds: the hold stays; set back by a day: it does not last a day longer', async () => {
    expect((await heldThen(-30_000)).error?.code).toBe(100);
    vi.useRealTimers();
    at(-86_400_000);
    expect((await call('ADD', { conf: cooling(), containerID: 'b' })).addresses).toEqual(['10.1.0.2']);
  });

  it('set back by years: addresses keep their owners, and everything works', async () => {
    const plain = { ...conf, ipam: { ...(conf.ipam as Json), timeout: '1h' } };
    await call('ADD', { conf: plain, containerID: 'a' });
    at(-20 * 365 * 86_400_000);
    expect((await call('ADD', { conf: plain, containerID: 'b' })).addresses).toEqual(['10.1.0.3']);
    expect((await call('CHECK', { conf: plain, containerID: 'a' })).exitCode).toBe(0);
    for (const containerID of ['a', 'b']) expect((await call('DEL', { conf: plain, containerID })).exitCode).toBe(0);
    expect(await site.remains()).toEqual([]);
  });
});

describe('many at once', () => {
  it('processes that come while others crash find no locked store', async () => {
    for (let round = 0; round < 5; round++) {
      const doomed = Array.from({ length: 8 }, (_, n) => start('ADD', { conf, containerID: `doomed-${n}` }));
      await sleep(20 + Math.random() * 150);
      for (const { child } of doomed) child.kill('SIGKILL');
      const answers = await Promise.all(
        Array.from({ length: 8 }, (_, n) => run('ADD', { conf, containerID: `p-${n}` })),
      );
      expect(answers.flatMap(({ error }) => error?.msg ?? [])).toEqual([]);
      await Promise.all(doomed.map(({ ended }) => ended));
    }
  });

  it('killed while they make the store: it is whole or not there, and drafts go', async () => {
    await closeAll();
    for (let round = 0; round < 12; round++) {
      rmSync(site.folder, { recursive: true, force: true });
      const doomed = Array.from({ length: 4 }, (_, n) => start('ADD', { conf, containerID: `doomed-${n}` }));
      await sleep(20 + round * 8);
      for (const { child } of doomed) child.kill('SIGKILL');
      await Promise.all(doomed.map(({ ended }) => ended));
      if (existsSync(file)) {
        const db = new DatabaseSync(file, { readOnly: true });
        expect(db.prepare('PRAGMA integrity_check').get()).toEqual({ integrity_check: 'ok' });
        expect(db.prepare('SELECT count(*) AS n FROM meta').get()).toEqual({ n: 1 });
        db.close();
      }
      expect(await run('ADD', { conf, containerID: 'after' })).toMatchObject({ exitCode: 0, stderr: '' });
    }
  });

  it('a store that another process keeps locked: code 11 within the budget, and nothing is lost', async () => {
    const short = { ...conf, ipam: { ...(conf.ipam as Json), timeout: 1 } };
    await call('ADD', { conf: { ...conf, ipam: { ...(conf.ipam as Json), timeout: '1h' } } });
    const script = `const { DatabaseSync } = require('node:sqlite'); const db = new DatabaseSync(${JSON.stringify(file)});
      db.exec('BEGIN IMMEDIATE'); console.log('locked'); setTimeout(() => {}, 60000);`;
    const locker = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
    const gone = new Promise(resolve => locker.once('exit', resolve));
    try {
      await new Promise(resolve => locker.stdout.once('data', resolve));
      for (const command of ['ADD', 'DEL'] as const) {
        const answer = await run(command, { conf: short, containerID: command === 'ADD' ? 'new' : 'pod-1' });
        expect(answer).toMatchObject({
          exitCode: 1,
          error: { code: 11, msg: expect.stringContaining('locked') },
          stderr: '',
        });
        expect(answer.ms).toBeLessThan(3000);
      }
    } finally {
      locker.kill('SIGKILL');
      await gone;
    }
    expect((await run('CHECK', { conf })).exitCode).toBe(0);
    expect((await run('DEL', { conf })).exitCode).toBe(0);
    expect(await site.remains()).toEqual([]);
  });

  it('a copy of the store in another folder is another store', async () => {
    await addAndClose();
    const dataDir = mkdtempSync(join(tmpdir(), 'kube-ipam-copy-'));
    try {
      copyFileSync(file, join(dataDir, 'store.db'));
      const copied = { ...conf, ipam: { ...(conf.ipam as Json), dataDir } };
      expect((await run('CHECK', { conf: copied })).exitCode).toBe(0);
    } finally {
      rmSync(dataDir, { recursive: true });
    }
  });
});
