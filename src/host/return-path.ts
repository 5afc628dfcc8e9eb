// Sends replies from addresses of ours out by a gateway of their own, where the default route would lead elsewhere.
import type { Deadline } from '../base/clock.ts';
import { code, FailureError } from '../base/errors.ts';
import { type Family, formatIp, type Ip, parseIp } from '../net/ip.ts';
import { complaintOf, runTool } from './tool.ts';

/** Route table, and the priorities of the two rules that each address has. */
export interface ReturnNumbers {
  readonly table: number;
  readonly mainPriority: number;
  readonly priority: number;
}

export interface ReturnPath {
  readonly dev: string;
  /** At most one a family; the addresses of a family without one go as all others do. */
  readonly gateways: readonly Ip[];
  readonly addresses: readonly Ip[];
}

/**
 * Makes the table and the rules of these numbers hold this and nothing else. What the main table knows better than by a
 * default route stays as it is: neighbours and pods are not reached through the gateway. Throws FailureError.
 */
export async function syncReturnPath(
  numbers: ReturnNumbers,
  wanted: ReturnPath,
  deadline: Deadline,
): Promise<'same' | 'changed'> {
  const changes: number[] = [];
  for (const family of [4, 6] as const) {
    const steps = stepsFor(numbers, wanted, family, await read(numbers, family, deadline));
    await apply(family, steps, deadline);
    changes.push(steps.length);
  }
  return changes.some(count => count > 0) ? 'changed' : 'same';
}

/** The addresses that have rules of these numbers. Throws FailureError. */
export async function readReturnAddresses(numbers: ReturnNumbers, deadline: Deadline): Promise<Ip[]> {
  const all = await Promise.all(([4, 6] as const).map(family => read(numbers, family, deadline)));
  const texts = new Set(all.flatMap(({ main, own }) => [...main, ...own]));
  return [...texts].flatMap(text => parseIp(text) ?? []);
}

interface There {
  /** `GATEWAY DEV` of the default routes. */
  readonly routes: readonly string[];
  /** Sources of the rules that ask the main table, and of those that ask ours. */
  readonly main: readonly string[];
  readonly own: readonly string[];
}

function stepsFor({ table, mainPriority, priority }: ReturnNumbers, wanted: ReturnPath, family: Family, there: There) {
  const gateway = wanted.gateways.find(ip => ip.family === family);
  const addresses = wanted.addresses.filter(ip => gateway !== undefined && ip.family === family).map(formatIp);
  const route = gateway && `${formatIp(gateway)} ${wanted.dev}`;
  const byMain = (address: string) => `from ${address} lookup main suppress_prefixlength 0 priority ${mainPriority}`;
  const byOwn = (address: string) => `from ${address} lookup ${table} priority ${priority}`;
  const isRight = there.routes.join() === (route ?? '');
  const flush = there.routes.length === 0 ? [] : [`route flush table ${table}`];
  const put = gateway && `route replace default via ${formatIp(gateway)} dev ${wanted.dev} table ${table}`;
  // A rule that asks an empty table goes on to the next one, so the route comes first and goes last.
  return [
    ...(isRight || put === undefined ? [] : [...flush, put]),
    ...differences(there.main, addresses).map(([verb, address]) => `rule ${verb} ${byMain(address)}`),
    ...differences(there.own, addresses).map(([verb, address]) => `rule ${verb} ${byOwn(address)}`),
    ...(isRight || put !== undefined ? [] : flush),
  ];
}

/** Added before removed; a rule that stands twice is removed once. */
function differences(there: readonly string[], wanted: readonly string[]): (readonly ['add' | 'del', string])[] {
  const missing = wanted.filter(address => !there.includes(address));
  const surplus = there.filter((address, at) => !wanted.includes(address) || there.indexOf(address) !== at);
  return [...missing.map(address => ['add', address] as const), ...surplus.map(address => ['del', address] as const)];
}

interface RawRule {
  readonly priority: number;
  readonly src: string;
  readonly srclen?: number;
}

interface RawRoute {
  readonly dst?: string;
  readonly gateway?: string;
  readonly dev?: string;
}

async function read(
  { table, mainPriority, priority }: ReturnNumbers,
  family: Family,
  deadline: Deadline,
): Promise<There> {
  const listed = await runTool('ip', [`-${family}`, '-json', 'rule', 'show'], '', deadline);
  if (listed.code !== 0 && family === 4) throw failure('ip rule', complaintOf(listed));
  const rules: readonly RawRule[] = listed.code === 0 ? JSON.parse(listed.stdout || '[]') : [];
  const sources = (wanted: number) =>
    rules.filter(rule => rule.priority === wanted && rule.srclen === undefined).map(({ src }) => canonical(src));
  const shown = await runTool('ip', [`-${family}`, '-json', 'route', 'show', 'table', String(table)], '', deadline);
  // A table that nobody has written to yet is none.
  const routes: readonly RawRoute[] = shown.code === 0 ? JSON.parse(shown.stdout || '[]') : [];
  return {
    routes: routes.map(({ gateway, dev }) => `${canonical(gateway ?? '')} ${dev}`),
    main: sources(mainPriority),
    own: sources(priority),
  };
}

function canonical(text: string): string {
  const ip = parseIp(text);
  return ip === undefined ? text : formatIp(ip);
}

/** Rules of IPv6 must be asked for as such. */
async function apply(family: Family, steps: readonly string[], deadline: Deadline): Promise<void> {
  if (steps.length === 0) return;
  const done = await runTool('ip', [`-${family}`, '-force', '-batch', '-'], `${steps.join('\n')}\n`, deadline);
  if (done.code !== 0) throw failure('ip', complaintOf(done));
}

function failure(command: string, why: string): FailureError {
  return new FailureError(code.io, `the way by which replies leave cannot be set: ${command}: ${why}`);
}
