// Questions about what a store holds, asked where nobody answers and at a terminal.
import { execFileSync, spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

/** Asks in a process of its own, whose standard input is a pipe or, through script(1), a terminal. */
const asking = `
  import { confirmed } from ${JSON.stringify(fileURLToPath(new URL('./ask.ts', import.meta.url)))};
  const io = { writeStderr: text => process.stdout.write(text) };
  try {
    process.stdout.write('answer: ' + confirmed({}, io, 'Release \\u001b[2J\\u009b31m10.1.0.2\\u0007?') + '\\n');
  } catch (error) {
    process.stdout.write(error.name + ': ' + error.message + '\\n');
  }
`;
const node = [process.execPath, '--input-type=module', '-e', asking] as const;

it('refuses where nobody can be asked, without what would steer a terminal', () => {
  const said = execFileSync(node[0], node.slice(1), { input: 'y\n', encoding: 'utf8', timeout: 20_000 });
  expect(said).toBe('UsageError: Release ?[2J?31m10.1.0.2?? Nobody can be asked here: say --yes\n');
});

it.for([
  ['y', true],
  ['YES', true],
  ['n', false],
  ['', false],
] as const)('asks at a terminal, and takes %j for %j', ([word, answer], { skip }) => {
  const terminal = spawnSync('script', ['--quiet', '--return', '--command', 'true', '/dev/null'], { timeout: 20_000 });
  skip(terminal.status !== 0, 'no pseudo-terminal can be made here');
  const line = node.map(part => `'${part.replaceAll("'", `'\\''`)}'`).join(' ');
  const said = execFileSync('script', ['--quiet', '--return', '--command', line, '/dev/null'], {
    input: `${word}\n`,
    encoding: 'utf8',
    timeout: 20_000,
    env: { ...process.env, SHELL: '/bin/sh' },
  });
  expect(said).toContain('Release ?[2J?31m10.1.0.2?? [y/N] ');
  expect(said).toContain(`answer: ${answer}`);
  expect(said).not.toContain('\u001b[2J');
});
