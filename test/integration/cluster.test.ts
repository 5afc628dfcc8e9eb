// npm run cluster as a person uses it: its commands work, and nothing of it runs on when it ends, however it ends.
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { removeControlGroups } from '../helpers/control-groups.ts';
import { whyNoPlayground } from '../helpers/kubernetes/playground.ts';
import { kubernetesProgram } from '../helpers/kubernetes/tools.ts';
import { run } from '../helpers/machine.ts';
import { program } from '../helpers/plugin-process.ts';

const timeout = 300_000;
const script = join(import.meta.dirname, '../../scripts/cluster.ts');
const obstacle = await whyNoPlayground();

if (obstacle !== undefined) test('cluster', ({ skip }) => skip(obstacle));

describe.skipIf(obstacle !== undefined)('cluster', () => {
  let scratch: string;
  let child: ChildProcess;
  let said: string;

  beforeEach(() => {
    scratch = mkdtempSync(join(tmpdir(), 'kube-ipam-ct-'));
    said = '';
    // A temporary folder of its own, so that what it leaves can be seen, and whose process is whose.
    const env = { ...process.env, TMPDIR: scratch };
    child = spawn(process.execPath, [script], { env, stdio: ['ignore', 'pipe', 'pipe'] });
    for (const stream of [child.stdout, child.stderr]) {
      stream?.on('data', chunk => {
        said += chunk;
      });
    }
  });

  afterEach(async () => {
    child.kill('SIGKILL');
    await expect.poll(() => processesOf(scratch), { timeout: 120_000 }).toEqual([]);
    for (const name of readdirSync(scratch)) removeControlGroups(name);
    rmSync(scratch, { recursive: true, force: true });
  }, timeout);

  const hears = async (what: string) => {
    await expect.poll(() => child.exitCode !== null || said.includes(what), { timeout }).toBe(true);
    expect(said).toContain(what);
  };

  const ended = () =>
    new Promise<number | null>(resolve => {
      if (child.exitCode !== null) resolve(child.exitCode);
      else child.once('exit', resolve);
    });

  test('the commands that it tells work; SIGTERM takes everything down', { timeout }, async () => {
    await hears('Ctrl-C');
    const kubeconfig = /KUBECONFIG=(\S+)/.exec(said)![1]!;
    const etcd = /--etcd-url (\S+)/.exec(said)![1]!;
    const kubectl = async (line: string) => {
      const argv = [kubernetesProgram('kubectl')!, '--kubeconfig', kubeconfig, ...line.split(' ')];
      const ended = await run(argv, { timeout: 100_000 });
      expect(ended).toMatchObject({ code: 0 });
      return ended.stdout;
    };
    for (const [, line] of said.matchAll(/^ {2}kubectl (.* (?:deployment|run) .*|run .*)$/gm)) await kubectl(line!);
    await kubectl('rollout status deployment/web --timeout=90s');
    await kubectl('wait --for=condition=Ready pod/fixed --timeout=90s');
    for (const [, line] of said.matchAll(/^ {2}kubectl ((?:get|exec) .*)$/gm))
      expect(await kubectl(line!)).not.toBe('');
    expect(await kubectl('get pod fixed -o jsonpath={.status.podIP}')).toBe('10.188.0.216');
    const listed = await run([program, 'ls', '--etcd-url', etcd], {});
    expect(listed.stdout).toMatch(/^10\.188\.0\.216 +fixed .* default\/fixed /m);

    child.kill('SIGTERM');
    expect(await ended()).toBe(0);
    expect(processesOf(scratch)).toEqual([]);
    expect(readdirSync(scratch)).toEqual([]);
  });

  test('killed while it starts, it leaves no process behind', { timeout }, async () => {
    await hears('installing kube-ipam');
    expect(processesOf(scratch).join('\n')).toMatch(/kubelet/);
    child.kill('SIGKILL');
    await expect.poll(() => processesOf(scratch), { timeout: 120_000 }).toEqual([]);
  });
});

/** The commands of processes that know of this folder, by an argument or by their environment. */
function processesOf(folder: string): readonly string[] {
  const pids = readdirSync('/proc').filter(name => /^\d+$/.test(name) && name !== String(process.pid));
  return pids.flatMap(pid => {
    try {
      const command = readFileSync(join('/proc', pid, 'cmdline'), 'utf8').replaceAll('\0', ' ');
      const known = `${command}${readFileSync(join('/proc', pid, 'environ'), 'utf8')}`;
      return known.includes(folder) ? [command] : [];
    } catch {
      // It has ended meanwhile.
      return [];
    }
  });
}
