// `kube-ipam import`: reads what `export` wrote into another store.
import { nodeNameOf } from '../../base/node-name.ts';
import type { AccessConfig } from '../../ipam/config.ts';
import { importRecords } from '../../ipam/service/transfer.ts';
import { parseTransfer, refuseRepeated, renamed, type TransferHeader } from '../../ipam/transfer.ts';
import { Keys, namePattern } from '../../store/keys.ts';
import { type Args, type Command, exit, given, text, texts, UsageError } from '../command.ts';
import { counted, formatOf, isForPeople, outputFlags, plain, printValue, progressOf } from '../output.ts';
import { readNamedFile } from '../read-file.ts';
import { chooseStore, openChosen, storeFlags } from '../store-access.ts';

export const command: Command = {
  verb: 'import',
  summary: 'read what export wrote into another store',
  details:
    'No owner is ever replaced: where the store has another one, the record is left out and reported, and the exit code is 1. ' +
    'An attachment comes with all its addresses or not at all, and a workload with what it keeps. May be repeated. ' +
    'The embedded store calls its only node "local"; on the way into etcd that becomes the name of the node that exported, ' +
    'and this node\'s name becomes "local" on the way back.',
  positionals: [{ name: 'file', describe: 'the file that export wrote (standard input)', required: false }],
  flags: {
    'dry-run': { type: 'boolean', describe: 'only say what would be done' },
    'rename-node': {
      type: 'string',
      value: 'OLD=NEW',
      many: true,
      describe: 'give the records of a node another name',
    },
    ...outputFlags,
    ...storeFlags,
    space: { type: 'string', value: 'NAME', describe: 'put all records into this address space (their own)' },
  },
  examples: [
    ['kube-ipam import backup.jsonl --dry-run', 'what would be written, and what stands against it'],
    ['kube-ipam import backup.jsonl --etcd-url http://10.0.0.1:2379', ''],
  ],
  async run(args, io) {
    const file = text(args, 'file');
    const isStdin = file === undefined || file === '-';
    const { header, records } = parseTransfer(isStdin ? io.readStdin() : readNamedFile(file));
    const choice = chooseStore(args);
    const renaming = renamingOf(header, choice.access, args);
    const coming = records.map(record => renamed(record, renaming));
    refuseRepeated(coming);
    const dryRun = given(args, 'dry-run');
    await using store = await openChosen(choice, { absent: dryRun ? 'seem empty' : 'make' });
    const progress = progressOf(io, 'records');
    const result = await importRecords(store.around, coming, { dryRun }, done => progress.step(done, coming.length));
    progress.end();
    const { written, same, kept, expired, conflicts } = result;
    const format = formatOf(args);
    if (!isForPeople(format)) printValue(io, format, { dryRun, written, same, kept, expired, conflicts });
    else {
      const parts = [
        `${counted(written, 'record')} ${dryRun ? 'would be written' : 'written'}`,
        `${same} there already`,
      ];
      if (kept > 0) parts.push(`${counted(kept, 'cursor or range', 'cursors and ranges')} of this store kept`);
      if (expired > 0) parts.push(`${counted(expired, 'hold')} past its end left out`);
      parts.push(counted(conflicts.length, 'conflict'));
      io.writeStdout(`${parts.join(', ')}\n`);
      for (const conflict of conflicts) io.writeStdout(`conflict: ${plain(conflict.text)}\n`);
    }
    return conflicts.length > 0 ? exit.trouble : exit.fine;
  },
};

function renamingOf(header: TransferHeader, access: AccessConfig, args: Args) {
  const nodes = new Map<string, string>();
  if (header.store === 'embedded' && access.store.kind === 'etcd' && header.node !== '')
    nodes.set('local', header.node);
  if (header.store === 'etcd' && access.store.kind === 'embedded') nodes.set(nodeNameOf(access.nodeName), 'local');
  for (const pair of texts(args, 'rename-node')) {
    const [from, to, more] = pair.split('=');
    if (!from || !to || more !== undefined || !namePattern.test(to)) {
      throw new UsageError(`--rename-node ${pair}: must be OLD=NEW, both names of nodes`);
    }
    nodes.set(from, to);
  }
  const space = text(args, 'space');
  return { nodes, ...(space !== undefined && { space: new Keys(space).space }) };
}
