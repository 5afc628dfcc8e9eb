// Addresses: parsing against node:net's judgement, printing, and the text that sorts like the number.
import { isIP } from 'node:net';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { bits, type Family, formatIp, type Ip, orderedText, parseIp, parseOrderedText, sameIp } from './ip.ts';

const ipv4 = fc.bigInt({ min: 0n, max: 2n ** 32n - 1n }).map((value): Ip => ({ family: 4, value }));
const mapped = (value: bigint) => value >> 32n === 0xffffn;
const ipv6 = fc
  .oneof(fc.bigInt({ min: 0n, max: 2n ** 128n - 1n }), fc.bigInt({ min: 0n, max: 2n ** 20n }))
  .filter(value => !mapped(value))
  .map((value): Ip => ({ family: 6, value }));
const anyIp = fc.oneof(ipv4, ipv6);

describe('parseIp', () => {
  it('reads back what formatIp writes, and node:net agrees that it is an address', () => {
    fc.assert(
      fc.property(anyIp, ip => {
        expect(parseIp(formatIp(ip))).toEqual(ip);
        expect(isIP(formatIp(ip))).toBe(ip.family);
      }),
      { numRuns: 1000 },
    );
  });

  it('takes exactly the texts that node:net takes, zones aside', () => {
    const texts = fc.oneof(
      fc.string({ unit: fc.constantFrom(...'0123456789abcfF:.'), maxLength: 20 }),
      fc.array(fc.stringMatching(/^[0-9a-fA-F]{0,5}$/), { maxLength: 9 }).map(parts => parts.join(':')),
      fc.array(fc.nat(300).map(String), { minLength: 3, maxLength: 5 }).map(parts => parts.join('.')),
    );
    fc.assert(
      fc.property(texts, text => {
        expect(parseIp(text) !== undefined).toBe(isIP(text) !== 0);
      }),
      { numRuns: 5000 },
    );
  });

  it.each([
    ['10.1.0.2', { family: 4, value: 0x0a010002n }],
    ['255.255.255.255', { family: 4, value: 0xffffffffn }],
    ['0.0.0.0', { family: 4, value: 0n }],
    ['::', { family: 6, value: 0n }],
    ['2001:DB8::0001', { family: 6, value: 0x20010db8n * 2n ** 96n + 1n }],
    ['2001:0db8:0000:0000:0000:0000:0000:0001', { family: 6, value: 0x20010db8n * 2n ** 96n + 1n }],
    ['::ffff:10.1.0.2', { family: 4, value: 0x0a010002n }],
    ['::ffff:a01:2', { family: 4, value: 0x0a010002n }],
    ['64:ff9b::10.1.0.2', { family: 6, value: 0x64ff9bn * 2n ** 96n + 0x0a010002n }],
  ])('reads %s', (text, ip) => {
    expect(parseIp(text)).toEqual(ip);
  });

  it.each([
    '',
    ' ',
    '10.1.0',
    '10.1.0.256',
    '010.1.0.2',
    '10.1.0.2 ',
    '10.1.0.2/24',
    '10.1.0.2\n',
    '10.1.0.-1',
    '0x0a.1.0.2',
    '1::2::3',
    ':::',
    '1:2:3:4:5:6:7',
    '1:2:3:4:5:6:7:8:9',
    '12345::',
    'fe80::1%eth0',
    '::ffff:10.1.0.256',
    '::ffff:010.1.0.2',
    '[::1]',
    'localhost',
  ])('refuses %j', text => {
    expect(parseIp(text)).toBeUndefined();
  });
});

describe('orderedText', () => {
  it.each([[ipv4], [ipv6]])('sorts by bytes as the numbers sort', arbitrary => {
    fc.assert(
      fc.property(arbitrary, arbitrary, (a, b) => {
        const texts = Buffer.compare(Buffer.from(orderedText(a)), Buffer.from(orderedText(b)));
        expect(texts).toBe(a.value < b.value ? -1 : a.value > b.value ? 1 : 0);
      }),
      { numRuns: 1000 },
    );
  });

  it('is read back', () => {
    fc.assert(
      fc.property(anyIp, ip => {
        expect(parseOrderedText(ip.family, orderedText(ip))).toEqual(ip);
      }),
    );
  });

  it('looks as documented', () => {
    expect(orderedText(parseIp('10.188.0.10')!)).toBe('010.188.000.010');
    expect(orderedText(parseIp('fd00::1')!)).toBe('fd00:0000:0000:0000:0000:0000:0000:0001');
  });

  it.each<[Family, string]>([
    [4, '10.188.0.10'],
    [4, '010.188.000.256'],
    [4, '010.188.000.010!'],
    [4, '010.188.000'],
    [6, 'fd00::1'],
    [6, 'FD00:0000:0000:0000:0000:0000:0000:0001'],
    [6, '010.188.000.010'],
    [4, 'fd00:0000:0000:0000:0000:0000:0000:0001'],
  ])('family %i: %s is not such a text', (family, text) => {
    expect(parseOrderedText(family, text)).toBeUndefined();
  });
});

it('the same number of two families is not the same address', () => {
  expect(sameIp({ family: 4, value: 5n }, { family: 6, value: 5n })).toBe(false);
  expect(sameIp({ family: 4, value: 5n }, { family: 4, value: 5n })).toBe(true);
  expect([bits(4), bits(6)]).toEqual([32, 128]);
});
