// How much memory this process has, as the kernel counts it.
import { readFileSync } from 'node:fs';

/** Bytes; undefined where the kernel does not tell. */
export function residentMemory(): number | undefined {
  const found = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8'));
  return found === null ? undefined : Number(found[1]) * 1024;
}
