// Makes a command of `kubectl ipam` out of one of `kube-ipam`: the same work, in an agent of the cluster or here.
import { join } from 'node:path';
import { isatty } from 'node:tty';
import { type Args, type Command, type Flags, text, UsageError } from '../command.ts';
import { globalFlags } from '../parse.ts';
import type { CliIo } from '../program.ts';
import { type Input, runInAgent } from './agent.ts';
import { connectionFlags, Kubectl } from './kubectl.ts';
import type { Offer } from './offers.ts';

export function commandFor(command: Command, offer: Offer): Command {
  const { without = [], summary = command.summary, details = command.details } = offer;
  const flags = Object.fromEntries(Object.entries(command.flags).filter(([name]) => !without.includes(name)));
  return {
    verb: command.verb,
    summary,
    ...(details !== undefined && { details }),
    positionals: command.positionals.filter(({ name }) => !without.includes(name)),
    flags: { ...flags, ...offer.flags },
    examples: offer.examples,
    async run(args, io) {
      const kubectl = new Kubectl(args, io);
      const translated = (await offer.translate?.(args, kubectl)) ?? args;
      if (offer.isHere === true || namesStore(args))
        return command.run(withKubeconfig(command.flags, translated, io), io);
      return runInAgent(kubectl, args, argvOf(command, translated), inputOf(offer.input?.(args), io));
    },
  };
}

/** Whoever names a store wants this one, and needs no cluster to find it. */
function namesStore(args: Args): boolean {
  return ['conf', 'conf-dir', 'etcd-url', 'data-dir'].some(name => args[name] !== undefined);
}

/** Without a terminal nobody can be asked, and the command says so. */
function inputOf(input: Input = 'none', { isTerminal }: CliIo): Input {
  return input === 'person' && !(isTerminal && isatty(0)) ? 'none' : input;
}

/** The arguments as they were before they were parsed, for the same program elsewhere: kubectl's own stay here. */
function argvOf({ verb, positionals, flags }: Command, args: Args): string[] {
  const words = positionals.flatMap(({ name }) => (args[name] === undefined ? [] : [String(args[name])]));
  const given = Object.keys({ ...flags, ...globalFlags }).flatMap(name => {
    const value = args[name];
    if (value === undefined || value === false || name in connectionFlags) return [];
    if (value === true) return [`--${name}`];
    return (Array.isArray(value) ? value : [value]).map(one => `--${name}=${one}`);
  });
  return [verb, ...words, ...given];
}

/** A command that asks the API itself finds it as kubectl does. */
function withKubeconfig(flags: Flags, args: Args, { env }: CliIo): Args {
  if (!('kubeconfig' in flags) || text(args, 'kubeconfig') !== undefined) return args;
  const kubeconfig = env.KUBECONFIG || join(env.HOME ?? '/', '.kube/config');
  if (kubeconfig.includes(':'))
    throw new UsageError('KUBECONFIG names several files, and this command takes one: name it with --kubeconfig');
  return { ...args, kubeconfig };
}
