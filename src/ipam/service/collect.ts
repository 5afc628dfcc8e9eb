// CNI GC: frees what this node and machine hold of one network and the runtime no longer knows.
import { code, FailureError, messageOf } from '../../base/errors.ts';
import type { AccessConfig } from '../config.ts';
import { sameAttachment } from '../model.ts';
import type { Surroundings } from '../ports.ts';
import { type HeldAttachment, type Owned, readAttachments, releaseRead } from './release.ts';

/** A pair that the runtime still knows. */
export interface ValidAttachment {
  readonly containerID: string;
  readonly ifname: string;
}

/**
 * Frees every attachment of this network on this node that is not in the list; the number of those freed. One that
 * cannot be freed does not stop the others. The list is one runtime's view: records of another machine that bears the
 * same node name stay.
 */
export async function collect(
  around: Surroundings,
  config: AccessConfig,
  node: string,
  valid: readonly ValidAttachment[],
): Promise<number> {
  const known = new Set(valid.map(({ containerID, ifname }) => `${containerID}/${ifname}`));
  const all = await readAttachments(around, around.keys.attachments(node, config.network));
  const stale = all.filter(({ id }) => !known.has(`${id.containerID}/${id.ifname}`));
  const failures: string[] = [];
  let freed = 0;
  for (const held of stale) {
    if (!mayFree(around, config, held)) continue;
    try {
      if (await releaseRead(around, held, config)) freed++;
    } catch (error) {
      failures.push(messageOf(error));
    }
  }
  if (failures.length === 0) return freed;
  throw new FailureError(
    code.tryAgain,
    `network ${config.network}: ${failures.length} of ${stale.length} stale attachments could not be freed: ${failures[0]}`,
  );
}

/** In the embedded store everything is this machine's; in etcd the record must name machine and cluster. */
function mayFree(around: Surroundings, config: AccessConfig, held: HeldAttachment): boolean {
  if (config.store.kind === 'embedded') return true;
  const { machine } = around.machine;
  const isOurs = ({ owner }: Owned) =>
    owner.cluster === config.cluster &&
    owner.holders.some(holder => sameAttachment(holder, held.id) && holder.machine === machine);
  return machine !== '' && held.owned.length > 0 && held.owned.every(isOurs);
}
