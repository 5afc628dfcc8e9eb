// Every command of the program: its name, what it is for, and where its code is loaded from.
import type { Command } from './command.ts';
import type { Face } from './face.ts';

export interface Entry {
  readonly verb: string;
  readonly group: 'look' | 'change' | 'set up' | 'move' | 'other';
  readonly summary: string;
  load(): Promise<Command>;
  /** Given where the command is a tool with commands of its own. */
  readonly tool?: () => Promise<Face>;
}

const entry = (
  group: Entry['group'],
  verb: string,
  summary: string,
  load: () => Promise<{ command: Command }>,
): Entry => ({
  verb,
  group,
  summary,
  load: async () => (await load()).command,
});

export const commands: readonly Entry[] = [
  entry('look', 'ls', 'list addresses and who has them', () => import('./commands/ls.ts')),
  entry('look', 'show', 'all that is known of an address, a pod or a container', () => import('./commands/show.ts')),
  entry('look', 'usage', 'how full each range is', () => import('./commands/usage.ts')),
  entry('look', 'status', 'examine this node and its stores (the doctor)', () => import('./commands/status.ts')),
  entry(
    'look',
    'check',
    'find records that contradict each other, or faults in a configuration',
    () => import('./commands/check.ts'),
  ),
  entry('look', 'plan', 'print what a feature is about to do; nothing is done', () => import('./commands/plan.ts')),
  entry('change', 'reserve', 'keep addresses from being given out', () => import('./commands/reserve.ts')),
  entry('change', 'unreserve', 'end a reservation', () => import('./commands/unreserve.ts')),
  entry('change', 'release', 'give back what a dead container still holds', () => import('./commands/release.ts')),
  entry('change', 'gc', 'free what died without saying so', () => import('./commands/gc.ts')),
  entry('set up', 'conf', 'print a network configuration for a main plugin', () => import('./commands/conf.ts')),
  entry('set up', 'install', 'install the plugin, and a network configuration', () => import('./commands/install.ts')),
  entry('set up', 'uninstall', 'remove both again', () => import('./commands/uninstall.ts')),
  entry(
    'set up',
    'agent',
    'run the node agent, which makes pods start faster and cleans up after them',
    () => import('./commands/agent.ts'),
  ),
  {
    ...entry(
      'set up',
      'public-ip',
      "put Services' public addresses on healthy nodes, one each",
      () => import('./public-ip/overview.ts'),
    ),
    tool: async () => (await import('./public-ip/face.ts')).publicIp,
  },
  entry('move', 'export', 'write all records as lines of JSON', () => import('./commands/export.ts')),
  entry('move', 'import', 'read what export wrote into another store', () => import('./commands/import.ts')),
  entry('other', 'completion', 'print completion for bash, zsh or fish', () => import('./commands/completion.ts')),
  entry('other', 'version', 'print version, commit and Node', () => import('./commands/version.ts')),
];
