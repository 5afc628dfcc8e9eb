// The result of ADD in the shape of each version of the specification, and the error object.
import type { FailureError } from '../base/errors.ts';
import type { Route } from '../ipam/routes.ts';
import type { Assigned } from '../ipam/service/plan.ts';
import { formatIp } from '../net/ip.ts';
import type { Dns } from './dns.ts';
import { type Version, versions } from './netconf.ts';

export interface AddResult {
  readonly addresses: readonly Assigned[];
  readonly routes: readonly Route[];
  readonly dns: Dns;
}

/** The JSON text of a successful ADD. */
export function renderResult(version: Version, result: AddResult): string {
  const shape = ['0.1.0', '0.2.0'].includes(version) ? byFamily(result) : asList(version, result);
  const dns = Object.keys(result.dns).length > 0 ? { dns: result.dns } : {};
  return JSON.stringify({ cniVersion: version, ...shape, ...dns });
}

function renderIp({ ip, prefix, gateway }: Assigned) {
  return { address: `${formatIp(ip)}/${prefix}`, gateway: formatIp(gateway) };
}

function renderRoute({ family: _, ...route }: Route) {
  return route;
}

/** 0.1.0 and 0.2.0: one address for each family, routes inside the family they belong to. */
function byFamily({ addresses, routes }: AddResult) {
  const parts = addresses.map(assigned => {
    const { family } = assigned.ip;
    const { address, gateway } = renderIp(assigned);
    const own = routes.filter(route => route.family === family).map(renderRoute);
    return [`ip${family}`, { ip: address, gateway, ...(own.length > 0 && { routes: own }) }];
  });
  return Object.fromEntries(parts);
}

/** 0.3.0 and later: a list; up to 0.4.0 each item names its version of IP. */
function asList(version: Version, { addresses, routes }: AddResult) {
  const named = versions.indexOf(version) < versions.indexOf('1.0.0');
  const ips = addresses.map(assigned => ({
    ...(named && { version: String(assigned.ip.family) }),
    ...renderIp(assigned),
  }));
  return { ips, ...(routes.length > 0 && { routes: routes.map(renderRoute) }) };
}

/** The JSON text of a failure. */
export function renderError(version: Version, failure: FailureError): string {
  const { code, message, details } = failure;
  return JSON.stringify({ cniVersion: version, code, msg: message, ...(details !== undefined && { details }) });
}
