// `kube-ipam public-ip allocator`: gives Services addresses of pools; one process of a cluster does, the others wait.
import { defaultGrace } from '../../ipam/gc.ts';
import { type Command, durationOf, text, UsageError } from '../command.ts';
import { accessFlags, publicIpFlags, readConfig } from './flags.ts';
import { runInForeground } from './foreground.ts';

const defaultNamespace = 'kube-system';

export const command: Command = {
  verb: 'allocator',
  summary: 'give Services addresses of pools, for the whole cluster',
  details:
    'Runs until SIGTERM or SIGINT. Gives Services of type LoadBalancer and class kube-ipam.io/public-ip addresses of ' +
    'AddressPools, and writes them into their status; the nodes carry them then (public-ip run). Of several that run, one ' +
    'works at a time: they elect it by the Lease kube-ipam-public-ip.',
  positionals: [],
  flags: {
    ...accessFlags,
    node: { type: 'string', value: 'NAME', describe: 'who this is, for people (the name of the node)' },
    'lease-namespace': { type: 'string', value: 'NAME', describe: `namespace of the Lease (${defaultNamespace})` },
    'gc-interval': { type: 'string', value: 'TIME', describe: 'time between two scans for what vanished unseen (1m)' },
    'gc-grace': {
      type: 'string',
      value: 'TIME',
      describe: 'how long something must seem gone before its address is free (30s)',
    },
    listen: publicIpFlags.listen!,
    'log-file': publicIpFlags['log-file']!,
    'log-level': publicIpFlags['log-level']!,
  },
  examples: [['kube-ipam public-ip allocator', 'in a pod: see deploy/base']],
  async run(args, io) {
    const config = readConfig(args, io);
    const scan = durationOf(args, 'gc-interval') ?? 60_000;
    if (scan < 1000) throw new UsageError('--gc-interval: at least 1s, as each scan reads store and API');
    const { openAllocator } = await import('../../publicip/open-allocator.ts');
    const options = {
      namespace: text(args, 'lease-namespace') ?? defaultNamespace,
      times: { scan, grace: durationOf(args, 'gc-grace') ?? defaultGrace },
    };
    return runInForeground('allocator', config, io, around => openAllocator(config, options, around));
  },
};
