// `kube-ipam install`: puts the plugin where the runtime looks for it, and a network configuration beside.
import { lstatSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { code, FailureError, messageOf } from '../../base/errors.ts';
import { version } from '../../base/version.ts';
import { syncFolder } from '../../host/atomic-file.ts';
import { certificateMode, certificatesIn, nodeFile, nodeFolder } from '../../host/certificates.ts';
import { holds } from '../../host/files.ts';
import type { NetworkConfig } from '../../ipam/config.ts';
import { type Recording, recordNetwork } from '../../ipam/service/networks.ts';
import { namePattern } from '../../store/keys.ts';
import { type Args, type Command, exit, given, text, UsageError } from '../command.ts';
import { networkFlags } from '../conf-flags.ts';
import { mainPlugins } from '../conf-templates.ts';
import { type NewConf, newConf, otherForm } from '../install/conf-file.ts';
import {
  executableName,
  installExecutable,
  isInstalled,
  isUpToDate,
  probe,
  type Source,
  sourceOf,
} from '../install/executable.ts';
import { closeNewFolder, installFile } from '../install/files.ts';
import { type Places, placeFlags, placesOf } from '../install/places.ts';
import { confFilesOf, networksIn, readConfFile } from '../networks.ts';
import { plain } from '../output.ts';
import type { CliIo } from '../program.ts';
import { openChosen, timeoutOf } from '../store-access.ts';

const { single: _, ...confFlags } = networkFlags;

export const command: Command = {
  verb: 'install',
  summary: 'install the plugin, and a network configuration',
  details:
    'Copies this executable and its libraries into the plugin folder, makes sure that they run, and writes the network ' +
    'configuration last, as the runtime begins to use it at once: from --conf FILE, or from a main plugin and the flags of ' +
    '"kube-ipam conf". Without either only the executable is installed. Replaces an older copy while that is running. ' +
    'May be repeated; what is there already stays untouched.',
  positionals: [{ name: 'plugin', describe: 'main plugin', required: false, choices: mainPlugins }],
  flags: {
    ...placeFlags,
    conf: { type: 'string', value: 'FILE', describe: 'install this configuration, as it is' },
    node: { type: 'string', value: 'NAME', describe: `write this node's name to ${nodeFile}` },
    certificates: {
      type: 'string',
      value: 'DIR',
      describe: `copy the files of this folder, a mounted Secret say, to ${nodeFolder} (mode 0600)`,
    },
    'need-store': {
      type: 'boolean',
      describe: 'write a new or changed configuration only when its store answers',
    },
    ...confFlags,
  },
  examples: [
    ['kube-ipam install bridge --subnet 10.1.0.0/24', 'one machine, embedded store'],
    ['kube-ipam install --conf my-network.conflist --node worker-1', ''],
    [
      'kube-ipam install --conf pods.conflist --node worker-1 --certificates /secret --need-store',
      'as the DaemonSet does',
    ],
    ['kube-ipam install macvlan --master eth1 --subnet 10.1.0.0/16 --etcd-url https://10.0.0.1:2379 --dry-run', ''],
  ],
  async run(args, io) {
    const places = placesOf(args);
    const node = text(args, 'node');
    if (node !== undefined && !namePattern.test(node)) throw new UsageError(`--node ${node}: is no name for a node`);
    // What cannot be installed is refused before anything is changed.
    newConf(args);
    const source = sourceOf(io.executable);
    const dryRun = given(args, 'dry-run');
    const say = (line: string) => io.writeStdout(`${dryRun ? 'would ' : ''}${plain(line)}\n`);
    await copyExecutable(source, places, dryRun, say);
    const put = (path: string, bytes: string | Buffer, mode: number, shown = '') =>
      installFile(path, bytes, mode, dryRun, line => say(line + shown));
    const certificates = text(args, 'certificates');
    if (certificates !== undefined)
      for (const [path, bytes] of certificatesIn(certificates)) put(path, bytes, certificateMode);
    if (node !== undefined) put(nodeFile, `${node}\n`, 0o644, `: ${node}`);
    // Once more, as the certificates that it names may have come only now.
    const conf = newConf(args);
    if (conf === undefined)
      io.writeStderr('no network configuration was written: name a main plugin, or --conf FILE\n');
    else await installConf(conf, places, args, io, dryRun, say);
    return exit.fine;
  },
};

async function copyExecutable(source: Source, { binDir }: Places, dryRun: boolean, say: (line: string) => void) {
  const target = join(binDir, executableName);
  if (isInstalled(source, binDir)) {
    if (!dryRun) await probe(target);
    return say(`leave ${target} (version ${version}): it is this very file`);
  }
  if (isUpToDate(source, binDir)) {
    if (!dryRun) await probe(target);
    return say(`leave ${target} (version ${version}): it is the same`);
  }
  if (!dryRun) {
    try {
      await installExecutable(source, binDir);
    } catch (error) {
      if (error instanceof FailureError) throw error;
      throw new FailureError(code.io, `${target} cannot be written: ${messageOf(error)}`, { cause: error });
    }
    await probe(target);
  }
  say(`copy ${target} (version ${version}) and ${source.libraries.length} of its libraries`);
}

async function installConf(
  conf: NewConf,
  { binDir, confDir }: Places,
  args: Args,
  io: CliIo,
  dryRun: boolean,
  say: (line: string) => void,
): Promise<void> {
  const path = join(confDir, conf.name);
  const warn = (line: string) => io.writeStderr(`warning: ${plain(line)}\n`);
  for (const warning of conf.reports.flatMap(({ warnings }) => warnings)) warn(warning);
  // A link that leads out of this container may be a plugin on the host.
  const isThere = (plugin: string) => lstatSync(join(binDir, plugin), { throwIfNoEntry: false }) !== undefined;
  for (const type of conf.plugins.filter(plugin => !isThere(plugin))) {
    warn(`main plugin ${type} is not in ${binDir}: install it, or no pod of this network starts`);
  }
  const other = otherForm(confDir, conf.name);
  if (!dryRun) {
    for (const { config } of conf.reports) if (config !== undefined) closeNewFolder(config.store.dataDir);
    if (given(args, 'need-store') && !holds(path, conf.text, 0o644)) await needStore(conf, path, args, warn);
  }
  installFile(path, conf.text, 0o644, dryRun, say);
  if (!dryRun) {
    if (other !== undefined) rmSync(other, { force: true });
    syncFolder(confDir);
    readBack(path);
  }
  if (other !== undefined) say(`remove ${other}, its older form`);
  const first = confFilesOf(confDir)[0];
  if (!dryRun && first !== undefined && first !== path) {
    warn(`the runtime takes ${first} before ${path}: rename one of them, unless that is what you want`);
  }
  for (const { config } of conf.reports) {
    if (config !== undefined) await recordRanges(config, args, dryRun, say, warn);
  }
}

/** A runtime that is given a network whose store does not answer can start no pod any more. */
async function needStore(conf: NewConf, path: string, args: Args, warn: (line: string) => void): Promise<void> {
  try {
    for (const { config } of conf.reports) if (config !== undefined) await record(config, args);
  } catch (error) {
    warn(`${path} is not written before the store of its network answers`);
    throw error;
  }
}

/** The ranges in the store are for people and tools: a store that is away does not stop an installation. */
async function recordRanges(
  config: NetworkConfig,
  args: Args,
  dryRun: boolean,
  say: (line: string) => void,
  warn: (line: string) => void,
): Promise<void> {
  const what = `the ranges of network ${config.network} in the store`;
  if (dryRun) return say(`record ${what}`);
  try {
    const recording = await record(config, args);
    if (recording === 'same') say(`leave ${what}: they are the same`);
    else say(`${recording === 'written' ? 'record' : 'replace'} ${what}`);
  } catch (error) {
    if (!(error instanceof FailureError)) throw error;
    warn(`${what} are not recorded: ${error.message}; the network's first ADD does it`);
  }
}

async function record(config: NetworkConfig, args: Args): Promise<Recording> {
  await using store = await openChosen(
    { access: { ...config, timeout: timeoutOf(args) ?? config.timeout } },
    { absent: 'make' },
  );
  return await recordNetwork(store.around, config, store.node);
}

function readBack(path: string): void {
  if (networksIn(readConfFile(path), path).length > 0) return;
  throw new FailureError(code.io, `${path} does not hold what was written: is another program writing there?`);
}
