// `kube-ipam ls`: lists the addresses that have an owner.
import { kinds, networkOf } from '../../ipam/model.ts';
import { recordOf } from '../../ipam/service/holdings.ts';
import { type PatientSurroundings, scanAll, spacesOf } from '../../ipam/service/patience.ts';
import { Keys } from '../../store/keys.ts';
import { afterPrefix } from '../../store/kv.ts';
import { addressColumns, addressObject, byPod, eachHolder, knownAs, type Listed, podColumns } from '../address-rows.ts';
import { type Args, type Command, exit, given, text } from '../command.ts';
import { counted, formatOf, isForPeople, List, outputFlags, painter, Table } from '../output.ts';
import { chooseStore, openChosen, storeFlags } from '../store-access.ts';

export const command: Command = {
  verb: 'ls',
  summary: 'list addresses and who has them',
  details:
    'Lists the records of the address space in the order of the addresses, or with --by-pod the pods of this cluster. ' +
    'Filters may be combined.',
  positionals: [],
  flags: {
    'by-pod': { type: 'boolean', describe: 'in the order of namespaces and pods, one line for each pod and address' },
    node: { type: 'string', value: 'NAME', describe: 'only addresses of this node' },
    pod: { type: 'string', value: 'NAME', describe: 'only addresses of this pod or VM, as name or namespace/name' },
    namespace: { type: 'string', value: 'NAME', describe: 'only addresses of pods in this namespace' },
    kind: { type: 'string', choices: [...kinds, 'unknown'], describe: 'only owners of this kind' },
    family: { type: 'string', choices: ['4', '6'], describe: 'only IPv4, or only IPv6' },
    cluster: {
      type: 'string',
      value: 'NAME',
      describe: "only addresses of this cluster (all; with --by-pod the network's own, or default)",
    },
    'all-spaces': { type: 'boolean', describe: 'every address space of the store' },
    ...outputFlags,
    ...storeFlags,
    network: { type: 'string', value: 'NAME', describe: 'only addresses of this network' },
  },
  examples: [
    ['kube-ipam ls', 'every address of the first network in /etc/cni/net.d and those that share its space'],
    ['kube-ipam ls --network pods --node worker-1', 'those of one network on one node'],
    ['kube-ipam ls --by-pod --namespace shop', 'the pods of a namespace, with node and addresses'],
    ['kube-ipam ls --kind reserved -o json', 'reservations, for a program'],
    ['kube-ipam ls --data-dir /var/lib/cni/kube-ipam', 'an embedded store that no configuration names'],
  ],
  async run(args, io) {
    await using store = await openChosen(chooseStore(args, { anyNetwork: true }));
    const { around, access } = store;
    const everySpace = given(args, 'all-spaces');
    const spaces = everySpace ? await spacesOf(around) : [around.keys.space];
    const format = formatOf(args);
    const isByPod = given(args, 'by-pod');
    const columns = (isByPod ? podColumns : addressColumns)(format === 'wide', spaces.length > 1);
    const print = isForPeople(format) ? new Table(io, columns, painter(args, io)) : new List(io, format);
    const wanted = filterOf(args, isByPod ? access.cluster : undefined);
    const held: Listed[] = [];
    let count = 0;
    for (const space of spaces) {
      for await (const records of listed(around, new Keys(space), args)) {
        const rows = records.filter(row => eachHolder(row).some(wanted));
        count += rows.length;
        if (isByPod) held.push(...rows);
        else if (print instanceof Table) print.rows(rows);
        else print.items(rows.map(addressObject));
      }
    }
    if (print instanceof Table) print.rows(byPod(held.flatMap(eachHolder).filter(wanted)));
    else print.items(byPod(held).map(addressObject));
    if (print instanceof List) print.end();
    else if (count === 0) io.writeStderr(`no address is taken${described(args)}\n`);
    else if (io.isTerminal) io.writeStderr(`${counted(count, 'address', 'addresses')}\n`);
    return exit.fine;
  },
};

async function* listed(around: PatientSurroundings, keys: Keys, args: Args): AsyncIterable<Listed[]> {
  const family = text(args, 'family');
  const prefix = keys.addresses(family === undefined ? undefined : family === '4' ? 4 : 6);
  for await (const entries of scanAll(around, prefix, afterPrefix(prefix))) {
    yield entries.flatMap(recordOf).map(record => ({ ...record, space: keys.space }));
  }
}

/** For rows of one holder each. */
function filterOf(args: Args, ownCluster: string | undefined): (row: Listed) => boolean {
  const matching = (name: string, of: (row: Listed) => readonly (string | undefined)[], otherwise?: string) => {
    const value = text(args, name) ?? otherwise;
    return value === undefined ? [] : [(row: Listed) => of(row).includes(value)];
  };
  const filters = [
    ...matching('network', ({ owner }) => [networkOf(owner)]),
    ...matching('node', ({ owner }) => [owner.node]),
    ...matching('cluster', ({ owner }) => [owner.cluster], ownCluster),
    ...matching('namespace', ({ owner }) => knownAs(owner).map(({ namespace }) => namespace)),
    ...matching('kind', ({ owner }) => [owner.kind]),
    ...matching('pod', ({ owner }) => knownAs(owner).flatMap(one => [one.name, `${one.namespace}/${one.name}`])),
  ];
  return row => filters.every(fits => fits(row));
}

function described(args: Args): string {
  const filters = ['network', 'node', 'pod', 'namespace', 'kind', 'family', 'cluster'].filter(
    name => text(args, name) !== undefined,
  );
  return filters.length === 0 ? '' : ` that fits ${filters.map(name => `--${name} ${text(args, name)}`).join(' ')}`;
}
