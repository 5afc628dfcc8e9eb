// What kube-ipam keeps on a node beside executable and configuration: where it lies, and how it goes.
import { existsSync, readdirSync, rmdirSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { dirname, join } from 'node:path';
import { systemCode } from '../../base/errors.ts';
import { nodeFolder } from '../../host/certificates.ts';
import { defaultAgentSocket } from '../../ipam/defaults.ts';
import type { Places } from './places.ts';

/** Folders that are kube-ipam's own as a whole, those of them that are there. */
export function ownFolders({ root, confDir }: Places): string[] {
  const folders = [nodeFolder, '/var/lib/kube-ipam', dirname(defaultAgentSocket)].map(folder => join(root, folder));
  return [join(confDir, 'kube-ipam.d'), ...folders].filter(folder => existsSync(folder));
}

/** What of a state folder kube-ipam itself makes: a dataDir that was set to a shared folder must not take that with it. */
export function stateIn(dataDir: string): string[] {
  const own = /^(store\.db(-wal|-shm|-journal)?|\.new-.*|doubt|spool|endpoint\.json)$/;
  return existsSync(dataDir) ? readdirSync(dataDir).filter(name => own.test(name)) : [];
}

/** Whether a state folder is there and holds something of ours, or nothing at all. */
export function isOurs(dataDir: string): boolean {
  return existsSync(dataDir) && (stateIn(dataDir).length > 0 || readdirSync(dataDir).length === 0);
}

export function removeState(dataDir: string): void {
  for (const name of stateIn(dataDir)) rmSync(join(dataDir, name), { recursive: true, force: true });
  if (existsSync(dataDir) && readdirSync(dataDir).length === 0) removeEmpty(dataDir);
}

export function removeFolder(folder: string): void {
  for (const name of readdirSync(folder)) rmSync(join(folder, name), { recursive: true, force: true });
  removeEmpty(folder);
}

/** A folder that a container has mounted by itself can be emptied only. */
function removeEmpty(folder: string): void {
  try {
    rmdirSync(folder);
  } catch (error) {
    if (systemCode(error) !== 'EBUSY') throw error;
  }
}

/** How many DELs wait there for their store. */
export function waitingDels(dataDir: string): number {
  const spool = join(dataDir, 'spool');
  return existsSync(spool) ? readdirSync(spool).filter(name => !name.startsWith('.')).length : 0;
}

/** Whether an agent of this node takes requests. */
export function agentListens({ root }: Places): Promise<boolean> {
  return new Promise(resolve => {
    const connection = connect(join(root, defaultAgentSocket));
    const end = (listens: boolean) => {
      connection.destroy();
      resolve(listens);
    };
    connection.on('connect', () => end(true));
    connection.on('error', () => end(false));
  });
}
