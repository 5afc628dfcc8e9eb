// Finds an agent of kube-ipam in the cluster, and runs commands in its container.
import { UnreachableError } from '../../store/kv.ts';
import { type Args, type Flags, text } from '../command.ts';
import type { Kubectl } from './kubectl.ts';

const defaultNamespace = 'kube-system';

export const agentFlags: Flags = {
  'agent-namespace': {
    type: 'string',
    value: 'NAME',
    describe: `where the agents of kube-ipam run (${defaultNamespace})`,
  },
};

/** As deploy/ has them. */
const selector = 'app.kubernetes.io/name=kube-ipam,app.kubernetes.io/component=agent';
const container = 'agent';
const program = '/usr/local/bin/kube-ipam';

/** What a command has to do with our own standard input: nothing, all of it, or to ask a person. */
export type Input = 'none' | 'all' | 'person';

/** Runs `kube-ipam` with these arguments in an agent; its exit code. */
export async function runInAgent(kubectl: Kubectl, args: Args, argv: readonly string[], input: Input): Promise<number> {
  const namespace = text(args, 'agent-namespace') ?? defaultNamespace;
  const pod = await agentIn(kubectl, namespace);
  const streams = { none: [], all: ['--stdin'], person: ['--stdin', '--tty'] }[input];
  const where = [`--namespace=${namespace}`, `--container=${container}`, '--quiet', ...streams];
  return kubectl.attach(['exec', pod, ...where, '--', program, ...argv]);
}

/** The name of an agent's pod, rather of one that is ready. Any will do, as all of them see the same store. */
async function agentIn(kubectl: Kubectl, namespace: string): Promise<string> {
  const ready = '{.status.conditions[?(@.type=="Ready")].status}';
  const line = `{.metadata.name}{" "}${ready}{" "}{.metadata.deletionTimestamp}{"\\n"}`;
  const listed = await kubectl.ask([
    ...['get', 'pods', `--namespace=${namespace}`, `--selector=${selector}`],
    ...['--field-selector=status.phase=Running', `--output=jsonpath={range .items[*]}${line}{end}`],
  ]);
  const pods = listed.split('\n').flatMap(one => {
    const [name = '', isReady, deleted] = one.split(' ');
    return name === '' || deleted ? [] : [{ name, ready: isReady === 'True' }];
  });
  const [first] = pods.toSorted((a, b) => Number(b.ready) - Number(a.ready));
  if (first !== undefined) return first.name;
  throw new UnreachableError(
    `no agent of kube-ipam runs in namespace ${namespace} (pods with ${selector}): deploy it, name its namespace with --agent-namespace, or the store with --etcd-url or --conf`,
  );
}
