// `kube-ipam completion`: prints a script with which a shell completes this program's commands and flags.
import { type Command, exit, required } from '../command.ts';
import { completionFor, shells } from '../completion.ts';
import { commands } from '../table.ts';

export const command: Command = {
  verb: 'completion',
  summary: 'print completion for bash, zsh or fish',
  positionals: [{ name: 'shell', describe: 'the shell', required: true, choices: shells }],
  flags: {},
  examples: [
    ['kube-ipam completion bash > /etc/bash_completion.d/kube-ipam', ''],
    ['kube-ipam completion fish > ~/.config/fish/completions/kube-ipam.fish', ''],
  ],
  async run(args, io) {
    const shell = shells.find(one => one === required(args, 'shell'))!;
    io.writeStdout(completionFor(shell, await Promise.all(commands.map(({ load }) => load()))));
    return exit.fine;
  },
};
