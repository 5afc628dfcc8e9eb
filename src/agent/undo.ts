// Takes back what was given to a plugin that has left: its DEL may have come and gone already.
import type { Surroundings } from '../ipam/ports.ts';
import { readHeld, releaseWrites } from '../ipam/service/release.ts';
import { asRead, fence } from '../ipam/service/writes.ts';
import { parseKey } from '../store/keys.ts';
import type { Entry } from '../store/kv.ts';
import type { Made } from './guard.ts';

/**
 * Deletes the attachment exactly as it was made, and nothing that a repeated ADD has taken up since. A commit of unknown
 * fate is turned away by the fence, should it come later. True when something was deleted. Errors: those of the store.
 */
export async function undo(around: Surroundings, made: Made): Promise<boolean> {
  const { kv, keys, deadline } = around;
  const { id, revision, values } = made;
  for (;;) {
    const wanted = [keys.attachment(id), keys.fence(id), ...values.keys()];
    const { answers } = await kv.read(
      wanted.map(key => ({ key })),
      deadline,
    );
    const [attachment, fenced, ...written] = answers.map(({ entries }) => entries[0]);
    const isOurs = revision === undefined ? isExactly(values, written) : attachment?.revision === revision;
    if (!isOurs && revision !== undefined) return false;
    const held = isOurs ? await readHeld(around, id) : { attachment, owned: [] };
    if (held.attachment?.revision !== attachment?.revision) continue;
    const { conditions, writes } = isOurs
      ? releaseWrites(around, id, held, { cooldown: 0 })
      : { conditions: [asRead(keys.attachment(id), attachment)], writes: [] };
    const fences = revision === undefined ? [fence(keys.fence(id), around.now())] : [];
    const commit = { conditions: [...conditions, asRead(keys.fence(id), fenced)], writes: [...writes, ...fences] };
    if ((await kv.commit(commit, deadline)).won) return isOurs;
  }
}

/** One commit wrote all of them, with these very values, and nobody has touched them since. */
function isExactly(values: ReadonlyMap<string, string>, found: readonly (Entry | undefined)[]): boolean {
  const revisions = new Set(found.map(entry => entry?.revision));
  const isWhole = found.every(entry => entry !== undefined && entry.value === values.get(entry.key));
  // A repeated ADD may write the same values again, but the attachment is older then.
  return (
    isWhole && revisions.size === 1 && found.some(entry => entry?.created === entry?.revision && isAttachment(entry))
  );
}

function isAttachment(entry: Entry | undefined): boolean {
  return entry !== undefined && parseKey(entry.key)?.type === 'attachment';
}
