// Programs are run to their end, with the deadline that the caller's clock gives, fractions of milliseconds included.
import { expect, it } from 'vitest';
import { deadlineIn } from '../base/clock.ts';
import { attach, converse, execute } from './exec.ts';

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

it('ends a program early when its caller no longer wants it', async () => {
  const stop = new AbortController();
  const running = execute(node, ['-e', 'setInterval(() => {}, 1000)'], {}, '', deadlineIn(60_000), stop.signal);
  stop.abort();
  expect(await running).toMatchObject({ code: undefined });
});

/** Speaks with a node program; `heard` is all that it said, its end last. */
function speak(program: string, file = node) {
  const heard: string[] = [];
  const over = Promise.withResolvers<void>();
  const conversation = converse(
    file,
    ['-e', program],
    {},
    {
      line: text => heard.push(`line ${text}`),
      complaint: text => heard.push(`complaint ${text}`),
      ended: why => {
        heard.push(`ended ${why}`);
        over.resolve();
      },
    },
  );
  return { heard, conversation, over: over.promise };
}

it('speaks with a program that stays, in whole lines, until it ends', async () => {
  const echo = 'process.stdin.on("data", d => { process.stdout.write(d); console.error("x") })';
  const { heard, conversation, over } = speak(echo);
  expect(conversation.say('one\ntw')).toBe(true);
  await expect.poll(() => heard, { timeout: 20_000 }).toEqual(expect.arrayContaining(['line one', 'complaint x']));
  conversation.say('o\n');
  await expect.poll(() => heard, { timeout: 20_000 }).toContain('line two');
  conversation.hangUp();
  await over;
  expect(heard.at(-1)).toBe('ended exit code 0');
  expect(conversation.say('three')).toBe(false);
});

it('tells why a program that stays has ended, or was never started', async () => {
  const killed = speak('setInterval(() => {}, 1000)');
  killed.conversation[Symbol.dispose]();
  await killed.over;
  expect(killed.heard).toEqual(['ended SIGKILL']);
  const absent = speak('', '/nowhere/program');
  expect(absent.conversation.pid).toBeUndefined();
  await absent.over;
  expect(absent.heard).toEqual(['ended ENOENT']);
});
