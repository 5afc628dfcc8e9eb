// Takes back what was given to a plugin that has left: its DEL may have come and gone already.
import type { Surroundings } from '../ipam/ports.ts';
import { readHeld, releaseWrites } from '../ipam/service/release.ts';
import { fence } from '../ipam/service/writes.ts';
import type { Made } from './guard.ts';

/**
 * Deletes the attachment exactly as it was made, and nothing that a repeated ADD has taken up since. A commit of unknown
 * fate is only turned away, should it come later: whose it is if it was applied already, nobody can tell, and DEL or gc
 * finds it. True when something was deleted. Errors: those of the store.
 */
export async function undo(around: Surroundings, { id, revision }: Made): Promise<boolean> {
  const { kv, keys, deadline } = around;
  if (revision === undefined) {
    await kv.commit({ conditions: [], writes: [fence(keys.fence(id), around.now())] }, deadline);
    return false;
  }
  for (;;) {
    const held = await readHeld(around, id);
    if (held.attachment?.revision !== revision) return false;
    if ((await kv.commit(releaseWrites(around, id, held, { cooldown: 0 }), deadline)).won) return true;
  }
}
