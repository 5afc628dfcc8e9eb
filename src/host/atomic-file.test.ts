// Whole files or none, and what killed writers left: drafts go once they are old, and never stand in the way.
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { AtomicFile, writeAtomically } from './atomic-file.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'kube-ipam-atomic-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const minutesAgo = (path: string, minutes: number) => {
  const then = Date.now() / 1000 - 60 * minutes;
  utimesSync(path, then, then);
};

it('gives the file its content and mode in one step, and leaves no draft', () => {
  const path = join(folder, 'x');
  writeFileSync(path, 'old');
  {
    using file = new AtomicFile(path, 0o644);
    file.write('new');
    expect(readFileSync(path, 'utf8')).toBe('old');
    file.finish();
  }
  expect(readFileSync(path, 'utf8')).toBe('new');
  expect((statSync(path).mode & 0o777).toString(8)).toBe('644');
  {
    using file = new AtomicFile(path, 0o644);
    file.write('never');
  }
  expect(readFileSync(path, 'utf8')).toBe('new');
  expect(readdirSync(folder)).toEqual(['x']);
});

it('is not stopped by the draft of a killed process that had the same number', () => {
  const path = join(folder, 'x');
  const killed = new AtomicFile(path, 0o600);
  killed.write('half');
  const draft = killed.seal();
  writeFileSync(`${path}.${process.pid}.new`, 'half');
  writeAtomically(path, 'whole', 0o600);
  expect(readFileSync(path, 'utf8')).toBe('whole');
  expect(existsSync(draft)).toBe(true);
});

it('sweeps old drafts of the same file, in every form that was ever written, and nothing else', () => {
  const path = join(folder, 'kube-ipam');
  const left = ['kube-ipam.1.new', 'kube-ipam.4711.0123456789ab.new'];
  const others = ['kube-ipam.conf.1.0123456789ab.new', 'kube-ipam.backup.new', 'kube-ipam.1.xyz.new', 'kube-ipam.new'];
  for (const name of [...left, ...others]) {
    writeFileSync(join(folder, name), name);
    minutesAgo(join(folder, name), 61);
  }
  const young = 'kube-ipam.1.ba9876543210.new';
  writeFileSync(join(folder, young), 'still being written, perhaps in another container');
  minutesAgo(join(folder, young), 2);
  writeAtomically(path, 'whole', 0o755);
  expect(readdirSync(folder).sort()).toEqual(['kube-ipam', young, ...others].sort());
});
