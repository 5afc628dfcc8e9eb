// `kube-ipam public-ip`, also called `kiwi`: its commands, of which `run` is meant where none is named.
import type { Command } from '../command.ts';
import { exit } from '../command.ts';
import type { Face } from '../face.ts';
import { globalFlags } from '../parse.ts';
import type { Entry } from '../table.ts';

function entry(group: Entry['group'], verb: string, summary: string, load: () => Promise<{ command: Command }>): Entry {
  return { verb, group, summary, load: async () => (await load()).command };
}

export const entries: readonly Entry[] = [
  entry('look', 'ls', 'list public addresses, who carries them, and what is amiss', () => import('./ls.ts')),
  entry('look', 'why', 'why an address is where it is, or is nowhere', () => import('./why.ts')),
  entry('look', 'plan', 'print which node is to carry which address; nothing is done', () => import('./plan.ts')),
  entry('set up', 'run', 'carry public addresses on this node, until told to stop', () => import('./run.ts')),
  entry(
    'set up',
    'allocator',
    'give Services addresses of pools, for the whole cluster',
    () => import('./allocator.ts'),
  ),
  entry('change', 'move', 'have an address handed over to another node', () => import('./move.ts')),
  entry('change', 'drain', 'have a node give its public addresses to the others', () => import('./drain.ts')),
  entry('change', 'cleanup', 'remove what public addresses left on this host', () => import('./cleanup.ts')),
];

/** What `run` starts for itself. */
const keeper = entry('other', 'keeper', 'keep the lease of run', () => import('./keeper.ts'));

function faceCalled(name: string): Face {
  return { name, commands: entries, hidden: [keeper], flags: globalFlags, usual: 'run', help: () => helpOf(name) };
}

export const publicIp = faceCalled('kube-ipam public-ip');
export const kiwi = faceCalled('kiwi');

function helpOf(name: string): string {
  const width = Math.max(...entries.map(({ verb }) => verb.length));
  return `${name} puts each public address of a Service on exactly one healthy node, and moves it when that dies.

One process on each node claims addresses in etcd, answers for them on an interface, and marks their packets. At no
moment do two nodes answer for one address.

Usage: ${name} [COMMAND] [FLAGS]

${entries.map(({ verb, summary }) => `  ${verb.padEnd(width)}  ${summary}`).join('\n')}

Without a command it runs:
  ${name} --interface em1 --cidr-range 192.168.0.0/16 --etcd-endpoint https://10.0.0.1:2379

"${name} COMMAND --help" explains one command with its flags.
Exit codes: ${exit.fine} fine, ${exit.trouble} trouble found or work failed, ${exit.usage} wrong usage, ${exit.unreachable} etcd or the API cannot be reached,
${exit.running} already running.
`;
}
