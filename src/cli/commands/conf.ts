// `kube-ipam conf`: prints a network configuration for one of the main plugins.
import { type Command, exit, required } from '../command.ts';
import { confOf, mainPluginOf, networkFlags } from '../conf-flags.ts';
import { confText, mainPlugins } from '../conf-templates.ts';

export const command: Command = {
  verb: 'conf',
  summary: 'print a network configuration for a main plugin',
  details:
    'Prints a list for a .conflist file, made of the flags; what no flag says takes the value that cni-conf/ shows. ' +
    'With --etcd-url the addresses are kept in etcd, for a whole cluster; without, in a file on this machine. ' +
    'Nothing is written: see "kube-ipam install".',
  positionals: [{ name: 'plugin', describe: 'main plugin', required: true, choices: mainPlugins }],
  flags: networkFlags,
  examples: [
    ['kube-ipam conf bridge --subnet 10.1.0.0/24', 'one machine, embedded store'],
    [
      'kube-ipam conf macvlan --master eth1 --subnet 10.1.0.0/16 --etcd-url https://10.0.0.1:2379 --etcd-ca /etc/kube-ipam/ca.crt --etcd-cert /etc/kube-ipam/client.crt --etcd-key /etc/kube-ipam/client.key',
      'a cluster, over etcd with client certificates',
    ],
    ['kube-ipam conf bridge --subnet 10.1.0.0/24 --range fd00:1::/64', 'two addresses for each pod'],
    ['kube-ipam -outputconf macvlan', 'as in release 0.2: one plugin, for a .conf file'],
  ],
  async run(args, io) {
    required(args, 'plugin');
    io.writeStdout(confText(confOf(mainPluginOf(args)!, args)));
    return exit.fine;
  },
};
