// Which machine this is: the marks that tell it and its boots from others.
import { firstLine } from './node-name.ts';
import { sha256 } from './sha256.ts';

export interface Machine {
  /** 16 hex digits for /etc/machine-id, or "" when there is no real one: rules that need it do not apply then. */
  readonly machine: string;
  /** The kernel's boot ID: no network namespace outlives one. */
  readonly boot: string;
}

export function readMachine(): Machine {
  return { machine: machineOf(firstLine('/etc/machine-id')), boot: firstLine('/proc/sys/kernel/random/boot_id') };
}

/** Images are shipped with an empty file or the word "uninitialized" (machine-id(5)), which tells no machine from another. */
export function machineOf(id: string): string {
  return /^[0-9a-f]{32}$/i.test(id) ? sha256(id).slice(0, 16) : '';
}
