// `kube-ipam public-ip run`: carries public addresses on this node, in the foreground.
import { type Command, exit } from '../command.ts';
import { publicIpFlags, readConfig } from './flags.ts';
import { runInForeground } from './foreground.ts';

export const command: Command = {
  verb: 'run',
  summary: 'carry public addresses on this node, until told to stop',
  details:
    'Runs until SIGTERM or SIGINT. Claims the public addresses of Services in etcd, answers for them on the interface, and ' +
    'marks their packets. At the end it gives everything up in order (--on-exit handover), or leaves it to the next process ' +
    '(--on-exit keep). Exit code 4 when another one runs in this network namespace.',
  positionals: [],
  flags: publicIpFlags,
  examples: [
    [
      'kiwi --interface em1 --cidr-range 192.168.0.0/16 --kube-endpoint http://127.0.0.1:8080 --etcd-endpoint http://127.0.0.1:2379',
      'as it always was',
    ],
  ],
  async run(args, io) {
    const config = readConfig(args, io);
    const [{ openFeature }, { KeeperRunningError }] = await Promise.all([
      import('../../publicip/open.ts'),
      import('../../publicip/keeper/parent.ts'),
    ]);
    const keeper = [io.executable, 'public-ip', 'keeper'] as const;
    try {
      return await runInForeground('public-ip', config, io, around =>
        openFeature(config, { ...around, keeper, monotonicNow: io.monotonicNow }),
      );
    } catch (error) {
      if (!(error instanceof KeeperRunningError)) throw error;
      io.writeStderr(`kube-ipam: ${error.message}\n`);
      return exit.running;
    }
  },
};
