// `kube-ipam check`: finds records that contradict each other, or what is wrong with a configuration.
import type { Finding } from '../../ipam/contradictions.ts';
import { inspect } from '../../ipam/service/inspect.ts';
import { spacesOf } from '../../ipam/service/patience.ts';
import { Keys } from '../../store/keys.ts';
import { examineConf, misnamed } from '../check-conf.ts';
import { type Args, type Command, exit, given, text, UsageError } from '../command.ts';
import { networksIn, readConfFile } from '../networks.ts';
import {
  counted,
  formatOf,
  isForPeople,
  outputFlags,
  painter,
  plain,
  printValue,
  progressOf,
  Table,
} from '../output.ts';
import type { CliIo } from '../program.ts';
import { chooseStore, openChosen, storeFlags } from '../store-access.ts';

export const command: Command = {
  verb: 'check',
  summary: 'find records that contradict each other, or faults in a configuration',
  details:
    'Reads every record of the address space at one revision and changes nothing. Trouble makes the exit code 1; a note ' +
    'is something that this version does not know, or that mends itself. With --conf it examines that file instead, and ' +
    'asks no store: JSON, every key and its rule, and keys that nobody reads.',
  positionals: [],
  flags: {
    'all-spaces': { type: 'boolean', describe: 'every address space of the store' },
    ...outputFlags,
    ...storeFlags,
    conf: { type: 'string', value: 'FILE', describe: 'examine this configuration instead of a store' },
  },
  examples: [
    ['kube-ipam check', 'the store of the first network in /etc/cni/net.d'],
    ['kube-ipam check --etcd-url http://10.0.0.1:2379 --all-spaces -o json', ''],
    ['kube-ipam check --conf /etc/cni/net.d/10-pods.conflist', 'before a runtime reads it'],
  ],
  async run(args, io) {
    const conf = text(args, 'conf');
    return conf === undefined ? checkStore(args, io) : checkFile(conf, args, io);
  },
};

interface Found extends Finding {
  readonly space: string;
}

async function checkStore(args: Args, io: CliIo): Promise<number> {
  await using store = await openChosen(chooseStore(args));
  const { around } = store;
  const everySpace = given(args, 'all-spaces');
  const spaces = everySpace ? await spacesOf(around) : [around.keys.space];
  const progress = progressOf(io, 'records read');
  const findings: Found[] = [];
  let keys = 0;
  for (const space of spaces) {
    const inspection = await inspect({ ...around, keys: new Keys(space) }, done => progress.step(done));
    keys += inspection.keys;
    findings.push(...inspection.findings.map(finding => ({ space, ...finding })));
  }
  progress.end();
  const trouble = findings.filter(({ level }) => level === 'trouble').length;
  const format = formatOf(args);
  if (!isForPeople(format)) printValue(io, format, { keys, trouble, notes: findings.length - trouble, findings });
  else {
    printFindings(findings, everySpace, args, io);
    const notes = findings.length > trouble ? `, ${counted(findings.length - trouble, 'note')}` : '';
    io.writeStdout(
      `${counted(keys, 'record')} examined: ${trouble === 0 ? 'no trouble' : `${trouble} in trouble`}${notes}\n`,
    );
  }
  return trouble > 0 ? exit.trouble : exit.fine;
}

function printFindings(findings: readonly Found[], spaces: boolean, args: Args, io: CliIo): void {
  const table = new Table<Found>(
    io,
    [
      { title: 'LEVEL', cell: ({ level }) => level },
      ...(spaces ? [{ title: 'SPACE', cell: ({ space }: Found) => space }] : []),
      { title: 'RULE', cell: ({ rule }) => rule },
      { title: 'SUBJECT', cell: ({ subject }) => subject },
      { title: 'WHAT', cell: ({ text }) => text },
    ],
    painter(args, io),
  );
  table.rows(findings);
}

function checkFile(file: string, args: Args, io: CliIo): number {
  const others = ['etcd-url', 'data-dir', 'all-spaces'].filter(
    name => args[name] !== undefined && args[name] !== false,
  );
  if (others.length > 0) throw new UsageError(`check --conf examines a file: leave out --${others[0]}`);
  const wanted = text(args, 'network');
  const networks = networksIn(readConfFile(file), file).filter(({ name }) => wanted === undefined || name === wanted);
  const reports = networks.map(network => {
    const report = examineConf(network);
    return { ...report, problems: [...misnamed(network), ...report.problems] };
  });
  const isFine = reports.length > 0 && reports.every(({ problems }) => problems.length === 0);
  const format = formatOf(args);
  if (!isForPeople(format)) {
    const shown = reports.map(({ network, place, problems, warnings }) => ({ network, place, problems, warnings }));
    printValue(io, format, { file, fine: isFine, networks: shown });
    return isFine ? exit.fine : exit.trouble;
  }
  const paint = painter(args, io);
  if (reports.length === 0)
    io.writeStdout(`${file}: ${paint('red', 'no network of kube-ipam')} in it (ipam.type "kube-ipam")\n`);
  for (const { network, place, problems, warnings } of reports) {
    const where = place === '' ? '' : ` (${place})`;
    const verdict = problems.length === 0 ? paint('green', 'fine') : paint('red', 'cannot be used');
    io.writeStdout(`${plain(`${file}: network ${network}${where}`)}: ${verdict}\n`);
    for (const problem of problems) io.writeStdout(`  problem: ${plain(problem)}\n`);
    for (const warning of warnings) io.writeStdout(`  ${paint('yellow', 'warning')}: ${plain(warning)}\n`);
  }
  return isFine ? exit.fine : exit.trouble;
}
