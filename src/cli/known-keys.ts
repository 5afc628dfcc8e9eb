// The keys that a network configuration may have below `ipam`, so that a typing error can be told.
import { isObject } from '../base/section.ts';
import { didYouMean } from './suggest.ts';

const rangeKeys = [
  ...['subnet', 'rangeStart', 'rangeEnd', 'gateway', 'fixedStart', 'fixedEnd'],
  ...['namespaces', 'nodes', 'pods'],
];
const namedRangeKeys = [...rangeKeys, 'name'];
const routeKeys = ['dst', 'gw', 'mtu', 'advmss', 'priority', 'table', 'scope'];
const etcdKeys = [
  ...['etcdURL', 'etcdCertFile', 'etcdKeyFile', 'etcdTrustedCAFileFile', 'etcdTrustedCAFile'],
  ...['etcdUsername', 'etcdPasswordFile', 'dialTimeout', 'requestTimeout', 'kubeConfig'],
];

/** docs/reference.md explains each of them. */
export const ipamKeys = [
  ...['type', 'name', ...rangeKeys, 'ranges', 'routes', 'resolvConf', 'exclude'],
  ...['etcdConfig', 'dataDir', 'addressSpace', 'nodeName', 'cluster', 'agentSocket', 'timeout', 'status', 'cooldown'],
  ...['logFile', 'logLevel', 'logMaxSize', 'kubeConfig', 'sticky', 'fixedHold', 'nodeCIDR', 'policy'],
];

/** One sentence for each key that nobody reads. */
export function unknownKeys(conf: Readonly<Record<string, unknown>>): string[] {
  const { ipam } = conf;
  if (!isObject(ipam)) return [];
  const ranges = listOf(ipam.ranges).flatMap((set, i) =>
    listOf(set).flatMap((range, j) => unknownIn(range, namedRangeKeys, `ipam.ranges[${i}][${j}]`)),
  );
  const routes = listOf(ipam.routes).flatMap((route, i) => unknownIn(route, routeKeys, `ipam.routes[${i}]`));
  return [
    ...unknownIn(ipam, ipamKeys, 'ipam'),
    ...unknownIn(ipam.etcdConfig, etcdKeys, 'ipam.etcdConfig'),
    ...ranges,
    ...routes,
  ];
}

function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

function unknownIn(section: unknown, known: readonly string[], path: string): string[] {
  if (!isObject(section)) return [];
  const unknown = Object.keys(section).filter(key => !known.includes(key));
  return unknown.map(key => `${path}.${key}: kube-ipam knows no such key and ignores it${didYouMean(key, known)}`);
}
