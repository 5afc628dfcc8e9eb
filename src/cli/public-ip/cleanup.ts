// `kube-ipam public-ip cleanup`: removes from this host what public addresses left there, whatever became of who put it.
import { messageOf } from '../../base/errors.ts';
import { readMachine } from '../../base/node.ts';
import { takeLock } from '../../host/lock.ts';
import { publicIp } from '../../host/numbers.ts';
import { type Trace, tracesOf } from '../../publicip/cleanup.ts';
import { defaultFolders } from '../../publicip/config.ts';
import { placesOf } from '../../publicip/places.ts';
import { type Command, exit, given, text } from '../command.ts';
import { plain } from '../output.ts';
import type { CliIo } from '../program.ts';
import { publicIpFlags } from './flags.ts';

export const command: Command = {
  verb: 'cleanup',
  summary: 'remove what public addresses left on this host',
  details:
    'Removes the addresses on all interfaces, the chain and its jump, the gate, rules for replies, and puts kernel settings ' +
    'back. Needs neither etcd nor Kubernetes: claims that still stand run out with their lease. Whoever carries addresses ' +
    'on this host must have ended (exit code 4). May be repeated.',
  positionals: [],
  flags: {
    'dry-run': { type: 'boolean', describe: 'only say what would be removed' },
    fwchain: publicIpFlags.fwchain!,
    'state-dir': publicIpFlags['state-dir']!,
    'run-dir': publicIpFlags['run-dir']!,
  },
  examples: [
    ['kube-ipam public-ip cleanup --dry-run', 'what is there'],
    ['kube-ipam public-ip cleanup', 'after `systemctl disable --now kiwi`'],
  ],
  async run(args, io) {
    const places = placesOf({
      stateDir: text(args, 'state-dir') ?? defaultFolders.state,
      runDir: text(args, 'run-dir') ?? defaultFolders.run,
    });
    const dryRun = given(args, 'dry-run');
    using lock = dryRun ? undefined : takeLock(places.lock);
    if (lock === undefined && !dryRun) {
      io.writeStderr('public addresses are being carried on this host: end that first; nothing was removed\n');
      return exit.running;
    }
    const chain = text(args, 'fwchain') ?? publicIp.chain;
    const traces = await tracesOf({ places, chain, boot: readMachine().boot });
    if (traces.length === 0) io.writeStdout('nothing to remove\n');
    const fates: boolean[] = [];
    for (const trace of traces) fates.push(dryRun ? would(trace, io) : await removed(trace, io));
    return fates.includes(false) ? exit.trouble : exit.fine;
  },
};

function would({ what }: Trace, io: CliIo): true {
  io.writeStdout(`would remove ${plain(what)}\n`);
  return true;
}

async function removed({ what, remove }: Trace, io: CliIo): Promise<boolean> {
  try {
    await remove();
    io.writeStdout(`removed ${plain(what)}\n`);
    return true;
  } catch (error) {
    io.writeStderr(`not removed: ${plain(what)}: ${messageOf(error)}\n`);
    return false;
  }
}
