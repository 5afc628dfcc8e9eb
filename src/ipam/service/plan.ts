// Which set gives which address of an ADD: requested ones are matched to sets before anything is read. Pure.
import { code, FailureError } from '../../base/errors.ts';
import { lastOf } from '../../net/cidr.ts';
import { formatIp, type Ip, sameIp } from '../../net/ip.ts';
import { spanContains } from '../../net/span.ts';
import { type Ring, ringOf } from '../candidates.ts';
import type { NetworkConfig } from '../config.ts';
import { describeSet } from '../describe.ts';
import { type Range, type RangeSet, rangeServes } from '../range.ts';

/** One set and what is wanted of it: the requested address, or any of its ring. */
export interface SetPlan {
  readonly set: RangeSet;
  readonly ring: Ring;
  readonly requested?: Ip;
}

/** An address with the range it came from, which gives its prefix length and gateway. */
export interface Assigned {
  readonly ip: Ip;
  readonly range: Range;
}

/** Plans one address for each set. Throws code 7 for a requested address that no set may give. */
export function planSets(config: NetworkConfig, requested: readonly Ip[]): SetPlan[] {
  const wanted = new Map<RangeSet, Ip>();
  for (const ip of requested) {
    const set = config.sets.find(one => one.some(range => rangeServes(range, ip)));
    const refuse = (why: string): never => {
      throw new FailureError(code.config, `requested address ${formatIp(ip)} of network ${config.network}: ${why}`);
    };
    if (set === undefined) return refuse(`it lies in none of the ranges ${config.sets.map(describeSet).join('; ')}`);
    const other = wanted.get(set);
    if (other !== undefined) return refuse(`${formatIp(other)} was requested from the same range set, which gives one`);
    if (isGateway(config, ip)) return refuse('it is the gateway');
    if (isSubnetsOwn(set, ip)) return refuse('it is the network or broadcast address of its subnet');
    if (config.exclude.some(span => spanContains(span, ip))) return refuse('it is excluded by the configuration');
    wanted.set(set, ip);
  }
  return config.sets.map(set => {
    const ip = wanted.get(set);
    return { set, ring: ringOf(set, config.sets, config.exclude), ...(ip && { requested: ip }) };
  });
}

function isGateway(config: NetworkConfig, ip: Ip): boolean {
  return config.sets.some(set => set.some(({ gateway }) => sameIp(gateway, ip)));
}

/** Network and broadcast addresses are given only where a range says so outright; a fixed span does not. */
function isSubnetsOwn(set: RangeSet, ip: Ip): boolean {
  const range = set.find(one => rangeServes(one, ip));
  if (range === undefined || spanContains(range, ip)) return false;
  return ip.value === range.subnet.base || (ip.family === 4 && ip.value === lastOf(range.subnet));
}

/** Whether an address that is held already is still what the plan would give. */
export function fits(plan: SetPlan, config: NetworkConfig, ip: Ip): boolean {
  if (plan.requested !== undefined) return sameIp(plan.requested, ip);
  return (
    plan.set.some(range => rangeServes(range, ip)) &&
    !isGateway(config, ip) &&
    !config.exclude.some(span => spanContains(span, ip))
  );
}

export function assign(plan: SetPlan, ip: Ip): Assigned {
  const range = plan.set.find(one => rangeServes(one, ip));
  if (range === undefined) throw new Error(`${formatIp(ip)} was chosen outside its set`);
  return { ip, range };
}
