// `kube-ipam export`: writes all records of a store as lines of JSON.
import { nodeNameOf } from '../../base/node-name.ts';
import { version } from '../../base/version.ts';
import { AtomicFile } from '../../host/atomic-file.ts';
import { exportLines } from '../../ipam/service/transfer.ts';
import { type TransferHeader, transferFormat, transferVersion } from '../../ipam/transfer.ts';
import { type Command, exit, given, text } from '../command.ts';
import { counted, progressOf } from '../output.ts';
import { chooseStore, openChosen, storeFlags } from '../store-access.ts';

export const command: Command = {
  verb: 'export',
  summary: 'write all records as lines of JSON',
  details:
    'All records are read at one revision of the store, while it goes on serving. The first line says what the file is. ' +
    'Fences are left out: they guard this one store. "kube-ipam import" reads the file into any store.',
  positionals: [],
  flags: {
    file: { type: 'string', value: 'FILE', describe: 'write there, all or nothing (standard output)' },
    'all-spaces': { type: 'boolean', describe: 'every address space of the store' },
    ...storeFlags,
  },
  examples: [
    ['kube-ipam export --file backup.jsonl', ''],
    [
      'kube-ipam export --data-dir /var/lib/cni/kube-ipam | kube-ipam import --etcd-url http://10.0.0.1:2379',
      'move to etcd',
    ],
  ],
  async run(args, io) {
    await using store = await openChosen(chooseStore(args));
    const { around, access } = store;
    const wholeStore = given(args, 'all-spaces');
    const target = text(args, 'file');
    using file = target === undefined ? undefined : new AtomicFile(target, 0o600);
    const write = (lines: string) => (file === undefined ? io.writeStdout(lines) : file.write(lines));
    const head = (revision: number): TransferHeader => ({
      format: transferFormat,
      version: transferVersion,
      program: version,
      store: access.store.kind,
      revision,
      space: wholeStore ? undefined : access.space,
      node: nodeNameOf(access.nodeName),
      time: new Date(around.now()).toISOString(),
    });
    const progress = progressOf(io, 'records');
    let revision = 0;
    let isHeaded = false;
    let count = 0;
    for await (const page of exportLines(around, wholeStore)) {
      revision = page.revision;
      if (page.lines.length === 0) continue;
      if (!isHeaded) write(`${JSON.stringify(head(revision))}\n`);
      isHeaded = true;
      write(page.lines.join(''));
      count += page.lines.length;
      progress.step(count);
    }
    if (!isHeaded) write(`${JSON.stringify(head(revision))}\n`);
    file?.finish();
    progress.end();
    if (file !== undefined)
      io.writeStderr(`${counted(count, 'record')} of revision ${revision} written to ${target}\n`);
    return exit.fine;
  },
};
