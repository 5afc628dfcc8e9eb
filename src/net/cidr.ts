// A subnet: base address and prefix length, with its special addresses.
import { bits, type Family, formatIp, type Ip, parseIp } from './ip.ts';

/** A subnet without host bits. */
export interface Cidr {
  readonly family: Family;
  readonly base: bigint;
  readonly prefix: number;
}

/** Reads `address/prefix`; the address may have host bits. Undefined for anything else. */
export function parseIpWithPrefix(text: string): { ip: Ip; prefix: number } | undefined {
  const slash = text.indexOf('/');
  if (slash < 0) return undefined;
  const ip = parseIp(text.slice(0, slash));
  const digits = text.slice(slash + 1);
  if (ip === undefined || !/^(0|[1-9]\d{0,2})$/.test(digits)) return undefined;
  // In an IPv4-mapped address the length would count the bits of the IPv6 form.
  if (ip.family === 4 && text.includes(':')) return undefined;
  const prefix = Number(digits);
  return prefix <= bits(ip.family) ? { ip, prefix } : undefined;
}

/** The subnet of that prefix length which contains the address. */
export function cidrOf(ip: Ip, prefix: number): Cidr {
  const shift = BigInt(bits(ip.family) - prefix);
  return { family: ip.family, base: (ip.value >> shift) << shift, prefix };
}

export function lastOf(cidr: Cidr): bigint {
  return cidr.base + (1n << BigInt(bits(cidr.family) - cidr.prefix)) - 1n;
}

export function cidrContains(cidr: Cidr, ip: Ip): boolean {
  return ip.family === cidr.family && ip.value >= cidr.base && ip.value <= lastOf(cidr);
}

/** Whether addresses of the subnet would be read back as IPv4: those of ::ffff:0:0/96 are IPv4 ones to every reader. */
export function holdsMapped(cidr: Cidr): boolean {
  return cidrContains(cidr, { family: 6, value: 0xffffn << 32n });
}

export function formatCidr(cidr: Cidr): string {
  return `${formatIp({ family: cidr.family, value: cidr.base })}/${cidr.prefix}`;
}
