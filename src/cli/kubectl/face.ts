// `kubectl ipam`: the commands that look at a whole cluster's addresses, run where its store can be reached.
import { exit } from '../command.ts';
import type { Face } from '../face.ts';
import { globalFlags } from '../parse.ts';
import type { Entry } from '../table.ts';
import { commands } from '../table.ts';
import { agentFlags } from './agent.ts';
import { commandFor } from './command.ts';
import { connectionFlags } from './kubectl.ts';
import { offers } from './offers.ts';

const entries: readonly Entry[] = commands.flatMap(entry => {
  const offer = offers[entry.verb];
  if (offer === undefined) return [];
  const load = async () => commandFor(await entry.load(), offer);
  return [{ ...entry, ...(offer.summary && { summary: offer.summary }), load }];
});

export const kubectlIpam: Face = {
  name: 'kubectl ipam',
  commands: entries,
  flags: { ...connectionFlags, ...agentFlags, ...globalFlags },
  help: () => {
    const width = Math.max(...entries.map(({ verb }) => verb.length));
    return `kubectl ipam shows who has which address in this cluster, and keeps the records in order.

The commands run inside of an agent of kube-ipam (kubectl exec), which knows the cluster's store; that
takes the right to do so in namespace kube-system. Flags that name a store, --etcd-url or --conf, run them
here instead.

Usage: kubectl ipam COMMAND [FLAGS]

${entries.map(({ verb, summary }) => `  ${verb.padEnd(width)}  ${summary}`).join('\n')}

Common tasks:
  kubectl ipam ls                                   the pods of this namespace, with node and addresses
  kubectl ipam ls -A --node worker-1                all that have an address on one node
  kubectl ipam show 10.1.0.17                       who has this address, and since when?
  kubectl ipam gc --dry-run                         what died and still has an address?

"kubectl ipam COMMAND --help" explains one command. "kube-ipam" itself, on a node, has more of them.
Exit codes are those of kube-ipam: ${exit.fine} fine, ${exit.trouble} trouble, ${exit.usage} wrong usage, ${exit.unreachable} something cannot be reached.
`;
  },
};
