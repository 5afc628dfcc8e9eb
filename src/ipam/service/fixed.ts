// Which set gives which of the addresses that a pod's annotations fix, and with which prefix length and gateway. Pure.
import { cidrContains, cidrOf, formatCidr, lastOf } from '../../net/cidr.ts';
import { bits, formatIp, type Ip, sameIp } from '../../net/ip.ts';
import type { Allotment } from '../config.ts';
import { describeSet } from '../describe.ts';
import { type Range, type RangeSet, rangeServes } from '../range.ts';
import type { Serving } from '../serving.ts';
import type { Wishes } from '../wishes.ts';
import { type Refuse, refusalOf, refuseForeign, refuseSpecial } from './named.ts';

export interface FixedAddress {
  readonly ip: Ip;
  /** Prefix length and gateway that it is told with. */
  readonly prefix: number;
  readonly gateway: Ip;
  /** Not written for this interface by name: then another interface of the same pod may have it already. */
  readonly bare: boolean;
}

/** Throws code 7 for an address that no set may give, code 103 for one of a range that does not accept the pod. */
export function placeFixed(config: Allotment, serving: Serving, wishes: Wishes): ReadonlyMap<RangeSet, FixedAddress> {
  const placed = new Map<RangeSet, FixedAddress>();
  const asked = serving.sets.filter(set => wishes.fixed.some(({ ip }) => set.some(range => rangeServes(range, ip))));
  const [byName, bare] = [wishes.fixed.filter(({ own }) => own), wishes.fixed.filter(({ own }) => !own)];
  for (const { ip, own } of [...byName, ...bare]) {
    const refuse = refusalOf(config, 'fixed address', ip);
    refuseForeign(serving, range => rangeServes(range, ip), refuse);
    const home = homeOf(serving, ip, set => !placed.has(set) && !asked.includes(set));
    if (home === undefined) {
      refuseForeign(serving, range => cidrContains(range.subnet, ip), refuse);
      if (!own && wishes.otherNetworks) continue;
      return refuse(`it lies in none of the subnets of ${config.sets.map(describeSet).join('; ')}`);
    }
    const other = placed.get(home.set);
    if (other !== undefined) {
      if (!other.bare && !own && wishes.otherNetworks) continue;
      return refuse(
        `its range set gives one address, and ${formatIp(other.ip)} is asked for too; what is for another interface is written like net1=${formatIp(ip)}`,
      );
    }
    refuseSpecial(config, home.range, ip, refuse);
    placed.set(home.set, { ...shape(home.range, ip, wishes, refuse), bare: !own });
  }
  return placed;
}

/** The set that has the address in its ranges, else one with a subnet around it, rather one that is idle. */
function homeOf(
  { sets }: Serving,
  ip: Ip,
  isIdle: (set: RangeSet) => boolean,
): { readonly set: RangeSet; readonly range: Range } | undefined {
  const all = sets.flatMap(set => set.map(range => ({ set, range })));
  const around = all.filter(({ range }) => cidrContains(range.subnet, ip));
  return around.find(({ range }) => rangeServes(range, ip)) ?? around.find(({ set }) => isIdle(set)) ?? around[0];
}

/** The address with what it is told with. What no kernel would take is refused here, where a message can say why. */
function shape(range: Range, ip: Ip, wishes: Wishes, refuse: Refuse): Omit<FixedAddress, 'bare'> {
  const { family } = ip;
  const prefix = wishes.prefixes[family] ?? range.subnet.prefix;
  const gateway = wishes.gateways[family] ?? range.gateway;
  const around = cidrOf(ip, prefix);
  const net = formatCidr(around);
  // With at most one bit for hosts there is neither a network nor a broadcast address (RFC 3021, RFC 6164).
  const hasOwn = prefix < bits(family) - 1;
  const isBroadcast = ({ value }: Ip) => hasOwn && family === 4 && value === lastOf(around);
  if (prefix !== range.subnet.prefix && (isBroadcast(ip) || (hasOwn && ip.value === around.base))) {
    refuse(`it is the network or broadcast address of ${net}`);
  }
  if (sameIp(gateway, ip)) refuse('it is its own gateway');
  // The kernel takes a route only through a gateway that it can reach without one. A full-length address has no
  // neighbours at all: main plugins that know such addresses (calico, ptp) make a route to the gateway first.
  const isReachable = cidrContains(around, gateway) && !isBroadcast(gateway);
  if (prefix < bits(family) && !isReachable && !isLinkLocal(gateway)) {
    refuse(
      `no route can go through gateway ${formatIp(gateway)}, which is no host of ${net}: kube-ipam.netmask must cover it, or kube-ipam.gateway name another`,
    );
  }
  return { ip, prefix, gateway };
}

/** fe80::/10 is on every link. */
function isLinkLocal({ family, value }: Ip): boolean {
  return family === 6 && value >> 118n === 0x3fan;
}
