// What people hear of Services that do not get their address: once, from one agent, and nothing that time mends.
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { Log } from '../base/log.ts';
import type { Wants } from './model.ts';
import { Teller } from './teller.ts';

let told: string[] = [];
let logged: string[] = [];

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['performance'] });
  told = [];
  logged = [];
});
afterEach(() => vi.useRealTimers());

function teller(id = 'a'): Teller {
  const log = new Log({ file: '', level: 'info', maxSize: 0 }, {}, (_, lines) => logged.push(lines));
  return new Teller({
    id,
    log,
    tell: ({ name }, type, reason, message) => told.push(`${name} ${type} ${reason}: ${message}`),
  });
}

const service = { namespace: 'default', name: 'web', uid: 'u', created: '' };
const refused = (message: string): Wants => ({
  wants: [],
  refusals: [{ service, address: '192.0.2.1', reason: 'OutsideRanges', message }],
});
const wanted: Wants = {
  wants: [{ ip: { family: 4, value: 1n }, address: '192.0.2.1', services: [service], ports: [], local: false }],
  refusals: [],
};
const none = new Map<string, string>();

it('is told once, again when it is something else, and again when it was away meanwhile', () => {
  const one = teller();
  for (const message of ['x', 'x', 'y']) one.report(refused(message), none, ['b', 'a']);
  one.report({ wants: [], refusals: [] }, none, ['a']);
  one.report(refused('y'), none, ['a']);
  expect(told).toEqual(['x', 'y', 'y'].map(message => `web Warning OutsideRanges: ${message}`));
  expect(logged).toHaveLength(3);
});

it('is told by the first of all agents, and logged by each', () => {
  teller('b').report(refused('x'), none, ['b', 'a']);
  expect([told.length, logged.length]).toEqual([0, 1]);
});

it('waits for an agent that could tell it', () => {
  const one = teller();
  one.report(refused('x'), none, []);
  expect(told).toEqual([]);
  one.report(refused('x'), none, ['a']);
  expect(told).toHaveLength(1);
});

it('says that nobody may own an address only when that lasts', () => {
  const one = teller();
  const nobody = new Map([['192.0.2.1', 'no node is fit']]);
  one.report(wanted, nobody, ['a']);
  vi.advanceTimersByTime(3000);
  one.report(wanted, none, ['a']);
  vi.advanceTimersByTime(3000);
  one.report(wanted, nobody, ['a']);
  vi.advanceTimersByTime(3000);
  one.report(wanted, nobody, ['a']);
  expect(told).toEqual([]);
  vi.advanceTimersByTime(3000);
  one.report(wanted, nobody, ['a']);
  one.report(wanted, nobody, ['a']);
  expect(told).toEqual(['web Warning NoEligibleNode: 192.0.2.1: no node is fit']);
});
