// `kube-ipam status`, the doctor: examines this node, its configurations and its stores.
import type { AccessConfig, NetworkConfig } from '../../ipam/config.ts';
import { type Args, type Command, exit, text, UsageError } from '../command.ts';
import { defaultConfDir, networksIn, readConfFile, readConfFolder } from '../networks.ts';
import { counted, formatOf, isForPeople, outputFlags, type Paint, painter, plain, printValue } from '../output.ts';
import type { CliIo } from '../program.ts';
import { examineAgent } from '../status/agent.ts';
import type { Diagnosis, Level } from '../status/diagnosis.ts';
import { examineKubernetes } from '../status/kubernetes.ts';
import {
  examineExecutable,
  examineFolder,
  examineFolderOf,
  examineIdentity,
  examineNetwork,
  examinePlugins,
} from '../status/node.ts';
import { examineCluster, examineFormat, examineRecord, examineStore, examineStoreOf } from '../status/store.ts';
import { dataDirFlag, etcdFlags, storeOfFlags, timeoutOf } from '../store-access.ts';

export const command: Command = {
  verb: 'status',
  summary: 'examine this node and its stores (the doctor)',
  details:
    'Looks at the installed executable and its libraries, at the plugins beside it, at the configuration that the runtime takes first, and for each ' +
    'network of kube-ipam at its log, its folder, its store (etcd: every endpoint, space, alarms, leader, history), its ' +
    'certificates, and the ranges that are recorded; where the wishes of pods count, at the kubeconfig, the Kubernetes API ' +
    'and the rights there; and at the agent. With --etcd-url or --data-dir it examines that store only. Exit code 1 when something is wrong, 3 when a store cannot be reached.',
  positionals: [],
  flags: {
    'bin-dir': { type: 'string', value: 'DIR', describe: "the runtime's plugin folder (/opt/cni/bin)" },
    'conf-dir': {
      type: 'string',
      value: 'DIR',
      describe: `the runtime's folder of configurations (${defaultConfDir})`,
    },
    conf: { type: 'string', value: 'FILE', describe: 'examine the networks of this file instead of the folder' },
    network: { type: 'string', value: 'NAME', describe: 'only this network' },
    ...etcdFlags,
    ...dataDirFlag,
    ...outputFlags,
  },
  examples: [
    ['kube-ipam status', ''],
    ['kube-ipam status -o json', 'for a program, with all figures'],
    ['kube-ipam status --etcd-url https://10.0.0.1:2379 --etcd-ca /etc/kube-ipam/ca.crt', 'only this etcd'],
  ],
  async run(args, io) {
    const named = storeOfFlags(args);
    const diagnoses = unrepeated(named === undefined ? await examine(args, io) : await examineNamed(named, args));
    const format = formatOf(args);
    const worst = worstOf(diagnoses);
    const code = {
      fine: exit.fine,
      advice: exit.fine,
      warning: exit.fine,
      wrong: exit.trouble,
      unreachable: exit.unreachable,
    }[worst];
    if (isForPeople(format)) print(diagnoses, painter(args, io), io);
    else printValue(io, format, { worst, diagnoses });
    return code;
  },
};

/** Nothing but the store that the flags name, which must be there. */
async function examineNamed(access: AccessConfig, args: Args): Promise<Diagnosis[]> {
  if (text(args, 'network') !== undefined)
    throw new UsageError('give either --network, which is looked up in the configurations, or the store itself');
  const diagnoses = [...examineFolderOf(access), ...(await examineStore(access))];
  const isAway = diagnoses.some(({ level }) => level === 'unreachable');
  return isAway ? diagnoses : [...diagnoses, ...(await examineFormat(access))];
}

async function examine(args: Args, io: CliIo): Promise<Diagnosis[]> {
  const file = text(args, 'conf');
  const folder = text(args, 'conf-dir') ?? defaultConfDir;
  const found = file === undefined ? readConfFolder(folder) : undefined;
  const networks = found?.networks ?? networksIn(readConfFile(file!), file!);
  const wanted = text(args, 'network');
  const meant = networks.filter(({ name }) => wanted === undefined || name === wanted);
  const binDir = text(args, 'bin-dir') ?? '/opt/cni/bin';
  const chosen = meant.map(examineNetwork);
  const configs = chosen.flatMap(({ config }) => (config === undefined ? [] : [patient(config, args)]));
  const stores = new Map(configs.map(config => [JSON.stringify(config.store), config]));
  const diagnoses = [
    ...(await examineExecutable(io.executable, binDir)),
    ...examinePlugins(meant, binDir),
    ...examineIdentity(configs[0]?.nodeName),
    ...(found === undefined ? [] : examineFolder(folder, found)),
    ...chosen.flatMap(each => each.diagnoses),
  ];
  for (const config of stores.values()) diagnoses.push(...(await examineStoreOf(config)));
  const away = diagnoses.some(({ level }) => level === 'unreachable');
  if (!away) for (const config of configs) diagnoses.push(...(await examineRecord(config)));
  for (const config of configs) {
    const kubernetes = await examineKubernetes(config, Date.now());
    diagnoses.push(...kubernetes.diagnoses);
    if (!away) diagnoses.push(...(await examineCluster(config, kubernetes.clusterUid)));
  }
  for (const [i, { conf }] of meant.entries()) {
    const { config } = chosen[i]!;
    if (config !== undefined) diagnoses.push(...(await examineAgent(conf, config.kubeConfig !== undefined, io)));
  }
  return diagnoses;
}

function patient(config: NetworkConfig, args: Args): NetworkConfig {
  return { ...config, timeout: timeoutOf(args) ?? config.timeout };
}

/** Networks often share a log, a folder and a store. What belongs to one area stands together. */
function unrepeated(diagnoses: readonly Diagnosis[]): Diagnosis[] {
  const areas = [...new Set(diagnoses.map(({ area }) => area))];
  const unique = [
    ...new Map(diagnoses.map(one => [JSON.stringify([one.area, one.subject, one.level, one.text]), one])).values(),
  ];
  return unique.toSorted((a, b) => areas.indexOf(a.area) - areas.indexOf(b.area));
}

const order: readonly Level[] = ['fine', 'advice', 'warning', 'wrong', 'unreachable'];

function worstOf(diagnoses: readonly Diagnosis[]): Level {
  return order[Math.max(0, ...diagnoses.map(({ level }) => order.indexOf(level)))]!;
}

function print(diagnoses: readonly Diagnosis[], paint: Paint, io: CliIo): void {
  const colours = { fine: 'green', advice: 'yellow', warning: 'yellow', wrong: 'red', unreachable: 'red' } as const;
  let area = '';
  for (const one of diagnoses) {
    if (one.area !== area) io.writeStdout(`${paint('bold', one.area)}\n`);
    area = one.area;
    const level = paint(colours[one.level], one.level.padEnd(11));
    io.writeStdout(`  ${level} ${plain(`${one.subject}: ${one.text}`)}\n`);
    if (one.advice !== undefined) io.writeStdout(`  ${' '.repeat(11)} -> ${plain(one.advice)}\n`);
  }
  const count = (level: Level) => diagnoses.filter(one => one.level === level).length;
  const wrong = count('wrong') + count('unreachable');
  const verdict = wrong === 0 ? paint('green', 'nothing is wrong') : paint('red', `${counted(wrong, 'thing')} wrong`);
  const rest = [
    counted(count('warning'), 'warning'),
    counted(count('advice'), 'piece of advice', 'pieces of advice'),
  ].join(', ');
  io.writeStdout(`\n${verdict}; ${rest}\n`);
}
