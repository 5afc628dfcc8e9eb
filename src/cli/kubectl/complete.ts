// Completes words of `kubectl ipam` for kubectl's own completion, which asks an executable kubectl_complete-ipam.
import type { Command } from '../command.ts';
import type { CliIo } from '../program.ts';
import { kubectlIpam } from './face.ts';

/** Cobra's directive 4: no names of files; 0: as the shell likes. */
const words = ':4\n';
const files = ':0\n';

/** @param argv the words behind `kubectl ipam`; the last one is not complete yet */
export async function complete(argv: readonly string[], io: CliIo): Promise<number> {
  const [verb = '', ...rest] = argv;
  const last = rest.at(-1);
  const entries = kubectlIpam.commands;
  if (last === undefined) {
    const told = entries.filter(entry => entry.verb.startsWith(verb));
    io.writeStdout(`${told.map(entry => `${entry.verb}\t${entry.summary}\n`).join('')}${words}`);
    return 0;
  }
  const command = await entries.find(entry => entry.verb === verb)?.load();
  io.writeStdout(command === undefined ? words : candidates(command, rest.at(-2) ?? '', last));
  return 0;
}

function candidates(command: Command, before: string, last: string): string {
  const flags = Object.entries({ ...command.flags, ...kubectlIpam.flags });
  const asked = flags.find(([name, { short }]) => [`--${name}`, short && `-${short}`].includes(before))?.[1];
  if (asked?.type === 'string') {
    if (asked.choices === undefined) return asked.value === 'FILE' || asked.value === 'DIR' ? files : words;
    return list(asked.choices.filter(choice => choice.startsWith(last)));
  }
  const fitting = flags.filter(([name]) => `--${name}`.startsWith(last));
  return last.startsWith('-') ? list(fitting.map(([name, { describe }]) => `--${name}\t${describe}`)) : words;
}

function list(lines: readonly string[]): string {
  return `${lines.map(line => `${line}\n`).join('')}${words}`;
}
