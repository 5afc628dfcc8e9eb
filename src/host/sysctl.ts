// Kernel settings below /proc/sys: a feature sets what it needs, and the last one that needs it puts the old value back.
import { readFileSync, writeFileSync } from 'node:fs';
import type { Deadline } from '../base/clock.ts';
import { code, FailureError, messageOf, systemCode } from '../base/errors.ts';
import type { Ledger, Sysctls } from './ledger.ts';

/**
 * The value of a sysctl; undefined where this kernel, or an interface that is gone, has none. Names are paths below
 * /proc/sys, `net/ipv4/conf/eth0.5/arp_ignore`: names of interfaces may have dots. Throws FailureError.
 */
export function readSysctl(name: string): string | undefined {
  try {
    return readFileSync(pathOf(name), 'utf8').trim().replace(/\s+/g, ' ');
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined;
    throw new FailureError(code.io, `sysctl ${name} cannot be read: ${messageOf(error)}`, { cause: error });
  }
}

/**
 * Sets a sysctl for a feature, unless it has that value; the old one is on disk in the ledger before that. 'absent' where
 * there is no such sysctl. To be called again whenever somebody else may have set it. Throws FailureError.
 */
export async function holdSysctl(
  ledger: Ledger,
  feature: string,
  name: string,
  value: string,
  deadline: Deadline,
): Promise<'same' | 'set' | 'absent'> {
  const old = readSysctl(name);
  if (old === undefined) return 'absent';
  const known = ledger.sysctls()[name];
  if (old === value && known?.users.includes(feature) !== false) return 'same';
  await ledger.update(sysctls => noted(sysctls, ledger.boot, feature, name, value), deadline);
  if (old === value) return 'same';
  write(name, value);
  return 'set';
}

/** With the feature among its users; a value that is right by itself is nobody's change. */
function noted(sysctls: Sysctls, boot: string, feature: string, name: string, value: string): Sysctls {
  const known = sysctls[name];
  const stands = known !== undefined && known.boot === boot ? known : undefined;
  const old = readSysctl(name) ?? '';
  if (stands === undefined && old === value) {
    const { [name]: _, ...others } = sysctls;
    return others;
  }
  const users = new Set([...(stands?.users ?? []), feature]);
  return { ...sysctls, [name]: { old: stands?.old ?? old, set: value, boot, users: [...users].sort() } };
}

/**
 * Gives up what a feature holds, all or what `names` lists; the sysctls that got their old value back. One that somebody
 * else has set meanwhile is left alone. Throws FailureError.
 */
export async function releaseSysctls(
  ledger: Ledger,
  feature: string,
  deadline: Deadline,
  names?: readonly string[],
): Promise<string[]> {
  const isHeld = (name: string): boolean =>
    ledger.sysctls()[name]!.users.includes(feature) && names?.includes(name) !== false;
  const held = Object.keys(ledger.sysctls()).filter(isHeld);
  const restored: string[] = [];
  if (held.length === 0) return restored;
  await ledger.update(sysctls => {
    let left = sysctls;
    for (const name of held) {
      const { [name]: change, ...others } = left;
      if (change === undefined) continue;
      const users = change.users.filter(user => user !== feature);
      left = users.length === 0 ? others : { ...others, [name]: { ...change, users } };
      if (users.length > 0 || change.boot !== ledger.boot || readSysctl(name) !== change.set) continue;
      write(name, change.old);
      restored.push(name);
    }
    return left;
  }, deadline);
  return restored;
}

function write(name: string, value: string): void {
  try {
    writeFileSync(pathOf(name), value);
  } catch (error) {
    throw new FailureError(code.io, `sysctl ${name} cannot be set to ${value}: ${messageOf(error)}`, { cause: error });
  }
}

function pathOf(name: string): string {
  const parts = name.split('/');
  if (parts.some(part => ['', '.', '..'].includes(part)))
    throw new FailureError(code.bug, `no sysctl: ${JSON.stringify(name)}`);
  return `/proc/sys/${name}`;
}
