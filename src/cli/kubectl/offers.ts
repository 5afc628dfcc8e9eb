// Which commands `kubectl ipam` has, and how they differ from those of `kube-ipam`: kubectl's users know its own flags.
import { parseIp } from '../../net/ip.ts';
import { type Args, type Flags, given, text, UsageError } from '../command.ts';
import type { Input } from './agent.ts';
import type { Kubectl } from './kubectl.ts';

export interface Offer {
  readonly summary?: string;
  readonly details?: string;
  readonly flags?: Flags;
  /** Flags and positionals that make no sense here. */
  readonly without?: readonly string[];
  readonly examples: readonly (readonly [command: string, meaning: string])[];
  readonly input?: (args: Args) => Input;
  /** Needs no store. */
  readonly isHere?: boolean;
  /** From our arguments to those of kube-ipam. */
  translate?(args: Args, kubectl: Kubectl): Promise<Args> | Args;
}

const namespaceFlag = (describe: string): Flags => ({
  namespace: { type: 'string', short: 'n', value: 'NAME', describe },
});

/** A pod's name belongs to the namespace that was named; an address does not. */
function qualified(args: Args): Args {
  const [namespace, what] = [text(args, 'namespace'), text(args, 'what')];
  if (namespace === undefined || what === undefined || what.includes('/') || parseIp(what) !== undefined) return args;
  return { ...args, what: `${namespace}/${what}` };
}

async function byPod(args: Args, kubectl: Kubectl): Promise<Args> {
  const named = text(args, 'namespace');
  const isEverywhere = given(args, 'all-namespaces');
  if (isEverywhere && named !== undefined) throw new UsageError('give either --namespace or --all-namespaces');
  return {
    ...args,
    'by-pod': true,
    // Networks may have address spaces of their own, and a pod has its addresses wherever they are.
    'all-spaces': text(args, 'space') === undefined,
    namespace: isEverywhere ? undefined : (named ?? (await kubectl.namespace())),
  };
}

/** What is freed is asked for; without a terminal, --yes says it. */
const mayAsk = (args: Args): Input => (given(args, 'yes') || given(args, 'dry-run') ? 'none' : 'person');

export const offers: Readonly<Record<string, Offer>> = {
  ls: {
    summary: 'list pods with their nodes and addresses',
    details: 'One line for each pod and address, in the order of namespaces and pods. Filters may be combined.',
    without: ['by-pod', 'all-spaces'],
    flags: {
      ...namespaceFlag('only pods of this namespace (that of the context)'),
      'all-namespaces': {
        type: 'boolean',
        short: 'A',
        describe: 'pods of all namespaces, and addresses that belong to no pod',
      },
    },
    examples: [
      ['kubectl ipam ls', 'the pods of the namespace of the context'],
      ['kubectl ipam ls -A --node worker-1', 'everything on one node'],
      ['kubectl ipam ls -n shop --kind sticky -o json', 'for a program'],
    ],
    translate: byPod,
  },
  show: {
    flags: namespaceFlag('namespace of the pod (any)'),
    examples: [
      ['kubectl ipam show 10.1.0.17', 'who has this address?'],
      ['kubectl ipam show web-0 -n shop', 'which addresses has this pod?'],
    ],
    translate: qualified,
  },
  usage: { examples: [['kubectl ipam usage', '']] },
  check: { examples: [['kubectl ipam check', '']] },
  gc: {
    details:
      'An agent looks twice, --grace apart. What the Kubernetes API both times calls dead (its pod is absent, ended, ' +
      'replaced by another one of its name, or has a newer sandbox), and what nobody touched in between, is freed once its ' +
      "network namespace is gone from that agent's node, or its own node from the cluster; so is what a StatefulSet or a VM " +
      'keeps that is there no more. Reservations, holds, Services, containers that are no pods, and records of other clusters ' +
      'are never touched. Every agent does the same for its own node each minute.',
    without: ['local'],
    examples: [['kubectl ipam gc --dry-run', 'what would go, what would stay, and why']],
  },
  reserve: { examples: [['kubectl ipam reserve 10.1.0.20-10.1.0.29 --reason "printers"', 'ten addresses']] },
  unreserve: { examples: [['kubectl ipam unreserve 10.1.0.20-10.1.0.29', '']] },
  release: {
    flags: namespaceFlag('namespace of the pod (any)'),
    examples: [
      ['kubectl ipam release 10.1.0.17 --force', 'of a node that was thrown away; asks first'],
      ['kubectl ipam release web-0 -n shop --workload --yes', ''],
    ],
    input: mayAsk,
    translate: qualified,
  },
  export: { without: ['file'], examples: [['kubectl ipam export > backup.jsonl', '']] },
  import: {
    without: ['file'],
    examples: [['kubectl ipam import --dry-run < backup.jsonl', '']],
    input: () => 'all',
  },
  version: { examples: [['kubectl ipam version', 'of this plugin']], isHere: true },
};
