// Routes pass from the configuration to the result as they are, checked (CNI specification, "routes").
import type { Section } from '../base/section.ts';
import { cidrOf, formatCidr, parseIpWithPrefix } from '../net/cidr.ts';
import { type Family, formatIp, parseIp } from '../net/ip.ts';

/** A route as the result prints it: `dst` in CIDR form, `gw` plain; the numbers exist from CNI 1.1.0 on. */
export interface Route {
  readonly family: Family;
  readonly dst: string;
  readonly gw?: string;
  readonly mtu?: number;
  readonly advmss?: number;
  readonly priority?: number;
  readonly table?: number;
  readonly scope?: number;
}

const numberKeys = ['mtu', 'advmss', 'priority', 'table', 'scope'] as const;

export function readRoutes(ipam: Section, cniVersion: string): Route[] {
  return ipam.sectionList('routes').flatMap(section => readRoute(section, cniVersion) ?? []);
}

function readRoute(section: Section, cniVersion: string): Route | undefined {
  const rule = 'must be a destination like "0.0.0.0/0"';
  if (!section.has('dst')) return section.wrong('dst', `is missing: ${rule}`);
  const parsed = section.parsed(
    'dst',
    value => (typeof value === 'string' ? parseIpWithPrefix(value) : undefined),
    rule,
  );
  const gw = section.parsed('gw', asGateway, 'must be an IP address');
  if (parsed === undefined) return undefined;
  const numbers: { [key in (typeof numberKeys)[number]]?: number } = {};
  for (const key of numberKeys) {
    const value = section.parsed(key, asUint, 'must be a whole number, 0 or more');
    if (value !== undefined && cniVersion === '1.1.0') numbers[key] = value;
  }
  const dst = formatCidr(cidrOf(parsed.ip, parsed.prefix));
  return { family: parsed.ip.family, dst, ...(gw && { gw }), ...numbers };
}

/** "" counts as no gateway, as in Go. */
function asGateway(value: unknown): string | undefined {
  if (typeof value !== 'string') return undefined;
  if (value === '') return '';
  const ip = parseIp(value);
  return ip && formatIp(ip);
}

function asUint(value: unknown): number | undefined {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 ? value : undefined;
}
