// JSON and YAML for programs, read by people too: nothing from a store reaches a terminal as a control character.
import { expect, it } from 'vitest';
import { jsonOf } from './json.ts';
import { formats, List, printValue } from './output.ts';
import type { CliIo } from './program.ts';
import { yamlOf } from './yaml.ts';

const controls = Array.from({ length: 0xa0 }, (_, i) => String.fromCharCode(i)).filter(char => /\p{Cc}/u.test(char));
const hostile = { [`key${controls.join('')}`]: controls.join(''), list: ['\u009b31m', 'é\u00a0\u{1f600}'] };

it('escapes every control character, and says the same', () => {
  expect(controls).toHaveLength(65);
  for (const indent of [undefined, 2]) {
    const text = jsonOf(hostile, indent);
    expect(text.replaceAll('\n', '')).not.toMatch(/\p{Cc}/u);
    expect(JSON.parse(text)).toEqual(hostile);
  }
  expect(jsonOf({ a: '\u007f\u009b', b: 'é' })).toBe('{"a":"\\u007f\\u009b","b":"é"}');
});

it('does so in YAML, whose quoted words are JSON', () => {
  expect(yamlOf({ text: '\u009b31m' })).toBe('text: "\\u009b31m"\n');
  expect(yamlOf(hostile).replaceAll('\n', '')).not.toMatch(/\p{Cc}/u);
});

it.each(formats.filter(format => format === 'json' || format === 'yaml'))('prints values and lists so: %s', format => {
  const written: string[] = [];
  const io: CliIo = {
    env: {},
    calledAs: 'kube-ipam',
    executable: '',
    readStdin: () => Buffer.alloc(0),
    writeStdout: text => written.push(text),
    writeStderr: text => written.push(text),
    isTerminal: false,
    columns: 80,
    monotonicNow: () => performance.now(),
    stopSignal: () => new AbortController().signal,
  };
  printValue(io, format, hostile);
  const list = new List(io, format);
  list.items([hostile]);
  list.end();
  expect(written.join('')).toContain('\\u009b31m');
  expect(written.join('').replaceAll('\n', '')).not.toMatch(/\p{Cc}/u);
});
