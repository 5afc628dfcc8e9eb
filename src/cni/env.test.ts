// The environment: what is required, what is refused (contract 2.1 to 2.9).
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FailureError } from '../base/errors.ts';
import { commands, type Environment, readEnv } from './env.ts';

const good = { CNI_COMMAND: 'ADD', CNI_CONTAINERID: 'abc', CNI_NETNS: '/run/netns/x', CNI_IFNAME: 'eth0' };

function failure(env: Environment): FailureError {
  try {
    readEnv(env);
  } catch (error) {
    if (error instanceof FailureError) return error;
    throw error;
  }
  throw new Error(`accepted: ${JSON.stringify(env)}`);
}

describe('2.1 and 2.3 required variables', () => {
  it.each(['ADD', 'CHECK'])('%s: all missing ones are named at once, an empty one is missing', command => {
    const { code, message } = failure({ CNI_COMMAND: command, CNI_CONTAINERID: '' });
    expect(code).toBe(4);
    for (const name of ['CNI_CONTAINERID', 'CNI_NETNS', 'CNI_IFNAME']) expect(message).toContain(name);
  });

  it('DEL: the same less CNI_NETNS', () => {
    const { message } = failure({ CNI_COMMAND: 'DEL' });
    expect(message).toMatch(/CNI_CONTAINERID.*CNI_IFNAME/);
    expect(message).not.toContain('CNI_NETNS');
    expect(readEnv({ ...good, CNI_COMMAND: 'DEL', CNI_NETNS: '' }).netns).toBe('');
  });

  it.each(['GC', 'STATUS', 'VERSION'])('%s needs CNI_COMMAND only, and takes empty others (2.9)', command => {
    expect(readEnv({ CNI_COMMAND: command }).command).toBe(command);
    expect(readEnv({ CNI_COMMAND: command, CNI_CONTAINERID: '', CNI_IFNAME: '', CNI_ARGS: '' }).command).toBe(command);
  });

  it('2.2 nobody needs CNI_PATH', () => {
    for (const command of commands) expect(readEnv({ ...good, CNI_COMMAND: command }).command).toBe(command);
  });
});

it.each(['', 'add', 'ADD ', 'UPDATE', 'ADD\n', '__proto__', 'constructor'])(
  '2.7 CNI_COMMAND %j is unknown',
  command => {
    expect(failure({ ...good, CNI_COMMAND: command })).toMatchObject({ code: 4 });
  },
);

it('2.8 without CNI_COMMAND: error 4', () => expect(failure({}).code).toBe(4));

describe('2.5 CNI_CONTAINERID', () => {
  it.each(['a', '0', 'A_b.c-d', 'a'.repeat(300), '1.', 'a..'])('%s is one', id => {
    expect(readEnv({ ...good, CNI_CONTAINERID: id }).containerID).toBe(id);
  });

  it.each(['a\n', '-a', '.a', '_a', 'a/b', 'a b', 'a:b', '../x', 'ü', 'a\u0000', '\ufffd'])('%j is none', id => {
    for (const command of ['ADD', 'DEL', 'CHECK']) {
      const { code, message } = failure({ ...good, CNI_COMMAND: command, CNI_CONTAINERID: id });
      expect(code).toBe(4);
      expect(message).toContain('CNI_CONTAINERID');
    }
  });
});

describe('2.6 CNI_IFNAME', () => {
  it.each(['e', 'eth0', '123456789012345', 'a.b', '...', 'é'.repeat(7), 'eth0@if3', '-'])('%s is one', ifname => {
    expect(readEnv({ ...good, CNI_IFNAME: ifname }).ifname).toBe(ifname);
  });

  it.each([
    '1234567890123456',
    'é'.repeat(8),
    '.',
    '..',
    'a/b',
    'a:b',
    'a b',
    'a\tb',
    'a\n',
    'a\u00a0',
    'a\u0085',
    'a\u2003',
    'a\u3000',
    'a\u2028',
    '\ufffd',
  ])('%j is none', ifname => {
    for (const command of ['ADD', 'DEL', 'CHECK']) {
      expect(failure({ ...good, CNI_COMMAND: command, CNI_IFNAME: ifname })).toMatchObject({ code: 4 });
    }
  });
});

it('any environment is read, or refused with code 4 and a short message', () => {
  const text = fc.oneof(fc.string({ unit: 'binary' }), fc.constantFrom('ADD', 'DEL', 'x', 'eth0', ''));
  const keys = ['CNI_COMMAND', 'CNI_CONTAINERID', 'CNI_NETNS', 'CNI_IFNAME', 'CNI_ARGS'];
  const env = fc.dictionary(fc.constantFrom(...keys), text);
  fc.assert(
    fc.property(env, one => {
      try {
        readEnv(one);
      } catch (error) {
        expect(error).toBeInstanceOf(FailureError);
        expect((error as FailureError).code).toBe(4);
        expect((error as FailureError).message.length).toBeLessThan(800);
      }
    }),
    { numRuns: 1000 },
  );
});
