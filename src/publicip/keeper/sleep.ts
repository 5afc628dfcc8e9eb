// Notices that this machine slept (contract N9): no clock of it runs then, so that nothing runs out, however long that is.
import { readFileSync } from 'node:fs';
import { rest } from '../../base/clock.ts';

/** How often the kernel's two clocks are compared, and by how much they may come apart, in milliseconds. */
const interval = 200;
const tolerance = 500;

/**
 * Calls `onWoke` with the milliseconds slept, each time. @param uptime the file that counts the seconds since boot with
 * those slept; @param monotonicNow milliseconds without them.
 */
export async function watchSleep(
  uptime: string,
  monotonicNow: () => number,
  onWoke: (ms: number) => void,
  signal: AbortSignal,
): Promise<void> {
  const slept = () => Number(readFileSync(uptime, 'utf8').split(' ')[0]) * 1000 - monotonicNow();
  for (let before = slept(); !signal.aborted; await rest(interval, signal)) {
    const now = slept();
    if (now - before > tolerance) onWoke(now - before);
    // A pause between the two readings makes it less than it is.
    before = Math.max(before, now);
  }
}
