// Tells neighbours where an address is now, and asks whether somebody else answers for it.
import { type Deadline, deadlineIn } from '../base/clock.ts';
import { code, FailureError } from '../base/errors.ts';
import { formatIp, type Ip } from '../net/ip.ts';
import { complaintOf, runTool } from './tool.ts';

/** Milliseconds for a tool that itself ends within a second. */
const patience = 5000;

/**
 * One round, of about a second: IPv4 as a request and as a reply, because some kernels learn from one of them alone; IPv6
 * as an unsolicited advertisement. The address must be on the interface. Never throws: there is another round, and
 * nobody waits for one.
 */
export async function announce(dev: string, ip: Ip, signal: AbortSignal): Promise<void> {
  const address = formatIp(ip);
  const say = (tool: 'arping' | 'ndptool', ...args: string[]) => runTool(tool, args, '', deadlineIn(patience), signal);
  await Promise.allSettled(
    ip.family === 4
      ? ['-U', '-A'].map(form => say('arping', form, '-c', '1', '-I', dev, address))
      : [say('ndptool', '-t', 'na', '-U', '-i', dev, '-T', address, 'send')],
  );
}

/** By family: asks twice, for a second in all; and the exit codes that mean "nobody" and "somebody". */
const probes = {
  4: { tool: 'arping', args: ['-D', '-c', '2', '-w', '1', '-I'], nobody: 0, somebody: 1 },
  6: { tool: 'ndisc6', args: ['-1', '-q', '-r', '2', '-w', '500'], nobody: 2, somebody: 0 },
} as const;

/**
 * The MAC address of somebody else who answers for the address, which must not be on this node; undefined when nobody
 * does within a second. Throws FailureError where nobody can be asked: no tool, no such interface, or it is down.
 */
export async function probe(dev: string, ip: Ip, deadline: Deadline): Promise<string | undefined> {
  const { tool, args, nobody, somebody } = probes[ip.family];
  const address = formatIp(ip);
  const finished = await runTool(tool, [...args, ...(ip.family === 4 ? [dev, address] : [address, dev])], '', deadline);
  if (finished.code === nobody) return undefined;
  const [mac] = /\b[0-9a-f]{2}(:[0-9a-f]{2}){5}\b/i.exec(finished.stdout) ?? [];
  if (finished.code === somebody && mac !== undefined) return mac.toLowerCase();
  throw new FailureError(code.io, `nobody on ${dev} can be asked for ${address}: ${tool}: ${complaintOf(finished)}`);
}
