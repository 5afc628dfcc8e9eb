// Opens what a configuration names and brings together all that the service needs; plugin, agent and command line share it.
import type { Deadline } from '../base/clock.ts';
import { Log } from '../base/log.ts';
import { readMachine } from '../base/node.ts';
import { nodeNameOf } from '../base/node-name.ts';
import { Keys } from '../store/keys.ts';
import type { Kv } from '../store/kv.ts';
import { type OpenGrpc, openStore } from '../store/open.ts';
import type { AccessConfig } from './config.ts';
import { FileDoubts } from './doubts.ts';
import type { Surroundings } from './ports.ts';

/** This node's name in the store: the embedded store knows one node only. */
export function nodeOf(access: AccessConfig): string {
  return access.store.kind === 'embedded' ? 'local' : nodeNameOf(access.nodeName);
}

/** Opens the store. Its owner disposes of `kv`, or ends. */
export async function openSurroundings(
  access: AccessConfig,
  deadline: Deadline,
  openGrpc?: OpenGrpc,
): Promise<Surroundings> {
  return surroundingsOf(access, await openStore(access.store, openGrpc), deadline, new Log(access.log));
}

/** What a command needs beside a store that is open already. */
export function surroundingsOf(access: AccessConfig, kv: Kv, deadline: Deadline, log: Log): Surroundings {
  return {
    kv,
    keys: new Keys(access.space),
    deadline,
    machine: readMachine(),
    doubts: new FileDoubts(access.store.dataDir, log),
    log,
    now: Date.now,
  };
}
