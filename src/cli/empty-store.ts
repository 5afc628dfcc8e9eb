// What a dry run sees where there is no embedded store yet: a store without records, which takes none either.
import type { RenewableDeadline } from '../base/clock.ts';
import { code, FailureError } from '../base/errors.ts';
import { Log } from '../base/log.ts';
import { readMachine } from '../base/node.ts';
import type { AccessConfig } from '../ipam/config.ts';
import { FileDoubts } from '../ipam/doubts.ts';
import type { PatientSurroundings } from '../ipam/service/patience.ts';
import { Keys } from '../store/keys.ts';
import type { Kv } from '../store/kv.ts';

/** Surroundings as those of a store that was made just now; nothing on disk is touched. */
export function emptySurroundings(access: AccessConfig, deadline: RenewableDeadline): PatientSurroundings {
  const log = new Log({ ...access.log, level: 'off' });
  return {
    kv: emptyKv,
    keys: new Keys(access.space),
    deadline,
    machine: readMachine(),
    doubts: new FileDoubts(access.store.dataDir, log),
    log,
    now: Date.now,
  };
}

const emptyKv: Kv = {
  read: async queries => ({ revision: 0, answers: queries.map(() => ({ entries: [], count: 0 })) }),
  commit: async () => {
    throw new FailureError(code.bug, 'a dry run tried to write');
  },
  async *scan() {
    yield { revision: 0, entries: [] };
  },
  [Symbol.asyncDispose]: async () => {},
};
