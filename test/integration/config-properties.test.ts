// Any bytes on stdin and any environment: a CNI error object or a result, no stack trace, and nothing stored by a failure.
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Answer, callWith, environment, type Json } from '../helpers/plugin.ts';
import { startWith } from '../helpers/plugin-process.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'kube-ipam-bytes-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const commands = ['ADD', 'DEL', 'CHECK', 'GC', 'STATUS', 'VERSION'] as const;

function good(): Json {
  const ipam = {
    type: 'kube-ipam',
    subnet: '10.1.0.0/24',
    dataDir: join(folder, 'store'),
    logFile: join(folder, 'log'),
  };
  return {
    cniVersion: '1.1.0',
    name: 'net',
    type: 'bridge',
    ipam: { ...ipam, timeout: '1h' },
    'cni.dev/valid-attachments': [],
  };
}

/** Exit code and stdout are those of the protocol. */
function expectProtocol(answer: Answer, command: string): void {
  if (answer.exitCode !== 0) {
    expect(answer.exitCode).toBe(1);
    expect(answer.error).toMatchObject({
      cniVersion: expect.stringMatching(/^\d\.\d\.\d$/),
      code: expect.any(Number),
      msg: expect.stringMatching(/\S/),
    });
    expect(answer.error!.code).toBeGreaterThan(0);
    expect(answer.error!.code).not.toBe(199);
    expect(answer.error!.msg).not.toMatch(/\n\s+at |file:\/\/|TypeError|RangeError|undefined/);
  } else if (command === 'ADD' || command === 'VERSION') {
    expect(answer.result?.cniVersion).toMatch(/^\d\.\d\.\d$/);
  } else {
    expect(answer.stdout).toBe('');
  }
}

function parsed(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString());
  } catch {
    return undefined;
  }
}

/** Whether the paths still lie in the test's folder: what was changed must not write elsewhere on this machine. */
function staysInside(conf: unknown): boolean {
  const { ipam } = (conf ?? {}) as { ipam?: unknown };
  if (typeof ipam !== 'object' || ipam === null) return true;
  const { dataDir, logFile } = ipam as { dataDir?: unknown; logFile?: unknown };
  return [dataDir, logFile].every(path => String(path).startsWith(`${folder}/`) && !String(path).includes('..'));
}

/** Somewhere in the value, one part is something else. */
const mutated = (value: Json) =>
  fc.tuple(fc.infiniteStream(fc.nat(9)), fc.oneof(fc.jsonValue({ maxDepth: 2 }), fc.string())).map(([choices, odd]) => {
    const copy = structuredClone(value);
    let at: Record<string, unknown> = copy;
    for (;;) {
      const keys = Object.keys(at);
      const key = keys[choices.next().value! % keys.length]!;
      const inner = at[key];
      if (typeof inner === 'object' && inner !== null && Object.keys(inner).length > 0 && choices.next().value! < 7) {
        at = inner as Record<string, unknown>;
      } else {
        if (choices.next().value! < 3) delete at[key];
        else at[key] = odd;
        return copy;
      }
    }
  });

describe('in process', () => {
  it('any bytes on stdin', async () => {
    const bytes = fc.oneof(
      fc.uint8Array({ maxLength: 200 }).map(array => Buffer.from(array)),
      fc.json().map(text => Buffer.from(text)),
      fc.tuple(fc.nat(400), fc.uint8Array({ maxLength: 5 })).map(([at, junk]) => {
        const text = Buffer.from(JSON.stringify(good()));
        return Buffer.concat([text.subarray(0, at), Buffer.from(junk), text.subarray(at + junk.length)]);
      }),
    );
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...commands), bytes, async (command, stdin) => {
        fc.pre(staysInside(parsed(stdin)));
        expectProtocol(await callWith(environment(command, {}), stdin), command);
        await callWith(environment('DEL', {}), Buffer.from(JSON.stringify(good())));
      }),
      { numRuns: 400 },
    );
  });

  it('a configuration with one part replaced by anything', async () => {
    const rich: Json = {
      ...good(),
      args: { cni: { ips: ['10.1.0.7'] } },
      runtimeConfig: { ips: ['10.1.0.8'], ipRanges: [[{ subnet: '10.7.0.0/24' }]] },
      prevResult: { ips: [{ address: '10.1.0.8/24' }] },
    };
    const ipam = {
      ...(rich.ipam as Json),
      routes: [{ dst: '0.0.0.0/0', gw: '10.1.0.1' }],
      exclude: ['10.1.0.9'],
      cooldown: 0,
    };
    const ranges = [[{ subnet: '10.8.0.0/24', rangeStart: '10.8.0.5', fixedStart: '10.8.0.6', fixedEnd: '10.8.0.7' }]];
    const conf = { ...rich, ipam: { ...ipam, ranges } };
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...commands), mutated(conf), async (command, one) => {
        fc.pre(staysInside(one));
        expectProtocol(await callWith(environment(command, {}), Buffer.from(JSON.stringify(one))), command);
      }),
      { numRuns: 500 },
    );
  });

  it('any environment', async () => {
    const text = fc.oneof(fc.string({ unit: 'binary' }), fc.constantFrom(...commands, 'eth0', 'IP=10.1.0.5', 'pod'));
    const keys = ['CNI_COMMAND', 'CNI_CONTAINERID', 'CNI_NETNS', 'CNI_IFNAME', 'CNI_ARGS', 'CNI_PATH'];
    const changes = fc.dictionary(fc.constantFrom(...keys), text, { maxKeys: 3 });
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...commands), changes, async (command, odd) => {
        const env = { ...environment(command, {}), ...odd };
        expectProtocol(await callWith(env, Buffer.from(JSON.stringify(good()))), String(env.CNI_COMMAND));
      }),
      { numRuns: 400 },
    );
  });

  it('an ADD that fails stores nothing at all, not even a file', async () => {
    const failing = fc.constantFrom<Json>({ name: '' }, { cniVersion: '7' }, { ipam: {} }, { ipam: null }, { args: 5 });
    await fc.assert(
      fc.asyncProperty(failing, fc.jsonValue(), async (change, more) => {
        const conf = { ...good(), more, ...change };
        const answer = await callWith(environment('ADD', {}), Buffer.from(JSON.stringify(conf)));
        expect(answer.exitCode).toBe(1);
        expect(readdirSync(folder)).toEqual([]);
      }),
    );
  });
});

describe('as a process', () => {
  it('bytes that are no UTF-8, in stdin and in the environment', async () => {
    const bytes = fc.oneof(
      fc.uint8Array({ maxLength: 100 }),
      fc.constant(Buffer.from('{"name":"\xff","ipam":{}}', 'latin1')),
    );
    // The environment cannot hold NUL; U+FFFD-making bytes reach it as what they are only through another encoding.
    const value = fc.string({ unit: 'grapheme', maxLength: 20 }).map(text => text.replaceAll('\0', ''));
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...commands), bytes, value, async (command, stdin, odd) => {
        const env = { ...environment(command, {}), CNI_ARGS: odd, CNI_CONTAINERID: odd };
        const answer = await startWith(env, Buffer.from(stdin)).ended;
        expectProtocol(answer, command);
        expect([answer.signal, answer.stderr]).toEqual([null, '']);
      }),
      { numRuns: 30 },
    );
  });
});
