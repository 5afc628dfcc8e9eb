// npm run demo as a person runs it: it tells its story to the end, and leaves nothing behind however it ends.
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { build } from '../helpers/executable.ts';
import { whyNoMachine } from '../helpers/machine.ts';
import { stockPlugins } from '../helpers/netns.ts';

const timeout = 120_000;
const script = join(import.meta.dirname, '../../scripts/demo.ts');
const obstacle = (await whyNoMachine()) ?? (stockPlugins() === undefined ? 'no stock CNI plugins here' : undefined);

if (obstacle !== undefined) test('demo', ({ skip }) => skip(obstacle));

describe.each(obstacle === undefined ? ['demo'] : [])('%s', () => {
  let scratch: string;

  beforeEach(() => {
    build();
    scratch = mkdtempSync(join(tmpdir(), 'kube-ipam-demo-test-'));
  });

  afterEach(() => rmSync(scratch, { recursive: true, force: true }));

  /** Starts the demo with a temporary folder of its own, so that what it leaves there can be seen. */
  function start(path = process.env.PATH): ChildProcess {
    return spawn(process.execPath, [script], {
      env: { PATH: path, TMPDIR: scratch },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
  }

  function left(): readonly string[] {
    return readdirSync(scratch).filter(name => name !== 'bin');
  }

  test('tells both parts to the end', { timeout }, async () => {
    const { code, stdout, stderr } = await ended(start());
    expect(stderr).toBe('');
    expect(code).toBe(0);
    for (const address of ['10.188.0.2', '10.188.0.3']) {
      // Given by ADD, answered by ping and shown by ls, on each of both stores.
      expect(stdout.split(address).length - 1).toBeGreaterThanOrEqual(6);
    }
    expect(stdout.match(/64 bytes from/g)).toHaveLength(4);
    expect(stdout).not.toContain('\u001b');
    expect(left()).toEqual([]);
  });

  test.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const)('%s leaves nothing behind', { timeout }, async (signal, expected) => {
    const demo = start();
    demo.stdout?.on('data', text => {
      if (String(text).includes('pod-1 has')) demo.kill(signal);
    });
    expect((await ended(demo)).code).toBe(expected);
    expect(left()).toEqual([]);
  });

  test('a step that fails is named, and nothing stays', { timeout }, async () => {
    const bin = join(scratch, 'bin');
    mkdirSync(bin);
    writeFileSync(join(bin, 'etcd'), '#!/bin/sh\nexit 7\n', { mode: 0o755 });
    const { code, stderr } = await ended(start(`${bin}:${process.env.PATH}`));
    expect(code).toBe(1);
    expect(stderr).toContain('etcd ended with 7');
    expect(stderr).not.toMatch(/\n\s+at /);
    expect(left()).toEqual([]);
  });
});

async function ended(child: ChildProcess): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const text = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const) {
    child[name]?.on('data', chunk => {
      text[name] += chunk;
    });
  }
  const code = await new Promise<number | null>(resolve => child.on('close', resolve));
  return { code, ...text };
}
