// A vitest reporter: a line for each file (and each slow test) as it ends, and every outcome as JSON in a file for test.ts.
import { writeFileSync } from 'node:fs';
import type { Reporter, SerializedError, TestCase, TestModule } from 'vitest/node';
import type { Outcome } from './outcome.ts';

/** Tests that took longer are named as they end, so that a long suite shows that it lives. */
const slow = 2_000;

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}

type Problem = Pick<SerializedError, 'message' | 'stack'> & { readonly diff?: string };

/** The message, where it happened, and what was expected: not the inside of the test runner. */
function tell(problem: Problem): string {
  const places = (problem.stack ?? '')
    .split('\n')
    .filter(line => /^\s+at /.test(line) && !/node_modules|node:|<anonymous>/.test(line));
  return [problem.message, ...(problem.diff ? [problem.diff] : []), ...places.slice(0, 6)].join('\n');
}

export default class ProgressReporter implements Reporter {
  readonly #outcomes: Outcome[] = [];

  onTestCaseResult(test: TestCase): void {
    const result = test.result();
    const took = test.diagnostic()?.duration ?? 0;
    const name = `${test.module.relativeModuleId} > ${test.fullName}`;
    if (result.state === 'failed') {
      say(`  FAILED ${name}`);
      this.#outcomes.push({ name, state: 'failed', reason: result.errors.map(tell).join('\n\n') });
    } else if (result.state === 'skipped') {
      this.#outcomes.push({ name, state: 'skipped', ...(result.note && { reason: result.note }) });
    } else {
      if (took > slow) say(`  ok ${test.fullName} (${seconds(took)})`);
      this.#outcomes.push({ name, state: 'passed' });
    }
  }

  onTestModuleEnd(module: TestModule): void {
    // Errors of the file itself: it does not load, or a hook failed, and its tests may never have been reported.
    const own = [...module.errors(), ...[...module.children.allSuites()].flatMap(suite => suite.errors())];
    for (const problem of own)
      this.#outcomes.push({ name: module.relativeModuleId, state: 'failed', reason: tell(problem) });
    const tests = [...module.children.allTests()].map(test => test.result().state);
    const count = (state: string): number => tests.filter(found => found === state).length;
    const parts = [`${count('passed')} passed`];
    if (count('failed') + own.length > 0) parts.push(`${count('failed') + own.length} failed`);
    if (count('skipped') > 0) parts.push(`${count('skipped')} skipped`);
    const bad = own.length > 0 || count('failed') > 0;
    say(
      `${bad ? 'FAILED' : 'ok'} ${module.relativeModuleId}: ${parts.join(', ')} (${seconds(module.diagnostic().duration)})`,
    );
  }

  onTestRunEnd(modules: readonly TestModule[], unhandled: readonly SerializedError[]): void {
    for (const problem of unhandled)
      this.#outcomes.push({ name: 'error outside any test', state: 'failed', reason: tell(problem) });
    // A worker that died leaves tests which never reached an end.
    for (const module of modules) {
      for (const test of module.children.allTests()) {
        if (test.result().state === 'pending')
          this.#outcomes.push({
            name: `${module.relativeModuleId} > ${test.fullName}`,
            state: 'failed',
            reason: 'never ended',
          });
      }
    }
    const report = process.env.KUBE_IPAM_TEST_REPORT;
    if (report !== undefined) writeFileSync(report, JSON.stringify(this.#outcomes));
  }
}
