// One IP address as a number with its family; ip-address does the parsing.
import { Address4, Address6 } from 'ip-address';

export type Family = 4 | 6;

/** An address: `value` is the 32- or 128-bit number it stands for. */
export interface Ip {
  readonly family: Family;
  readonly value: bigint;
}

/** The number of bits of an address. */
export function bits(family: Family): number {
  return family === 4 ? 32 : 128;
}

const mappedPrefix = 0xffffn << 32n;

/**
 * Reads an address in any spelling. As in Go, an IPv4-mapped IPv6 address means the IPv4 address.
 * Returns undefined for anything else: prefixes, zones, leading zeros, blanks.
 */
export function parseIp(text: string): Ip | undefined {
  if (text.length > 45 || /[^0-9a-fA-F:.]/.test(text)) return undefined;
  try {
    if (!text.includes(':')) return { family: 4, value: new Address4(text).bigInt() };
    const value = new Address6(text).bigInt();
    return value >> 32n === mappedPrefix >> 32n ? { family: 4, value: value & 0xffffffffn } : { family: 6, value };
  } catch {
    return undefined;
  }
}

/** The canonical text: dotted decimal, or RFC 5952. */
export function formatIp({ family, value }: Ip): string {
  if (family === 6) return Address6.fromBigInt(value).correctForm();
  const n = Number(value);
  return `${n >>> 24}.${(n >>> 16) & 255}.${(n >>> 8) & 255}.${n & 255}`;
}

/** Text that sorts like the number: `010.188.000.010`, or all eight groups of four hex digits. */
export function orderedText({ family, value }: Ip): string {
  if (family === 4) {
    const n = Number(value);
    return [n >>> 24, (n >>> 16) & 255, (n >>> 8) & 255, n & 255].map(part => String(part).padStart(3, '0')).join('.');
  }
  return value.toString(16).padStart(32, '0').match(/.{4}/g)!.join(':');
}

/** Reads what `orderedText` wrote; undefined for any other text. */
export function parseOrderedText(family: Family, text: string): Ip | undefined {
  if (family === 4) {
    if (!/^\d{3}(\.\d{3}){3}$/.test(text)) return undefined;
    const parts = text.split('.').map(Number);
    if (parts.some(part => part > 255)) return undefined;
    return { family, value: parts.reduce((sum, part) => sum * 256n + BigInt(part), 0n) };
  }
  if (!/^[0-9a-f]{4}(:[0-9a-f]{4}){7}$/.test(text)) return undefined;
  return { family, value: BigInt(`0x${text.replaceAll(':', '')}`) };
}

export function sameIp(a: Ip, b: Ip): boolean {
  return a.family === b.family && a.value === b.value;
}
