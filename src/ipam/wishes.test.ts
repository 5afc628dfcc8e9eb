// The annotations of a pod: what each may say, for which interface, and how a mistake is told.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FailureError } from '../base/errors.ts';
import { formatIp, type Ip } from '../net/ip.ts';
import { annotations, fixedItems, readWishes } from './wishes.ts';

type Texts = Partial<Record<keyof typeof annotations, string>>;

function pod(texts: Texts) {
  const named = Object.entries(texts).map(([key, text]) => [annotations[key as keyof Texts], text]);
  return { metadata: { annotations: { other: 'x', ...Object.fromEntries(named) } } };
}

const read = (texts: Texts, ifname = 'eth0') => readWishes(pod(texts), ifname);
const fixed = (texts: Texts, ifname?: string) =>
  read(texts, ifname).fixed.map(({ ip, own }) => `${formatIp(ip)}${own ? ' own' : ''}`);

function problem(texts: Texts, ifname?: string): string {
  try {
    read(texts, ifname);
  } catch (error) {
    if (!(error instanceof FailureError)) throw error;
    expect(error.code).toBe(7);
    return error.message;
  }
  throw new Error('accepted');
}

describe('a pod without wishes', () => {
  const nothing = { fixed: [], prefixes: {}, gateways: {}, rangeNames: [], sticky: undefined, otherNetworks: false };

  it('wishes nothing; an empty annotation is as good as none', () => {
    expect(readWishes({ metadata: {} }, 'eth0')).toEqual(nothing);
    expect(read({})).toEqual(nothing);
    expect(read({ ip: '', netmask: '', gateway: ' ', range: '', sticky: '', networks: ' ' })).toEqual(nothing);
  });

  it('what every object inherits is no annotation', () => {
    const inherited = Object.create({ [annotations.ip]: '10.1.0.5', [annotations.sticky]: 'true' });
    expect(readWishes({ metadata: { annotations: inherited } }, 'eth0')).toEqual(nothing);
  });
});

describe('kube-ipam.ip', () => {
  it('is one address or several of both families, with blanks between them', () => {
    expect(fixed({ ip: '10.1.0.5' })).toEqual(['10.1.0.5']);
    expect(fixed({ ip: ' 10.1.0.5 , FD00:0::5,,10.2.0.5 ' })).toEqual(['10.1.0.5', 'fd00::5', '10.2.0.5']);
  });

  it('items for other interfaces are not read, whatever they say', () => {
    const ip = '10.1.0.5, net1=10.2.0.5, eth0 = fd00::5, net2=nonsense';
    expect(fixed({ ip })).toEqual(['10.1.0.5', 'fd00::5 own']);
    expect(fixed({ ip }, 'net1')).toEqual(['10.1.0.5', '10.2.0.5 own']);
    expect(problem({ ip }, 'net2')).toContain('annotation kube-ipam.ip "nonsense"');
  });

  it.each([
    '10.1.0',
    '10.1.0.5/24',
    '10.1.0.05',
    'eth0',
    'eth0=',
    '=10.1.0.5',
    '10.1.0.5 10.1.0.6',
    '10.1.0.5;',
    'fe80::1%eth0',
  ])('%s is refused', ip => expect(problem({ ip })).toMatch(/^annotation kube-ipam\.ip ".*": must be an IP address/));

  it('a list of nothing is no list', () => expect(problem({ ip: ' , ' })).toContain('names nothing'));

  it('what is found by interface and what is bare make up all of it', () => {
    const ip = fc
      .oneof(
        fc.bigInt({ min: 0n, max: 2n ** 32n - 1n }).map((value): Ip => ({ family: 4, value })),
        fc.bigInt({ min: 2n ** 48n, max: 2n ** 128n - 1n }).map((value): Ip => ({ family: 6, value })),
      )
      .map(one => ({ ip: one }));
    const item = fc.tuple(ip, fc.option(fc.constantFrom('eth0', 'net1', 'net2'), { nil: undefined }));
    fc.assert(
      fc.property(fc.array(item, { minLength: 1, maxLength: 20 }), items => {
        const written = items.map(([one, ifname]) => ({ ...one, ...(ifname !== undefined && { ifname }) }));
        const text = written
          .map(one => (one.ifname ? `${one.ifname}=${formatIp(one.ip)}` : formatIp(one.ip)))
          .join(', ');
        expect(fixedItems(pod({ ip: text }))).toEqual(written);
        for (const ifname of ['eth0', 'net1', 'net2']) {
          const mine = written.filter(one => (one.ifname ?? ifname) === ifname);
          expect(read({ ip: text }, ifname).fixed).toEqual(
            mine.map(one => ({ ip: one.ip, own: one.ifname !== undefined })),
          );
        }
      }),
    );
  });

  it('the agent sees all items, and leaves out what it cannot read', () => {
    const items = fixedItems(pod({ ip: 'net1=10.1.0.5,x,fd00::5' }));
    expect(items.map(({ ip, ifname }) => [formatIp(ip), ifname])).toEqual([
      ['10.1.0.5', 'net1'],
      ['fd00::5', undefined],
    ]);
  });
});

describe('kube-ipam.netmask', () => {
  const prefixes = (netmask: string, ip = '10.1.0.5,fd00::5') => read({ ip, netmask }).prefixes;

  it.each([
    ['255.255.0.0', { 4: 16 }],
    ['255.255.255.255', { 4: 32 }],
    ['128.0.0.0', { 4: 1 }],
    ['255.255.255.254', { 4: 31 }],
    ['24', { 4: 24 }],
    ['64', { 6: 64 }],
    ['128', { 6: 128 }],
    ['255.255.0.0, 64', { 4: 16, 6: 64 }],
    ['48,16', { 4: 16, 6: 48 }],
  ])('%s', (netmask, expected) => expect(prefixes(netmask)).toEqual(expected));

  it('a short length is meant for IPv6 where there is no IPv4', () => {
    expect(prefixes('32', 'fd00::5')).toEqual({ 6: 32 });
    expect(prefixes('32', '10.1.0.5')).toEqual({ 4: 32 });
  });

  it.each(['255.0.255.0', '0.0.0.0', '0', '129', '-1', '024', '1.5', '/24', 'ffff::', '0.0.255.255', '255.255.0', 'x'])(
    '%s is refused',
    netmask => expect(problem({ ip: '10.1.0.5,fd00::5', netmask })).toContain('annotation kube-ipam.netmask'),
  );

  it('every mask of one run of ones is read, and no other', () => {
    const text = (value: bigint) => formatIp({ family: 4, value });
    const masks = new Map(Array.from({ length: 32 }, (_, n) => [2n ** 32n - 2n ** BigInt(31 - n), n + 1]));
    for (const [mask, length] of masks) expect(prefixes(text(mask))).toEqual({ 4: length });
    fc.assert(
      fc.property(fc.constantFrom(...masks.keys()), fc.integer({ min: 0, max: 31 }), (mask, bit) => {
        const other = mask ^ (1n << BigInt(bit));
        if (masks.has(other)) expect(prefixes(text(other))).toEqual({ 4: masks.get(other) });
        else expect(() => prefixes(text(other))).toThrow('must be a mask');
      }),
    );
  });

  it('one for this interface wins over one for any, which it is read in spite of', () => {
    const wishes = { ip: '10.1.0.5,net1=10.2.0.5', netmask: '16,net1=24', networks: 'blue' };
    expect(read(wishes).prefixes).toEqual({ 4: 16 });
    expect(read(wishes, 'net1').prefixes).toEqual({ 4: 24 });
  });
});

describe('kube-ipam.gateway', () => {
  it('is one for each family', () => {
    const { gateways } = read({ ip: '10.1.0.5,fd00::5', gateway: 'fd00::1, 10.1.0.1' });
    expect([gateways[4], gateways[6]].map(ip => formatIp(ip!))).toEqual(['10.1.0.1', 'fd00::1']);
  });

  it.each(['x', '10.1.0.1/24', ','])('%s is refused', gateway =>
    expect(problem({ ip: '10.1.0.5', gateway })).toContain('annotation kube-ipam.gateway'),
  );
});

describe('mask and gateway', () => {
  it('a second one for a family is refused', () => {
    expect(problem({ ip: '10.1.0.5', netmask: '16,24' })).toContain('"24": is the second one for IPv4');
    expect(problem({ ip: '10.1.0.5', gateway: 'eth0=10.1.0.1,eth0=10.1.0.2' })).toContain('is the second one for IPv4');
  });

  it('without a fixed address to go with, they are left to the other networks, or refused when there are none', () => {
    const rule = 'there is no fixed IPv4 address that it could go with';
    expect(problem({ netmask: '16' })).toBe(`annotation kube-ipam.netmask "16": ${rule}`);
    expect(problem({ ip: 'fd00::5', gateway: '10.1.0.1' })).toContain(rule);
    expect(read({ ip: 'net1=10.1.0.5', gateway: '10.1.0.1', networks: 'blue' }).gateways).toEqual({});
    expect(problem({ ip: 'net1=10.1.0.5', gateway: 'eth0=10.1.0.1', networks: 'blue' })).toContain(rule);
  });
});

describe('the other annotations', () => {
  it('kube-ipam.range names ranges, for this interface or any', () => {
    expect(read({ range: 'blue, net1=red, eth0=green' }).rangeNames).toEqual([
      { name: 'blue', own: false },
      { name: 'green', own: true },
    ]);
    expect(problem({ range: 'eth0=' })).toContain('must be the name of a range');
  });

  it('kube-ipam.sticky is true or false', () => {
    expect(read({ sticky: 'true' }).sticky).toBe(true);
    expect(read({ sticky: ' false ' }).sticky).toBe(false);
    for (const sticky of ['yes', 'True', '1', 'statefulset']) {
      expect(problem({ sticky })).toBe(`annotation kube-ipam.sticky "${sticky}": must be "true" or "false"`);
    }
  });

  it.each([
    ['blue', true],
    ['[{"name": "blue"}]', true],
    ['[]', false],
    [' [ ] ', false],
    ['', false],
  ])('other networks %j: %s', (networks, yes) => expect(read({ networks }).otherNetworks).toBe(yes));
});

describe('mistakes', () => {
  it('are told all at once', () => {
    const message = problem({
      ip: '10.1.0,fd00::x',
      netmask: '255.0.255.0',
      gateway: 'no',
      range: ',',
      sticky: 'maybe',
    });
    for (const part of ['"10.1.0"', '"fd00::x"', '"255.0.255.0"', '"no"', 'kube-ipam.range ","', '"maybe"']) {
      expect(message).toContain(part);
    }
  });

  it('make no endless message, however much is written', () => {
    const many = Array.from({ length: 60 }, (_, n) => `x${n}`).join(',');
    expect(problem({ ip: many })).toMatch(/"x7".*\(and 52 more problems\)$/);
    expect(problem({ ip: `${many},${many}` })).toContain('has more than 64 items');
    expect(problem({ ip: '1'.repeat(5000) })).toContain('is longer than 4096 characters');
    expect(problem({ ip: `${many},${'y'.repeat(3000)}`, range: 'z'.repeat(5000) }).length).toBeLessThan(2000);
    fc.assert(
      fc.property(fc.string({ maxLength: 6000 }), text => {
        for (const key of ['ip', 'netmask', 'gateway', 'range', 'sticky', 'networks'] as const) {
          try {
            read({ ip: '10.1.0.5', [key]: text });
          } catch (error) {
            expect(error).toBeInstanceOf(FailureError);
            expect((error as Error).message.length).toBeLessThan(3000);
          }
        }
      }),
    );
  });
});
