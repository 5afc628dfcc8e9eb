// What `kube-ipam public-ip` was told to do: its flags, and those that users of kiwi know, read into one frozen Config. Pure.
import { parseDuration, parsePositiveDuration } from '../base/duration.ts';
import { code, FailureError } from '../base/errors.ts';
import { type ListenAddress, listenRule, parseListen } from '../base/listen.ts';
import { type LogLevel, logLevels } from '../base/log.ts';
import { type Problems, Section } from '../base/section.ts';
import { parseSelector, type Selector } from '../base/selector.ts';
import { publicIp } from '../host/numbers.ts';
import type { TargetSource } from '../kube/credentials.ts';
import { type Cidr, cidrOf, parseIpWithPrefix } from '../net/cidr.ts';
import { bits, type Ip, parseIp } from '../net/ip.ts';
import { namePattern } from '../store/keys.ts';
import type { EtcdTarget } from '../store/target.ts';

/** Of the state that outlives a restart, and of the lock. */
export const defaultFolders = { state: '/var/lib/kube-ipam', run: '/run/kube-ipam' } as const;

export interface Config {
  /** Name of this node in Kubernetes. */
  readonly node: string;
  readonly cluster: string;
  /** This agent's id in the store: the value of each claim of its own. */
  readonly id: string;
  /** The interface that carries the public addresses. */
  readonly interface: string;
  /** Where claims are kept. */
  readonly etcd: EtcdTarget;
  /** Where owner records are kept, when that is another etcd; undefined: beside the claims. */
  readonly store: EtcdTarget | undefined;
  /** Address space of the owner records. */
  readonly space: string;
  /** Prefix of the claims' keys: begins and ends with "/". */
  readonly prefix: string;
  /** Seconds to ask etcd for, `leastTtl` or more; a host without nft must ask for `leastTtlWithoutNft`. */
  readonly ttl: number;
  /** How the Kubernetes API is reached. */
  readonly kubernetes: TargetSource;
  /** Each public address must lie in one of them; none at all: this is not checked. */
  readonly ranges: readonly Cidr[];
  /** Further ranges of ClusterIPs and pods, which are no public addresses. */
  readonly clusterRanges: readonly Cidr[];
  /** Namespaces whose Services may have public addresses; undefined: all. */
  readonly namespaces: ReadonlySet<string> | undefined;
  /** What a node's labels must meet. */
  readonly nodeSelector: Selector;
  /** Chain of the table mangle in which packets are marked. */
  readonly chain: string;
  readonly mark: { readonly value: number; readonly mask: number | undefined };
  /** Next hops for replies that leave by our addresses, one of a family at most. */
  readonly gateways: readonly Ip[];
  /** False: no address, rule or sysctl is touched; claims are made all the same. */
  readonly drives: boolean;
  readonly probe: boolean;
  readonly sysctl: boolean;
  readonly rebalance: boolean;
  readonly onExit: 'handover' | 'keep';
  /** Milliseconds between two rounds of announcements of an address; 0: none after the first ones. */
  readonly garpInterval: number;
  /** The longest wait before something remote is tried again, in milliseconds. */
  readonly reconnect: number;
  /** Where health and metrics are served; undefined: nowhere. */
  readonly listen: ListenAddress | undefined;
  /** Folder of the state that outlives a restart: `public-ip/` and `ledger.json`. */
  readonly stateDir: string;
  /** Folder of the lock. */
  readonly runDir: string;
  readonly log: {
    /** Undefined: standard error. */
    readonly file: string | undefined;
    readonly level: LogLevel;
  };
}

/** Seconds: a fence that stands 2 s before the lease ends must leave time for renewals (contract N1, F3). */
export const leastTtl = 5;
/** Where address lifetimes are the only fence: they are whole seconds, and end up to 2 s late. */
export const leastTtlWithoutNft = 9;
const usualTtl = 10;
const longestTtl = 3600;

/** What is known beside the flags. */
export interface Origin {
  readonly node: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** The etcd of the flags, else of this node's network configuration, else where etcd listens by itself. */
  readonly etcd: EtcdTarget;
  /** The etcd of this node's network configuration, if it has one. */
  readonly networkEtcd: EtcdTarget | undefined;
  /** The name of the cluster in this node's network configuration. */
  readonly cluster: string | undefined;
  /** The log's file, where the flags name none; undefined: standard error. */
  readonly logFile: string | undefined;
  /** Takes what is wrong with the flags, and may hold something already. */
  readonly problems: Problems;
}

/**
 * Flags by their names without dashes: strings, booleans, and lists for those that may be given several times. Throws
 * code 7 that names every problem.
 */
export function configOf(flags: Readonly<Record<string, unknown>>, origin: Origin): Config {
  const { node, etcd, networkEtcd, problems } = origin;
  const named = Object.fromEntries(Object.entries(flags).map(([name, value]) => [`--${name}`, value]));
  const options = new Section(named, '', problems);
  const duration = (key: string, usual: number) => options.parsed(key, asDuration, durationRule) ?? usual;
  const folder = (key: string, usual: string) => options.parsed(key, asFolder, folderRule) ?? usual;
  const cluster = options.parsed('--cluster', asName, nameRule) ?? origin.cluster ?? 'default';
  const config: Config = {
    node,
    cluster,
    id: readId(options, cluster, node),
    interface: options.parsed('--interface', asInterface, 'must be the name of a network interface') ?? 'eth0',
    etcd,
    store: networkEtcd === undefined || shareEndpoint(etcd, networkEtcd) ? undefined : networkEtcd,
    space: options.parsed('--space', asName, nameRule) ?? 'default',
    prefix: options.parsed('--etcd-prefix', asPrefix, prefixRule) ?? '/kiwi/',
    ttl: readTtl(options),
    kubernetes: readKubernetes(options, origin.env),
    ranges: each(options, '--cidr-range', asCidr, cidrRule),
    clusterRanges: [
      ...each(options, '--service-cidr', asCidr, cidrRule),
      ...each(options, '--pod-cidr', asCidr, cidrRule),
    ],
    namespaces: options.has('--allow-namespace')
      ? new Set(each(options, '--allow-namespace', asNamespace, 'must be the name of a namespace'))
      : undefined,
    nodeSelector: options.parsed('--node-selector', asSelector, 'must be a label selector, as kubectl takes it') ?? [],
    chain: options.parsed('--fwchain', asChain, 'must be 1 to 28 letters, digits, "_" and "-"') ?? publicIp.chain,
    mark: options.parsed('--fwmark', asMark, markRule) ?? { value: publicIp.mark, mask: undefined },
    gateways: readGateways(options),
    drives: options.get('--no-driver') !== true,
    probe: options.get('--probe') !== 'off',
    sysctl: options.get('--no-sysctl') !== true,
    rebalance: options.get('--rebalance') !== 'off',
    onExit: options.get('--on-exit') === 'keep' ? 'keep' : 'handover',
    garpInterval: duration('--garp-interval', 60_000),
    reconnect: Math.max(100, duration('--reconnect-interval', 5000)),
    listen: readListen(options),
    stateDir: folder('--state-dir', defaultFolders.state),
    runDir: folder('--run-dir', defaultFolders.run),
    log: readLog(options, origin.logFile),
  };
  if (problems.lines.length > 0) throw new FailureError(code.config, problems.lines.join('; '));
  return Object.freeze(config);
}

function readId(options: Section, cluster: string, node: string): string {
  const named = options.parsed('--agent-id', asName, nameRule);
  const short = options.parsed('--id', asName, nameRule);
  if (named !== undefined && short !== undefined && named !== short) {
    options.wrong('--id', 'is another name of --agent-id: give one of them');
  }
  // Nodes of two clusters that share an etcd may have one name.
  return named ?? short ?? (cluster === 'default' ? node : `${cluster}.${node}`);
}

/** Kiwi's claims lived for twice the interval at which it renewed them. */
function readTtl(options: Section): number {
  const rule = `must be a number of seconds or a duration like "10s", from ${leastTtl} s to an hour`;
  const ttl = options.parsed('--ttl', asTtl, rule);
  const renewal = options.parsed('--refresh-interval', asRefresh, 'must be a number of seconds above 0, at most 1800');
  return ttl ?? (renewal === undefined ? usualTtl : Math.max(leastTtl, Math.ceil(2 * renewal)));
}

/** Kiwi asked for no credentials, and found an API server on this machine where no flag named one. */
function readKubernetes(options: Section, env: Origin['env']): TargetSource {
  const endpoint = options.parsed('--kube-endpoint', asEndpoint, 'must be http://HOST:PORT or https://HOST:PORT');
  const kubeconfig = options.text('--kubeconfig');
  if (options.has('--kube-endpoint') && kubeconfig !== undefined) {
    options.wrong('--kubeconfig', 'names another way to the API than --kube-endpoint: give one of them');
  }
  if (endpoint !== undefined) return { endpoint, env };
  if (kubeconfig !== undefined) return { kubeconfig, env };
  if (env.KUBERNETES_SERVICE_HOST) return { env };
  return env.KUBECONFIG ? { kubeconfig: env.KUBECONFIG, env } : { endpoint: 'http://localhost:8080', env };
}

function readGateways(options: Section): readonly Ip[] {
  const gateways = each(options, '--gateway', asIp, 'must be an IP address');
  if (new Set(gateways.map(({ family }) => family)).size < gateways.length) {
    options.wrong('--gateway', 'names several next hops of one family: give one for IPv4, and one for IPv6');
  }
  return gateways;
}

function readListen(options: Section): ListenAddress | undefined {
  const listen = options.parsed('--listen', parseListen, listenRule);
  return listen === 'off' ? undefined : listen;
}

function readLog(options: Section, usual: string | undefined): Config['log'] {
  const file = options.parsed('--log-file', asLogFile, 'must be an absolute path, or "-" for standard error') ?? usual;
  const isVerbose = ['--verbose', '--debug', '--debug-requests'].some(key => options.get(key) === true);
  const level = logLevels.find(one => one === options.get('--log-level')) ?? (isVerbose ? 'debug' : 'info');
  return { file: file === '-' ? undefined : file, level };
}

/** The values of a flag that may be given several times, each of which may be a comma list. */
function each<T>(options: Section, key: string, read: (value: string) => T | undefined, rule: string): T[] {
  const texts = options.list(key).flatMap(value => String(value).split(','));
  return texts.flatMap(text => {
    const value = read(text.trim());
    if (value === undefined) options.problems.add(key, text, rule);
    return value === undefined ? [] : [value];
  });
}

/** Endpoints are written in many ways; one that both have is enough to know the cluster by. */
function shareEndpoint(a: EtcdTarget, b: EtcdTarget): boolean {
  return a.endpoints.some(endpoint => b.endpoints.includes(endpoint));
}

const nameRule = 'must start with a letter or digit and hold only letters, digits, "_", "." and "-"';
const cidrRule = 'must be a range like 192.168.0.0/16';
const folderRule = 'must be an absolute path, not below /proc';
const durationRule = 'must be a number of seconds or a duration like "1m30s", at most a day';
const prefixRule = "must be a path like /kiwi, and none of kube-ipam's own";
const markRule = 'must be a number from 1 to 0xffffffff, and may have a mask that holds it: 0x1/0xff';

function asName(value: unknown): string | undefined {
  return typeof value === 'string' && namePattern.test(value) ? value : undefined;
}

/** A name that the kernel takes (dev_valid_name), and that stands for one interface wherever it is written. */
function asInterface(value: unknown): string | undefined {
  const isName = typeof value === 'string' && /^[^\s/:]+$/.test(value) && value !== '.' && value !== '..';
  return isName && Buffer.byteLength(value) <= 15 ? value : undefined;
}

function asPrefix(value: unknown): string | undefined {
  if (typeof value !== 'string' || !/^(\/[A-Za-z0-9_.-]+)+\/?$/.test(value)) return undefined;
  const prefix = value.endsWith('/') ? value : `${value}/`;
  return prefix.startsWith('/kube-ipam/') ? undefined : prefix;
}

/** Whole seconds, as etcd counts them. */
function asTtl(value: unknown): number | undefined {
  const ms = parsePositiveDuration(value);
  const seconds = ms === undefined ? 0 : Math.ceil(ms / 1000);
  return seconds >= leastTtl && seconds <= longestTtl ? seconds : undefined;
}

/** Seconds. */
function asRefresh(value: unknown): number | undefined {
  const ms = parsePositiveDuration(value);
  return ms !== undefined && ms <= (longestTtl / 2) * 1000 ? ms / 1000 : undefined;
}

function asDuration(value: unknown): number | undefined {
  const ms = parseDuration(value);
  return ms !== undefined && ms <= 86_400_000 ? ms : undefined;
}

function asEndpoint(value: unknown): string | undefined {
  const url = typeof value === 'string' ? URL.parse(value) : null;
  if (url === null || !['http:', 'https:'].includes(url.protocol)) return undefined;
  return url.username || url.password || url.search || url.hash ? undefined : (value as string);
}

function asIp(value: string): Ip | undefined {
  return parseIp(value);
}

/** Host bits do not matter, as to kiwi; an address alone is a range of one. */
function asCidr(value: string): Cidr | undefined {
  const alone = parseIp(value);
  const parsed = alone === undefined ? parseIpWithPrefix(value) : { ip: alone, prefix: bits(alone.family) };
  return parsed && cidrOf(parsed.ip, parsed.prefix);
}

function asNamespace(value: string): string | undefined {
  return /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(value) ? value : undefined;
}

function asSelector(value: unknown): Selector | undefined {
  return typeof value === 'string' ? parseSelector(value) : undefined;
}

function asChain(value: unknown): string | undefined {
  // The longest name that iptables takes; one that begins with "-" would be read as an option.
  return typeof value === 'string' && /^[A-Za-z0-9_][A-Za-z0-9_-]{0,27}$/.test(value) ? value : undefined;
}

function asMark(value: unknown): Config['mark'] | undefined {
  const [text = '', maskText, ...more] = String(value).split('/');
  const mark = asWord(text);
  const mask = maskText === undefined ? undefined : asWord(maskText);
  if (mark === undefined || more.length > 0 || (maskText !== undefined && mask === undefined)) return undefined;
  return mask === undefined || (mark & ~mask) === 0 ? { value: mark, mask } : undefined;
}

/** 32 bits, not all of them 0. */
function asWord(text: string): number | undefined {
  const value = /^(\d{1,10}|0x[0-9a-f]{1,8})$/i.test(text) ? Number(text) : 0;
  return value >= 1 && value <= 0xffffffff ? value : undefined;
}

function asFolder(value: unknown): string | undefined {
  return typeof value === 'string' && value.startsWith('/') && !/^\/+proc(\/|$)/.test(value) ? value : undefined;
}

function asLogFile(value: unknown): string | undefined {
  return typeof value === 'string' && (value.startsWith('/') || value === '-') ? value : undefined;
}
