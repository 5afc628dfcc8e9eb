// The shape of ADD's result in each version, and the error object (contract 5, 10).
import { describe, expect, it } from 'vitest';
import { FailureError } from '../base/errors.ts';
import type { Route } from '../ipam/routes.ts';
import { type Family, parseIp } from '../net/ip.ts';
import { versions } from './netconf.ts';
import { renderError, renderResult } from './result.ts';

const assigned = (address: string, prefix: number, gateway: string) => ({
  ip: parseIp(address)!,
  prefix,
  gateway: parseIp(gateway)!,
});
const route = (family: Family, dst: string, more: Partial<Route> = {}): Route => ({ family, dst, ...more });
const four = assigned('10.1.0.2', 24, '10.1.0.1');
const six = assigned('fd00::2', 64, 'fd00::1');
const routes = [route(6, '::/0'), route(4, '0.0.0.0/0', { gw: '10.1.0.9' })];
const dns = { nameservers: ['192.0.2.1'] };
const render = (version: (typeof versions)[number], result = { addresses: [six, four], routes, dns }) =>
  JSON.parse(renderResult(version, result));

it.each(['0.1.0', '0.2.0'] as const)('5.2 %s: ip4 and ip6, each with its own routes', cniVersion => {
  expect(render(cniVersion)).toEqual({
    cniVersion,
    ip4: { ip: '10.1.0.2/24', gateway: '10.1.0.1', routes: [{ dst: '0.0.0.0/0', gw: '10.1.0.9' }] },
    ip6: { ip: 'fd00::2/64', gateway: 'fd00::1', routes: [{ dst: '::/0' }] },
    dns,
  });
});

it.each(['0.3.0', '0.3.1', '0.4.0'] as const)('5.3 %s: a list, each item with its version of IP', cniVersion => {
  expect(render(cniVersion)).toEqual({
    cniVersion,
    ips: [
      { version: '6', address: 'fd00::2/64', gateway: 'fd00::1' },
      { version: '4', address: '10.1.0.2/24', gateway: '10.1.0.1' },
    ],
    routes: [{ dst: '::/0' }, { dst: '0.0.0.0/0', gw: '10.1.0.9' }],
    dns,
  });
});

it.each(['1.0.0', '1.1.0'] as const)('5.4 and 5.9 %s: without version, in the order of the sets', cniVersion => {
  expect(render(cniVersion).ips).toEqual([
    { address: 'fd00::2/64', gateway: 'fd00::1' },
    { address: '10.1.0.2/24', gateway: '10.1.0.1' },
  ]);
});

it('5.5 1.1.0: table 0 and scope 0 survive', () => {
  const zero = [route(4, '0.0.0.0/0', { table: 0, scope: 0, mtu: 1400 })];
  expect(render('1.1.0', { addresses: [four], routes: zero, dns }).routes).toEqual([
    { dst: '0.0.0.0/0', table: 0, scope: 0, mtu: 1400 },
  ]);
});

describe.each(versions)('%s', version => {
  const text = renderResult(version, { addresses: [four], routes: [], dns: {} });

  it('5.1 the result has the version of the configuration', () => {
    expect(JSON.parse(text).cniVersion).toBe(version);
  });

  it('5.6 and 5.8 neither interfaces nor null, and nothing that is empty', () => {
    expect(text).not.toMatch(/interface|null|\[\]|\{\}|routes|dns/);
  });
});

describe('10.1 the error object', () => {
  it('has version, code and message; details only where there are some', () => {
    expect(JSON.parse(renderError('0.4.0', new FailureError(11, 'text')))).toEqual({
      cniVersion: '0.4.0',
      code: 11,
      msg: 'text',
    });
    const detailed = new FailureError(100, 'text', { details: 'more', cause: new Error('secret') });
    expect(JSON.parse(renderError('1.1.0', detailed))).toEqual({
      cniVersion: '1.1.0',
      code: 100,
      msg: 'text',
      details: 'more',
    });
  });
});
