// `kube-ipam agent`: the daemon of a node, which does the plugin's work with warm connections.

import type { ClusterOptions } from '../../agent/cluster.ts';
import { type ListenAddress, listenRule, parseListen } from '../../base/listen.ts';
import { type LogLevel, logLevels } from '../../base/log.ts';
import { nodeNameOf } from '../../base/node-name.ts';
import { nodeFolder } from '../../host/certificates.ts';
import { defaultAgentSocket, defaultDataDir } from '../../ipam/defaults.ts';
import { defaultGrace, defaultNodeGrace } from '../../ipam/gc.ts';
import { type Args, type Command, durationOf, exit, text, UsageError } from '../command.ts';
import { defaultConfDir, readConfFolder } from '../networks.ts';
import type { CliIo } from '../program.ts';

const defaultListen = ':20244';
const defaultStateDir = '/var/lib/kube-ipam/agent';
const defaultPluginKubeconfig = '/etc/cni/net.d/kube-ipam.d/kubeconfig';
const defaultPluginAccount = 'kube-system/kube-ipam-plugin';

export const command: Command = {
  verb: 'agent',
  summary: 'run the node agent, which makes pods start faster and cleans up after them',
  details:
    'Runs until SIGTERM or SIGINT. Plugins on this node find its socket and let it do their work, with connections that ' +
    'stand already; without it they do it themselves, with the same outcome. It keeps DELs on disk while a store is away. ' +
    'Where it can ask the Kubernetes API (--kubeconfig, or inside of a pod), it frees what died without a DEL, tells pods ' +
    'and nodes by events what is wrong, and keeps a kubeconfig for the plugin. ' +
    'Its log goes to stderr, one JSON line an event. Exit code 4 when another agent serves the same socket.',
  positionals: [],
  flags: {
    socket: { type: 'string', value: 'FILE', describe: `where plugins find it (${defaultAgentSocket})` },
    listen: {
      type: 'string',
      value: 'ADDRESS',
      describe: `where /healthz, /readyz and /metrics are served, "off" for nowhere (${defaultListen})`,
    },
    'conf-dir': {
      type: 'string',
      value: 'DIR',
      describe: `the runtime's folder of configurations (${defaultConfDir})`,
    },
    'data-dir': {
      type: 'string',
      value: 'DIR',
      describe: `where plugins keep their state, unless their configuration says otherwise (${defaultDataDir})`,
    },
    'state-dir': { type: 'string', value: 'DIR', describe: `where the agent keeps its own state (${defaultStateDir})` },
    kubeconfig: {
      type: 'string',
      value: 'FILE',
      describe: 'how the agent reaches the Kubernetes API (in a pod: its service account; "off": no API)',
    },
    'plugin-kubeconfig': {
      type: 'string',
      value: 'FILE',
      describe: `kept for the plugin, with an account of its own; "off" for none (${defaultPluginKubeconfig})`,
    },
    'plugin-account': {
      type: 'string',
      value: 'NAMESPACE/NAME',
      describe: `the service account of the plugin (${defaultPluginAccount})`,
    },
    node: { type: 'string', value: 'NAME', describe: "this node's name in Kubernetes (its name in the store)" },
    'gc-interval': { type: 'string', value: 'TIME', describe: 'time between two scans of gc (1m)' },
    'gc-grace': {
      type: 'string',
      value: 'TIME',
      describe: 'how long something must seem dead before it is freed (30s)',
    },
    'node-grace': {
      type: 'string',
      value: 'TIME',
      describe: 'how long a node may be not ready before what ran there counts as lost (5m)',
    },
    certificates: {
      type: 'string',
      value: 'DIR',
      describe: `keep the files of this folder, a mounted Secret say, in ${nodeFolder}, also when they change`,
    },
    'log-level': { type: 'string', choices: logLevels, describe: 'what to log (info)' },
  },
  examples: [
    ['kube-ipam agent', ''],
    ['kube-ipam agent --listen 127.0.0.1:20244 --log-level debug', 'pages for this node only'],
  ],
  async run(args, io) {
    return runInForeground(args, io);
  },
};

async function runInForeground(args: Args, io: CliIo): Promise<number> {
  const [{ AlreadyRunningError, runAgent }, { parseYaml }] = await Promise.all([
    import('../../agent/agent.ts'),
    import('../../kube/yaml.ts'),
  ]);
  const listen = listenAddress(text(args, 'listen') ?? defaultListen);
  const confDir = folder(args, 'conf-dir', defaultConfDir);
  const cluster = clusterOptions(args, io);
  const options = {
    socket: folder(args, 'socket', defaultAgentSocket),
    ...(listen && { listen }),
    dataDir: folder(args, 'data-dir', defaultDataDir),
    stateDir: folder(args, 'state-dir', defaultStateDir),
    ...(text(args, 'certificates') !== undefined && { certificates: folder(args, 'certificates', '') }),
    logLevel: (text(args, 'log-level') ?? 'info') as LogLevel,
    gc: {
      interval: interval(args),
      grace: durationOf(args, 'gc-grace') ?? defaultGrace,
      nodeGrace: durationOf(args, 'node-grace') ?? defaultNodeGrace,
    },
    ...(cluster && { cluster }),
    configured: () => readConfFolder(confDir).networks.map(({ conf }) => conf),
    parts: { parseYaml, loadGrpc: async () => (await import('../../store/etcd/grpc.ts')).openGrpc },
  };
  try {
    await runAgent(options, {
      writeStderr: io.writeStderr,
      monotonicNow: io.monotonicNow,
      stop: io.stopSignal(),
    });
    return exit.fine;
  } catch (error) {
    if (!(error instanceof AlreadyRunningError)) throw error;
    io.writeStderr(`kube-ipam: ${error.message}\n`);
    return exit.running;
  }
}

function interval(args: Args): number {
  const ms = durationOf(args, 'gc-interval') ?? 60_000;
  if (ms < 1000) throw new UsageError('--gc-interval: at least 1s, as each scan reads stores and the API');
  return ms;
}

/** Undefined where there is no API to ask: no kubeconfig is named, and this is no pod. */
function clusterOptions(args: Args, { env }: CliIo): ClusterOptions | undefined {
  const kubeconfig = text(args, 'kubeconfig');
  const file = text(args, 'plugin-kubeconfig') ?? defaultPluginKubeconfig;
  const account = text(args, 'plugin-account') ?? defaultPluginAccount;
  const [namespace, name, ...rest] = account.split('/');
  if (!namespace || !name || rest.length > 0)
    throw new UsageError(`--plugin-account ${JSON.stringify(account)}: must be NAMESPACE/NAME`);
  if (kubeconfig === 'off' || (kubeconfig === undefined && !env.KUBERNETES_SERVICE_HOST)) return undefined;
  return {
    source: { kubeconfig, env },
    node: text(args, 'node') ?? nodeNameOf(undefined),
    namespace,
    ...(file !== 'off' && { plugin: { file: folder(args, 'plugin-kubeconfig', file), account: { namespace, name } } }),
  };
}

/** Undefined for "off". */
function listenAddress(value: string): ListenAddress | undefined {
  const address = parseListen(value);
  if (address === undefined) throw new UsageError(`--listen ${JSON.stringify(value)}: ${listenRule}`);
  return address === 'off' ? undefined : address;
}

/** Below /proc nothing can be made, and Node tries for ever. */
function folder(args: Args, name: string, usual: string): string {
  const path = text(args, name) ?? usual;
  if (!path.startsWith('/') || /^\/+proc(\/|$)/.test(path)) {
    throw new UsageError(`--${name} ${path}: must be an absolute path, not below /proc`);
  }
  return path;
}
