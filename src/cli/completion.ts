// Makes completion scripts for shells out of the table of commands.
import type { Command } from './command.ts';
import { globalFlags } from './parse.ts';

const scripts = {
  bash: (commands: readonly Command[]) => bash(commands, false),
  zsh: (commands: readonly Command[]) => bash(commands, true),
  fish,
} as const;

export type Shell = keyof typeof scripts;
export const shells = Object.keys(scripts) as readonly Shell[];

/** A script that completes commands, flags and fixed values; files where a flag names one. */
export function completionFor(shell: Shell, commands: readonly Command[]): string {
  return scripts[shell](commands);
}

function flagsOf(command: Command) {
  return Object.entries({ ...command.flags, ...globalFlags });
}

/** Flags are the same for most commands, but choices of `plugin`, `shell` or --kind belong to one. */
function bash(commands: readonly Command[], isZsh: boolean): string {
  const verbs = [...commands.map(({ verb }) => verb), 'help'];
  const cases = commands.map(command => {
    const flags = flagsOf(command).flatMap(([name, { short }]) => (short ? [`--${name}`, `-${short}`] : [`--${name}`]));
    const words = command.positionals.flatMap(({ choices }) => choices ?? []);
    return `    ${command.verb}) words="${[...flags, '--help', ...words].join(' ')}" ;;`;
  });
  const values = commands.flatMap(command =>
    flagsOf(command).flatMap(([name, { choices, short }]) => {
      if (choices === undefined) return [];
      const patterns = [`${command.verb}:--${name}`, ...(short ? [`${command.verb}:-${short}`] : [])];
      return [`    ${patterns.join('|')}) words="${choices.join(' ')}" ;;`];
    }),
  );
  const paths = new Set(
    commands.flatMap(command =>
      flagsOf(command).flatMap(([name, { value }]) => (value === 'FILE' || value === 'DIR' ? [`--${name}`] : [])),
    ),
  );
  return `# Completion of kube-ipam: put this into ${isZsh ? '~/.zshrc' : '~/.bashrc or /etc/bash_completion.d/kube-ipam'}.
${isZsh ? 'autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n' : ''}_kube_ipam() {
  local word="\${COMP_WORDS[COMP_CWORD]}" before="\${COMP_WORDS[COMP_CWORD-1]}" verb="\${COMP_WORDS[1]}" words=""
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "${verbs.join(' ')}" -- "$word"))
    return
  fi
  case "$before" in
    ${[...paths].join('|')})
      COMPREPLY=($(compgen -f -- "$word"))
      return
      ;;
  esac
  case "$verb" in
${cases.join('\n')}
    help) words="${verbs.join(' ')}" ;;
  esac
  case "$verb:$before" in
${values.join('\n')}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$word"))
  if [ \${#COMPREPLY[@]} -eq 0 ]; then COMPREPLY=($(compgen -f -- "$word")); fi
}
complete -F _kube_ipam kube-ipam
`;
}

function fish(commands: readonly Command[]): string {
  const quoted = (text: string) => `'${text.replace(/['\\]/g, '\\$&')}'`;
  const lines = commands.flatMap(command => {
    const within = `-n ${quoted(`__fish_seen_subcommand_from ${command.verb}`)}`;
    const words = command.positionals.flatMap(({ choices }) => choices ?? []);
    return [
      `complete -c kube-ipam -n __fish_use_subcommand -f -a ${command.verb} -d ${quoted(command.summary)}`,
      ...(words.length > 0 ? [`complete -c kube-ipam ${within} -f -a ${quoted(words.join(' '))}`] : []),
      ...flagsOf(command).map(([name, { describe, choices, short, type, value }]) => {
        const argument = choices
          ? ` -x -a ${quoted(choices.join(' '))}`
          : type === 'boolean'
            ? ''
            : isPath(value)
              ? ' -r -F'
              : ' -x';
        return `complete -c kube-ipam ${within} -l ${name}${short ? ` -s ${short}` : ''}${argument} -d ${quoted(describe)}`;
      }),
    ];
  });
  return `# Completion of kube-ipam: put this into ~/.config/fish/completions/kube-ipam.fish.\n${lines.join('\n')}\n`;
}

function isPath(value: string | undefined): boolean {
  return value === 'FILE' || value === 'DIR';
}
