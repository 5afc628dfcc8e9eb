// Which set gives which address of an ADD: those asked for by name are matched to sets before anything is read. Pure.
import { formatIp, type Ip, sameIp } from '../../net/ip.ts';
import { type Ring, ringOf } from '../candidates.ts';
import type { Allotment } from '../config.ts';
import { describeSet } from '../describe.ts';
import { type Range, type RangeSet, rangeServes } from '../range.ts';
import type { Serving } from '../serving.ts';
import type { Wishes } from '../wishes.ts';
import { type FixedAddress, placeFixed } from './fixed.ts';
import { isExcluded, isGateway, refusalOf, refuseForeign, refuseSpecial } from './named.ts';

/** One set and what is wanted of it: a certain address, or any of its ring. */
export interface SetPlan {
  /** The ranges that serve the pod. */
  readonly set: RangeSet;
  readonly ring: Ring;
  /** The address asked for by name, be it a fixed one or not. */
  readonly requested?: Ip;
  /** Where the pod's annotations fix the requested address. */
  readonly fixed?: FixedAddress;
}

/** An address as it is told to the container. */
export interface Assigned {
  readonly ip: Ip;
  readonly prefix: number;
  readonly gateway: Ip;
}

/**
 * Plans one address for each set. What the pod's annotations fix wins over what was requested of the same set. Throws
 * code 7 for an address that no set may give, code 103 for one of a range that does not accept the pod.
 */
export function planSets(config: Allotment, serving: Serving, requested: readonly Ip[], wishes?: Wishes): SetPlan[] {
  const fixed = wishes === undefined ? new Map<RangeSet, FixedAddress>() : placeFixed(config, serving, wishes);
  const wanted = placeRequested(config, serving, requested, fixed);
  return serving.sets.map(set => {
    const ring = ringOf(set, config.sets, config.exclude);
    const own = fixed.get(set);
    const ip = own?.ip ?? wanted.get(set);
    return { set, ring, ...(ip && { requested: ip }), ...(own && { fixed: own }) };
  });
}

function placeRequested(
  config: Allotment,
  serving: Serving,
  requested: readonly Ip[],
  fixed: ReadonlyMap<RangeSet, FixedAddress>,
): ReadonlyMap<RangeSet, Ip> {
  const placed = new Map<RangeSet, Ip>();
  for (const ip of requested) {
    const refuse = refusalOf(config, 'requested address', ip);
    const hasIt = (range: Range) => rangeServes(range, ip);
    refuseForeign(serving, hasIt, refuse);
    const set = serving.sets.find(one => one.some(hasIt));
    if (set === undefined) return refuse(`it lies in none of the ranges ${config.sets.map(describeSet).join('; ')}`);
    if (fixed.has(set)) continue;
    const other = placed.get(set);
    if (other !== undefined) return refuse(`${formatIp(other)} was requested from the same range set, which gives one`);
    refuseSpecial(config, set.find(hasIt)!, ip, refuse);
    placed.set(set, ip);
  }
  return placed;
}

/** Whether an address that is held already is still what the plan would give. */
export function fits(plan: SetPlan, config: Allotment, ip: Ip): boolean {
  if (plan.requested !== undefined) return sameIp(plan.requested, ip);
  return plan.set.some(range => rangeServes(range, ip)) && !isGateway(config, ip) && !isExcluded(config, ip);
}

export function assign({ set, fixed }: SetPlan, ip: Ip): Assigned {
  if (fixed !== undefined && sameIp(fixed.ip, ip)) return { ip, prefix: fixed.prefix, gateway: fixed.gateway };
  const range = set.find(one => rangeServes(one, ip));
  if (range === undefined) throw new Error(`${formatIp(ip)} was chosen outside its set`);
  return { ip, prefix: range.subnet.prefix, gateway: range.gateway };
}
