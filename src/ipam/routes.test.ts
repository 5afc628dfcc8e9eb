// Routes: what passes through, in which versions, and what is refused.
import { describe, expect, it } from 'vitest';
import { Problems, Section } from '../base/section.ts';
import { readRoutes } from './routes.ts';

function read(routes: unknown, version = '1.1.0') {
  const problems = new Problems();
  const list = readRoutes(new Section({ routes }, 'ipam', problems), version);
  return { routes: list.map(({ family: _, ...route }) => route), lines: problems.lines };
}

it('5.10 routes pass through in order; gw only if configured', () => {
  const routes = [{ dst: '10.0.0.0/8', gw: '10.1.0.1' }, { dst: '0.0.0.0/0' }, { dst: 'FD00::0/8', gw: 'FD00::0001' }];
  expect(read(routes).routes).toEqual([
    { dst: '10.0.0.0/8', gw: '10.1.0.1' },
    { dst: '0.0.0.0/0' },
    { dst: 'fd00::/8', gw: 'fd00::1' },
  ]);
});

describe('5.5 the numbers of 1.1.0', () => {
  const route = { dst: '0.0.0.0/0', mtu: 1400, advmss: 1360, priority: 100, table: 0, scope: 0 };

  it('pass, and 0 is a value', () => {
    expect(read([route]).routes).toEqual([route]);
  });

  it.each(['0.3.1', '1.0.0'])('are left out in %s', version => {
    expect(read([route], version).routes).toEqual([{ dst: '0.0.0.0/0' }]);
  });

  it.each([-1, 1.5, '5', true, 2 ** 60])('%j is none of them', value => {
    expect(read([{ dst: '0.0.0.0/0', table: value }]).lines).toHaveLength(1);
  });
});

it('null and "" are no gateway, and unknown keys are ignored', () => {
  const routes = [
    { dst: '10.0.0.0/8', gw: null, mtu: null },
    { dst: '10.0.0.0/8', gw: '', note: 'x' },
  ];
  expect(read(routes)).toEqual({ routes: [{ dst: '10.0.0.0/8' }, { dst: '10.0.0.0/8' }], lines: [] });
});

it.each([
  [[{}]],
  [[{ dst: '10.0.0.0' }]],
  [[{ dst: 'default' }]],
  [[{ dst: 5 }]],
  [[{ dst: '10.0.0.0/8', gw: 'gateway' }]],
  [[{ dst: '10.0.0.0/8', gw: 5 }]],
  [['10.0.0.0/8']],
  ['10.0.0.0/8'],
  [{}],
])('%j is a problem', routes => expect(read(routes).lines).toHaveLength(1));

it('all problems come at once', () => {
  expect(read([{ dst: 'a', gw: 'b', mtu: -1 }]).lines.length).toBeGreaterThanOrEqual(2);
});
