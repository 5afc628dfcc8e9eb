// `kube-ipam ls`: lists the addresses that have an owner.
import { describePod } from '../../ipam/describe.ts';
import { kinds } from '../../ipam/model.ts';
import { recordOf } from '../../ipam/service/holdings.ts';
import { type PatientSurroundings, scanAll, spacesOf } from '../../ipam/service/patience.ts';
import { Keys } from '../../store/keys.ts';
import { afterPrefix } from '../../store/kv.ts';
import { addressColumns, addressObject, type Listed } from '../address-rows.ts';
import { type Args, type Command, exit, given, text } from '../command.ts';
import { counted, formatOf, isForPeople, List, outputFlags, painter, Table } from '../output.ts';
import { chooseStore, openChosen, storeFlags } from '../store-access.ts';

export const command: Command = {
  verb: 'ls',
  summary: 'list addresses and who has them',
  details: 'Lists the records of the address space in the order of the addresses. Filters may be combined.',
  positionals: [],
  flags: {
    node: { type: 'string', value: 'NAME', describe: 'only addresses of this node' },
    pod: { type: 'string', value: 'NAME', describe: 'only addresses of this pod, as name or namespace/name' },
    namespace: { type: 'string', value: 'NAME', describe: 'only addresses of pods in this namespace' },
    kind: { type: 'string', choices: [...kinds, 'unknown'], describe: 'only owners of this kind' },
    family: { type: 'string', choices: ['4', '6'], describe: 'only IPv4, or only IPv6' },
    'all-spaces': { type: 'boolean', describe: 'every address space of the store' },
    ...outputFlags,
    ...storeFlags,
    network: { type: 'string', value: 'NAME', describe: 'only addresses of this network' },
  },
  examples: [
    ['kube-ipam ls', 'every address of the first network in /etc/cni/net.d and those that share its space'],
    ['kube-ipam ls --network pods --node worker-1', 'those of one network on one node'],
    ['kube-ipam ls --kind reserved -o json', 'reservations, for a program'],
    ['kube-ipam ls --data-dir /var/lib/cni/kube-ipam', 'an embedded store that no configuration names'],
  ],
  async run(args, io) {
    await using store = await openChosen(chooseStore(args, { anyNetwork: true }));
    const { around } = store;
    const everySpace = given(args, 'all-spaces');
    const spaces = everySpace ? await spacesOf(around) : [around.keys.space];
    const format = formatOf(args);
    const isTable = isForPeople(format);
    const table = new Table(io, addressColumns(format === 'wide', everySpace), painter(args, io));
    const list = new List(io, format);
    let count = 0;
    for (const space of spaces) {
      for await (const rows of listed(around, new Keys(space), args)) {
        count += rows.length;
        if (isTable) table.rows(rows);
        else list.items(rows.map(addressObject));
      }
    }
    if (!isTable) list.end();
    else if (count === 0) io.writeStderr(`no address is taken${described(args)}\n`);
    else if (io.isTerminal) io.writeStderr(`${counted(count, 'address', 'addresses')}\n`);
    return exit.fine;
  },
};

async function* listed(around: PatientSurroundings, keys: Keys, args: Args): AsyncIterable<Listed[]> {
  const family = text(args, 'family');
  const prefix = keys.addresses(family === undefined ? undefined : family === '4' ? 4 : 6);
  const wanted = filterOf(args);
  for await (const entries of scanAll(around, prefix, afterPrefix(prefix))) {
    yield entries
      .flatMap(recordOf)
      .map(record => ({ ...record, space: keys.space }))
      .filter(wanted);
  }
}

function filterOf(args: Args): (row: Listed) => boolean {
  const equal = (name: string, of: (row: Listed) => string | undefined) => {
    const value = text(args, name);
    return value === undefined ? [] : [(row: Listed) => of(row) === value];
  };
  const pod = text(args, 'pod');
  const filters = [
    ...equal('network', ({ owner }) => owner.network),
    ...equal('node', ({ owner }) => owner.node),
    ...equal('namespace', ({ owner }) => owner.pod?.namespace),
    ...equal('kind', ({ owner }) => owner.kind),
    ...equal('pod', ({ owner }) => owner.pod && (pod?.includes('/') ? describePod(owner.pod) : owner.pod.name)),
  ];
  return row => filters.every(fits => fits(row));
}

function described(args: Args): string {
  const filters = ['network', 'node', 'pod', 'namespace', 'kind', 'family'].filter(
    name => text(args, name) !== undefined,
  );
  return filters.length === 0 ? '' : ` that fits ${filters.map(name => `--${name} ${text(args, name)}`).join(' ')}`;
}
