// `kube-ipam public-ip` as one entry among the other commands; its own commands are in face.ts.
import { type Command, UsageError } from '../command.ts';

export const command: Command = {
  verb: 'public-ip',
  summary: "put Services' public addresses on healthy nodes, one each",
  details:
    'A tool with commands of its own, which "kube-ipam public-ip --help" lists; without one it runs. The same tool under ' +
    'the name of its ancestor is `kiwi`.',
  positionals: [{ name: 'command', describe: 'what to do (run)', required: false }],
  flags: {},
  examples: [['kube-ipam public-ip --interface em1 --cidr-range 192.168.0.0/16', 'run on this node']],
  async run() {
    throw new UsageError('public-ip has commands of its own: see "kube-ipam public-ip --help"');
  },
};
