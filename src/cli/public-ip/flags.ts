// The flags of `kube-ipam public-ip`, those of kiwi among them, and what this node adds to them.
import { join } from 'node:path';
import { FailureError } from '../../base/errors.ts';
import { logLevels } from '../../base/log.ts';
import { nodeNameOf } from '../../base/node-name.ts';
import { Problems } from '../../base/section.ts';
import { type AccessConfig, readAccessConfig } from '../../ipam/config.ts';
import { type Config, configOf, leastTtl } from '../../publicip/config.ts';
import type { EtcdTarget } from '../../store/target.ts';
import { type Args, type Flags, text, UsageError } from '../command.ts';
import { defaultConfDir, networksIn, readConfFile, readConfFolder } from '../networks.ts';
import type { CliIo } from '../program.ts';
import { confFlags } from '../store-access.ts';

/** How the claims and the API are reached: all that a look from outside needs. */
export const accessFlags: Flags = {
  'kube-endpoint': {
    type: 'string',
    short: 'k',
    value: 'URL',
    describe: 'API server that asks for no credentials, as kubectl proxy offers one (http://localhost:8080)',
  },
  kubeconfig: {
    type: 'string',
    value: 'FILE',
    describe: 'how the Kubernetes API is reached (in a pod: its service account; else KUBECONFIG)',
  },
  'etcd-endpoint': {
    type: 'string',
    short: 's',
    value: 'URLS',
    describe: "etcd that holds the claims (that of this node's network, else http://localhost:2379)",
  },
  'etcd-cert': { type: 'string', value: 'FILE', describe: 'client certificate for etcd' },
  'etcd-key': { type: 'string', value: 'FILE', describe: 'key of the client certificate' },
  'etcd-cacert': { type: 'string', value: 'FILE', describe: "authority of etcd's server certificates" },
  'etcd-user': { type: 'string', value: 'NAME', describe: 'etcd user' },
  'etcd-password-file': { type: 'string', value: 'FILE', describe: "file that holds the etcd user's password" },
  'etcd-prefix': { type: 'string', short: 'p', value: 'PATH', describe: 'where in etcd the claims stand (/kiwi)' },
  ...confFlags,
  cluster: {
    type: 'string',
    value: 'NAME',
    describe: "which cluster this is, where several share an etcd (the network's own, or default)",
  },
  space: { type: 'string', value: 'NAME', describe: 'address space of the public addresses (default)' },
};

/** What may become a public address: who only looks must judge it as those who carry it do. */
export const judgementFlags: Flags = {
  'cidr-range': {
    type: 'string',
    short: 'r',
    value: 'CIDR',
    many: true,
    describe: 'only addresses of this range (all)',
  },
  'allow-namespace': {
    type: 'string',
    value: 'NAME',
    many: true,
    describe: 'only Services of this namespace (all)',
  },
  'service-cidr': { type: 'string', value: 'CIDR', many: true, describe: 'range of ClusterIPs: no public addresses' },
  'pod-cidr': { type: 'string', value: 'CIDR', many: true, describe: 'range of pods: no public addresses' },
  rebalance: {
    type: 'string',
    choices: ['on', 'off'],
    describe: 'whether addresses move to nodes that have few (on)',
  },
};

export const publicIpFlags: Flags = {
  interface: { type: 'string', short: 'i', value: 'IF', describe: 'interface that carries the addresses (eth0)' },
  ...judgementFlags,
  ...accessFlags,
  ttl: {
    type: 'string',
    value: 'SECONDS',
    describe: `how long a claim outlives its node, at least ${leastTtl} (10)`,
  },
  'refresh-interval': { type: 'string', value: 'SECONDS', describe: "kiwi's way to say it: half of --ttl" },
  'reconnect-interval': {
    type: 'string',
    value: 'SECONDS',
    describe: 'the longest wait before something remote is tried again (5)',
  },
  node: { type: 'string', value: 'NAME', describe: "this node's name in Kubernetes (its name in the store)" },
  'agent-id': {
    type: 'string',
    value: 'NAME',
    describe: "what claims call this node (its name, behind the cluster's)",
  },
  id: { type: 'string', value: 'NAME', describe: 'the same' },
  'node-selector': {
    type: 'string',
    value: 'LABELS',
    describe: 'only nodes with these labels carry addresses, as in kubectl: edge=yes,!retired (all)',
  },
  fwchain: { type: 'string', value: 'NAME', describe: 'chain of table mangle that marks packets (KUBE-PUBLIC)' },
  fwmark: {
    type: 'string',
    value: 'MARK[/MASK]',
    describe: 'mark of packets to public addresses; without mask it replaces all other marks (1)',
  },
  'no-driver': { type: 'boolean', short: 'n', describe: 'claim, but change nothing on this host' },
  gateway: {
    type: 'string',
    value: 'IP',
    many: true,
    describe: 'next hop of replies from public addresses, where the default route leads elsewhere',
  },
  probe: {
    type: 'string',
    choices: ['on', 'off'],
    describe: 'whether to ask, before an address is taken, who else answers for it (on)',
  },
  'no-sysctl': { type: 'boolean', describe: 'change no kernel setting, only say which ones are wrong' },
  'garp-interval': {
    type: 'string',
    value: 'TIME',
    describe: 'time between two announcements of an address, 0 for only those at its arrival (1m)',
  },
  'on-exit': {
    type: 'string',
    choices: ['handover', 'keep'],
    describe: 'give everything up at the end, or leave it to the next process for as long as claims last (handover)',
  },
  listen: {
    type: 'string',
    value: 'ADDRESS',
    describe: 'where /healthz, /readyz and /metrics are served, "off" for nowhere (off)',
  },
  'state-dir': { type: 'string', value: 'DIR', describe: 'what must outlive a restart (/var/lib/kube-ipam)' },
  'run-dir': { type: 'string', value: 'DIR', describe: 'where its lock is (/run/kube-ipam)' },
  'log-file': {
    type: 'string',
    value: 'FILE',
    describe: `the log; "-" for stderr (-; of kiwi /var/log/kiwi/kiwi.log)`,
  },
  'log-level': { type: 'string', choices: logLevels, describe: 'what to log (info)' },
  verbose: { type: 'boolean', short: 'v', describe: 'log more, as --log-level debug' },
  debug: { type: 'boolean', short: 'd', describe: 'the same' },
  'debug-requests': { type: 'boolean', describe: 'the same' },
};

const kiwiLog = '/var/log/kiwi/kiwi.log';

/** What the flags say, for this node. Throws a UsageError that names every problem. */
export function readConfig(args: Args, { env, calledAs }: Pick<CliIo, 'env' | 'calledAs'>): Config {
  const problems = new Problems();
  const network = networkOf(args, problems);
  const networkEtcd = network?.store.kind === 'etcd' ? network.store : undefined;
  const etcd = etcdOfFlags(args, problems) ?? networkEtcd ?? etcdAt('http://localhost:2379');
  // The hint which endpoint answers belongs to this etcd, which need not be that of the network.
  const dataDir = join(text(args, 'state-dir') ?? '/var/lib/kube-ipam', 'public-ip');
  try {
    return configOf(args, {
      node: nodeNameOf(text(args, 'node') ?? network?.nodeName),
      env,
      etcd: { ...etcd, dataDir },
      networkEtcd,
      cluster: network?.cluster,
      logFile: calledAs === 'kiwi' ? kiwiLog : undefined,
      problems,
    });
  } catch (error) {
    if (!(error instanceof FailureError)) throw error;
    throw new UsageError(error.message);
  }
}

/** The network that --conf names, else the first one of this node that is kept in etcd. */
function networkOf(args: Args, problems: Problems): AccessConfig | undefined {
  const file = text(args, 'conf');
  try {
    const found =
      file === undefined
        ? readConfFolder(text(args, 'conf-dir') ?? defaultConfDir).networks
        : networksIn(readConfFile(file), file);
    const access = found.map(({ conf }) => readAccessConfig(conf));
    return access.find(({ store }) => store.kind === 'etcd') ?? access[0];
  } catch (error) {
    if (!(error instanceof FailureError)) throw error;
    problems.lines.push(error.message);
    return undefined;
  }
}

/** By the keys of `etcdConfig` that the flags stand for. */
const etcdKeys: Readonly<Record<string, string>> = {
  'etcd-endpoint': 'etcdURL',
  'etcd-cert': 'etcdCertFile',
  'etcd-key': 'etcdKeyFile',
  'etcd-cacert': 'etcdTrustedCAFile',
  'etcd-user': 'etcdUsername',
  'etcd-password-file': 'etcdPasswordFile',
};

function etcdOfFlags(args: Args, problems: Problems): EtcdTarget | undefined {
  const given = Object.entries(etcdKeys).filter(([flag]) => args[flag] !== undefined);
  if (given.length === 0) return undefined;
  if (args['etcd-endpoint'] === undefined) {
    problems.lines.push(`--${given[0]![0]} needs --etcd-endpoint, the etcd that it is for`);
    return undefined;
  }
  try {
    const etcdConfig = Object.fromEntries(given.map(([flag, key]) => [key, args[flag]]));
    return etcdIn(etcdConfig);
  } catch (error) {
    if (!(error instanceof FailureError)) throw error;
    problems.lines.push(inFlags(error.message));
    return undefined;
  }
}

function etcdAt(url: string): EtcdTarget {
  return etcdIn({ etcdURL: url });
}

function etcdIn(etcdConfig: Readonly<Record<string, unknown>>): EtcdTarget {
  const { store } = readAccessConfig({ name: '', ipam: { etcdConfig } });
  if (store.kind !== 'etcd') throw new Error('an etcdConfig names no etcd');
  return store;
}

function inFlags(message: string): string {
  const flagOf = Object.fromEntries(Object.entries(etcdKeys).map(([flag, key]) => [key, `--${flag}`]));
  return message
    .replace(/^network "": /, '')
    .replace(/ \(\d+ problems\)$/, '')
    .replace(/(?:ipam\.etcdConfig\.)?\betcd[A-Z]\w+/g, key => flagOf[key.replace('ipam.etcdConfig.', '')] ?? key);
}
