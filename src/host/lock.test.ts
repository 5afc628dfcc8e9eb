// The lock between real processes: one has it, a killed one has it no longer.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { takeLock } from './lock.ts';

let folder = '';
let file = '';

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'kube-ipam-lock-'));
  file = join(folder, 'run', 'agent.lock');
});

afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** A process that takes the lock, says so, and stays. */
async function holder() {
  const program = `import { takeLock } from ${JSON.stringify(join(import.meta.dirname, 'lock.ts'))};
    globalThis.lock = takeLock(${JSON.stringify(file)});
    console.log(lock === undefined ? 'taken' : 'mine');
    setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [said] = await once(child.stdout!, 'data');
  return { child, said: String(said).trim() };
}

it('is held by one process at a time, and by nobody once that one is killed', async () => {
  const first = await holder();
  expect(first.said).toBe('mine');
  expect(takeLock(file)).toBeUndefined();
  const second = await holder();
  expect(second.said).toBe('taken');
  second.child.kill('SIGKILL');
  first.child.kill('SIGSTOP');
  expect(takeLock(file)).toBeUndefined();
  first.child.kill('SIGKILL');
  await once(first.child, 'exit');
  using lock = takeLock(file);
  expect(lock).toBeDefined();
  expect(readdirSync(join(folder, 'run'))).toEqual(['agent.lock']);
});

it('can be given back', () => {
  takeLock(file)![Symbol.dispose]();
  using again = takeLock(file);
  expect(again).toBeDefined();
});

it('says why when its folder cannot be made', () => {
  writeFileSync(join(folder, 'file'), '');
  expect(() => takeLock(join(folder, 'file', 'agent.lock'))).toThrow(/EEXIST|ENOTDIR/);
});
