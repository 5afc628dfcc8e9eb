// Notes on reservations that keep nothing from anybody.
import { expect, it } from 'vitest';
import { parseRecordedNetwork } from '../ipam/recorded.ts';
import { parseSpan } from '../net/span.ts';
import { notesOn } from './reserve-notes.ts';

const ranges = [
  [{ subnet: '10.1.0.0/24', rangeStart: '10.1.0.10', rangeEnd: '10.1.0.99' }, { subnet: '10.2.0.0/24' }],
  [{ subnet: 'fd00:1::/64' }],
];
const pods = parseRecordedNetwork('pods', JSON.stringify({ ranges, exclude: [] }))!;
const notes = (text: string, networks = [pods]) => notesOn(parseSpan(text)!, networks, 'default');

it.each(['10.1.0.10', '10.1.0.10-10.1.0.99', '10.2.0.64/26', 'fd00:1::20-fd00:1::40'])('has none on %s', text => {
  expect(notes(text)).toEqual([]);
});

it('names a gateway with its network, wherever it lies', () => {
  expect(notes('10.2.0.1')).toEqual([
    '10.2.0.1 is the gateway of 10.2.0.0/24, network pods: that network never gives it out',
  ]);
  expect(notes('10.1.0.1')).toEqual([expect.stringMatching(/^10\.1\.0\.1 is the gateway of 10\.1\.0\.0\/24/)]);
  expect(notes('fd00:1::1')).toEqual([expect.stringContaining('gateway of fd00:1::/64')]);
});

it('counts and names what lies in no range, and never a gateway twice', () => {
  const where = (what: string) => `${what}: is the address space the right one?`;
  expect(notes('10.9.0.1')).toEqual([where('1 address lies in no range that is recorded in space default (10.9.0.1)')]);
  expect(notes('10.1.0.0/28')).toEqual([
    expect.stringContaining('10.1.0.1 is the gateway'),
    where('9 addresses lie in no range that is recorded in space default (10.1.0.0, 10.1.0.2-10.1.0.9)'),
  ]);
  expect(notes('10.2.0.0/30', [])).toEqual([expect.stringContaining('4 addresses lie in no range')]);
  const many = Array.from({ length: 6 }, (_, i) => [{ subnet: `10.3.${i}.0/24` }]);
  const sparse = parseRecordedNetwork('sparse', JSON.stringify({ ranges: many, exclude: [] }))!;
  expect(notes('10.3.0.0/21', [sparse]).at(-1)).toContain(
    '(10.3.0.0, 10.3.0.255-10.3.1.0, 10.3.1.255-10.3.2.0, 10.3.2.255-10.3.3.0, and 3 more)',
  );
});
