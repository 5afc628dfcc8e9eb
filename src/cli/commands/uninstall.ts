// `kube-ipam uninstall`: takes back what `install` put on a node, the configuration first.
import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { code, FailureError, messageOf } from '../../base/errors.ts';
import { syncFolder } from '../../host/atomic-file.ts';
import { nodeFile } from '../../host/certificates.ts';
import { readAccessConfig } from '../../ipam/config.ts';
import type { EmbeddedTarget, StoreTarget } from '../../store/target.ts';
import { confirmed } from '../ask.ts';
import { type Args, type Command, exit, given, text } from '../command.ts';
import { defaultDataDir } from '../conf-templates.ts';
import { ownConfFiles } from '../install/conf-file.ts';
import { executableName, installedParts, removeExecutable } from '../install/executable.ts';
import {
  agentListens,
  isOurs,
  ownFolders,
  removeFolder,
  removeState,
  stateIn,
  waitingDels,
} from '../install/node-state.ts';
import { type Places, placeFlags, placesOf, rootFlag } from '../install/places.ts';
import { stillHeld } from '../install/still-held.ts';
import { networksIn, readConfFile, readConfFolder } from '../networks.ts';
import { counted, plain } from '../output.ts';
import type { CliIo } from '../program.ts';

export const command: Command = {
  verb: 'uninstall',
  summary: 'remove the plugin and its network configuration',
  details:
    'Removes the network configuration first, so that the runtime stops using it, then the executable and its libraries. ' +
    'The addresses stay recorded; --purge removes the embedded store as well, also where an earlier uninstall left it. ' +
    'Remove the pods before: their addresses are given back by the executable; where the embedded store still holds some, ' +
    'a warning says so. With --all nothing of kube-ipam stays on this node but its log; etcd is never touched. May be repeated.',
  positionals: [],
  flags: {
    ...placeFlags,
    ...rootFlag,
    all: {
      type: 'boolean',
      describe: 'as --purge, and certificates, kubeconfig, waiting DELs and sockets as well; the agent must have ended',
    },
    purge: { type: 'boolean', describe: 'remove the embedded store too: forgets who has which address' },
    'data-dir': {
      type: 'string',
      value: 'DIR',
      describe: `folder of the embedded store that no configuration names any more (${defaultDataDir})`,
    },
    yes: { type: 'boolean', short: 'y', describe: 'do not ask' },
    force: { type: 'boolean', describe: 'also while other networks use kube-ipam' },
    stay: { type: 'boolean', describe: 'end only at SIGTERM: a DaemonSet would start it again' },
  },
  examples: [
    ['kube-ipam uninstall --dry-run', ''],
    ['kube-ipam uninstall --purge --yes', 'with the embedded store'],
    ['kube-ipam uninstall --all --yes --root /host', 'in a container, as the manifests do'],
  ],
  async run(args, io) {
    const places = placesOf(args);
    const all = given(args, 'all');
    const dryRun = given(args, 'dry-run');
    const own = ownConfFiles(args, places.confDir);
    const stores = [...storesOf(own, places), ...strayStores(args, own, places)];
    if (!given(args, 'force')) refuseUsed(own, places);
    if (all && (await agentListens(places))) {
      io.writeStderr('the agent of this node is running: end it first (its DaemonSet or unit); nothing was removed\n');
      return exit.running;
    }
    await warnOfHeld(stores, args, places, io);
    const purged = stores.filter(({ kind }) => all || (given(args, 'purge') && kind === 'embedded'));
    if (all) warnOfWaiting(purged, io);
    if (!dryRun && !isAgreed(purged, all, args, io)) {
      io.writeStderr('nothing was removed\n');
      return exit.trouble;
    }
    const usual = all ? [join(places.root, defaultDataDir)] : [];
    const states = [...purged.map(({ dataDir }) => dataDir), ...usual].filter(isOurs);
    const folders = all ? ownFolders(places) : [];
    remove({ files: own, states: [...new Set(states)], folders }, places, dryRun, io);
    tellWhatStays(
      stores.filter(store => !purged.includes(store) || store.kind === 'etcd'),
      args,
      places,
      io,
    );
    if (given(args, 'stay')) await stopped(io.stopSignal());
    return exit.fine;
  },
};

function isAgreed(purged: readonly StoreTarget[], all: boolean, args: Args, io: CliIo): boolean {
  const folders = purged.filter(({ kind }) => kind === 'embedded').map(({ dataDir }) => dataDir);
  if (folders.length > 0) {
    const question = `Remove the store in ${folders.join(', ')}? Nobody will know any more who has which address.`;
    return confirmed(args, io, question);
  }
  return !all || confirmed(args, io, 'Remove all that kube-ipam keeps on this node?');
}

function stopped(signal: AbortSignal): Promise<void> {
  // A listener for signals alone keeps no process alive.
  const awake = setInterval(() => {}, 2 ** 31 - 1);
  return new Promise(resolve => {
    signal.addEventListener('abort', () => {
      clearInterval(awake);
      resolve();
    });
  });
}

/** The stores that the configurations to be removed name; one that cannot be read names none. */
function storesOf(files: readonly string[], { root }: Places): StoreTarget[] {
  const stores = new Map<string, StoreTarget>();
  for (const file of files) {
    try {
      for (const { conf } of networksIn(readConfFile(file), file)) {
        const { store: inHost } = readAccessConfig(conf);
        const store = { ...inHost, dataDir: join(root, inHost.dataDir) };
        stores.set(JSON.stringify(store), store);
      }
    } catch (error) {
      if (!(error instanceof FailureError)) throw error;
    }
  }
  return [...stores.values()];
}

/** The embedded store that an earlier uninstall left: no configuration leads to it any more. */
function strayStores(args: Args, own: readonly string[], { root, confDir }: Places): EmbeddedTarget[] {
  // A folder of configurations of its own is not this host's, and neither is the usual store.
  const named = text(args, 'data-dir') ?? (text(args, 'conf-dir') === undefined ? defaultDataDir : undefined);
  if (named === undefined || own.length > 0 || readConfFolder(confDir).networks.length > 0) return [];
  const dataDir = join(root, named);
  return existsSync(join(dataDir, 'store.db')) ? [{ kind: 'embedded', dataDir }] : [];
}

/** Also of the networks that --force leaves behind. */
async function warnOfHeld(stores: readonly StoreTarget[], args: Args, places: Places, io: CliIo): Promise<void> {
  if (!existsSync(join(places.binDir, executableName))) return;
  const others = storesOf(
    readConfFolder(places.confDir).networks.map(({ file }) => file),
    places,
  );
  const embedded = [...stores, ...others].filter(({ kind }) => kind === 'embedded');
  for (const dataDir of new Set(embedded.map(store => store.dataDir))) {
    const warning = await stillHeld(dataDir, args);
    if (warning !== undefined) io.writeStderr(`warning: ${plain(warning)}\n`);
  }
}

function warnOfWaiting(stores: readonly StoreTarget[], io: CliIo): void {
  for (const { dataDir } of stores.filter(({ kind }) => kind === 'etcd')) {
    const count = waitingDels(dataDir);
    if (count === 0) continue;
    const waiting = `${counted(count, 'DEL waits', 'DELs wait')} in ${dataDir} for etcd`;
    io.writeStderr(
      `warning: ${plain(waiting)}: without them the addresses stay taken until gc or "kube-ipam release"\n`,
    );
  }
}

function refuseUsed(own: readonly string[], { confDir, binDir }: Places): void {
  const others = readConfFolder(confDir).networks.filter(({ file }) => !own.includes(file));
  const files = [...new Set(others.map(({ file }) => file))];
  if (files.length === 0 || !existsSync(join(binDir, executableName))) return;
  throw new FailureError(
    code.config,
    `${files.join(', ')} still ${files.length === 1 ? 'uses' : 'use'} kube-ipam: remove ${files.length === 1 ? 'it' : 'them'} first, name one with --conf-name, or say --force; nothing was removed`,
  );
}

interface Removal {
  /** Network configurations. */
  readonly files: readonly string[];
  /** Folders of embedded stores, or of what a node keeps beside etcd. */
  readonly states: readonly string[];
  readonly folders: readonly string[];
}

function remove({ files, states, folders }: Removal, places: Places, dryRun: boolean, io: CliIo): void {
  const say = (line: string) => io.writeStdout(`${dryRun ? 'would remove' : 'removed'} ${plain(line)}\n`);
  try {
    for (const file of files) {
      if (!dryRun) rmSync(file, { force: true });
      say(file);
    }
    if (files.length > 0 && !dryRun) syncFolder(places.confDir);
    const there = dryRun ? installedParts(places.binDir) : removeExecutable(places.binDir);
    for (const path of there) say(path);
    for (const dataDir of states) {
      const what = stateIn(dataDir).includes('store.db') ? 'store' : 'state';
      if (!dryRun) removeState(dataDir);
      say(`the ${what} in ${dataDir}`);
    }
    for (const folder of folders) {
      if (!dryRun) removeFolder(folder);
      say(folder);
    }
    if (files.length + there.length + states.length + folders.length === 0)
      io.writeStdout('nothing to remove: kube-ipam is not installed there\n');
  } catch (error) {
    throw new FailureError(code.io, `not everything could be removed: ${messageOf(error)}; run it again`, {
      cause: error,
    });
  }
}

function tellWhatStays(stores: readonly StoreTarget[], args: Args, { root }: Places, io: CliIo): void {
  for (const store of stores) {
    if (store.kind === 'embedded') {
      if (existsSync(store.dataDir)) io.writeStdout(`left: the addresses in ${store.dataDir} (--purge removes them)\n`);
    } else {
      io.writeStdout(`left: the addresses in etcd at ${store.endpoints.join(', ')}, which other nodes may share\n`);
      if (given(args, 'purge')) io.writeStdout('--purge never touches etcd\n');
    }
  }
  const file = join(root, nodeFile);
  if (existsSync(file)) io.writeStdout(`left: ${file}, and logs\n`);
}
