// CHECK: whether the store still says of an attachment what its ADD said.
import { code, FailureError } from '../../base/errors.ts';
import { cidrContains } from '../../net/cidr.ts';
import { formatIp, type Ip, sameIp } from '../../net/ip.ts';
import type { AttachmentId } from '../../store/keys.ts';
import type { NetworkConfig } from '../config.ts';
import { describeOwner } from '../describe.ts';
import { namesAttachment, parseAttachment, parseOwner } from '../model.ts';
import type { Surroundings } from '../ports.ts';

/**
 * Throws unless the attachment exists, owns each of its addresses, and owns each address of `expected` (the runtime's
 * previous result) that lies in a subnet of this network.
 */
export async function verify(
  around: Surroundings,
  config: NetworkConfig,
  id: AttachmentId,
  expected: readonly Ip[],
): Promise<void> {
  const { kv, keys, deadline } = around;
  const { answers } = await kv.read([{ key: keys.attachment(id) }], deadline);
  const wrong = (why: string) =>
    new FailureError(code.notReserved, `network ${config.network}, container ${id.containerID} ${id.ifname}: ${why}`);
  const attachment = answers[0]!.entries[0];
  if (attachment === undefined) throw wrong('no address is reserved for it');
  const addresses = parseAttachment(attachment.value);
  if (addresses.length === 0) throw wrong('its attachment names no address');
  const records = await kv.read(
    addresses.map(ip => ({ key: keys.address(ip) })),
    deadline,
  );
  for (const [i, ip] of addresses.entries()) {
    const entry = records.answers[i]!.entries[0];
    if (entry === undefined) throw wrong(`${formatIp(ip)} has no owner any more`);
    const owner = parseOwner(entry.value);
    if (!namesAttachment(owner, id)) throw wrong(`${formatIp(ip)} belongs to ${describeOwner(owner)}`);
  }
  const ranges = config.sets.flat();
  for (const ip of expected) {
    const ours = ranges.some(({ subnet }) => cidrContains(subnet, ip));
    if (ours && !addresses.some(one => sameIp(one, ip))) throw wrong(`${formatIp(ip)} is not reserved for it`);
  }
}
