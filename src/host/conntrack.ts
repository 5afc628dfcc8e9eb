// Makes the kernel forget where the flows of an address led before.
import type { Deadline } from '../base/clock.ts';
import { code, FailureError } from '../base/errors.ts';
import { formatIp, type Ip } from '../net/ip.ts';
import { complaintOf, runTool } from './tool.ts';

/**
 * UDP flows to the address: they never end by themselves while packets come, and go on to where the first one went.
 * Throws FailureError.
 */
export async function forgetFlows(ip: Ip, deadline: Deadline): Promise<void> {
  const family = ip.family === 4 ? 'ipv4' : 'ipv6';
  const args = ['--delete', '--family', family, '--proto', 'udp', '--dst', formatIp(ip)];
  const finished = await runTool('conntrack', args, '', deadline);
  // It says 1 both of a failure and where there was no such flow.
  if (finished.code === 0 || finished.stderr.includes(' 0 flow entries have been deleted')) return;
  throw new FailureError(code.io, `flows to ${formatIp(ip)} are not forgotten: conntrack: ${complaintOf(finished)}`);
}
