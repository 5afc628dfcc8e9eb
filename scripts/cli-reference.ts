// The reference of the command line as Markdown: every command with its flags and examples.
import type { Command, Flag } from '../src/cli/command.ts';
import { globalFlags, usageOf } from '../src/cli/parse.ts';
import { commands } from '../src/cli/table.ts';

const intro = `## Command line

<!-- written by scripts/write-cli-reference.ts: change the commands in src/cli, then run it -->

\`kube-ipam COMMAND [FLAGS]\`. \`kube-ipam help\` lists the commands, \`kube-ipam COMMAND --help\` explains one.

Commands that look at addresses find their store through a network configuration: \`--conf FILE\`, or the first network of
kube-ipam in \`/etc/cni/net.d\` (in a \`.conf\`, in a \`.conflist\`, or as a delegate of Multus). \`--network NAME\` picks one where
there are several. Flags name a store directly: \`--etcd-url\` and its companions, or \`--data-dir\` for an embedded one.

| exit code | meaning |
|---|---|
| 0 | fine |
| 1 | trouble was found, or work failed |
| 2 | wrong usage: an unknown command or flag, a missing or impossible value |
| 3 | what it needs cannot be reached: no store, no etcd, no configuration that leads to one |
| 4 | it is running already |

Release 0.2 is still understood: \`kube-ipam -version\`, \`kube-ipam -help\`, and \`kube-ipam -outputconf PLUGIN\`, which is
\`kube-ipam conf PLUGIN --single\`.

Every command takes:

${flagTable(globalFlags)}
`;

/** The whole section, to stand in docs/reference.md. */
export async function cliReference(): Promise<string> {
  const loaded = await Promise.all(commands.map(({ load }) => load()));
  return [intro, ...loaded.map(section)].join('\n');
}

function section(command: Command): string {
  const { verb, summary, details, positionals, flags, examples } = command;
  const words = positionals.map(({ name, describe, required, choices }) => {
    const one = choices === undefined ? '' : `: ${choices.map(choice => `\`${choice}\``).join(', ')}`;
    return `- \`${name}\`${required ? '' : ' (optional)'}: ${escaped(describe)}${one}`;
  });
  const lines = examples.flatMap(([line, meaning]) => (meaning === '' ? [line] : [`# ${meaning}`, line]));
  return [
    `### kube-ipam ${verb}`,
    `\`kube-ipam ${usageOf(command)}\`: ${escaped(summary)}.`,
    ...(details === undefined ? [] : [escaped(details)]),
    ...(words.length === 0 ? [] : [words.join('\n')]),
    ...(Object.keys(flags).length === 0 ? [] : [flagTable(flags)]),
    `\`\`\`sh\n${lines.join('\n')}\n\`\`\``,
  ]
    .join('\n\n')
    .concat('\n');
}

function flagTable(flags: Readonly<Record<string, Flag>>): string {
  const rows = Object.entries(flags).map(([name, { describe, value, short, choices, many }]) => {
    const argument = choices === undefined ? (value ?? '') : choices.join('\\|');
    const both = short === undefined ? `--${name}` : `--${name}, -${short}`;
    return `| \`${both}\` | ${argument} | ${escaped(describe)}${many ? '; may be given several times' : ''} |`;
  });
  return ['| flag | value | meaning |', '|---|---|---|', ...rows].join('\n');
}

function escaped(text: string): string {
  return text.replaceAll('|', '\\|').replaceAll('<', '&lt;');
}
