// The flags that describe a network configuration: what `conf` prints and `install` writes.
import { checkConf } from '../cni/netconf.ts';
import { readNetworkConfig } from '../ipam/config.ts';
import { type Args, type Flags, given, text, texts, UsageError } from './command.ts';
import {
  asSingleConf,
  type ConfList,
  type ConfOptions,
  confFor,
  type MainPlugin,
  mainPlugins,
  type PluginConf,
  type RangeConf,
} from './conf-templates.ts';
import { networksIn } from './networks.ts';
import { etcdConfigOf, etcdFlags } from './store-access.ts';

export const networkFlags: Flags = {
  name: { type: 'string', value: 'NAME', describe: 'name of the network (pods)' },
  subnet: { type: 'string', value: 'CIDR', describe: 'subnet of the first range (10.188.0.0/16)' },
  'range-start': { type: 'string', value: 'IP', describe: 'first address to give out' },
  'range-end': { type: 'string', value: 'IP', describe: 'last address to give out' },
  gateway: { type: 'string', value: 'IP', describe: 'gateway (first address of the subnet)' },
  range: {
    type: 'string',
    value: 'CIDR[,FIRST-LAST][,gateway=IP]',
    many: true,
    describe: 'a further set: each pod gets one more address from it, say an IPv6 one',
  },
  exclude: { type: 'string', value: 'SPAN', many: true, describe: 'address, first-last or CIDR never to give out' },
  route: { type: 'string', value: 'CIDR[,GATEWAY]', many: true, describe: 'route for the pods (the default route)' },
  ...etcdFlags,
  'data-dir': { type: 'string', value: 'DIR', describe: 'folder of the embedded store, when etcd is not used' },
  master: { type: 'string', value: 'IF', describe: 'host interface below macvlan and ipvlan (eth0)' },
  bridge: { type: 'string', value: 'IF', describe: 'name of the bridge (cni0)' },
  mtu: { type: 'string', value: 'BYTES', describe: 'MTU of the interfaces' },
  'cni-version': { type: 'string', value: 'VERSION', describe: 'version of the CNI specification (1.0.0)' },
  kubeconfig: {
    type: 'string',
    value: 'FILE',
    describe: 'kubeconfig by which annotations of pods and selectors of ranges count (none: they do not)',
  },
  sticky: {
    type: 'string',
    choices: ['statefulset', 'vm', 'all'],
    describe: 'whose pods keep their addresses for as long as the workload exists; needs --kubeconfig',
  },
  'kube-config': { type: 'string', value: 'FILE', describe: 'kubeconfig of the main plugin itself: calico, multus' },
  single: { type: 'boolean', describe: 'one plugin, for a .conf file, instead of a list' },
};

/** The main plugin that was named; the parser has refused others. */
export function mainPluginOf(args: Args): MainPlugin | undefined {
  return mainPlugins.find(one => one === text(args, 'plugin'));
}

/** The configuration that the flags describe. Throws a UsageError that names every problem the plugin would have with it. */
export function confOf(plugin: MainPlugin, args: Args): ConfList | PluginConf {
  const list = withExclusions(confFor(plugin, optionsOf(args)), texts(args, 'exclude'));
  const networks = networksIn({ ...list }, 'flags');
  for (const { conf } of networks) {
    try {
      readNetworkConfig(conf, checkConf(conf, 'ADD').version);
    } catch (error) {
      throw new UsageError(`these flags make no usable network: ${error instanceof Error ? error.message : error}`);
    }
  }
  return given(args, 'single') ? asSingleConf(list) : list;
}

function optionsOf(args: Args): ConfOptions {
  const ranges = rangesOf(args);
  const etcd = etcdOf(args);
  const routes = texts(args, 'route').map(routeOf);
  const mtu = mtuOf(text(args, 'mtu'));
  return {
    ...optional('name', text(args, 'name')),
    ...optional('cniVersion', text(args, 'cni-version')),
    ...optional('dataDir', text(args, 'data-dir')),
    ...optional('master', text(args, 'master')),
    ...optional('bridge', text(args, 'bridge')),
    ...optional('kubeConfig', text(args, 'kubeconfig')),
    ...optional('sticky', stickyOf(args)),
    ...optional('mainKubeConfig', text(args, 'kube-config')),
    ...optional('etcd', etcd),
    ...optional('mtu', mtu),
    ...(ranges.length > 0 && { ranges }),
    ...(routes.length > 0 && { routes }),
  };
}

function optional<K extends string, V>(key: K, value: V | undefined): { readonly [P in K]?: V } {
  return value === undefined ? {} : ({ [key]: value } as { readonly [P in K]: V });
}

/** The parser has refused other values. */
function stickyOf(args: Args): ConfOptions['sticky'] {
  const value = text(args, 'sticky');
  return value === 'all' ? true : (value as 'statefulset' | 'vm' | undefined);
}

function etcdOf(args: Args): ConfOptions['etcd'] {
  const conf = etcdConfigOf(args);
  if (conf === undefined) return undefined;
  return {
    urls: conf.etcdURL!,
    ...optional('certFile', conf.etcdCertFile),
    ...optional('keyFile', conf.etcdKeyFile),
    ...optional('caFile', conf.etcdTrustedCAFileFile),
    ...optional('username', conf.etcdUsername),
    ...optional('passwordFile', conf.etcdPasswordFile),
  };
}

function rangesOf(args: Args): RangeConf[][] {
  const subnet = text(args, 'subnet');
  const bounds = {
    ...optional('rangeStart', text(args, 'range-start')),
    ...optional('rangeEnd', text(args, 'range-end')),
    ...optional('gateway', text(args, 'gateway')),
  };
  if (subnet === undefined && Object.keys(bounds).length > 0) {
    throw new UsageError('--range-start, --range-end and --gateway need --subnet, which they lie in');
  }
  const more = texts(args, 'range').map(rangeOf);
  return [...(subnet === undefined ? [] : [{ subnet, ...bounds }]), ...more].map(range => [range]);
}

/** `10.2.0.0/24`, `10.2.0.0/24,10.2.0.10-10.2.0.99`, `10.2.0.0/24,gateway=10.2.0.254` */
function rangeOf(value: string): RangeConf {
  const [subnet = '', ...parts] = value.split(',').map(part => part.trim());
  let range: RangeConf = { subnet };
  for (const part of parts) {
    const [first, last, more] = part.split('-');
    if (part.startsWith('gateway=')) range = { ...range, gateway: part.slice('gateway='.length) };
    else if (first && last && more === undefined) range = { ...range, rangeStart: first, rangeEnd: last };
    else throw new UsageError(`--range ${value}: "${part}" is neither FIRST-LAST nor gateway=IP`);
  }
  return range;
}

function routeOf(value: string): { dst: string; gw?: string } {
  const [dst = '', gw, more] = value.split(',').map(part => part.trim());
  if (dst === '' || gw === '' || more !== undefined)
    throw new UsageError(`--route ${value}: must be CIDR or CIDR,GATEWAY`);
  return gw === undefined ? { dst } : { dst, gw };
}

function mtuOf(value: string | undefined): number | undefined {
  if (value === undefined) return undefined;
  const mtu = /^\d{1,5}$/.test(value) ? Number(value) : 0;
  if (mtu < 576 || mtu > 65_535) throw new UsageError(`--mtu ${value}: must be a number of bytes from 576 to 65535`);
  return mtu;
}

/** Excluded addresses go into every network of the list: those that lie in none of its ranges change nothing there. */
function withExclusions(list: ConfList, exclude: readonly string[]): ConfList {
  return exclude.length === 0 ? list : { ...list, plugins: list.plugins.map(plugin => excluding(plugin, exclude)) };
}

function excluding(plugin: PluginConf, exclude: readonly string[]): PluginConf {
  const { ipam, delegates } = plugin;
  return {
    ...plugin,
    ...(Array.isArray(delegates) && { delegates: delegates.map(delegate => excluding(delegate, exclude)) }),
    ...(typeof ipam === 'object' && ipam !== null && { ipam: { ...ipam, exclude } }),
  };
}
