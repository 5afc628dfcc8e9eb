// Waiting DELs on a real disk: kept whole or refused, listed in order, gone when their container lives again.
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { FailureError } from '../base/errors.ts';
import { Spool, type WaitingDel } from './spool.ts';

let folder = '';
let spool: Spool;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'kube-ipam-spool-'));
  spool = new Spool(folder);
});

afterEach(() => rmSync(folder, { recursive: true, force: true }));

function del(containerID: string, ifname = 'eth0'): WaitingDel {
  return { id: { node: 'n', network: 'net', containerID, ifname }, conf: { name: 'net', ipam: { timeout: 1 } } };
}

function fileOf(which: number): string {
  return join(folder, 'spool', readdirSync(join(folder, 'spool'))[which]!);
}

it('keeps a DEL with its configuration, for root alone', () => {
  expect(spool.has(del('a').id)).toBe(false);
  spool.keep(del('a'));
  expect(spool.has(del('a').id)).toBe(true);
  expect(spool.has(del('a', 'eth1').id)).toBe(false);
  expect(new Spool(folder).list()).toEqual([del('a')]);
  expect(statSync(fileOf(0)).mode & 0o777).toBe(0o600);
  expect(statSync(join(folder, 'spool')).mode & 0o777).toBe(0o700);
});

it('keeps one file for one attachment, however often it is asked', () => {
  spool.keep(del('a'));
  spool.keep(del('a'));
  expect(readdirSync(join(folder, 'spool'))).toHaveLength(1);
  spool.remove(del('a').id);
  spool.remove(del('a').id);
  expect(spool.list()).toEqual([]);
});

it('lists the oldest first', () => {
  for (const [n, name] of ['c', 'a', 'b'].entries()) {
    spool.keep(del(name));
    const fresh = readdirSync(join(folder, 'spool')).map(file => join(folder, 'spool', file));
    const newest = fresh.sort((x, y) => statSync(y).mtimeMs - statSync(x).mtimeMs)[0]!;
    utimesSync(newest, 1000 + n, 1000 + n);
  }
  expect(spool.list().map(({ id }) => id.containerID)).toEqual(['c', 'a', 'b']);
});

it('is empty where there is no folder', () => {
  expect(spool.list()).toEqual([]);
  spool.remove(del('a').id);
});

it('takes nothing for a DEL that is none, and sweeps what a killed process left', () => {
  spool.keep(del('a'));
  const loop = join(folder, 'spool', 'loop');
  symlinkSync(loop, loop);
  mkdirSync(join(folder, 'spool', '.new-folder'));
  utimesSync(join(folder, 'spool', '.new-folder'), 1000, 1000);
  const files = ['stranger', '.new-1-x', '.new-2-x'].map(name => join(folder, 'spool', name));
  for (const file of files) writeFileSync(file, JSON.stringify(del('b')));
  utimesSync(files[1]!, 1000, 1000);
  expect(spool.list()).toEqual([del('a')]);
  expect(files.map(file => existsSync(file))).toEqual([true, false, true]);
});

it('refuses with code 11 what it cannot keep or remove', () => {
  const blocked = join(folder, 'blocked');
  writeFileSync(blocked, '');
  const nowhere = new Spool(blocked);
  expect(() => nowhere.keep(del('a'))).toThrow(FailureError);
  expect(() => nowhere.keep(del('a'))).toThrow(/cannot be kept/);
  spool.keep(del('a'));
  const file = fileOf(0);
  rmSync(file);
  mkdirSync(file);
  expect(() => spool.remove(del('a').id)).toThrow(expect.objectContaining({ code: 11 }));
});
