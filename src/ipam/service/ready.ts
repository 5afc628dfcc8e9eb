// STATUS: whether an ADD would be served now, asked without reserving anything.
import { spanContains } from '../../net/span.ts';
import { type AttachmentId, formatKey } from '../../store/keys.ts';
import type { NetworkConfig } from '../config.ts';
import type { Surroundings } from '../ports.ts';
import { everyRange } from '../serving.ts';
import { exhaustedError } from './exhausted.ts';
import { ipOfKey, Looker } from './look.ts';
import { planSets } from './plan.ts';
import { type HeldAttachment, readEarlierBoots } from './release.ts';
import { findFree } from './search.ts';

/** Throws the error that an ADD would meet: store away or refusing writes, format too new, a set without a free address. */
export async function ready(around: Surroundings, config: NetworkConfig, node: string): Promise<void> {
  const { kv, deadline } = around;
  // An identity that no attachment has: the reads are those of an ADD, and nothing is written.
  const id: AttachmentId = { node, network: config.network, containerID: 'status', ifname: 'status' };
  const plans = planSets(config, everyRange(config), []);
  const looker = new Looker(around.keys, id, plans);
  const seen = await looker.readSeen(kv, deadline);
  await tryWriting(around, config.network);
  const windows = looker.windows(seen.cursors, 0);
  const looks = looker.look(windows, (await kv.read(looker.lookQueries(windows), deadline)).answers);
  let earlier: HeldAttachment[] | undefined;
  for (const [i, { ring }] of plans.entries()) {
    if (looks[i]!.free.length > 0 || (await findFree(around, ring, false)) !== undefined) continue;
    // What an ADD would free first: after a reboot, "full" must not keep away the ADD that makes room.
    earlier ??= await readEarlierBoots(around, node, config.cluster);
    const freeable = earlier.flatMap(({ owned }) => owned.flatMap(({ entry }) => ipOfKey(entry.key) ?? []));
    if (freeable.some(ip => ring.spans.some(span => spanContains(span, ip)))) continue;
    throw await exhaustedError(around, config.network, ring);
  }
}

/**
 * A full store, or one that this user may only read, answers reads as ever. It judges the writes of a commit before the
 * conditions, so one whose conditions exclude each other is refused like that of an ADD, and writes nothing if it is not.
 */
async function tryWriting({ kv, keys, deadline }: Surroundings, network: string): Promise<void> {
  const conditions = [{ absent: formatKey }, { unchanged: formatKey, revision: 1 }];
  await kv.commit({ conditions, writes: [{ put: keys.network(network), value: '' }] }, deadline);
}
