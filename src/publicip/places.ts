// The files of public addresses on a host.
import { statSync } from 'node:fs';
import { join } from 'node:path';

/** The feature's name in the ledger of what was changed on this host. */
export const feature = 'public-ip';

export interface Places {
  /** What was changed on this host. */
  readonly ledger: string;
  /** Which IPv6 addresses are ours. */
  readonly notes: string;
  /** Held by whoever carries addresses in this network namespace. */
  readonly lock: string;
}

export function placesOf({ stateDir, runDir }: { readonly stateDir: string; readonly runDir: string }): Places {
  return {
    ledger: join(stateDir, 'ledger.json'),
    notes: join(stateDir, feature, 'addresses.json'),
    lock: join(runDir, `${feature}.${statSync('/proc/self/ns/net').ino}.lock`),
  };
}
