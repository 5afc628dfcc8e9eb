// The command line as Markdown, from the same data that its parser and its help are made of.
import type { Command, Flags } from '../../src/cli/command.ts';
import { networkFlags } from '../../src/cli/conf-flags.ts';
import type { Face } from '../../src/cli/face.ts';
import { kubectlIpam } from '../../src/cli/kubectl/face.ts';
import { offers } from '../../src/cli/kubectl/offers.ts';
import { outputFlags } from '../../src/cli/output.ts';
import { globalFlags, usageOf } from '../../src/cli/parse.ts';
import { accessFlags, judgementFlags } from '../../src/cli/public-ip/flags.ts';
import { storeFlags } from '../../src/cli/store-access.ts';
import { commands } from '../../src/cli/table.ts';

/** Flags that many commands share are described once. */
const groups: readonly { readonly title: string; readonly intro: string; readonly flags: Flags }[] = [
  { title: 'Flags of every command', intro: 'Every command takes these.', flags: globalFlags },
  {
    title: 'Flags of the output',
    intro: 'A table for people, or everything for a program.',
    flags: outputFlags,
  },
  {
    title: 'Flags of the store',
    intro:
      'A command finds its store through a network configuration: `--conf FILE`, or the first network of kube-ipam in ' +
      '`/etc/cni/net.d` (in a `.conf`, in a `.conflist`, or as a delegate of Multus). Flags may name it directly: ' +
      '`--etcd-url` and its companions, or `--data-dir`.',
    flags: storeFlags,
  },
  {
    title: 'Flags of public addresses',
    intro: 'How the claims of public addresses and the Kubernetes API are reached.',
    flags: accessFlags,
  },
  {
    title: 'Flags of what may be public',
    intro:
      'Which addresses may become public ones. The nodes keep this to themselves: who only looks gives the same flags.',
    flags: judgementFlags,
  },
  { title: 'Flags of a network', intro: 'They make a network configuration.', flags: networkFlags },
];

/** The part of the reference below "Command line". */
export async function commandLine(): Promise<string> {
  const loaded = await Promise.all(commands.map(({ load }) => load()));
  const tools = await Promise.all(commands.flatMap(({ tool }) => (tool === undefined ? [] : [toolSections(tool)])));
  const index = loaded.map(({ verb, summary }) => `| [\`${verb}\`](#kube-ipam-${verb}) | ${escaped(summary)} |`);
  return [
    ['| command | does |', '|---|---|', ...index].join('\n'),
    ...loaded.map(command => section(command)),
    ...tools.flat(),
    ...groups.map(({ title, intro, flags }) => [`### ${title}`, intro, table(flags)].join('\n\n')),
    await kubectlPlugin(),
  ].join('\n\n');
}

/** What `kubectl ipam` has, as far as it differs from `kube-ipam`. */
async function kubectlPlugin(): Promise<string> {
  const loaded = await Promise.all(kubectlIpam.commands.map(({ load }) => load()));
  const examples = loaded.flatMap(({ examples }) => examples.slice(0, 1).map(([line]) => line));
  const rows = await Promise.all(
    commands.map(async ({ verb, load }) => {
      const { flags = {}, without = [] } = offers[verb] ?? {};
      const { flags: known } = await load();
      const missing = without.map(name => (name in known ? `\`--${name}\`` : `\`${name}\``)).join(', ');
      const cells = [...flagRows(flags), ...(missing === '' ? [] : [`| ${missing} | | not here |`])];
      return cells.map(row => `| \`${verb}\` ${row}`);
    }),
  );
  const own = Object.fromEntries(Object.entries(kubectlIpam.flags).filter(([name]) => !(name in globalFlags)));
  return [
    '### kubectl ipam',
    'The executable, linked as `kubectl-ipam` into a folder of `PATH`, is a plugin of kubectl (see the ' +
      '[guide](guide.md#kubectl-ipam)). Its commands are those of `kube-ipam` with the same flags, run in an agent of the ' +
      'cluster, or here when a flag names a store (`--etcd-url`, `--data-dir`, `--conf`, `--conf-dir`). `ls` lists by pods.',
    `\`\`\`sh\n${examples.join('\n')}\n\`\`\``,
    'Every command takes these, beside the flags of every command of `kube-ipam`:',
    table(own),
    'Other flags than those of `kube-ipam`:',
    ['| command | flag | value | meaning |', '|---|---|---|---|', ...rows.flat()].join('\n'),
  ].join('\n\n');
}

/** The commands of a tool that is one command of `kube-ipam`. */
async function toolSections(tool: () => Promise<Face>): Promise<string[]> {
  const face = await tool();
  return Promise.all(face.commands.map(async ({ load }) => section(await load(), face.name)));
}

function section(command: Command, program = 'kube-ipam'): string {
  const { verb, summary, details, positionals, examples } = command;
  const words = positionals.map(({ name, describe, required, choices }) => {
    const one = choices === undefined ? '' : `: ${choices.map(choice => `\`${choice}\``).join(', ')}`;
    return `- \`${name}\`${required ? '' : ' (optional)'}: ${escaped(describe)}${one}`;
  });
  const lines = examples.map(([line, meaning]) => (meaning === '' ? line : `# ${meaning}\n${line}`));
  return [
    `### ${program} ${verb}`,
    `\`${program} ${usageOf(command)}\`: ${escaped(summary)}.${details === undefined ? '' : ` ${escaped(details)}`}`,
    ...(words.length === 0 ? [] : [words.join('\n')]),
    ...flagsOf(command.flags),
    `\`\`\`sh\n${lines.join('\n')}\n\`\`\``,
  ].join('\n\n');
}

/** The flags that are the command's own, then links to the groups that it takes. */
function flagsOf(flags: Flags): string[] {
  // `single` is for printing only, so `install` has the others.
  const hasAll = (group: Flags) => Object.keys(group).every(name => name === 'single' || name in flags);
  // A flag of the same name may be another one.
  const hasOne = (group: Flags) => Object.entries(group).some(([name, flag]) => flags[name] === flag);
  const taken = groups.filter(({ flags: group }) => group !== globalFlags && hasAll(group) && hasOne(group));
  const shared = (name: string) => taken.some(group => group.flags[name] === flags[name]);
  const own = Object.fromEntries(Object.entries(flags).filter(([name]) => !shared(name)));
  const links = taken.map(({ title }) => `[${title.toLowerCase()}](#${title.toLowerCase().replaceAll(' ', '-')})`);
  return [
    ...(Object.keys(own).length === 0 ? [] : [table(own)]),
    ...(links.length === 0 ? [] : [`Also: ${links.join(', ')}.`]),
  ];
}

function table(flags: Flags): string {
  return ['| flag | value | meaning |', '|---|---|---|', ...flagRows(flags)].join('\n');
}

function flagRows(flags: Flags): string[] {
  return Object.entries(flags).map(([name, { describe, value, short, choices, many }]) => {
    const both = `\`--${name}\`${short === undefined ? '' : `, \`-${short}\``}`;
    const argument = choices === undefined ? (value ?? '') : choices.join(', ');
    return `| ${both} | ${escaped(argument)} | ${escaped(describe)}${many ? '; may be given several times' : ''} |`;
  });
}

function escaped(text: string): string {
  return text.replaceAll('|', '\\|').replaceAll('<', '&lt;');
}

const begin = '<!-- command line: written by scripts/write-reference.ts -->';
const end = '<!-- end of command line -->';

/** The reference with its command line as it is now. */
export async function withCommandLine(reference: string): Promise<string> {
  const [before, rest] = reference.split(begin);
  const [, after] = (rest ?? '').split(end);
  if (before === undefined || after === undefined) throw new Error(`the reference lacks "${begin}" or "${end}"`);
  return `${before}${begin}\n\n${await commandLine()}\n\n${end}${after}`;
}
