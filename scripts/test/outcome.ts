// What a test ended with, and the closing lines that tell it to people and to CI.

export interface Outcome {
  /** Suite or file, then the test's own names, outermost first. */
  readonly name: string;
  readonly state: 'passed' | 'failed' | 'skipped';
  /** Why it failed or was skipped. */
  readonly reason?: string;
}

/** Failures in full, then skipped tests with their reasons, then the one line that CI reads. */
export function closing(outcomes: readonly Outcome[]): string {
  const of = (state: Outcome['state']) => outcomes.filter(outcome => outcome.state === state);
  const failed = of('failed').map(({ name, reason }) => `FAILED  ${name}\n${indent(reason ?? 'no reason given')}\n`);
  const skipped = of('skipped').map(({ name, reason }) => `skipped ${name}: ${reason ?? 'no reason given'}`);
  const counts = `${of('passed').length} passed, ${of('failed').length} failed, ${of('skipped').length} skipped`;
  return `${[...failed, ...skipped, counts].map(line => `\n${line}`).join('')}\n`.replace(/\n\nskipped/g, '\nskipped');
}

/** Nothing that ran is a failure too: a filter that matches no test proves nothing. */
export function succeeded(outcomes: readonly Outcome[]): boolean {
  return outcomes.some(({ state }) => state === 'passed') && outcomes.every(({ state }) => state !== 'failed');
}

function indent(text: string): string {
  return text
    .trimEnd()
    .split('\n')
    .map(line => `    ${line}`)
    .join('\n');
}
