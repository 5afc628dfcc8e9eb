// The command line as Markdown, from the same data that its parser and its help are made of.
import type { Command, Flags } from '../../src/cli/command.ts';
import { networkFlags } from '../../src/cli/conf-flags.ts';
import { outputFlags } from '../../src/cli/output.ts';
import { globalFlags, usageOf } from '../../src/cli/parse.ts';
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
  { title: 'Flags of a network', intro: 'They make a network configuration.', flags: networkFlags },
];

/** The part of the reference below "Command line". */
export async function commandLine(): Promise<string> {
  const loaded = await Promise.all(commands.map(({ load }) => load()));
  const index = loaded.map(({ verb, summary }) => `| [\`${verb}\`](#kube-ipam-${verb}) | ${escaped(summary)} |`);
  return [
    ['| command | does |', '|---|---|', ...index].join('\n'),
    ...loaded.map(section),
    ...groups.map(({ title, intro, flags }) => [`### ${title}`, intro, table(flags)].join('\n\n')),
  ].join('\n\n');
}

function section(command: Command): string {
  const { verb, summary, details, positionals, examples } = command;
  const words = positionals.map(({ name, describe, required, choices }) => {
    const one = choices === undefined ? '' : `: ${choices.map(choice => `\`${choice}\``).join(', ')}`;
    return `- \`${name}\`${required ? '' : ' (optional)'}: ${escaped(describe)}${one}`;
  });
  const lines = examples.map(([line, meaning]) => (meaning === '' ? line : `# ${meaning}\n${line}`));
  return [
    `### kube-ipam ${verb}`,
    `\`kube-ipam ${usageOf(command)}\`: ${escaped(summary)}.${details === undefined ? '' : ` ${escaped(details)}`}`,
    ...(words.length === 0 ? [] : [words.join('\n')]),
    ...flagsOf(command.flags),
    `\`\`\`sh\n${lines.join('\n')}\n\`\`\``,
  ].join('\n\n');
}

/** The flags that are the command's own, then links to the groups that it takes. */
function flagsOf(flags: Flags): string[] {
  // `single` is for printing only, so `install` has the others.
  const hasAll = (group: Flags) => Object.keys(group).every(name => name === 'single' || name in flags);
  const taken = groups.filter(group => group.flags !== globalFlags && hasAll(group.flags));
  const shared = (name: string) => taken.some(group => group.flags[name] === flags[name]);
  const own = Object.fromEntries(Object.entries(flags).filter(([name]) => !shared(name)));
  const links = taken.map(({ title }) => `[${title.toLowerCase()}](#${title.toLowerCase().replaceAll(' ', '-')})`);
  return [
    ...(Object.keys(own).length === 0 ? [] : [table(own)]),
    ...(links.length === 0 ? [] : [`Also: ${links.join(', ')}.`]),
  ];
}

function table(flags: Flags): string {
  const rows = Object.entries(flags).map(([name, { describe, value, short, choices, many }]) => {
    const both = `\`--${name}\`${short === undefined ? '' : `, \`-${short}\``}`;
    const argument = choices === undefined ? (value ?? '') : choices.join(', ');
    return `| ${both} | ${escaped(argument)} | ${escaped(describe)}${many ? '; may be given several times' : ''} |`;
  });
  return ['| flag | value | meaning |', '|---|---|---|', ...rows].join('\n');
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
