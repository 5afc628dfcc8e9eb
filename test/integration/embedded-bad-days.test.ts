// Bad days of the embedded store: a clear error or no effect, never a second owner, never silent loss.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Answer, answerOf, confOf, environment, Ground, type Json, type Site } from '../helpers/plugin.ts';
import { program, run } from '../helpers/plugin-process.ts';

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

/** Runs commands in a mount namespace of their own after `mount` with these arguments. */
function inMounts(mounts: readonly (readonly string[])[], command: string, containerID: string): Answer {
  const script =
    'while [ "$1" != -- ]; do n=$1; shift; set -- "$@"; a=""; while [ $n -gt 0 ]; do a="$a $1"; shift; n=$((n-1)); done; mount $a || exit 99; done; shift; exec "$@"';
  const words = mounts.flatMap(one => [String(one.length), ...one]);
  const args = ['--mount', '--propagation', 'private', 'busybox', 'sh', '-c', script, 'sh', ...words, '--', program];
  const input = JSON.stringify(conf);
  const env = { ...environment(command, { containerID }), PATH: '/usr/sbin:/usr/bin:/sbin:/bin' };
  const { status, stdout, stderr } = spawnSync('unshare', args, { env, input, encoding: 'utf8' });
  expect([status === 99, stderr]).toEqual([false, '']);
  return answerOf(status ?? -1, stdout);
}

describe('a file that cannot be trusted: code 105, and not one address is given out', () => {
  const broken: readonly (readonly [string, () => void])[] = [
    ['empty', () => truncateSync(file, 0)],
    ['cut off in its header', () => truncateSync(file, 50)],
    ['cut off behind its first page', () => truncateSync(file, 4096)],
    [
      'of something else',
      () => writeFileSync(file, 'this is no database, and long enough to be read as one'.repeat(100)),
    ],
    [
      'overwritten in the middle',
      () => {
        const bytes = readFileSync(file);
        bytes.fill(0xa5, 4096);
        writeFileSync(file, bytes);
      },
    ],
    [
      'a database of somebody else',
      () => {
        rmSync(file);
        const db = new DatabaseSync(file);
        db.exec('CREATE TABLE kv (key TEXT, value TEXT); INSERT INTO kv VALUES (1, 2)');
        db.close();
      },
    ],
  ];

  it.each(broken)('%s', async (_, damage) => {
    await addAndClose();
    damage();
    const before = readFileSync(file);
    for (const command of ['ADD', 'DEL', 'CHECK'] as const) {
      const answer = await run(command, { conf, containerID: 'new' });
      expect(answer).toMatchObject({
        exitCode: 1,
        error: { code: 105, msg: expect.stringContaining(file) },
        stderr: '',
      });
    }
    expect((await run('STATUS', { conf })).error).toMatchObject({ code: 50, msg: expect.stringContaining(file) });
    expect(readFileSync(file).equals(before), 'it is left as it is, for whoever repairs it').toBe(true);
  });

  it('gone, with its write-ahead log left', async () => {
    await addAndClose();
    rmSync(file);
    writeFileSync(`${file}-wal`, 'x');
    expect((await run('ADD', { conf })).error).toMatchObject({
      code: 105,
      msg: expect.stringContaining('write-ahead log'),
    });
    expect(existsSync(file)).toBe(false);
  });

  it('of a newer layout: code 101', async () => {
    await addAndClose();
    const db = new DatabaseSync(file);
    db.exec('PRAGMA user_version = 9');
    db.close();
    expect((await run('ADD', { conf, containerID: 'new' })).error).toMatchObject({ code: 101 });
  });
});

describe('a disk that does not take it', () => {
  it('full: code 104, nothing half written, and all works again with space', async () => {
    await closeAll();
    rmSync(site.folder, { recursive: true });
    mkdirSync(site.folder);
    const mount = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=512k', 'tmpfs', site.folder]);
    expect(mount.status).toBe(0);
    try {
      expect((await run('ADD', { conf, containerID: 'before' })).exitCode).toBe(0);
      const filler = join(site.folder, 'filler');
      spawnSync('dd', ['if=/dev/zero', `of=${filler}`, 'bs=4096'], { stdio: 'ignore' });
      const codes: (number | undefined)[] = [];
      for (let n = 0; n < 20; n++) {
        const answer = await run('ADD', { conf, containerID: `full-${n}` });
        expect(answer.stderr).toBe('');
        codes.push(answer.error?.code);
      }
      expect(codes).toContain(104);
      expect(codes.every(one => one === undefined || one === 104)).toBe(true);
      rmSync(filler);
      expect((await run('CHECK', { conf, containerID: 'before' })).exitCode).toBe(0);
      for (const [n, code] of codes.entries()) {
        // Whoever heard "full" holds nothing; whoever got an address has it.
        const check = await run('CHECK', { conf, containerID: `full-${n}` });
        expect(check.error?.code).toBe(code === undefined ? undefined : 106);
      }
      expect((await run('ADD', { conf, containerID: 'after' })).exitCode).toBe(0);
    } finally {
      expect(spawnSync('umount', [site.folder]).status).toBe(0);
    }
  });

  it('too small even for a new store: code 104, and no half of one is left', async () => {
    await closeAll();
    rmSync(site.folder, { recursive: true });
    mkdirSync(site.folder);
    expect(spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=8k', 'tmpfs', site.folder]).status).toBe(0);
    try {
      expect((await run('ADD', { conf })).error).toMatchObject({ code: 104 });
      expect(readdirSync(site.folder)).toEqual([]);
    } finally {
      expect(spawnSync('umount', [site.folder]).status).toBe(0);
    }
  });

  it('read-only: code 5, and what is there stays', async () => {
    await addAndClose();
    const before = readFileSync(file);
    const readOnly = [
      ['--bind', site.folder, site.folder],
      ['-o', 'remount,ro,bind', site.folder],
    ];
    for (const command of ['ADD', 'DEL']) {
      expect(inMounts(readOnly, command, command === 'ADD' ? 'new' : 'pod-1').error).toMatchObject({
        code: 5,
        msg: expect.stringContaining(site.folder),
      });
    }
    expect(readFileSync(file).equals(before)).toBe(true);
  });

  it('read-only and without a store: code 5', async () => {
    await closeAll();
    rmSync(site.folder, { recursive: true });
    mkdirSync(site.folder);
    const readOnly = [
      ['--bind', site.folder, site.folder],
      ['-o', 'remount,ro,bind', site.folder],
    ];
    expect(inMounts(readOnly, 'ADD', 'new').error).toMatchObject({ code: 5 });
    expect(readdirSync(site.folder)).toEqual([]);
  });

  it('a folder that is a file: code 5', async () => {
    const dataDir = join(ground.folder, 'a-file');
    writeFileSync(dataDir, '');
    const answer = await run('ADD', { conf: { ...conf, ipam: { ...(conf.ipam as Json), dataDir } } });
    expect(answer).toMatchObject({ exitCode: 1, error: { code: 5, msg: expect.stringContaining(dataDir) } });
  });
});

describe('a log that cannot be written never fails an ADD', () => {
  it.each<[string, (path: string) => void]>([
    ['a folder', path => void mkdirSync(path)],
    ['a named pipe that nobody reads', path => expect(spawnSync('mkfifo', [path]).status).toBe(0)],
    ['in a folder that is not there', () => {}],
    ['a full device', () => {}],
  ])('%s', async (what, make) => {
    const logFile =
      { 'in a folder that is not there': '/nonexistent/log', 'a full device': '/dev/full' }[what] ??
      join(ground.folder, 'odd-log');
    make(logFile);
    const odd = { ...conf, ipam: { ...(conf.ipam as Json), logFile } };
    expect(await run('ADD', { conf: odd })).toMatchObject({ exitCode: 0, stderr: '' });
    expect(await run('DEL', { conf: odd })).toMatchObject({ exitCode: 0, stderr: '' });
  });
});
