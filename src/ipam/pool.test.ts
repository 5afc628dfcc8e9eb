// AddressPool objects: the same ranges as in a network, one ring for each family, and every problem told at once.
import { describe, expect, it } from 'vitest';
import { FailureError } from '../base/errors.ts';
import { type Ip, parseIp } from '../net/ip.ts';
import { formatSpan } from '../net/span.ts';
import { readNetworkConfig } from './config.ts';
import { accepts, allotmentOf, isInPool, readPool, setOf, spansOf } from './pool.ts';

const ip = (text: string): Ip => parseIp(text)!;
const pool = (spec: unknown, name = 'public') => readPool({ metadata: { name }, spec });

function problemsOf(spec: unknown): string {
  try {
    pool(spec);
  } catch (error) {
    expect(error).toBeInstanceOf(FailureError);
    expect((error as FailureError).code).toBe(7);
    return (error as FailureError).message;
  }
  throw new Error('nothing was wrong with it');
}

const v4 = { subnet: '192.0.2.0/24', rangeStart: '192.0.2.10', rangeEnd: '192.0.2.20' };
const v6 = { subnet: '2001:db8::/120' };

describe('a pool', () => {
  it('has the ranges that a network with them has', () => {
    const network = readNetworkConfig({ name: 'n', ipam: { ranges: [[v4], [v6]], exclude: ['192.0.2.12'] } }, '1.0.0');
    const read = pool({ ranges: [v6, v4], exclude: ['192.0.2.12'] });
    expect(read.sets).toEqual(network.sets);
    expect(read.exclude).toEqual(network.exclude);
    expect(read).toMatchObject({ name: 'public', space: 'default' });
    expect(read).not.toHaveProperty('namespaces');
  });

  it('is one ring for each family, in the order written', () => {
    const more = { subnet: '198.51.100.0/29' };
    const read = pool({ ranges: [more, v6, v4], space: 'outside' });
    expect(setOf(read, 4)?.map(({ subnet }) => subnet.prefix)).toEqual([29, 24]);
    expect(setOf(read, 6)).toHaveLength(1);
    expect(setOf(pool({ ranges: [v4] }), 6)).toBeUndefined();
    expect(read.space).toBe('outside');
  });

  it('is for the namespaces that its selector matches', () => {
    const read = pool({ ranges: [v4], namespaces: { matchLabels: { team: 'shop' } } });
    expect(accepts(read, { team: 'shop' })).toBe(true);
    expect(accepts(read, { team: 'bank' })).toBe(false);
    expect(accepts(read, {})).toBe(false);
    expect(accepts(pool({ ranges: [v4] }), {})).toBe(true);
  });

  it('knows which addresses may be asked for, and how many there are', () => {
    const fixed = { ...v4, gateway: '192.0.2.11', fixedStart: '192.0.2.18', fixedEnd: '192.0.2.25' };
    const read = pool({ ranges: [fixed, v6], exclude: ['192.0.2.13-192.0.2.14', '2001:db8::80/121'] });
    for (const text of ['192.0.2.10', '192.0.2.20', '192.0.2.25', '2001:db8::7'])
      expect(isInPool(read, ip(text))).toBe(true);
    for (const text of ['192.0.2.9', '192.0.2.26', '198.51.100.1', '2001:db8::1:0'])
      expect(isInPool(read, ip(text))).toBe(false);
    expect(spansOf(read, 4).map(formatSpan)).toEqual([
      '192.0.2.10',
      '192.0.2.12',
      '192.0.2.15-192.0.2.20',
      '192.0.2.21-192.0.2.25',
    ]);
    expect(spansOf(read, 6).map(formatSpan)).toEqual(['2001:db8::2-2001:db8::7f']);
  });

  it('is allocated from as the network of its name, without holds', () => {
    const read = pool({ ranges: [v4] });
    expect(allotmentOf(read, 'east', 5000)).toEqual({
      network: 'pool.public',
      cluster: 'east',
      cooldown: 0,
      fixedHold: 0,
      timeout: 5000,
      sets: read.sets,
      exclude: [],
    });
  });
});

describe('what is wrong with a pool', () => {
  it('is told all at once', () => {
    const message = problemsOf({
      ranges: [{ subnet: '192.0.2.1/24' }, { subnet: '198.51.100.0/24', namespaces: {} }, { subnet: 'x' }],
      exclude: ['y', 5],
      space: 'a/b',
      namespaces: { matchLabels: { 'a b': 'c' } },
      range: [],
    });
    for (const part of [
      'AddressPool "public"',
      'spec.ranges[0].subnet "192.0.2.1/24": has host bits set',
      'spec.ranges[1].namespaces {}: is unknown here',
      'spec.ranges[2].subnet "x"',
      'spec.exclude[0] "y"',
      'spec.exclude[1] 5',
      'spec.space "a/b"',
      'spec.namespaces.matchLabels.a b',
      'spec.range []: is unknown here',
    ]) {
      expect(message).toContain(part);
    }
  });

  it('is that it has no range, or ranges that overlap', () => {
    expect(problemsOf({})).toContain('spec.ranges: at least one range');
    expect(problemsOf({ ranges: [] })).toContain('spec.ranges []: at least one range');
    expect(problemsOf({ ranges: [v4, { ...v4, rangeStart: '192.0.2.20', rangeEnd: '192.0.2.30' }] })).toContain(
      'spec.ranges[1] "192.0.2.0/24": overlaps spec.ranges[0]',
    );
    expect(problemsOf(undefined)).toContain('spec.ranges');
  });
});

it('no network may have the name of a pool, and none of its nodes the name of a feature', () => {
  const read = (name: string, ipam: object = {}) =>
    readNetworkConfig({ name, ipam: { subnet: '10.1.0.0/24', ...ipam } }, '1.0.0');
  expect(() => read('pool.public')).toThrow('name "pool.public": names that begin with "pool." are those of pools');
  expect(read('pool').network).toBe('pool');
  expect(read('pools.x').network).toBe('pools.x');
  for (const nodeName of ['kube-ipam.public-ip', 'kube-ipam.eip']) {
    expect(() => read('pods', { nodeName })).toThrow(`ipam.nodeName "${nodeName}"`);
  }
  expect(read('pods', { nodeName: 'kube-ipam.x' }).nodeName).toBe('kube-ipam.x');
});
