// `kube-ipam public-ip ls`: every public address, who carries it, for which Services, and what is amiss.
import { type Standing, standingsOf, states } from '../../publicip/standing.ts';
import { type Command, exit, text } from '../command.ts';
import { type Column, counted, formatOf, isForPeople, List, outputFlags, painter, Table } from '../output.ts';
import { look, lookFlags } from './look.ts';

export const command: Command = {
  verb: 'ls',
  summary: 'list public addresses, who carries them, and what is amiss',
  details:
    'Asks the Kubernetes API what Services want, and etcd who has claimed it. Where the nodes run with --cidr-range or ' +
    '--allow-namespace, give them here too. States: held (carried), moving (to another node, for balance), leaving (its node ' +
    'may not carry it any more), waiting (for a node to take it), stuck (no node may), taken (it belongs to somebody else), ' +
    'unwanted (no Service wants it any more), refused (asked for, and not given).',
  positionals: [],
  flags: {
    node: { type: 'string', value: 'NAME', describe: 'only addresses that this node carries' },
    state: { type: 'string', choices: states, describe: 'only addresses in this state' },
    namespace: { type: 'string', value: 'NAME', describe: 'only addresses of Services in this namespace' },
    ...outputFlags,
    ...lookFlags,
  },
  examples: [
    ['kube-ipam public-ip ls', 'all of them'],
    ['kiwi ls --cidr-range 192.168.0.0/16 --etcd-endpoint http://10.0.0.1:2379', 'where no network names the etcd'],
    ['kube-ipam public-ip ls --state stuck -o json', 'what no node may carry, for a program'],
  ],
  async run(args, io) {
    const [node, state, namespace] = ['node', 'state', 'namespace'].map(name => text(args, name));
    const rows = standingsOf(await look(args, io)).filter(
      row =>
        (node === undefined || row.owner?.node === node) &&
        (state === undefined || row.state === state) &&
        (namespace === undefined || row.services.some(service => service.namespace === namespace)),
    );
    const format = formatOf(args);
    if (!isForPeople(format)) {
      const list = new List(io, format);
      list.items(rows);
      list.end();
      return exit.fine;
    }
    new Table(io, columns(format === 'wide'), painter(args, io)).rows(rows);
    if (rows.length === 0) io.writeStderr('there is no such public address\n');
    else if (io.isTerminal) io.writeStderr(`${counted(rows.length, 'address', 'addresses')}\n`);
    return exit.fine;
  },
};

function columns(wide: boolean): readonly Column<Standing>[] {
  const services = (row: Standing) =>
    [...new Set(row.services.map(({ namespace, name }) => `${namespace}/${name}`))].join(',');
  const ports = (row: Standing) => row.ports.map(({ port, protocol }) => `${port}/${protocol}`).join(',');
  return [
    { title: 'ADDRESS', cell: row => row.address },
    { title: 'STATE', cell: row => row.state },
    { title: 'NODE', cell: ({ owner }) => owner?.node ?? owner?.id ?? '' },
    { title: 'SERVICES', cell: services },
    { title: 'PORTS', cell: ports },
    ...(wide
      ? [
          { title: 'SINCE', cell: (row: Standing) => row.since ?? '' },
          { title: 'IN LINE', cell: (row: Standing) => row.line.map(({ node }) => node).join(',') },
        ]
      : []),
    { title: 'REMARK', cell: row => row.remarks.join('; ') },
  ];
}
