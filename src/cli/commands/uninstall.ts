// `kube-ipam uninstall`: takes back what `install` put on a node, the configuration first.
import { existsSync, readdirSync, rmdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { code, FailureError, messageOf } from '../../base/errors.ts';
import { readAccessConfig } from '../../ipam/config.ts';
import type { EmbeddedTarget, StoreTarget } from '../../store/target.ts';
import { confirmed } from '../ask.ts';
import { syncFolder } from '../atomic-file.ts';
import { type Args, type Command, exit, given, text } from '../command.ts';
import { defaultDataDir } from '../conf-templates.ts';
import { ownConfFiles } from '../install/conf-file.ts';
import { executableName, installedParts, removeExecutable } from '../install/executable.ts';
import { nodeFile, type Places, placeFlags, placesOf } from '../install/places.ts';
import { stillHeld } from '../install/still-held.ts';
import { networksIn, readConfFile, readConfFolder } from '../networks.ts';
import { plain } from '../output.ts';
import type { CliIo } from '../program.ts';

export const command: Command = {
  verb: 'uninstall',
  summary: 'remove the plugin and its network configuration',
  details:
    'Removes the network configuration first, so that the runtime stops using it, then the executable and its libraries. ' +
    'The addresses stay recorded; --purge removes the embedded store as well, also where an earlier uninstall left it. ' +
    'Remove the pods before: their addresses are given back by the executable; where the embedded store still holds some, ' +
    'a warning says so. May be repeated.',
  positionals: [],
  flags: {
    ...placeFlags,
    purge: { type: 'boolean', describe: 'remove the embedded store too: forgets who has which address' },
    'data-dir': {
      type: 'string',
      value: 'DIR',
      describe: `folder of the embedded store that no configuration names any more (${defaultDataDir})`,
    },
    yes: { type: 'boolean', short: 'y', describe: 'do not ask' },
    force: { type: 'boolean', describe: 'also while other networks use kube-ipam' },
  },
  examples: [
    ['kube-ipam uninstall --dry-run', ''],
    ['kube-ipam uninstall --purge --yes', 'with the embedded store'],
  ],
  async run(args, io) {
    const places = placesOf(args);
    const own = ownConfFiles(args, places.confDir);
    const stores = [...storesOf(own), ...strayStores(args, own, places)];
    if (!given(args, 'force')) refuseUsed(own, places);
    await warnOfHeld(stores, args, places, io);
    const purged = given(args, 'purge') ? stores.filter(store => store.kind === 'embedded') : [];
    if (purged.length > 0 && !given(args, 'dry-run')) {
      const folders = purged.map(({ dataDir }) => dataDir).join(', ');
      const question = `Remove the store in ${folders}? Nobody will know any more who has which address.`;
      if (!confirmed(args, io, question)) {
        io.writeStderr('nothing was removed\n');
        return exit.trouble;
      }
    }
    remove(own, purged, places, given(args, 'dry-run'), io);
    tellWhatStays(
      stores.filter(store => !purged.some(one => one === store)),
      args,
      io,
    );
    return exit.fine;
  },
};

/** The stores that the configurations to be removed name; one that cannot be read names none. */
function storesOf(files: readonly string[]): StoreTarget[] {
  const stores = new Map<string, StoreTarget>();
  for (const file of files) {
    try {
      for (const { conf } of networksIn(readConfFile(file), file)) {
        const { store } = readAccessConfig(conf);
        stores.set(JSON.stringify(store), store);
      }
    } catch (error) {
      if (!(error instanceof FailureError)) throw error;
    }
  }
  return [...stores.values()];
}

/** The embedded store that an earlier uninstall left: no configuration leads to it any more. */
function strayStores(args: Args, own: readonly string[], { confDir }: Places): EmbeddedTarget[] {
  // A folder of configurations of its own is not this host's, and neither is the usual store.
  const dataDir = text(args, 'data-dir') ?? (text(args, 'conf-dir') === undefined ? defaultDataDir : undefined);
  if (dataDir === undefined || own.length > 0 || readConfFolder(confDir).networks.length > 0) return [];
  return existsSync(join(dataDir, 'store.db')) ? [{ kind: 'embedded', dataDir }] : [];
}

/** Also of the networks that --force leaves behind. */
async function warnOfHeld(stores: readonly StoreTarget[], args: Args, places: Places, io: CliIo): Promise<void> {
  if (!existsSync(join(places.binDir, executableName))) return;
  const others = storesOf(readConfFolder(places.confDir).networks.map(({ file }) => file));
  const embedded = [...stores, ...others].filter(({ kind }) => kind === 'embedded');
  for (const dataDir of new Set(embedded.map(store => store.dataDir))) {
    const warning = await stillHeld(dataDir, args);
    if (warning !== undefined) io.writeStderr(`warning: ${plain(warning)}\n`);
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

function remove(
  own: readonly string[],
  purged: readonly EmbeddedTarget[],
  places: Places,
  dryRun: boolean,
  io: CliIo,
): void {
  const say = (line: string) => io.writeStdout(`${dryRun ? 'would remove' : 'removed'} ${plain(line)}\n`);
  try {
    for (const file of own) {
      if (!dryRun) rmSync(file, { force: true });
      say(file);
    }
    if (own.length > 0 && !dryRun) syncFolder(places.confDir);
    const there = dryRun ? installedParts(places.binDir) : removeExecutable(places.binDir);
    for (const path of there) say(path);
    for (const { dataDir } of purged) {
      if (!dryRun) purge(dataDir);
      say(`the store in ${dataDir}`);
    }
    if (own.length + there.length + purged.length === 0)
      io.writeStdout('nothing to remove: kube-ipam is not installed there\n');
  } catch (error) {
    throw new FailureError(code.io, `not everything could be removed: ${messageOf(error)}; run it again`, {
      cause: error,
    });
  }
}

/** Only what kube-ipam itself makes there: a dataDir that was set to a shared folder must not take that with it. */
function purge(dataDir: string): void {
  if (!existsSync(dataDir)) return;
  for (const name of readdirSync(dataDir)) {
    const isOurs = /^(store\.db(-wal|-shm|-journal)?|\.new-.*|doubt|spool|endpoint\.json)$/.test(name);
    if (isOurs) rmSync(join(dataDir, name), { recursive: true, force: true });
  }
  if (readdirSync(dataDir).length === 0) rmdirSync(dataDir);
}

function tellWhatStays(stores: readonly StoreTarget[], args: Args, io: CliIo): void {
  for (const store of stores) {
    if (store.kind === 'embedded') {
      if (existsSync(store.dataDir)) io.writeStdout(`left: the addresses in ${store.dataDir} (--purge removes them)\n`);
    } else {
      io.writeStdout(`left: the addresses in etcd at ${store.endpoints.join(', ')}, which other nodes may share\n`);
      if (given(args, 'purge')) io.writeStdout('--purge never touches etcd\n');
    }
  }
  if (existsSync(nodeFile)) io.writeStdout(`left: ${nodeFile}, and logs\n`);
}
