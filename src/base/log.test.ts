// The log: one JSON line an event, many writers, one old file kept, and no fault of the file stops the work.
import { spawn, spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Log, type LogLevel, type LogTarget } from './log.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'kube-ipam-log-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const target = (changes: Partial<LogTarget> = {}): LogTarget => ({
  file: join(folder, 'log'),
  level: 'info',
  maxSize: 1_000_000,
  ...changes,
});

function lines(name = 'log'): Record<string, unknown>[] {
  const file = join(folder, name);
  if (!existsSync(file)) return [];
  return readFileSync(file, 'utf8')
    .trimEnd()
    .split('\n')
    .map(line => JSON.parse(line));
}

it('lets nobody notice that whoever writes its lines for it cannot', () => {
  const log = new Log(target(), {}, () => {
    throw new Error('ENOSPC');
  });
  expect(() => log.with({ network: 'a' }).error('add')).not.toThrow();
});

it('writes time, level, event, context and fields; later fields win', () => {
  const log = new Log(target(), { network: 'a' }).with({ containerID: 'c', ifname: 'eth0' });
  log.info('add', { address: '10.1.0.2', tries: 2, network: 'b' });
  log.warn('line\nfeed "quoted"', { missing: undefined });
  const [first, second] = lines();
  expect(first).toEqual({
    time: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/),
    level: 'info',
    event: 'add',
    network: 'b',
    containerID: 'c',
    ifname: 'eth0',
    address: '10.1.0.2',
    tries: 2,
  });
  expect(second).toMatchObject({ level: 'warn', event: 'line\nfeed "quoted"' });
  expect(statSync(join(folder, 'log')).mode & 0o777 & ~0o640).toBe(0);
});

it.each<[LogLevel, string[]]>([
  ['debug', ['debug', 'info', 'warn', 'error']],
  ['info', ['info', 'warn', 'error']],
  ['warn', ['warn', 'error']],
  ['error', ['error']],
  ['off', []],
])('level %s', (level, written) => {
  const log = new Log(target({ level }));
  for (const one of ['debug', 'info', 'warn', 'error'] as const) log[one]('event');
  expect(lines().map(line => line.level)).toEqual(written);
});

it('keeps one old file, and the lock goes', () => {
  const log = new Log(target({ maxSize: 500 }));
  for (let i = 0; i < 100; i++) log.info('event', { i });
  expect(readdirSync(folder).sort()).toEqual(['log', 'log.1'].filter(name => existsSync(join(folder, name))));
  const kept = [...lines('log.1'), ...lines()].map(line => Number(line.i));
  expect(kept).toEqual(Array.from({ length: kept.length }, (_, n) => 100 - kept.length + n));
  expect(statSync(join(folder, 'log.1')).size).toBeLessThan(700);
});

it('a lock whose owner was killed is swept, and a fresh one is respected', () => {
  const log = new Log(target({ maxSize: 50 }));
  const lock = join(folder, 'log.lock');
  writeFileSync(lock, '');
  log.info('event');
  expect(existsSync(join(folder, 'log.1'))).toBe(false);
  const swept = spawnSync('touch', ['-d', '1 minute ago', lock]);
  expect(swept.status).toBe(0);
  log.info('sweeps');
  log.info('rotates');
  expect(existsSync(lock)).toBe(false);
  expect(lines('log.1')).toHaveLength(3);
});

it('a lock made before the clock was set back is swept too', () => {
  const log = new Log(target({ maxSize: 50 }));
  const lock = join(folder, 'log.lock');
  writeFileSync(lock, '');
  const inAnHour = Date.now() / 1000 + 3600;
  utimesSync(lock, inAnHour, inAnHour);
  log.info('sweeps');
  log.info('rotates');
  expect(readdirSync(folder).sort()).toEqual(['log.1']);
});

it('a link is written through and never renamed', () => {
  symlinkSync('elsewhere', join(folder, 'log'));
  const log = new Log(target({ maxSize: 50 }));
  for (let i = 0; i < 5; i++) log.info('event', { i });
  expect(readdirSync(folder).sort()).toEqual(['elsewhere', 'log']);
  expect(lines('elsewhere')).toHaveLength(5);
});

it('many processes: no line mixes with another, and without rotation none is lost', async () => {
  const script = `import { Log } from ${JSON.stringify(join(import.meta.dirname, 'log.ts'))};
    const log = new Log(${JSON.stringify(target())});
    for (let i = 0; i < 100; i++) log.info('event', { pid: process.pid, i, filler: 'x'.repeat(i * 7) });`;
  await Promise.all(Array.from({ length: 8 }, () => ended(script)));
  expect(lines()).toHaveLength(800);
});

it('many processes that rotate: every line that is left is whole, and the newest are there', async () => {
  const script = `import { Log } from ${JSON.stringify(join(import.meta.dirname, 'log.ts'))};
    const log = new Log(${JSON.stringify(target({ maxSize: 4000 }))});
    for (let i = 0; i < 100; i++) log.info('event', { pid: process.pid, i });`;
  await Promise.all(Array.from({ length: 6 }, () => ended(script)));
  const left = [...lines('log.1'), ...lines()];
  expect(left.length).toBeGreaterThan(20);
  expect(left.some(line => line.i === 99)).toBe(true);
  expect(readdirSync(folder).filter(name => !['log', 'log.1'].includes(name))).toEqual([]);
}, 60_000);

function ended(script: string): Promise<void> {
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: 'inherit' });
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('exit', code => (code === 0 ? resolve() : reject(new Error(`exit ${code}`))));
  });
}

describe('a log that cannot be written stops nothing', () => {
  it.each<[string, (file: string) => void]>([
    ['a folder', file => mkdirSync(file)],
    ['a named pipe that nobody reads', file => expect(spawnSync('mkfifo', [file]).status).toBe(0)],
    ['in a folder that is none', file => writeFileSync(join(file, '..', 'none'), '')],
  ])('%s', (what, make) => {
    const file = join(folder, 'log');
    make(file);
    const odd = what.startsWith('in a folder') ? join(folder, 'none', 'log') : file;
    new Log(target({ file: odd })).error('event');
    expect(readdirSync(folder)).toHaveLength(1);
  });

  it('a full device, and a folder that is absent', () => {
    new Log(target({ file: '/dev/full' })).error('event');
    new Log(target({ file: join(folder, 'absent', 'log') })).error('event');
    expect(readdirSync(folder)).toEqual([]);
  });
});
