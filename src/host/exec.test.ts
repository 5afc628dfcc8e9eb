// Programs are run to their end, with the deadline that the caller's clock gives, fractions of milliseconds included.
import { expect, it } from 'vitest';
import { deadlineIn } from '../base/clock.ts';
import { attach, execute } from './exec.ts';

const node = process.execPath;

it('gives exit code and both streams, and passes input and environment on', async () => {
  const program = 'process.stdin.on("data", d => process.stdout.write(d + process.env.WORD)); process.exitCode = 3';
  const done = await execute(node, ['-e', `${program}; console.error("x")`], { WORD: 'b' }, 'a', deadlineIn(20_000.7));
  expect(done).toEqual({ code: 3, stdout: 'ab', stderr: 'x\n' });
});

it('ends a program that outlives the deadline, and tells of one that cannot be started', async () => {
  const late = await execute(node, ['-e', 'setInterval(() => {}, 1000)'], {}, '', deadlineIn(300.5));
  expect(late).toMatchObject({ code: undefined, failure: 'it did not end in time' });
  const absent = await execute('/nowhere/program', [], {}, '', deadlineIn(1000));
  expect(absent).toMatchObject({ code: undefined, failure: 'ENOENT' });
});

it('runs a program on our own streams, and gives its exit code or why there is none', async () => {
  expect(await attach(node, ['-e', 'process.exit(Number(process.env.CODE))'], { CODE: '7' })).toEqual({ code: 7 });
  expect(await attach(node, ['-e', 'process.kill(process.pid, "SIGKILL")'], {})).toEqual({
    code: undefined,
    failure: 'SIGKILL',
  });
  expect(await attach('/nowhere/program', [], {})).toEqual({ code: undefined, failure: 'ENOENT' });
});
