// Which set gives a requested address, and whether a held one still fits.
import { describe, expect, it } from 'vitest';
import { FailureError } from '../../base/errors.ts';
import { formatIp, parseIp } from '../../net/ip.ts';
import { readNetworkConfig } from '../config.ts';
import { everyRange } from '../serving.ts';
import { assign, fits, planSets } from './plan.ts';

const config = readNetworkConfig(
  {
    name: 'net',
    ipam: {
      ranges: [
        [
          { subnet: '10.1.0.0/24', rangeStart: '10.1.0.10', rangeEnd: '10.1.0.19', gateway: '10.1.0.200' },
          { subnet: '10.2.0.0/24' },
        ],
        [{ subnet: '10.1.0.0/24', rangeStart: '10.1.0.100', fixedStart: '10.1.0.50', fixedEnd: '10.1.0.59' }],
        [{ subnet: 'fd00::/64' }],
      ],
      exclude: ['10.2.0.99'],
    },
  },
  '1.0.0',
);
const ips = (...texts: readonly string[]) => texts.map(text => parseIp(text)!);
const requestedOf = (...texts: readonly string[]) =>
  planSets(config, everyRange(config), ips(...texts)).map(({ requested }) => requested && formatIp(requested));

describe('a requested address', () => {
  it('goes to the set that contains it, in a range or in its fixed span, in any order', () => {
    expect(requestedOf()).toEqual([undefined, undefined, undefined]);
    expect(requestedOf('fd00::7', '10.2.0.5', '10.1.0.55')).toEqual(['10.2.0.5', '10.1.0.55', 'fd00::7']);
  });

  it.each([
    ['10.1.0.5', 'lies in none of the ranges'],
    ['10.3.0.5', 'lies in none of the ranges'],
    ['10.2.0.1', 'gateway'],
    ['10.1.0.200', 'gateway'],
    ['10.2.0.99', 'excluded'],
    ['fd00::1', 'gateway'],
  ])('%s is refused: %s', (text, why) => {
    expect(() => planSets(config, everyRange(config), ips(text))).toThrow(FailureError);
    expect(() => planSets(config, everyRange(config), ips(text))).toThrow(why);
  });

  it('a second one for a set is refused, the same twice as well', () => {
    expect(() => planSets(config, everyRange(config), ips('10.1.0.10', '10.2.0.5'))).toThrow('same range set');
    expect(() => planSets(config, everyRange(config), ips('10.1.0.10', '10.1.0.10'))).toThrow('same range set');
  });
});

describe('a held address', () => {
  const [plan, second] = planSets(config, everyRange(config), []);
  const [asked] = planSets(config, everyRange(config), ips('10.1.0.11'));
  it.each([
    ['10.1.0.12', true],
    ['10.2.0.5', true],
    ['10.1.0.150', false],
    ['10.2.0.99', false],
    ['10.2.0.1', false],
    ['fd00::5', false],
  ])('%s fits the first set: %s', (text, yes) => expect(fits(plan!, config, parseIp(text)!)).toBe(yes));

  it('fits a plan with a requested address only if it is that', () => {
    expect(fits(asked!, config, parseIp('10.1.0.11')!)).toBe(true);
    expect(fits(asked!, config, parseIp('10.1.0.12')!)).toBe(false);
    expect(fits(second!, config, parseIp('10.1.0.55')!)).toBe(true);
  });

  it('takes prefix length and gateway from the range it lies in', () => {
    expect(formatIp(assign(plan!, parseIp('10.2.0.5')!).gateway)).toBe('10.2.0.1');
    expect(formatIp(assign(plan!, parseIp('10.1.0.15')!).gateway)).toBe('10.1.0.200');
    expect(() => assign(plan!, parseIp('10.9.0.5')!)).toThrow('outside its set');
  });
});
