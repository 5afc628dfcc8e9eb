// Subnets: prefix lengths, host bits and the addresses inside.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { cidrContains, cidrOf, formatCidr, lastOf, parseIpWithPrefix } from './cidr.ts';
import { bits, type Ip, parseIp } from './ip.ts';

const ip = fc.oneof(
  fc.bigInt({ min: 0n, max: 2n ** 32n - 1n }).map((value): Ip => ({ family: 4, value })),
  fc
    .bigInt({ min: 0n, max: 2n ** 128n - 1n })
    .filter(value => value >> 32n !== 0xffffn)
    .map((value): Ip => ({ family: 6, value })),
);

describe('parseIpWithPrefix', () => {
  it('keeps the address and the prefix length', () => {
    expect(parseIpWithPrefix('10.1.2.3/24')).toEqual({ ip: parseIp('10.1.2.3'), prefix: 24 });
    expect(parseIpWithPrefix('fd00::5/64')).toEqual({ ip: parseIp('fd00::5'), prefix: 64 });
    expect(parseIpWithPrefix('0.0.0.0/0')).toEqual({ ip: { family: 4, value: 0n }, prefix: 0 });
  });

  it.each(['10.1.2.3', '10.1.2.3/', '10.1.2.3/33', '10.1.2.3/024', '10.1.2.3/+4', '10.1.2.3/-1', '10.1.2.3/24/8'])(
    'refuses %s',
    text => expect(parseIpWithPrefix(text)).toBeUndefined(),
  );

  it.each(['fd00::/129', 'fd00::/1e1', '/24', 'fd00::/0x10', '10.1.2.3/ 24', '10.1.2.3/255.255.255.0'])(
    'refuses %s',
    text => expect(parseIpWithPrefix(text)).toBeUndefined(),
  );

  it('an IPv4-mapped address has no IPv4 prefix length: its /24 is not the /24 of the IPv4 address', () => {
    expect(parseIpWithPrefix('::ffff:10.1.2.0/24')).toBeUndefined();
    expect(parseIpWithPrefix('::ffff:10.1.2.0/120')).toBeUndefined();
  });
});

it('an address lies in its own subnet of any length, and the neighbours of the subnet do not', () => {
  fc.assert(
    fc.property(ip, fc.nat(128), (address, length) => {
      const prefix = length % (bits(address.family) + 1);
      const cidr = cidrOf(address, prefix);
      expect(cidrContains(cidr, address)).toBe(true);
      expect(cidrContains(cidr, { family: cidr.family, value: cidr.base - 1n })).toBe(false);
      expect(cidrContains(cidr, { family: cidr.family, value: lastOf(cidr) + 1n })).toBe(false);
      expect(lastOf(cidr) - cidr.base + 1n).toBe(2n ** BigInt(bits(address.family) - prefix));
      expect(cidr.base % (lastOf(cidr) - cidr.base + 1n)).toBe(0n);
    }),
  );
});

it('prints in canonical form', () => {
  expect(formatCidr(cidrOf(parseIp('10.1.2.3')!, 16))).toBe('10.1.0.0/16');
  expect(formatCidr(cidrOf(parseIp('2001:DB8:0::1')!, 64))).toBe('2001:db8::/64');
  expect(cidrContains(cidrOf(parseIp('10.0.0.0')!, 8), { family: 6, value: 0x0a000001n })).toBe(false);
});
