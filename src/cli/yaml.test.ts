// YAML that means what the value was: JSON's scalars where they are needed, plain words where they cannot be mistaken.
import { expect, it } from 'vitest';
import { yamlItem, yamlOf } from './yaml.ts';

it('writes nested lists and objects', () => {
  const value = { name: 'pods', ranges: [[{ subnet: '10.1.0.0/24', free: 3 }, 'x'], []], pod: { uid: '' }, none: {} };
  expect(yamlOf(value)).toBe(
    [
      'name: pods',
      'ranges:',
      '- - subnet: "10.1.0.0/24"',
      '    free: 3',
      '  - x',
      '- []',
      'pod:',
      '  uid: ""',
      'none: {}',
      '',
    ].join('\n'),
  );
  expect(yamlItem({ address: '10.1.0.2' })).toBe('- address: "10.1.0.2"\n');
});

it.each([
  'yes',
  'NO',
  'null',
  'true',
  'on',
  '',
  '1',
  '1e3',
  '- x',
  'a: b',
  '# c',
  'fd00::1',
  '2026-01-01',
  ' a',
  'a ',
  '\n',
  '*a',
  '&a',
  '!a',
  '@',
  '`',
  '0x1f',
  '.5',
  '~',
  'y',
])('quotes %j, which would be read as something else', text => {
  expect(yamlOf({ text })).toBe(`text: ${JSON.stringify(text)}\n`);
});

it.each(['worker-1', 'shop/web-0', '/run/netns/x', 'load balancer', 'eth0'])('leaves %s plain', text => {
  expect(yamlOf({ text })).toBe(`text: ${text}\n`);
});
