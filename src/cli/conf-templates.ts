// The ready network configurations, one for each main plugin and store: what `kube-ipam conf` prints and cni-conf/ holds.
import { code, FailureError } from '../base/errors.ts';

/** The main plugins for which a configuration is kept ready. */
export const mainPlugins = ['macvlan', 'ipvlan', 'bridge', 'ptp', 'kube-router', 'calico', 'multus'] as const;
export type MainPlugin = (typeof mainPlugins)[number];

/** One range, as host-local and kube-ipam read it. */
export interface RangeConf {
  readonly subnet: string;
  readonly rangeStart?: string;
  readonly rangeEnd?: string;
  readonly gateway?: string;
}

export interface RouteConf {
  readonly dst: string;
  readonly gw?: string;
}

/** `ipam.etcdConfig`, in words; `urls` is a comma list. */
export interface EtcdConf {
  readonly urls: string;
  readonly certFile?: string;
  readonly keyFile?: string;
  readonly caFile?: string;
  readonly username?: string;
  readonly passwordFile?: string;
}

/** What the flags of `kube-ipam conf` can say; whatever is absent takes the value that cni-conf/ shows. */
export interface ConfOptions {
  readonly name?: string;
  readonly cniVersion?: string;
  /** A list of sets: one address from each set. */
  readonly ranges?: readonly (readonly RangeConf[])[];
  /** The ranges of multus' second network. */
  readonly secondRanges?: readonly (readonly RangeConf[])[];
  readonly routes?: readonly RouteConf[];
  /** Absent: the embedded store. */
  readonly etcd?: EtcdConf;
  readonly dataDir?: string;
  /** The host's interface below macvlan and ipvlan. */
  readonly master?: string;
  readonly bridge?: string;
  readonly mtu?: number;
  /** By it the wishes of pods count. */
  readonly kubeConfig?: string;
  /** Whose pods keep their addresses. */
  readonly sticky?: 'statefulset' | 'vm' | true;
  /** What calico and multus themselves ask the API with. */
  readonly mainKubeConfig?: string;
}

/** One plugin's configuration, as it stands in a list. */
export interface PluginConf {
  readonly type: string;
  readonly [key: string]: unknown;
}

/** A network configuration list (`.conflist`; CNI specification, "Network configuration format"). */
export interface ConfList {
  readonly cniVersion: string;
  readonly name: string;
  readonly plugins: readonly PluginConf[];
}

// 1.1.0 would add STATUS, but stock plugins answer "incompatible CNI versions" to it before their release 1.6.
const defaultCniVersion = '1.0.0';
const podRange: RangeConf = {
  subnet: '10.188.0.0/16',
  rangeStart: '10.188.0.10',
  rangeEnd: '10.188.255.250',
  gateway: '10.188.0.1',
};
const secondRange: RangeConf = { subnet: '10.189.0.0/16', rangeStart: '10.189.0.10', rangeEnd: '10.189.255.250' };

/** The etcd of the shipped examples: three members, client certificates (addresses of RFC 5737). */
export const exampleEtcd: EtcdConf = {
  urls: 'https://192.0.2.11:2379,https://192.0.2.12:2379,https://192.0.2.13:2379',
  certFile: '/etc/kube-ipam/etcd-client.crt',
  keyFile: '/etc/kube-ipam/etcd-client.key',
  caFile: '/etc/kube-ipam/etcd-ca.crt',
};

/** The folder of the embedded store where no other is named (design: `dataDir`). */
export const defaultDataDir = '/var/lib/cni/kube-ipam';

/**
 * The network configuration of kube-ipam below one main plugin, ready to be written as a `.conflist`.
 * Nothing in it is checked here: the configuration's own reader does that, with all its rules.
 */
export function confFor(plugin: MainPlugin, options: ConfOptions = {}): ConfList {
  return {
    cniVersion: options.cniVersion ?? defaultCniVersion,
    name: options.name ?? 'pods',
    plugins: pluginsOf[plugin](options),
  };
}

/**
 * The same network as the older one-plugin form, for files that end in `.conf`.
 * Throws a FailureError (7) where the list chains several plugins, which that form cannot express.
 */
export function asSingleConf(list: ConfList): PluginConf {
  const [only, ...chained] = list.plugins;
  if (only === undefined || chained.length > 0) {
    const types = list.plugins.map(each => each.type).join(', ');
    throw new FailureError(
      code.config,
      `network ${list.name} has ${list.plugins.length} plugins (${types}) and a .conf file holds exactly one: name the file .conflist`,
    );
  }
  return { cniVersion: list.cniVersion, name: list.name, ...only };
}

/** A configuration as the bytes of its file. */
export function confText(conf: ConfList | PluginConf): string {
  return `${JSON.stringify(conf, null, 2)}\n`;
}

/** Each file of cni-conf/ with its text: what `confFor` gives without flags, for both stores. */
export function shippedConfs(): ReadonlyMap<string, string> {
  const files = mainPlugins.flatMap(plugin => {
    const base = plugin === 'kube-router' ? '10-kuberouter' : plugin;
    return [
      [`${base}-embedded.conflist`, confText(confFor(plugin))],
      [`${base}-etcd.conflist`, confText(confFor(plugin, { etcd: exampleEtcd }))],
    ] as const;
  });
  return new Map(files);
}

type Builder = (options: ConfOptions) => readonly PluginConf[];

const pluginsOf: Readonly<Record<MainPlugin, Builder>> = {
  macvlan: options => [macvlan(options, ipamOf(options))],
  ipvlan: options => [
    { type: 'ipvlan', master: options.master ?? 'eth0', mode: 'l2', ...mtuOf(options), ipam: ipamOf(options) },
  ],
  bridge: options => [bridge(options, ipamOf(options))],
  ptp: options => [{ type: 'ptp', ipMasq: options.etcd === undefined, ...mtuOf(options), ipam: ipamOf(options) }],
  'kube-router': options => [
    {
      type: 'bridge',
      bridge: options.bridge ?? 'kube-bridge',
      isDefaultGateway: true,
      hairpinMode: true,
      ...mtuOf(options),
      ipam: ipamOf(options, []),
    },
  ],
  calico: options => [
    calico(options),
    { type: 'portmap', snat: true, capabilities: { portMappings: true } },
    { type: 'bandwidth', capabilities: { bandwidth: true } },
  ],
  multus: options => [multus(options)],
};

function macvlan(options: ConfOptions, ipam: IpamConf): PluginConf {
  return { type: 'macvlan', master: options.master ?? 'eth0', mode: 'bridge', ...mtuOf(options), ipam };
}

/**
 * On one machine the bridge is the pods' router and hides them behind the host's address. With etcd one subnet spans
 * several hosts, so the bridge is a switch joined to their common network, whose router is the gateway: an address
 * of the gateway on every host's bridge would be the same address many times.
 */
function bridge(options: ConfOptions, ipam: IpamConf): PluginConf {
  const router = options.etcd === undefined;
  const own = router ? { isGateway: true, ipMasq: true } : { isGateway: false, ipMasq: false };
  return { type: 'bridge', bridge: options.bridge ?? 'cni0', ...own, ...mtuOf(options), ipam };
}

function calico(options: ConfOptions): PluginConf {
  const kubeConfig = options.mainKubeConfig ?? '/etc/cni/net.d/calico-kubeconfig';
  return {
    type: 'calico',
    datastore_type: 'kubernetes',
    log_level: 'info',
    ...mtuOf(options),
    // Felix routes each pod by itself, so a default route of ours would only stand in the way of calico's own.
    ipam: ipamOf(options, []),
    policy: { type: 'k8s' },
    kubernetes: { kubeconfig: kubeConfig },
  };
}

/**
 * Two networks for every pod: the first becomes eth0 and carries the default route, the second becomes net1. They need
 * two host interfaces: one that is a port of the bridge cannot carry macvlan interfaces as well.
 */
function multus(options: ConfOptions): PluginConf {
  const cniVersion = options.cniVersion ?? defaultCniVersion;
  const name = options.name ?? 'pods';
  const second: ConfOptions = { ...options, ranges: options.secondRanges ?? [[secondRange]] };
  const master = options.master ?? 'eth1';
  return {
    type: 'multus',
    kubeconfig: options.mainKubeConfig ?? '/etc/cni/net.d/multus.d/multus.kubeconfig',
    delegates: [
      { cniVersion, name: `${name}-eth0`, ...bridge(options, ipamOf(options)) },
      { cniVersion, name: `${name}-net1`, ...macvlan({ ...options, master }, ipamOf(second, [])) },
    ],
  };
}

interface IpamConf {
  readonly type: 'kube-ipam';
  readonly [key: string]: unknown;
}

function ipamOf(options: ConfOptions, routesWanted?: readonly RouteConf[]): IpamConf {
  const ranges = options.ranges ?? [[podRange]];
  const routes = options.routes ?? routesWanted ?? defaultRoutes(ranges);
  return {
    type: 'kube-ipam',
    ...storeOf(options),
    ...given('kubeConfig', options.kubeConfig),
    ...given('sticky', options.sticky),
    ranges,
    ...(routes.length > 0 ? { routes } : {}),
  };
}

/** One default route for each family that the ranges have. */
function defaultRoutes(ranges: readonly (readonly RangeConf[])[]): readonly RouteConf[] {
  const subnets = ranges.flat().map(range => range.subnet);
  const routes: RouteConf[] = [];
  if (subnets.some(subnet => !subnet.includes(':'))) routes.push({ dst: '0.0.0.0/0' });
  if (subnets.some(subnet => subnet.includes(':'))) routes.push({ dst: '::/0' });
  return routes;
}

function storeOf(options: ConfOptions): Readonly<Record<string, unknown>> {
  const { etcd, dataDir } = options;
  if (etcd === undefined) return { dataDir: dataDir ?? defaultDataDir };
  const etcdConfig = {
    etcdURL: etcd.urls,
    ...given('etcdCertFile', etcd.certFile),
    ...given('etcdKeyFile', etcd.keyFile),
    // The odd spelling is the wire name that networks of release 0.2 carry.
    ...given('etcdTrustedCAFileFile', etcd.caFile),
    ...given('etcdUsername', etcd.username),
    ...given('etcdPasswordFile', etcd.passwordFile),
  };
  return { etcdConfig, ...given('dataDir', dataDir), status: 'local' };
}

function mtuOf(options: ConfOptions): Readonly<Record<string, unknown>> {
  return given('mtu', options.mtu);
}

function given(key: string, value: unknown): Readonly<Record<string, unknown>> {
  return value === undefined ? {} : { [key]: value };
}
