// `kube-ipam version`: what this program was built from.
import { commit, nodeVersion, version } from '../../base/version.ts';
import { type Command, exit } from '../command.ts';

export const command: Command = {
  verb: 'version',
  summary: 'print version, commit and Node',
  positionals: [],
  flags: {},
  examples: [['kube-ipam version', '']],
  async run(_args, io) {
    io.writeStdout(`kube-ipam ${version} (commit ${commit}, Node ${nodeVersion})\n`);
    return exit.fine;
  },
};
