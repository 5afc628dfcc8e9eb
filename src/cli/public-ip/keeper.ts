// `kube-ipam public-ip keeper`: the process that `public-ip run` starts for itself; nobody else has a use for it.
import { Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { type Command, exit } from '../command.ts';

export const command: Command = {
  verb: 'keeper',
  summary: 'keep the lease of `public-ip run`, which starts this by itself',
  positionals: [],
  flags: {},
  examples: [],
  async run(_, io) {
    const [{ runKeeper }, { openGrpc }] = await Promise.all([
      import('../../publicip/keeper/keeper.ts'),
      import('../../store/etcd/grpc.ts'),
    ]);
    // A service manager sends its signal to all processes of the service: this one goes when `run` has handed over.
    io.stopSignal();
    const requests = createInterface({ input: new Socket({ fd: 0, writable: false }) });
    await runKeeper({ requests, report: io.writeStdout, monotonicNow: io.monotonicNow, openGrpc });
    return exit.fine;
  },
};
