// The plugin as a process: whatever stdin, stdout and the environment are (the contract's section 1).
import { spawn, spawnSync } from 'node:child_process';
import {
  closeSync,
  constants,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { confOf, environment, Ground, type Json, type Site } from '../helpers/plugin.ts';
import { program, run, startWith } from '../helpers/plugin-process.ts';

let ground: Ground;
let site: Site;
let conf: Json;
let folder: string;
beforeAll(async () => {
  ground = await Ground.make('embedded');
});
afterAll(() => ground?.[Symbol.asyncDispose]());
beforeEach(async () => {
  site = await ground.site();
  conf = confOf(site, { subnet: '10.1.0.0/24', timeout: 10 }, { cniVersion: '1.1.0' });
  folder = mkdtempSync(join(ground.folder, 'work-'));
});

const result = { cniVersion: '1.1.0', ips: [{ address: '10.1.0.2/24', gateway: '10.1.0.1' }] };

/** Runs with descriptors of our own making as stdin and stdout; gives exit code and stderr. */
function runOn(stdin: number | 'pipe', stdout: number, env = environment('ADD', {})) {
  const child = spawn(program, [], { env, stdio: [stdin, stdout, 'pipe'], cwd: '/' });
  let stderr = '';
  child.stderr!.on('data', chunk => {
    stderr += chunk;
  });
  const ended = new Promise<{ code: number | null; stderr: string }>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', code => resolve({ code, stderr }));
  });
  return { child, ended };
}

/** Both ends of a named pipe; `flags` for the end that the plugin gets. */
function pipe(end: 'read' | 'write', flags = 0): { readonly plugin: number; readonly ours: number } {
  const path = join(folder, `pipe-${end}`);
  expect(spawnSync('mkfifo', [path]).status).toBe(0);
  const holder = openSync(path, constants.O_RDWR);
  const [theirs, mine] =
    end === 'read' ? [constants.O_RDONLY, constants.O_WRONLY] : [constants.O_WRONLY, constants.O_RDONLY];
  const both = { plugin: openSync(path, theirs | flags), ours: openSync(path, mine) };
  closeSync(holder);
  return both;
}

describe('1.8 stdin', () => {
  const text = () => JSON.stringify(conf);
  const expectResult = async (stdin: number, feed?: () => Promise<void>) => {
    const out = join(folder, 'out');
    const stdout = openSync(out, 'w');
    const { ended } = runOn(stdin, stdout);
    await feed?.();
    expect(await ended).toEqual({ code: 0, stderr: '' });
    closeSync(stdout);
    expect(JSON.parse(readFileSync(out, 'utf8'))).toEqual(result);
  };

  it('a file', async () => {
    const file = join(folder, 'conf');
    writeFileSync(file, text());
    const stdin = openSync(file, 'r');
    await expectResult(stdin);
    closeSync(stdin);
  });

  it.each([
    ['a slow pipe', 0],
    ['a slow pipe that does not block', constants.O_NONBLOCK],
  ])('%s', async (_, flags) => {
    const { plugin, ours } = pipe('read', flags);
    await expectResult(plugin, async () => {
      closeSync(plugin);
      const bytes = Buffer.from(text());
      for (let at = 0; at < bytes.length; at += 50) {
        writeSync(ours, bytes.subarray(at, at + 50));
        await sleep(30);
      }
      closeSync(ours);
    });
  });

  it('a socket, several megabytes, byte order of a runtime', async () => {
    conf = { ...conf, padding: Array.from({ length: 40_000 }, (_, n) => ({ n, text: 'x'.repeat(100) })) };
    expect(text().length).toBeGreaterThan(4_000_000);
    const { ended } = startWith(environment('ADD', {}), text());
    expect(await ended).toMatchObject({ exitCode: 0, result, stderr: '' });
  });

  it('closed, /dev/null, and a folder', async () => {
    const args = ['-c', 'exec "$0" <&-', program];
    const closed = spawnSync('busybox', ['sh', ...args], { env: environment('ADD', {}), encoding: 'utf8' });
    expect([closed.status, JSON.parse(closed.stdout).code, closed.stderr]).toEqual([1, 6, '']);
    for (const [path, code] of [
      ['/dev/null', 6],
      ['/', 5],
    ] as const) {
      const out = join(folder, 'out');
      const [stdin, stdout] = [openSync(path, 'r'), openSync(out, 'w')];
      expect(await runOn(stdin, stdout).ended).toEqual({ code: 1, stderr: '' });
      for (const fd of [stdin, stdout]) closeSync(fd);
      expect(JSON.parse(readFileSync(out, 'utf8'))).toMatchObject({ code });
    }
  });
});

describe('1.4 stdout', () => {
  const manyProblems = () =>
    confOf(site, { subnet: 'x', routes: Array.from({ length: 4000 }, (_, n) => ({ dst: `wrong ${n}` })) });

  it.each([
    ['a pipe that is read slowly', 0],
    ['a pipe that does not block and is read slowly', constants.O_NONBLOCK],
  ])('%s gets every byte of an answer larger than itself', async (_, flags) => {
    const { plugin, ours } = pipe('write', flags);
    const { child, ended } = runOn('pipe', plugin);
    closeSync(plugin);
    child.stdin!.end(JSON.stringify(manyProblems()));
    const reader = spawn(
      'busybox',
      ['sh', '-c', 'while busybox head -c 20000 > part && [ -s part ]; do cat part; busybox usleep 20000; done'],
      {
        cwd: folder,
        stdio: [ours, 'pipe', 'inherit'],
      },
    );
    closeSync(ours);
    const chunks: Buffer[] = [];
    for await (const chunk of reader.stdout!) chunks.push(chunk);
    expect(await ended).toEqual({ code: 1, stderr: '' });
    const answer = JSON.parse(Buffer.concat(chunks).toString());
    expect(answer).toMatchObject({ code: 7 });
    expect(Buffer.concat(chunks).length).toBeGreaterThan(100_000);
  });

  it('nobody reads any more (EPIPE): an exit code, no signal, no noise; DEL cleans up', async () => {
    const { plugin, ours } = pipe('write');
    const { child, ended } = runOn('pipe', plugin);
    closeSync(plugin);
    closeSync(ours);
    child.stdin!.end(JSON.stringify(conf));
    expect(await ended).toEqual({ code: 1, stderr: '' });
    expect((await run('DEL', { conf })).exitCode).toBe(0);
    expect(await site.remains()).toEqual([]);
  });
});

describe('1.7 the environment', () => {
  it('nothing but CNI_ variables, in a folder that is gone', async () => {
    const gone = join(folder, 'gone');
    mkdirSync(gone);
    const args = ['-c', 'cd "$1" && rmdir "$1" && exec "$0"', program, gone];
    const { status, stdout, stderr } = spawnSync('busybox', ['sh', ...args], {
      env: environment('ADD', {}),
      input: JSON.stringify(conf),
      encoding: 'utf8',
    });
    expect([status, JSON.parse(stdout), stderr]).toEqual([0, result, '']);
  });

  it('nothing is written to the current folder', async () => {
    spawnSync(program, [], { env: environment('ADD', {}), input: JSON.stringify(conf), cwd: folder });
    spawnSync(program, [], { env: environment('DEL', {}), input: JSON.stringify(conf), cwd: folder });
    expect(readdirSync(folder)).toEqual([]);
    expect(site.events().map(({ event }) => event)).toEqual(['add', 'del']);
  });

  it('1.11 tracing, strange locales and folders do not matter', async () => {
    const strange = {
      TRACEPARENT: 'x',
      TRACESTATE: 'y',
      BAGGAGE: 'z',
      LANG: 'xx',
      TMPDIR: '/nonexistent',
      HOME: '',
      PATH: '',
    };
    const { ended } = startWith({ ...environment('ADD', {}), ...strange }, JSON.stringify(conf));
    expect(await ended).toMatchObject({ exitCode: 0, result, stderr: '' });
  });
});

it('1.2, 1.5, 1.6 every command in turn: exit codes, silence, an empty stderr', async () => {
  const gcConf = { ...conf, 'cni.dev/valid-attachments': [] };
  const quiet = { exitCode: 0, stdout: '', stderr: '', signal: null };
  expect(await run('ADD', { conf })).toMatchObject({ exitCode: 0, result, stderr: '', signal: null });
  expect(await run('CHECK', { conf })).toMatchObject(quiet);
  expect(await run('STATUS', { conf })).toMatchObject(quiet);
  expect(await run('GC', { conf: gcConf })).toMatchObject(quiet);
  expect(await run('DEL', { conf })).toMatchObject(quiet);
  expect(await run('CHECK', { conf })).toMatchObject({ exitCode: 1, error: { code: 106 }, stderr: '' });
  expect(await run('VERSION', { conf: {} })).toMatchObject({ exitCode: 0, stderr: '' });
  expect(await site.remains()).toEqual([]);
});

it('the folder for temporary files stays as it is', async () => {
  const own = () => readdirSync(tmpdir()).filter(name => /^(node|kube-ipam$|sea)/.test(name));
  const before = own();
  await run('ADD', { conf });
  expect(own()).toEqual(before);
  rmSync(folder, { recursive: true });
});
