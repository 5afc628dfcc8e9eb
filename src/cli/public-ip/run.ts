// `kube-ipam public-ip run`: carries public addresses on this node, in the foreground.
import { dirname } from 'node:path';
import { makeFolder } from '../../base/folder.ts';
import { Log } from '../../base/log.ts';
import { Metrics } from '../../base/metrics.ts';
import type { Part } from '../../base/part.ts';
import type { Config } from '../../publicip/config.ts';
import { type Command, exit } from '../command.ts';
import type { CliIo } from '../program.ts';
import { publicIpFlags, readConfig } from './flags.ts';

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
    return runInForeground(readConfig(args, io), io);
  },
};

async function runInForeground(config: Config, io: CliIo): Promise<number> {
  const [{ openFeature }, { KeeperRunningError }, { Pages }] = await Promise.all([
    import('../../publicip/open.ts'),
    import('../../publicip/keeper/parent.ts'),
    import('../../agent/pages.ts'),
  ]);
  const stop = io.stopSignal();
  const log = logOf(config, io);
  const metrics = new Metrics();
  const keeper = [io.executable, 'public-ip', 'keeper'] as const;
  const feature = await openFeature(config, { log, metrics, keeper, monotonicNow: io.monotonicNow, stop });
  if (feature === undefined) return exit.fine;
  const parts: Part[] = [feature];
  if (config.listen !== undefined) parts.unshift(new Pages(config.listen, () => parts, metrics));
  const started: Part[] = [];
  try {
    for (const part of parts) {
      await part.start();
      started.unshift(part);
    }
    log.info('public-ip started', { id: config.id, interface: config.interface });
    await stopped(stop);
    log.info('public-ip stops', { onExit: config.onExit });
  } catch (error) {
    if (!(error instanceof KeeperRunningError)) throw error;
    io.writeStderr(`kube-ipam: ${error.message}\n`);
    return exit.running;
  } finally {
    for (const part of started) await part.stop();
  }
  log.info('public-ip stopped');
  return exit.fine;
}

function logOf({ log: { file, level } }: Config, io: CliIo): Log {
  if (file !== undefined) makeFolder(dirname(file), 0o750);
  const target = { file: file ?? '/dev/stderr', level, maxSize: 100 * 2 ** 20 };
  return file === undefined ? new Log(target, {}, (_, lines) => io.writeStderr(lines)) : new Log(target);
}

function stopped(signal: AbortSignal): Promise<void> {
  return new Promise(resolve => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
