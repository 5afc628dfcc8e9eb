// Folders with all that lead to them, and an end where the kernel never lets one be made.
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { makeFolder } from './folder.ts';

const place = mkdtempSync(join(tmpdir(), 'kube-ipam-folder-'));
afterAll(() => rmSync(place, { recursive: true }));

it('is made with all that lead to it, for whom the mode says, and may be there already', () => {
  const folder = join(place, 'a', 'b', 'c');
  makeFolder(folder, 0o700);
  makeFolder(folder, 0o755);
  for (const one of [folder, join(place, 'a')]) expect(statSync(one).mode & 0o777).toBe(0o700);
});

it('is refused where a file stands in the way', () => {
  const file = join(place, 'file');
  writeFileSync(file, '');
  expect(() => makeFolder(file, 0o700)).toThrow(/EEXIST/);
  expect(() => makeFolder(join(file, 'below'), 0o700)).toThrow(/ENOTDIR/);
});

it('is refused, and not tried for ever, where the kernel denies that the parent exists', () => {
  expect(() => makeFolder('/proc/none/such', 0o700)).toThrow(/ENOENT/);
});
