// What this host says of itself: looks that are not too frequent, carrier that must be steady, addresses of strangers.
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { Link } from '../host/ip.ts';
import { parseIp } from '../net/ip.ts';
import { Here } from './here.ts';

let looks = 0;
let links: Link[] = [];
let answersForOthers = false;
const here = () =>
  new Here(
    {
      look: async () => {
        looks++;
        return { links, gateways: [], answersForOthers };
      },
    },
    'em1',
  );

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['performance'] });
  looks = 0;
  links = [link('em1')];
  answersForOthers = false;
});
afterEach(() => vi.useRealTimers());

function link(name: string, address?: string, label = ''): Link {
  const addresses =
    address === undefined ? [] : [{ ip: parseIp(address)!, prefix: 32, label, validFor: 10, flags: [] }];
  return { index: 1, name, up: true, carrier: true, addresses };
}

it('is looked at four times a second at most', async () => {
  const one = here();
  expect(await one.look()).toBeUndefined();
  vi.advanceTimersByTime(100);
  expect(await one.look()).toBe(150);
  vi.advanceTimersByTime(150);
  expect(await one.look()).toBeUndefined();
  expect(looks).toBe(2);
});

it('is fit at once with a carrier that was there before, and after a second with a new one', async () => {
  const one = here();
  await one.look();
  expect(one.fitness(undefined, []).why).toBeUndefined();
  for (const carrier of [false, true]) {
    links = [{ ...link('em1'), carrier }];
    vi.advanceTimersByTime(300);
    await one.look();
    expect(one.fitness(undefined, []).why).toContain('carrier');
  }
  vi.advanceTimersByTime(1000);
  expect(one.fitness(undefined, []).why).toBeUndefined();
});

describe('an address that is on this host', () => {
  it.each<[string, Link, boolean, boolean]>([
    ['ours, by its label', link('em1', '192.0.2.1', 'em1:kube'), false, false],
    ['made by hand', link('em1', '192.0.2.1', 'em1'), false, true],
    ['on another interface', link('lo', '192.0.2.1', 'lo'), false, true],
    ['IPv6 on ours, which has no label', link('em1', '2001:db8::1'), false, false],
    ["a proxy's, and quiet", link('kube-ipvs0', '192.0.2.1'), false, false],
    ["a proxy's, and answered for", link('kube-ipvs0', '192.0.2.1'), true, true],
  ])('%s', async (_, there, answers, isStrange) => {
    links = [link('em1'), there];
    answersForOthers = answers;
    const one = here();
    await one.look();
    const address = there.addresses[0]!.ip.family === 4 ? '192.0.2.1' : '2001:db8::1';
    const stranger = one.stranger(address);
    if (isStrange) expect(stranger).toContain(`on interface ${there.name}`);
    else expect(stranger).toBeUndefined();
    expect(stranger?.includes('strictARP') ?? false).toBe(answers);
  });
});
