// The disk of a test's Kubernetes node: its own /etc, /opt and /var/lib, with all that containerd and kubelet read.
import { randomBytes } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { configToml, type RuntimePlaces } from '../containerd.ts';
import type { Machine } from '../machine.ts';
import { toolFolder } from './tools.ts';

/** How containerd's things are called on the node; plugins and networks lie where everybody expects them. */
export const runtime: RuntimePlaces = {
  root: '/var/lib/containerd',
  state: '/run/containerd',
  socket: '/run/containerd/containerd.sock',
  plugins: '/opt/cni/bin',
  networks: '/etc/cni/net.d',
};

export const files = {
  containerd: '/etc/containerd/config.toml',
  kubelet: '/etc/kubernetes/kubelet.json',
  kubeconfig: '/etc/kubernetes/kubelet.kubeconfig',
  staticPods: '/etc/kubernetes/manifests',
  bootId: '/etc/kubernetes/boot-id',
} as const;

/** Where the kubelet serves logs and exec, in the node's own network. */
export const kubeletPort = 10250;

/** What programs need of this machine's /etc. */
const shared = ['alternatives', 'group', 'ld.so.cache', 'localtime', 'nsswitch.conf', 'os-release', 'passwd'];

/** The kubelet sets these for the whole kernel, unless they read as it wants them. */
const kernelSettings = {
  'vm/overcommit_memory': 1,
  'vm/panic_on_oom': 0,
  'kernel/panic': 10,
  'kernel/panic_on_oops': 1,
  'kernel/keys/root_maxkeys': 1_000_000,
  'kernel/keys/root_maxbytes': 25_000_000,
} as const;

/** Fills an empty folder. */
export function layOutDisk(disk: string, hostname: string): void {
  for (const folder of [runtime.plugins, runtime.networks, files.staticPods, '/etc/kube-ipam', '/var/lib/cni']) {
    mkdirSync(join(disk, folder), { recursive: true });
  }
  for (const name of shared.filter(each => existsSync(join('/etc', each)))) {
    cpSync(join('/etc', name), join(disk, 'etc', name), { recursive: true, verbatimSymlinks: true });
  }
  const stock = toolFolder('cni-plugins');
  for (const name of readdirSync(stock)) symlinkSync(join(stock, name), join(disk, runtime.plugins, name));
  write(disk, '/etc/hostname', `${hostname}\n`);
  write(disk, '/etc/hosts', `127.0.0.1 localhost\n127.0.1.1 ${hostname}\n`);
  write(disk, '/etc/resolv.conf', '');
  write(disk, '/etc/machine-id', `${randomBytes(16).toString('hex')}\n`);
  write(disk, files.containerd, configToml(runtime));
  for (const [name, value] of Object.entries(kernelSettings)) write(disk, settingFile(name), `${value}\n`);
}

/** Puts the disk in its place on a machine that has just started. */
export async function mountDisk(machine: Machine, disk: string): Promise<void> {
  // As on a machine with systemd: pods may ask to see mounts that are made later.
  await machine.must(['mount', '--make-rshared', '/']);
  for (const folder of ['/etc', '/opt', '/var/lib'])
    await machine.must(['mount', '--bind', join(disk, folder), folder]);
  for (const name of Object.keys(kernelSettings)) {
    await machine.must(['mount', '--bind', settingFile(name), join('/proc/sys', name)]);
  }
  if (existsSync(join(disk, files.bootId))) {
    await machine.must(['mount', '--bind', files.bootId, '/proc/sys/kernel/random/boot_id']);
  }
}

/** @param cgroup of the node's pods: a path below the root of each tree. */
export function writeKubeletConfig(disk: string, cgroup: string): void {
  const config = {
    apiVersion: 'kubelet.config.k8s.io/v1beta1',
    kind: 'KubeletConfiguration',
    containerRuntimeEndpoint: `unix://${runtime.socket}`,
    port: kubeletPort,
    readOnlyPort: 0,
    authentication: { anonymous: { enabled: true }, webhook: { enabled: false } },
    authorization: { mode: 'AlwaysAllow' },
    staticPodPath: files.staticPods,
    // Nobody is there; without one, each pod gets a warning.
    clusterDNS: ['10.96.0.10'],
    clusterDomain: 'cluster.local',
    // It says so every quarter of that, so that controllers of a test may miss it within seconds.
    nodeLeaseDurationSeconds: 8,
    // Small machines: no systemd, perhaps control groups of version 1, disks that nobody can measure.
    cgroupDriver: 'cgroupfs',
    cgroupRoot: cgroup,
    enforceNodeAllocatable: [],
    failCgroupV1: false,
    failSwapOn: false,
    localStorageCapacityIsolation: false,
    evictionHard: { 'memory.available': '1Mi', 'nodefs.available': '1%', 'imagefs.available': '1%' },
    makeIPTablesUtilChains: false,
  };
  write(disk, files.kubelet, JSON.stringify(config, null, 2));
}

/** Writes a file of the node, by the name that it has there. */
export function write(disk: string, name: string, text: string, mode = 0o644): void {
  mkdirSync(dirname(join(disk, name)), { recursive: true });
  writeFileSync(join(disk, name), text, { mode });
}

function settingFile(name: string): string {
  return join('/etc/kubernetes/kernel', name);
}
