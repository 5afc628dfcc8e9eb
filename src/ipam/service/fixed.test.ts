// Fixed addresses: which set gives them, with which mask and gateway, and which are nobody's.
import { describe, expect, it } from 'vitest';
import { FailureError } from '../../base/errors.ts';
import { formatIp, parseIp } from '../../net/ip.ts';
import { readNetworkConfig } from '../config.ts';
import { narrow } from '../serving.ts';
import { readWishes } from '../wishes.ts';
import { assign, planSets } from './plan.ts';

const config = readNetworkConfig(
  {
    name: 'net',
    ipam: {
      kubeConfig: '/k',
      ranges: [
        [
          { name: 'low', subnet: '10.1.0.0/16', rangeStart: '10.1.0.10', rangeEnd: '10.1.0.99', gateway: '10.1.0.1' },
          { name: 'db', subnet: '10.2.0.0/24', pods: { matchLabels: { app: 'db' } } },
        ],
        [{ name: 'high', subnet: '10.1.0.0/16', rangeStart: '10.1.9.10', rangeEnd: '10.1.9.99', gateway: '10.1.9.1' }],
        [{ name: 'six', subnet: 'fd00::/64', fixedStart: 'fd00::f0', fixedEnd: 'fd00::ff' }],
      ],
      exclude: ['10.1.7.0/24'],
    },
  },
  '1.0.0',
);

type Texts = Readonly<Record<string, string>>;
const networks = { 'k8s.v1.cni.cncf.io/networks': 'other' };

function plan(ip: string, more: Texts = {}, requested: readonly string[] = [], labels: Texts = {}) {
  const names = Object.entries(more).map(([key, text]) => [key.includes('/') ? key : `kube-ipam.${key}`, text]);
  const annotations = { 'kube-ipam.ip': ip, ...Object.fromEntries(names) };
  const wishes = readWishes({ metadata: { annotations } }, 'eth0');
  const serving = narrow(config, wishes, { pod: labels });
  return planSets(
    config,
    serving,
    requested.map(text => parseIp(text)!),
    wishes,
  );
}

/** For each set: the address with prefix length and gateway, `*` where another interface may have it. */
const given = (...args: Parameters<typeof plan>) =>
  plan(...args).map(one => {
    if (one.requested === undefined) return '';
    const { ip, prefix, gateway } = assign(one, one.requested);
    return `${formatIp(ip)}/${prefix} ${formatIp(gateway)}${one.fixed?.bare ? ' *' : ''}`;
  });

function refusal(...args: Parameters<typeof plan>): FailureError {
  try {
    plan(...args);
  } catch (error) {
    if (error instanceof FailureError) return error;
    throw error;
  }
  throw new Error('accepted');
}

describe('a fixed address', () => {
  it.each([
    ['10.1.0.50', ['10.1.0.50/16 10.1.0.1 *', '', '']],
    ['10.1.9.50', ['', '10.1.9.50/16 10.1.9.1 *', '']],
    ['10.1.200.200', ['10.1.200.200/16 10.1.0.1 *', '', '']],
    ['fd00::f5', ['', '', 'fd00::f5/64 fd00::1 *']],
    ['fd00::abcd', ['', '', 'fd00::abcd/64 fd00::1 *']],
    [
      'fd00::7, 10.1.9.50, eth0=10.1.0.50',
      ['10.1.0.50/16 10.1.0.1', '10.1.9.50/16 10.1.9.1 *', 'fd00::7/64 fd00::1 *'],
    ],
    ['10.1.200.1,10.1.200.2', ['10.1.200.1/16 10.1.0.1 *', '10.1.200.2/16 10.1.9.1 *', '']],
    ['10.1.0.50,10.1.200.2', ['10.1.0.50/16 10.1.0.1 *', '10.1.200.2/16 10.1.9.1 *', '']],
  ])('%s goes to the set that has it in its ranges, else to one with a subnet around it', (ip, expected) => {
    expect(given(ip)).toEqual(expected);
  });

  it('is given by the same set, in whatever order they are listed', () => {
    const some = ['10.1.0.50', '10.1.200.2', 'fd00::7'];
    for (const order of [some, some.toReversed(), [some[1], some[0], some[2]]]) {
      expect(given(order.join())).toEqual([
        '10.1.0.50/16 10.1.0.1 *',
        '10.1.200.2/16 10.1.9.1 *',
        'fd00::7/64 fd00::1 *',
      ]);
    }
    expect(given('10.1.200.2,10.1.9.50')).toEqual(['10.1.200.2/16 10.1.0.1 *', '10.1.9.50/16 10.1.9.1 *', '']);
  });

  it('wins over what was requested of the same set, and over no other', () => {
    expect(given('10.1.0.50', {}, ['10.1.0.60', 'fd00::9'])).toEqual([
      '10.1.0.50/16 10.1.0.1 *',
      '',
      'fd00::9/64 fd00::1',
    ]);
  });

  it.each([
    ['10.1.0.1', 'it is the gateway'],
    ['10.1.9.1', 'it is the gateway'],
    ['10.1.0.0', 'it is the network or broadcast address of its subnet'],
    ['10.1.255.255', 'it is the network or broadcast address of its subnet'],
    ['fd00::', 'it is the network or broadcast address of its subnet'],
    ['10.1.7.7', 'it is excluded'],
    ['10.9.0.5', 'it lies in none of the subnets of 10.1.0.0/16 (10.1.0.10-10.1.0.99)'],
    ['10.1.0.50,10.1.0.51', 'its range set gives one address, and 10.1.0.50 is asked for too'],
    ['10.1.0.50,10.1.0.50', 'its range set gives one address'],
    ['fd00::5,fd00::6', 'written like net1=fd00::6'],
    ['10.1.1.1,10.1.1.2,10.1.1.3', 'its range set gives one address'],
  ])('%s is refused: %s', (ip, why) => {
    const { code, message } = refusal(ip);
    expect(code).toBe(7);
    expect(message).toMatch(/^fixed address \S+ of network net: /);
    expect(message).toContain(why);
  });
});

describe('with other networks', () => {
  it('an address outside of this one is left to them, unless it is named for this interface', () => {
    expect(given('10.9.0.5,10.1.0.50', networks)).toEqual(['10.1.0.50/16 10.1.0.1 *', '', '']);
    expect(refusal('eth0=10.9.0.5', networks).message).toContain('none of the subnets');
    expect(given('net1=10.9.0.5')).toEqual(['', '', '']);
  });

  it('an address for any interface gives way to one for this one', () => {
    expect(given('fd00::5,eth0=fd00::6', networks)).toEqual(['', '', 'fd00::6/64 fd00::1']);
    expect(refusal('fd00::5,eth0=fd00::6').message).toContain('fd00::6 is asked for too');
    expect(refusal('fd00::5,fd00::6', networks).message).toContain('fd00::5 is asked for too');
  });
});

describe('selectors', () => {
  it.each(['10.2.0.5', '10.2.0.0'])('bind %s too, in the range and in its subnet: code 103', ip => {
    const { code, message } = refusal(ip);
    expect(code).toBe(103);
    expect(message).toBe(
      `fixed address ${ip} of network net: range db (10.2.0.0/24) does not accept this pod: the pod's labels do not match app=db`,
    );
    expect(refusal(ip, networks).code).toBe(103);
  });

  it('let in whom they accept', () => {
    expect(given('10.2.0.5', {}, [], { app: 'db' })).toEqual(['10.2.0.5/24 10.2.0.1 *', '', '']);
    expect(given('10.1.5.5', {}, ['10.2.0.6'], { app: 'db' })).toEqual(['10.1.5.5/16 10.1.0.1 *', '', '']);
  });

  it('bind a requested address', () => {
    expect(refusal('', {}, ['10.2.0.5'])).toMatchObject({
      code: 103,
      message: expect.stringContaining(
        'requested address 10.2.0.5 of network net: range db (10.2.0.0/24) does not accept',
      ),
    });
    expect(refusal('', { range: 'low' }, ['10.2.0.5'], { app: 'db' }).message).toContain(
      'kube-ipam.range names another',
    );
  });
});

describe('mask and gateway', () => {
  it.each([
    [{ netmask: '255.255.255.0' }, '10.1.0.50/24 10.1.0.1'],
    [{ netmask: '8' }, '10.1.0.50/8 10.1.0.1'],
    [{ gateway: '10.1.0.254' }, '10.1.0.50/16 10.1.0.254'],
    [{ gateway: '10.1.0.60' }, '10.1.0.50/16 10.1.0.60'],
    [{ netmask: '255.0.0.0', gateway: '10.77.0.1' }, '10.1.0.50/8 10.77.0.1'],
    [{ netmask: '31', gateway: '10.1.0.51' }, '10.1.0.50/31 10.1.0.51'],
    [{ netmask: '255.255.255.255' }, '10.1.0.50/32 10.1.0.1'],
    [{ netmask: '32', gateway: '169.254.1.1' }, '10.1.0.50/32 169.254.1.1'],
  ])('%j', (more, expected) => expect(given('eth0=10.1.0.50', more)).toEqual([expected, '', '']));

  it('are for the family that they fit', () => {
    expect(given('eth0=10.1.0.50,eth0=fd00::5', { netmask: '24,48', gateway: 'fe80::1' })).toEqual([
      '10.1.0.50/24 10.1.0.1',
      '',
      'fd00::5/48 fe80::1',
    ]);
  });

  it.each([
    [{ gateway: '10.1.0.50' }, 'it is its own gateway'],
    [{ gateway: '10.2.0.1' }, 'no route can go through gateway 10.2.0.1, which is no host of 10.1.0.0/16'],
    [{ gateway: '10.1.255.255' }, 'no route can go through gateway 10.1.255.255'],
    [{ netmask: '28' }, 'no route can go through gateway 10.1.0.1, which is no host of 10.1.0.48/28'],
    [{ netmask: '31' }, 'no route can go through gateway 10.1.0.1'],
  ])('%j is refused: %s', (more, why) =>
    expect(refusal('10.1.0.50', more)).toMatchObject({
      code: 7,
      message: expect.stringContaining(why),
    }),
  );

  it('a mask that makes the address that of a network is refused', () => {
    for (const ip of ['10.1.3.0', '10.1.3.255']) {
      expect(refusal(ip, { netmask: '24' }).message).toContain('the network or broadcast address of 10.1.3.0/24');
      expect(given(`eth0=${ip}`)[0]).toBe(`${ip}/16 10.1.0.1`);
    }
    expect(refusal('fd00::8:0', { netmask: '112' }).message).toContain('network or broadcast address of fd00::8:0/112');
  });

  it('touch only what is fixed', () => {
    const plans = plan('10.1.0.50', { netmask: '24' });
    expect(assign(plans[1]!, parseIp('10.1.9.50')!).prefix).toBe(16);
    expect(assign(plans[0]!, parseIp('10.1.0.60')!).prefix).toBe(16);
  });
});
