// The first page that somebody sees who asks the program what it is.
import { commands, type Entry } from './table.ts';

const groups: readonly (readonly [Entry['group'], string])[] = [
  ['look', 'Look'],
  ['change', 'Change'],
  ['set up', 'Set up a node'],
  ['move', 'Move to another store'],
  ['other', 'Other'],
];

export function mainHelp(): string {
  const width = Math.max(...commands.map(({ verb }) => verb.length));
  const sections = groups.map(([group, title]) => {
    const own = commands.filter(command => command.group === group);
    return [`${title}:`, ...own.map(({ verb, summary }) => `  ${verb.padEnd(width)}  ${summary}`)].join('\n');
  });
  return `kube-ipam gives every address in a Kubernetes cluster exactly one owner.

It is a CNI IPAM plugin: a container runtime calls it for each pod, and it hands out an
address of the ranges in the network configuration (/etc/cni/net.d). Who has which address
stands in a store: a file on this machine, or etcd for a whole cluster. These commands look
at that store, which they find through the same configuration, or by --etcd-url or --data-dir.

Usage: kube-ipam COMMAND [FLAGS]

${sections.join('\n\n')}

Common tasks:
  kube-ipam install bridge --subnet 10.1.0.0/24     a first network on this machine
  kube-ipam status                                  is everything as it should be?
  kube-ipam ls --node worker-1                      the addresses of one node
  kube-ipam show 10.1.0.17                          who has this address, and since when?
  kube-ipam usage                                   is a range about to be full?
  kube-ipam reserve 10.1.0.20-10.1.0.29 --reason "printers"

"kube-ipam COMMAND --help" explains one command with examples.
Exit codes: 0 fine, 1 trouble found or work failed, 2 wrong usage, 3 a store cannot be reached,
4 already running.
`;
}
