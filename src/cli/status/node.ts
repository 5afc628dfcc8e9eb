// Examines what lies on this node: the executable, the configurations, logs and folders.
import { closeSync, constants, existsSync, openSync, rmSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { deadlineIn } from '../../base/clock.ts';
import { FailureError, messageOf } from '../../base/errors.ts';
import { readMachine } from '../../base/node.ts';
import { nodeNameOf } from '../../base/node-name.ts';
import { commit, nodeVersion, version } from '../../base/version.ts';
import type { AccessConfig, NetworkConfig } from '../../ipam/config.ts';
import { examineConf, misnamed } from '../check-conf.ts';
import { pluginTypes } from '../install/conf-file.ts';
import { executableName, libraryFolder, probe } from '../install/executable.ts';
import { type ConfFolder, type FoundNetwork, readConfFile } from '../networks.ts';
import { type Diagnosis, diagnosis } from './diagnosis.ts';

export async function examineExecutable(running: string, binDir: string): Promise<Diagnosis[]> {
  const own = diagnosis('executable', running, 'fine', `version ${version} (commit ${commit}, Node ${nodeVersion})`, {
    figures: { version, commit, node: nodeVersion },
  });
  const installed = join(binDir, executableName);
  if (!existsSync(installed)) {
    const advice = 'run "kube-ipam install", or name the folder with --bin-dir';
    return [
      own,
      diagnosis('executable', installed, 'wrong', 'is not there: no pod can be given an address', { advice }),
    ];
  }
  return [own, await examineInstalled(installed), ...libraryOf(binDir)];
}

async function examineInstalled(path: string): Promise<Diagnosis> {
  try {
    await probe(path, deadlineIn(10_000));
    const mode = statSync(path).mode & 0o777;
    if ((mode & 0o022) === 0) return diagnosis('executable', path, 'fine', 'installed, and answers');
    const advice = `chmod 0755 ${path}`;
    return diagnosis('executable', path, 'wrong', `others than root may change it (mode ${mode.toString(8)})`, {
      advice,
    });
  } catch (error) {
    if (!(error instanceof FailureError)) throw error;
    return diagnosis('executable', path, 'wrong', error.message, { advice: 'run "kube-ipam install" again' });
  }
}

function libraryOf(binDir: string): Diagnosis[] {
  const path = join(binDir, libraryFolder, 'libatomic.so.1');
  if (existsSync(path)) return [diagnosis('executable', path, 'fine', 'there')];
  const text = 'is not there: the executable starts only where the system has libatomic of its own';
  return [
    diagnosis('executable', path, 'warning', text, { advice: 'run "kube-ipam install" from an unpacked release' }),
  ];
}

/** The plugins that a configuration calls, kube-ipam aside: without one of them no pod of its networks starts. */
export function examinePlugins(networks: readonly FoundNetwork[], binDir: string): Diagnosis[] {
  const files = new Map(networks.map(network => [network.file, network]));
  return [...files.values()].flatMap(({ file, name }) => {
    const missing = pluginTypes(readConfFile(file)).filter(type => !isExecutable(join(binDir, type)));
    return missing.map(type => {
      const advice = `install plugin ${type} there (most systems have it in a package called containernetworking-plugins)`;
      const text = `is not there, or cannot be run, and ${file} calls it: no pod of network ${name} starts`;
      return diagnosis('executable', join(binDir, type), 'wrong', text, { advice });
    });
  });
}

function isExecutable(path: string): boolean {
  const found = statSync(path, { throwIfNoEntry: false });
  return found?.isFile() === true && (found.mode & 0o111) !== 0;
}

export function examineIdentity(configured: string | undefined): Diagnosis[] {
  const { machine } = readMachine();
  const name = nodeNameOf(configured);
  const named = diagnosis('node', name, 'fine', 'name of this node in a store that nodes share');
  if (machine !== '') return [named];
  const advice = 'run systemd-machine-id-setup';
  return [
    named,
    diagnosis(
      'node',
      '/etc/machine-id',
      'warning',
      'is empty or absent: records cannot be told from those of another machine',
      { advice },
    ),
  ];
}

/** The files of the runtime's folder, and which of them it takes. */
export function examineFolder(folder: string, { files, networks, broken }: ConfFolder): Diagnosis[] {
  const first = files[0];
  if (first === undefined) {
    const advice = 'run "kube-ipam install PLUGIN --subnet CIDR"';
    return [diagnosis('configuration', folder, 'wrong', 'holds no network configuration', { advice })];
  }
  const faults = broken.map(({ file, reason }) =>
    diagnosis('configuration', file, 'wrong', reason.split('\n')[0]!, {
      advice: `see "kube-ipam check --conf ${file}"`,
    }),
  );
  if (networks.some(({ file }) => file === first)) {
    return [diagnosis('configuration', first, 'fine', 'the runtime takes this file first, and it is ours'), ...faults];
  }
  const advice = 'rename the files so that the one you want is first in the alphabet';
  const text =
    networks.length === 0
      ? 'no file of this folder uses kube-ipam; the runtime takes this one'
      : 'the runtime takes this file first, and it does not use kube-ipam';
  return [diagnosis('configuration', first, 'warning', text, { advice }), ...faults];
}

/** One network's configuration, its log and its folder. */
export function examineNetwork(network: FoundNetwork): { diagnoses: Diagnosis[]; config: NetworkConfig | undefined } {
  const { problems, warnings, config } = examineConf(network);
  const subject = `network ${network.name}`;
  const advice = `see "kube-ipam check --conf ${network.file}"`;
  const diagnoses = [
    ...[...misnamed(network), ...problems].map(text => diagnosis('configuration', subject, 'wrong', text, { advice })),
    ...warnings.map(text => diagnosis('configuration', subject, 'warning', text, { advice })),
  ];
  if (diagnoses.length === 0) diagnoses.push(diagnosis('configuration', subject, 'fine', `${network.file} is valid`));
  if (config !== undefined) diagnoses.push(...examineFiles(config));
  return { diagnoses, config };
}

/** Of the embedded store that a flag names; with etcd the folder holds hints only. */
export function examineFolderOf({ store }: AccessConfig): Diagnosis[] {
  return store.kind === 'etcd' || !existsSync(store.dataDir) ? [] : [examineDataDir(store.dataDir)];
}

function examineDataDir(dataDir: string): Diagnosis {
  return writable('dataDir', dataDir, 'no address can be given out safely');
}

function examineFiles({ log, store }: NetworkConfig): Diagnosis[] {
  const logged =
    log.level === 'off' ? [] : [writable('log', log.file, 'events are lost; addresses are given out all the same')];
  return [...logged, examineDataDir(store.dataDir)];
}

/** An absent file is fine where it could be made. Root may everything by its mode, so only trying tells. */
function writable(area: string, path: string, otherwise: string): Diagnosis {
  try {
    let place = path;
    while (!existsSync(place)) place = dirname(place);
    if (statSync(place).isDirectory()) tryFile(join(place, `.kube-ipam-status-${process.pid}`));
    else closeSync(openSync(place, constants.O_WRONLY | constants.O_APPEND | constants.O_NONBLOCK));
    return diagnosis(area, path, 'fine', place === path ? 'can be written' : 'can be made');
  } catch (error) {
    return diagnosis(area, path, 'wrong', `cannot be written (${messageOf(error)}): ${otherwise}`, {
      advice: 'mount it for writing, or name another place in the configuration',
    });
  }
}

function tryFile(path: string): void {
  closeSync(openSync(path, 'wx', 0o600));
  rmSync(path);
}
