// The networks that are measured, how they are filled beforehand, and the processes that ask them for an address.
import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { deadlineIn } from '../src/base/clock.ts';
import { type NetworkConfig, readNetworkConfig } from '../src/ipam/config.ts';
import { renderAttachment } from '../src/ipam/model.ts';
import { renderOwner } from '../src/ipam/records.ts';
import { formatIp, type Ip, parseIp } from '../src/net/ip.ts';
import { Keys } from '../src/store/keys.ts';
import type { Kv, Write } from '../src/store/kv.ts';
import type { Subject } from './measure.ts';

export interface Network {
  readonly name: string;
  readonly conf: object;
  readonly config: NetworkConfig;
}

export function network(name: string, folder: string, subnet: string, etcdConfig?: object, more: object = {}): Network {
  const ipam = {
    type: 'kube-ipam',
    subnet,
    dataDir: join(folder, name),
    logFile: join(folder, 'log'),
    ...(etcdConfig && { etcdConfig }),
    // No agent of this machine: who is asked is part of what is measured.
    agentSocket: '',
    ...more,
  };
  const conf = { cniVersion: '1.0.0', name, type: 'bridge', ipam };
  return { name, conf, config: readNetworkConfig(conf, '1.0.0') };
}

export function environment(run: string) {
  return {
    CNI_COMMAND: 'ADD',
    CNI_CONTAINERID: run,
    CNI_NETNS: `/run/netns/cni-${run}`,
    CNI_IFNAME: 'eth0',
    CNI_PATH: '/usr/lib/cni',
    CNI_ARGS: 'IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-7d4b9c6f5-x2v9k',
    PATH: '/usr/sbin:/usr/bin',
  };
}

export function add(name: string, executable: string, { conf }: Network): Subject {
  return { name, file: executable, environment, stdin: JSON.stringify(conf) };
}

/** As `add`, and gives the address back after each run. */
export function addAndDelete(name: string, executable: string, network: Network): Subject {
  const subject = add(name, executable, network);
  const after = (run: string) => {
    const env = { ...environment(run), CNI_COMMAND: 'DEL' };
    const ended = spawnSync(executable, [], { input: subject.stdin, env, encoding: 'utf8' });
    if (ended.status !== 0) throw new Error(`DEL failed: ${ended.stdout}`);
  };
  return { ...subject, after };
}

export function empty(file: string): Subject {
  return { name: 'empty executable', file, environment, stdin: '{}' };
}

export function hostLocal(name: string, folder: string, subnet: string): Subject {
  const ipam = { type: 'host-local', subnet, dataDir: folder };
  const stdin = JSON.stringify({ cniVersion: '1.0.0', name: 'bench', type: 'bridge', ipam });
  return { name, file: '/usr/lib/cni/host-local', environment, stdin };
}

function* addresses(from: string, count: number): Generator<Ip> {
  const first = parseIp(from)!;
  for (let i = 0n; i < BigInt(count); i++) yield { family: first.family, value: first.value + i };
}

/** Takes `count` addresses from `from` on, as ADDs of containerd pods would have; 40 of them in a commit. */
export async function fill(kv: Kv, { config, name }: Network, from: string, count: number): Promise<void> {
  const keys = new Keys(config.space);
  let writes: Write[] = [];
  let last = from;
  const flush = async () => {
    const cursor = config.sets[0]![0]!;
    const ends = [cursor.first, cursor.last].map(value => ({ family: cursor.family, value }));
    writes.push({ put: keys.cursor(name, ends[0]!, ends[1]!), value: last });
    await kv.commit({ conditions: [], writes }, deadlineIn(30_000));
    writes = [];
  };
  for (const ip of addresses(from, count)) {
    const containerID = ip.value.toString(16).padStart(64, 'f');
    const id = { node: `node-${ip.value % 100n}`, network: name, containerID, ifname: 'eth0' };
    const owner = {
      id,
      cluster: 'default',
      machine: '0123456789abcdef',
      boot: '3b241101-e2bb-4255-8caf-4136c566a962',
      netns: '/var/run/netns/cni-3b241101-e2bb-4255-8caf-4136c566a962',
      pod: { namespace: 'default', name: 'web-7d4b9c6f5-x2v9k', uid: '3b241101-e2bb-4255-8caf-4136c566a962' },
    };
    writes.push({ put: keys.address(ip), value: renderOwner(owner, 'dynamic', 0, Date.now()) });
    writes.push({ put: keys.attachment(id), value: renderAttachment([ip], false) });
    last = formatIp(ip);
    if (writes.length >= 80) await flush();
  }
  await flush();
}

/** The same for host-local: one file for each address. */
export function fillHostLocal(folder: string, from: string, count: number): void {
  mkdirSync(join(folder, 'bench'), { recursive: true });
  let last = from;
  for (const ip of addresses(from, count)) {
    last = formatIp(ip);
    writeFileSync(join(folder, 'bench', last), `${ip.value.toString(16).padStart(64, 'f')}\r\neth0`);
  }
  writeFileSync(join(folder, 'bench', 'last_reserved_ip.0'), last);
}
