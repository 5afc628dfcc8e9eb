// Reads the `ipam` part of a network configuration (docs/reference.md lists every key) and reports all its problems at once.
import { deadlineRule, durationRule, parseDeadline, parseDuration } from '../base/duration.ts';
import { code, FailureError } from '../base/errors.ts';
import { type LogTarget, logLevels } from '../base/log.ts';
import { Problems, Section } from '../base/section.ts';
import { parseIpWithPrefix } from '../net/cidr.ts';
import { parseIp } from '../net/ip.ts';
import type { Span } from '../net/span.ts';
import { reservedSpaces } from '../store/keys.ts';
import type { StoreTarget } from '../store/target.ts';
import { defaultDataDir, defaultTimeout } from './defaults.ts';
import { featureNodes, poolPrefix } from './model.ts';
import {
  asName,
  checkSets,
  mostSets,
  nameRule,
  type PlacedSet,
  type RangeSet,
  readExclude,
  readRange,
  selectorKeys,
} from './range.ts';
import { type Route, readRoutes } from './routes.ts';
import { readStoreTarget } from './store-config.ts';

/** All that DEL needs: no other fault in the configuration stops it. */
export interface AccessConfig {
  readonly network: string;
  readonly space: string;
  readonly cluster: string;
  readonly nodeName: string | undefined;
  readonly store: StoreTarget;
  /** Seconds for which a released address is not given to another owner. */
  readonly cooldown: number;
  /** Budget of a whole command in milliseconds. */
  readonly timeout: number;
  readonly log: LogTarget;
}

/** Whose pods keep their random addresses for as long as the workload exists, unless a pod's annotation says otherwise. */
export interface StickySettings {
  readonly statefulSets: boolean;
  readonly vms: boolean;
}

/** What an allocation goes by, be it from the ranges of a network or from a pool. */
export interface Allotment extends Pick<AccessConfig, 'network' | 'cluster' | 'cooldown' | 'timeout'> {
  readonly sets: readonly RangeSet[];
  readonly exclude: readonly Span[];
  /** Seconds for which a released fixed address that lies among the random ones is kept for whoever names it. */
  readonly fixedHold: number;
}

export interface NetworkConfig extends AccessConfig, Allotment {
  readonly routes: readonly Route[];
  readonly resolvConf: string | undefined;
  readonly status: 'full' | 'local';
  /** Addresses asked for by runtimeConfig.ips or args.cni.ips, as written. */
  readonly requested: readonly string[];
  /** Path of the kubeconfig; pods' annotations and labels count if and only if it is set. */
  readonly kubeConfig: string | undefined;
  readonly sticky: StickySettings;
  /** Keys that no ADD can be served with. */
  readonly unsupportedKeys: readonly string[];
}

const defaults = {
  space: 'default',
  cluster: 'default',
  dataDir: defaultDataDir,
  timeout: defaultTimeout,
  fixedHold: 3_600_000,
  logFile: '/var/log/kube-ipam.log',
  logMaxSize: 20 * 2 ** 20,
};

/** Reads the whole configuration. Throws one FailureError (code 7) that names every problem. */
export function readNetworkConfig(conf: Readonly<Record<string, unknown>>, cniVersion: string): NetworkConfig {
  const problems = new Problems();
  const root = new Section(conf, '', problems);
  const ipam = ipamSection(root);
  const access = readAccess(root, ipam);
  if (access.network.startsWith(poolPrefix))
    root.wrong('name', `names that begin with "${poolPrefix}" are those of pools`);
  const kubeConfig = readKubeConfig(ipam);
  const config: NetworkConfig = {
    ...access,
    sets: readSets(root, ipam, cniVersion),
    exclude: readExclude(ipam),
    routes: readRoutes(ipam, cniVersion),
    resolvConf: ipam.filledText('resolvConf'),
    status: ipam.parsed('status', oneOf(['full', 'local'] as const), 'must be "full" or "local"') ?? 'full',
    requested: readRequested(root),
    kubeConfig,
    sticky: readSticky(ipam),
    fixedHold: readHold(ipam, 'fixedHold', defaults.fixedHold),
    unsupportedKeys: readUnsupportedKeys(root, ipam),
  };
  if (kubeConfig === undefined) refuseWithoutApi(root, ipam);
  throwProblems(access.network, problems);
  return Object.freeze(config);
}

/**
 * Reads what DEL and GC need. Problems of these keys throw (code 7); every other fault is left alone, and settings that
 * only tune the work fall back to their defaults.
 */
export function readAccessConfig(conf: Readonly<Record<string, unknown>>): AccessConfig {
  const problems = new Problems();
  const root = new Section(conf, '', problems);
  const access = readAccess(root, ipamSection(root), new Problems());
  throwProblems(access.network, problems);
  return Object.freeze(access);
}

function throwProblems(network: string, problems: Problems): void {
  if (problems.lines.length === 0) return;
  const count = problems.lines.length === 1 ? '' : ` (${problems.lines.length} problems)`;
  throw new FailureError(code.config, `network ${JSON.stringify(network)}: ${problems.lines.join('; ')}${count}`);
}

function ipamSection(root: Section): Section {
  if (!root.has('ipam')) root.wrong('ipam', 'is missing: it must hold the configuration of kube-ipam');
  return root.section('ipam') ?? new Section({}, 'ipam', new Problems());
}

function readAccess(root: Section, ipam: Section, tuningProblems = root.problems): AccessConfig {
  const tuning = ipam.reporting(tuningProblems);
  const name = (key: string, section = ipam) => section.parsed(key, asName, nameRule);
  // With etcd the folder holds this node's state only, and an ADD with a bad one has left none.
  const place = ipam.has('etcdConfig') ? tuning : ipam;
  // Whoever asks the agent reads it before any of this is loaded; here it is only checked.
  tuning.parsed('agentSocket', asPathOrEmpty, 'must be an absolute path, or "" to ask no agent');
  const dataDir = place.parsed('dataDir', asFolder, 'must be an absolute path, not below /proc') ?? defaults.dataDir;
  return {
    network: root.text('name') ?? '',
    space:
      ipam.parsed('addressSpace', asSpace, `${nameRule}, and be none of ${reservedSpaces.join(', ')}`) ??
      defaults.space,
    cluster: name('cluster', tuning) ?? defaults.cluster,
    nodeName: ipam.parsed('nodeName', asNodeName, `${nameRule}, and be none of ${featureNodes.join(', ')}`),
    store: readStoreTarget(ipam, dataDir, tuningProblems),
    cooldown: readHold(tuning, 'cooldown', 0),
    timeout: tuning.parsed('timeout', parseDeadline, deadlineRule) ?? defaults.timeout,
    log: {
      file:
        tuning.parsed('logFile', asLogFile, 'must be an absolute path, and not standard output') ?? defaults.logFile,
      level: tuning.parsed('logLevel', oneOf(logLevels), `must be one of ${logLevels.join(', ')}`) ?? 'info',
      maxSize: tuning.parsed('logMaxSize', asSize, 'must be a number of bytes, or "20MB"') ?? defaults.logMaxSize,
    },
  };
}

/** A DEL must not come upon the attachments of features. */
function asSpace(value: unknown): string | undefined {
  const space = asName(value);
  return space !== undefined && !reservedSpaces.includes(space) ? space : undefined;
}

function asNodeName(value: unknown): string | undefined {
  const name = asName(value);
  return name !== undefined && featureNodes.includes(name) ? undefined : name;
}

function asAbsolutePath(value: unknown): string | undefined {
  return typeof value === 'string' && value.startsWith('/') && !value.includes('\0') ? value : undefined;
}

/** Making a folder below /proc never ends in Node: the kernel denies that the parent exists, again and again. */
function asFolder(value: unknown): string | undefined {
  const path = asAbsolutePath(value);
  return path !== undefined && /^\/+proc(\/|$)/.test(path) ? undefined : path;
}

/** Standard output belongs to the runtime: one byte of a log in it spoils the result. */
function asLogFile(value: unknown): string | undefined {
  const path = asAbsolutePath(value);
  return path !== undefined && /^\/+(dev\/+(stdout|fd\/+1)|proc\/+[^/]+\/+fd\/+1)$/.test(path) ? undefined : path;
}

/** Whole seconds, as leases and expiries count them. */
function readHold(section: Section, key: string, byDefault: number): number {
  return Math.ceil((section.parsed(key, asHold, `${durationRule}, at most a year`) ?? byDefault) / 1000);
}

function asHold(value: unknown): number | undefined {
  const ms = parseDuration(value);
  return ms !== undefined && ms <= 366 * 86_400_000 ? ms : undefined;
}

function asSize(value: unknown): number | undefined {
  if (typeof value === 'number') return Number.isInteger(value) && value > 0 ? value : undefined;
  const match = typeof value === 'string' ? /^(\d{1,9}) ?([KMG]i?B?|B)?$/i.exec(value) : null;
  if (match === null) return undefined;
  const power = 'BKMG'.indexOf((match[2] ?? 'B')[0]!.toUpperCase());
  return Number(match[1]) * 1024 ** power || undefined;
}

function oneOf<T extends string>(values: readonly T[]): (value: unknown) => T | undefined {
  return value => values.find(one => one === value);
}

const rangeKeys = ['subnet', 'rangeStart', 'rangeEnd', 'gateway', 'fixedStart', 'fixedEnd', ...selectorKeys];

/** runtimeConfig.ipRanges first, then the range written directly in `ipam`, then `ranges` (as host-local merges them). */
function readSets(root: Section, ipam: Section, cniVersion: string): RangeSet[] {
  const direct = rangeKeys.some(key => ipam.has(key) && ipam.get(key) !== '') ? [[ipam]] : [];
  const written = [...runtimeRanges(root), ...direct, ...ipam.sectionLists('ranges')];
  const placed = written.map((sections): PlacedSet => {
    // `ipam.name` is a key of its own that old configurations carry; it names no range.
    const read = sections.map(section => ({
      path: section.path,
      range: readRange(section, section === ipam ? undefined : readRangeName(section)),
    }));
    const good = read.filter(({ range }) => range !== undefined);
    return { ranges: Object.freeze(good.map(({ range }) => range!)), paths: good.map(({ path }) => path) };
  });
  if (written.length === 0 && isEmpty(ipam.get('ranges')))
    ipam.wrong('subnet', 'no range is configured: give subnet, or ranges');
  const usable = placed.filter(({ ranges }) => ranges.length > 0);
  checkSets(usable, ipam.problems);
  const sets = usable.map(({ ranges }) => ranges);
  checkSetCount(sets, ipam, cniVersion);
  return sets;
}

/** By its name a pod chooses a range, in a list divided by commas. */
function readRangeName(section: Section): string | undefined {
  return section.get('name') === '' ? undefined : section.parsed('name', asName, nameRule);
}

function runtimeRanges(root: Section): Section[][] {
  return root.section('runtimeConfig')?.sectionLists('ipRanges') ?? [];
}

function isEmpty(list: unknown): boolean {
  return list === undefined || (Array.isArray(list) && list.length === 0);
}

function checkSetCount(sets: readonly RangeSet[], ipam: Section, cniVersion: string): void {
  if (sets.length > mostSets) ipam.problems.add(ipam.pathOf('ranges'), sets.length, `at most ${mostSets} sets`);
  if (!['0.1.0', '0.2.0'].includes(cniVersion)) return;
  for (const family of [4, 6] as const) {
    if (sets.filter(set => set[0]!.family === family).length > 1) {
      ipam.problems.add(
        'cniVersion',
        cniVersion,
        `allows one IPv${family} address: use 0.3.0 or later for several sets`,
      );
    }
  }
}

/** runtimeConfig wins over args.cni (CONVENTIONS.md of CNI); CNI_ARGS come last and are the caller's business. */
function readRequested(root: Section): string[] {
  for (const section of [root.section('runtimeConfig'), root.section('args')?.section('cni')]) {
    const list = section?.list('ips') ?? [];
    for (const [i, item] of list.entries()) {
      if (typeof item === 'string' && (parseIp(item) ?? parseIpWithPrefix(item)) !== undefined) continue;
      root.problems.add(`${section!.pathOf('ips')}[${i}]`, item, 'must be an address, with or without a prefix length');
    }
    if (list.length > 0) return list.filter(item => typeof item === 'string');
  }
  return [];
}

/** Where the first releases put it counts too; "" is absent. */
function readKubeConfig(ipam: Section): string | undefined {
  const etcd = ipam.reporting(new Problems()).section('etcdConfig')?.reporting(ipam.problems);
  const [own, old] = [ipam, etcd].map(section =>
    section?.parsed('kubeConfig', asPathOrEmpty, 'must be an absolute path'),
  );
  return own || old || undefined;
}

function asPathOrEmpty(value: unknown): string | undefined {
  return value === '' ? value : asAbsolutePath(value);
}

const stickyValues = new Map<unknown, StickySettings>([
  [false, { statefulSets: false, vms: false }],
  ['statefulset', { statefulSets: true, vms: false }],
  ['vm', { statefulSets: false, vms: true }],
  [true, { statefulSets: true, vms: true }],
]);

function readSticky(ipam: Section): StickySettings {
  const rule = 'must be false, "statefulset", "vm" or true (both)';
  return ipam.parsed('sticky', value => stickyValues.get(value), rule) ?? stickyValues.get(false)!;
}

/** All ranges as written: those of the runtime, the one written directly, and those of the list. */
function rangeSections(root: Section, ipam: Section): Section[] {
  const quiet = new Problems();
  return [...runtimeRanges(root.reporting(quiet)), [ipam], ...ipam.reporting(quiet).sectionLists('ranges')].flat();
}

/** Notes the keys that only the Kubernetes API can answer. */
function refuseWithoutApi(root: Section, ipam: Section): void {
  const rule = 'needs kubeConfig: it takes the Kubernetes API to know';
  if (ipam.get('sticky') !== false && ipam.has('sticky')) ipam.wrong('sticky', rule);
  for (const section of rangeSections(root, ipam)) {
    for (const key of selectorKeys) if (section.has(key)) section.reporting(ipam.problems).wrong(key, rule);
  }
}

/** Keys whose meaning this version does not have: to ignore one would hand out an address that was not meant. */
function readUnsupportedKeys(root: Section, ipam: Section): string[] {
  return rangeSections(root, ipam).flatMap(section =>
    ['nodeCIDR', 'policy']
      .filter(key => section.has(key) && section.get(key) !== false)
      .map(key => section.pathOf(key)),
  );
}
