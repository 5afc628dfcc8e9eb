// Runs every suite in order and closes with "N passed, N failed, N skipped": test.ts [--quick] [--only FILTER].
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { closing, type Outcome, succeeded } from './test/outcome.ts';

const project = resolve(import.meta.dirname, '..');
const bin = join(project, 'node_modules/.bin');

interface Ended {
  readonly code: number;
  readonly output: string;
}

/** Runs to the end, in `show` mode with its output shown as it comes. */
function run(command: string, args: readonly string[], show: boolean, env: NodeJS.ProcessEnv = {}): Promise<Ended> {
  return new Promise((done, fail) => {
    const child = spawn(command, args, {
      cwd: project,
      env: { ...process.env, NO_COLOR: '1', ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const chunks: Buffer[] = [];
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (chunk: Buffer) => {
        chunks.push(chunk);
        if (show) process.stdout.write(chunk);
      });
    }
    child.on('error', fail);
    child.on('close', (code, signal) => {
      const output = Buffer.concat(chunks).toString();
      done({ code: code ?? 1, output: signal ? `${output}\nended by ${signal}` : output });
    });
  });
}

function heading(text: string): void {
  process.stdout.write(`\n== ${text}\n`);
}

/** A tool whose exit code is the whole result counts as one test. */
async function check(name: string, command: string, args: readonly string[], show = false): Promise<Outcome> {
  heading(name);
  const { code, output } = await run(command, args, show);
  process.stdout.write(code === 0 ? 'ok\n' : 'FAILED\n');
  return code === 0 ? { name, state: 'passed' } : { name, state: 'failed', reason: output };
}

async function vitest(suite: 'unit' | 'integration', filter: string | undefined): Promise<Outcome[]> {
  heading(`${suite} tests`);
  const folder = mkdtempSync(join(tmpdir(), 'kube-ipam-test-'));
  const report = join(folder, 'outcomes.json');
  try {
    const args = [
      join(project, 'node_modules/vitest/vitest.mjs'),
      'run',
      '--project',
      suite,
      '--passWithNoTests',
      '--reporter',
      join(project, 'scripts/test/reporter.ts'),
      ...(filter === undefined ? [] : [filter]),
    ];
    const { code, output } = await run(process.execPath, args, true, { KUBE_IPAM_TEST_REPORT: report });
    const outcomes: Outcome[] = existsSync(report) ? JSON.parse(readFileSync(report, 'utf8')) : [];
    if (code !== 0 && succeeded([{ name: '', state: 'passed' }, ...outcomes]))
      outcomes.push({
        name: `${suite} tests`,
        state: 'failed',
        reason: `vitest ended with exit code ${code}:\n${output}`,
      });
    return outcomes;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const { values } = parseArgs({ options: { quick: { type: 'boolean', default: false }, only: { type: 'string' } } });
const outcomes: Outcome[] = [];
if (values.only === undefined) {
  outcomes.push(await check('format', join(bin, 'biome'), ['ci', '--linter-enabled=false', '--colors=off', '.']));
  outcomes.push(
    await check('lint', join(bin, 'biome'), [
      'ci',
      '--formatter-enabled=false',
      '--assist-enabled=false',
      '--colors=off',
      '.',
    ]),
  );
  outcomes.push(await check('types', process.execPath, [join(project, 'node_modules/typescript/bin/tsc'), '-p', '.']));
}
outcomes.push(...(await vitest('unit', values.only)));
if (!values.quick) {
  // A filter may name unit tests alone; the helpers build the executable for the tests that use it.
  if (values.only === undefined) outcomes.push(await check('executable', 'bash', ['scripts/bundle-sea.sh'], true));
  outcomes.push(...(await vitest('integration', values.only)));
}
process.stdout.write(closing(outcomes));
process.exitCode = succeeded(outcomes) ? 0 : 1;
