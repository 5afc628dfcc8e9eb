// Whether an address that somebody asks for by name may be given at all: what fixed and requested ones have in common. Pure.
import { code, FailureError } from '../../base/errors.ts';
import { lastOf } from '../../net/cidr.ts';
import { formatIp, type Ip, sameIp } from '../../net/ip.ts';
import { spanContains } from '../../net/span.ts';
import type { Allotment } from '../config.ts';
import { describeRange } from '../describe.ts';
import type { Range } from '../range.ts';
import type { Serving } from '../serving.ts';

/** Throws a FailureError, code 7 unless another is given. */
export type Refuse = (why: string, failureCode?: number) => never;

/** `what`: "requested address" or the like. */
export function refusalOf({ network }: Allotment, what: string, ip: Ip): Refuse {
  return (why, failureCode = code.config) => {
    throw new FailureError(failureCode, `${what} ${formatIp(ip)} of network ${network}: ${why}`);
  };
}

/** Selectors bind whoever names an address too: code 103 where a range that has it does not accept the pod. */
export function refuseForeign({ refused }: Serving, hasIt: (range: Range) => boolean, refuse: Refuse): void {
  const foreign = refused.find(({ range }) => hasIt(range));
  if (foreign !== undefined) {
    refuse(`${describeRange(foreign.range)} does not accept this pod: ${foreign.why}`, code.noRange);
  }
}

/** Gateways, network and broadcast addresses, and what is excluded, are nobody's. */
export function refuseSpecial(config: Allotment, range: Range, ip: Ip, refuse: Refuse): void {
  if (isGateway(config, ip)) refuse('it is the gateway');
  if (isSubnetsOwn(range, ip)) refuse('it is the network or broadcast address of its subnet');
  if (isExcluded(config, ip)) refuse('it is excluded by the configuration');
}

export function isGateway(config: Allotment, ip: Ip): boolean {
  return config.sets.some(set => set.some(({ gateway }) => sameIp(gateway, ip)));
}

export function isExcluded(config: Allotment, ip: Ip): boolean {
  return config.exclude.some(span => spanContains(span, ip));
}

/** Network and broadcast addresses are given only where a range says so outright; a fixed span does not. */
function isSubnetsOwn(range: Range, ip: Ip): boolean {
  if (spanContains(range, ip)) return false;
  return ip.value === range.subnet.base || (ip.family === 4 && ip.value === lastOf(range.subnet));
}
