// Counts what an embedded store still holds for containers of this machine: their DEL needs the executable.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { FailureError, messageOf } from '../../base/errors.ts';
import type { Holder } from '../../ipam/model.ts';
import { recordOf } from '../../ipam/service/holdings.ts';
import { type PatientSurroundings, scanAll, spacesOf } from '../../ipam/service/patience.ts';
import { Keys } from '../../store/keys.ts';
import { afterPrefix } from '../../store/kv.ts';
import { type Args, text } from '../command.ts';
import { counted } from '../output.ts';
import { chooseStore, openChosen } from '../store-access.ts';

/** A warning for people; undefined where nothing is held. A store that cannot be read stops nobody from uninstalling. */
export async function stillHeld(dataDir: string, args: Args): Promise<string | undefined> {
  if (!existsSync(join(dataDir, 'store.db'))) return undefined;
  try {
    const timeout = text(args, 'timeout');
    await using store = await openChosen(
      chooseStore({ 'data-dir': dataDir, ...(timeout !== undefined && { timeout }) }),
    );
    const count = await countHeld(store.around);
    if (count === 0) return undefined;
    return `the store in ${dataDir} still holds ${counted(count, 'address', 'addresses')} of containers on this machine: without the executable the runtime cannot tear them down; remove those pods first`;
  } catch (error) {
    if (!(error instanceof FailureError)) throw error;
    return `whether containers still have addresses cannot be told: ${messageOf(error)}`;
  }
}

/** In every space. Containers that are gone count too: the runtime calls DEL for them all the same. */
async function countHeld(around: PatientSurroundings): Promise<number> {
  const { machine } = around.machine;
  let count = 0;
  for (const space of await spacesOf(around)) {
    const keys = new Keys(space);
    const prefix = keys.addresses();
    for await (const entries of scanAll(around, prefix, afterPrefix(prefix))) {
      const owners = entries.flatMap(recordOf).map(({ owner }) => owner);
      const isHere = (holder: Holder) => machine === '' || holder.machine === machine;
      count += owners.filter(({ holders }) => holders.some(isHere)).length;
    }
  }
  return count;
}
