// Pods as bare network namespaces of a test's machine, and the real main plugins called the way a runtime calls them.
import { existsSync, mkdirSync, readdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { PluginConf } from '../../src/cli/conf-templates.ts';
import { type Machine, searchPath } from './machine.ts';

/** What a main plugin answers to ADD from CNI 1.0 on. */
export interface CniResult {
  readonly cniVersion: string;
  readonly interfaces?: readonly { readonly name: string; readonly mac?: string; readonly sandbox?: string }[];
  readonly ips: readonly { readonly address: string; readonly gateway?: string; readonly interface?: number }[];
  readonly routes?: readonly { readonly dst: string; readonly gw?: string }[];
}

export interface CniError {
  readonly code: number;
  readonly msg: string;
  readonly details?: string;
}

/** Who is attached: a container's interface in a namespace of the machine. */
export interface Attachment {
  readonly containerID: string;
  readonly netns: string;
  readonly ifname: string;
  readonly args?: string;
}

export type Command = 'ADD' | 'CHECK' | 'DEL';

/** A plugin that refused; `error` is what it wrote for the runtime. */
export class PluginError extends Error {
  override name = 'PluginError';
  readonly error: CniError;

  constructor(command: Command, type: string, error: CniError) {
    super(`${type} ${command}: code ${error.code}: ${error.msg}`);
    this.error = error;
  }
}

const stockFolders = ['/usr/lib/cni', '/opt/cni/bin'];

/** Where the stock plugins are installed; undefined when they are not. */
export function stockPlugins(): string | undefined {
  return stockFolders.find(folder => existsSync(join(folder, 'bridge')));
}

/** The executable under test: the one that is built from these sources, unless another is named. */
async function ipamExecutable(): Promise<string> {
  return process.env.KUBE_IPAM_EXECUTABLE ?? (await import('./executable.ts')).executable;
}

/** A folder of plugins as a node has it: the stock ones and kube-ipam, as links. */
export async function pluginFolder(machine: Machine): Promise<string> {
  const folder = join(machine.folder, 'bin');
  const stock = stockPlugins();
  if (stock === undefined) throw new Error(`no stock plugins in ${stockFolders.join(' or ')}`);
  mkdirSync(folder);
  for (const name of readdirSync(stock)) symlinkSync(join(stock, name), join(folder, name));
  symlinkSync(await ipamExecutable(), join(folder, 'kube-ipam'));
  return folder;
}

/** Makes a namespace for a pod, with its loopback up as runtimes leave it, and names it as they do. */
export async function addNamespace(machine: Machine, name: string): Promise<string> {
  await machine.must(['ip', 'netns', 'add', name]);
  await machine.must(['ip', '-n', name, 'link', 'set', 'lo', 'up']);
  return `/run/netns/${name}`;
}

export async function removeNamespace(machine: Machine, name: string): Promise<void> {
  await machine.must(['ip', 'netns', 'del', name]);
}

/** A pair of cables: `name` can carry macvlan interfaces (there is no dummy device on every kernel). */
export async function addMaster(machine: Machine, name: string): Promise<void> {
  await machine.must(['ip', 'link', 'add', name, 'type', 'veth', 'peer', 'name', `${name}-far`]);
  for (const end of [name, `${name}-far`]) await machine.must(['ip', 'link', 'set', end, 'up']);
}

/** A bridge with a fixed MAC address and an uplink: what an administrator prepares where the bridge is only a switch. */
export async function addSwitch(machine: Machine, name: string, uplink: string): Promise<void> {
  await machine.must(['ip', 'link', 'add', name, 'address', '02:00:5e:00:53:01', 'type', 'bridge']);
  await machine.must(['ip', 'link', 'set', uplink, 'master', name]);
  await machine.must(['ip', 'link', 'set', name, 'up']);
}

/** Whether this kernel can make such a device: asked of the kernel, in the machine, which keeps nothing of it. */
export async function kernelHas(machine: Machine, type: 'ipvlan' | 'macvlan' | 'bridge'): Promise<boolean> {
  await addMaster(machine, 'probe0');
  const link = type === 'bridge' ? [] : ['link', 'probe0'];
  const tried = await machine.run(['ip', 'link', 'add', ...link, 'name', 'probe1', 'type', type]);
  if (tried.code === 0) await machine.must(['ip', 'link', 'del', 'probe1']);
  await machine.must(['ip', 'link', 'del', 'probe0']);
  return tried.code === 0;
}

/**
 * Runs one plugin with exactly the variables of the CNI specification. Gives the result of ADD (undefined for the
 * others) or throws a PluginError; anything else on standard output is a failure of its own.
 */
export async function callPlugin(
  machine: Pick<Machine, 'run'>,
  folder: string,
  command: Command,
  conf: PluginConf,
  attachment: Attachment,
): Promise<CniResult | undefined> {
  const env = {
    PATH: searchPath,
    CNI_COMMAND: command,
    CNI_CONTAINERID: attachment.containerID,
    CNI_NETNS: attachment.netns,
    CNI_IFNAME: attachment.ifname,
    CNI_ARGS: attachment.args ?? '',
    CNI_PATH: folder,
  };
  const ended = await machine.run([join(folder, conf.type)], { env, input: JSON.stringify(conf), timeout: 20_000 });
  if (ended.code !== 0) throw new PluginError(command, conf.type, errorIn(ended.stdout, ended.stderr));
  if (command !== 'ADD') {
    if (ended.stdout !== '') throw new Error(`${conf.type} ${command} wrote ${ended.stdout}`);
    return undefined;
  }
  return JSON.parse(ended.stdout) as CniResult;
}

/** As `callPlugin` with ADD. */
export async function add(
  machine: Pick<Machine, 'run'>,
  folder: string,
  conf: PluginConf,
  to: Attachment,
): Promise<CniResult> {
  const result = await callPlugin(machine, folder, 'ADD', conf, to);
  if (result === undefined) throw new Error(`${conf.type} ADD gave no result`);
  return result;
}

function errorIn(stdout: string, stderr: string): CniError {
  try {
    return JSON.parse(stdout) as CniError;
  } catch {
    throw new Error(`no CNI error object: ${JSON.stringify(stdout)}, standard error ${JSON.stringify(stderr)}`);
  }
}

/** The global addresses of an interface in a namespace, with prefix length, IPv4 first. */
export async function addressesIn(machine: Machine, name: string, ifname: string): Promise<readonly string[]> {
  const text = await machine.must(['ip', '-n', name, '-j', 'address', 'show', 'dev', ifname, 'scope', 'global']);
  const links = JSON.parse(text) as { readonly addr_info?: readonly { local?: string; prefixlen?: number }[] }[];
  // A filter leaves an empty object for each address that it hides.
  const shown = links.flatMap(link => link.addr_info ?? []).filter(each => each.local !== undefined);
  return shown.map(each => `${each.local}/${each.prefixlen}`);
}

/** Pings from one namespace until an answer comes; IPv6 needs some seconds for duplicate address detection. */
export async function pings(machine: Machine, name: string, address: string): Promise<boolean> {
  const ping = ['busybox', address.includes(':') ? 'ping6' : 'ping', '-c', '1', '-W', '1', address];
  for (const started = performance.now(); performance.now() - started < 10_000; await sleep(200)) {
    const tried = await machine.run(['ip', 'netns', 'exec', name, ...ping]);
    if (tried.code === 0) return true;
  }
  return false;
}

/** What networks leave on a machine. Forwarding switches are left out: bridge and ptp leave them on by their own contract. */
export interface Traces {
  readonly links: readonly string[];
  readonly namespaces: readonly string[];
  readonly rules: readonly string[];
  readonly processes: readonly string[];
}

/** Take it before and after: equal traces mean that nothing was left behind. */
export async function traces(machine: Machine): Promise<Traces> {
  const links = JSON.parse(await machine.must(['ip', '-j', 'link'])) as { readonly ifname: string }[];
  const saved = [await machine.must(['iptables-save']), await machine.must(['ip6tables-save'])];
  const processes = await machine.must(['ps', '-e', '-o', 'comm=']);
  return {
    links: links.map(link => link.ifname).sort(),
    namespaces: (await machine.must(['ip', 'netns', 'list'])).split('\n').filter(Boolean).sort(),
    // A table that was read once exists from then on, empty; rules and chains of somebody count, the built-in do not.
    rules: saved.flatMap(text => text.split('\n')).filter(line => line.startsWith('-A') || /^:.* - \[/.test(line)),
    processes: processes
      .split('\n')
      .map(line => line.trim())
      .filter(name => name !== '' && name !== 'ps')
      .sort(),
  };
}
