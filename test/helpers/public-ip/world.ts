// The world of the public IP tests: nodes and a client on one segment, a real control plane, and a real etcd that all nodes reach.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type EtcdCluster, type EtcdOptions, engines, startEtcd } from '../etcd.ts';
import { type ControlPlane, startControlPlane, whyNoControlPlane } from '../kubernetes/control-plane.ts';
import { accepts, tunnelArgv } from '../kubernetes/tunnel-end.ts';
import { whyNoMachine } from '../machine.ts';
import { ServerProcess } from '../server-process.ts';
import { monotonic } from './clock.ts';
import { ExactJudge } from './exact.ts';
import { PublicIpNode } from './node.ts';
import { AddressNoise } from './noise.ts';
import { SeenJudge } from './seen.ts';
import { Segment, type Station } from './segment.ts';

export interface WorldOptions {
  readonly nodes?: readonly string[];
  /** An etcd of its own for the claims; absent: they are beside Kubernetes' own objects. */
  readonly etcd?: EtcdOptions;
  /** For each process on each node, beside those that say where the servers are. */
  readonly flags?: readonly string[];
}

/** What a Service is made of here. */
export interface ServiceSpec {
  readonly name: string;
  readonly addresses: readonly string[];
  /** Absent: TCP 80. */
  readonly ports?: readonly { readonly protocol?: 'TCP' | 'UDP' | 'SCTP'; readonly port: number }[];
  readonly annotations?: Readonly<Record<string, string>>;
  readonly spec?: Readonly<Record<string, unknown>>;
}

export async function whyNoWorld(): Promise<string | undefined> {
  return whyNoControlPlane() ?? (await whyNoMachine());
}

export class World implements AsyncDisposable {
  readonly plane: ControlPlane;
  /** Where the claims stand. */
  readonly etcd: EtcdCluster;
  readonly segment: Segment;
  readonly nodes: readonly PublicIpNode[];
  /** As every process is told it; also for flags of their own. */
  readonly kubeconfig: string;
  /** Where the servers are, as every process is told it. */
  readonly flags: readonly string[];
  readonly #parts: AsyncDisposableStack;

  private constructor(
    plane: ControlPlane,
    etcd: EtcdCluster,
    segment: Segment,
    nodes: readonly PublicIpNode[],
    kubeconfig: string,
    flags: readonly string[],
    parts: AsyncDisposableStack,
  ) {
    this.plane = plane;
    this.etcd = etcd;
    this.segment = segment;
    this.nodes = nodes;
    this.kubeconfig = kubeconfig;
    this.flags = flags;
    this.#parts = parts;
  }

  static async start(options: WorldOptions = {}): Promise<World> {
    await using parts = new AsyncDisposableStack();
    const folder = mkdtempSync(join(tmpdir(), 'kube-ipam-world-'));
    parts.defer(() => rmSync(folder, { recursive: true, force: true }));
    const plane = parts.use(await startControlPlane());
    const etcd = options.etcd ? parts.use(await startEtcd(engines().at(-1)!, options.etcd)) : plane.etcd;
    const segment = parts.use(await Segment.start(options.nodes ?? ['node-a', 'node-b', 'node-c']));
    const etcdPorts = etcd.endpoints.map(endpoint => Number(new URL(endpoint).port));
    const ports = [plane.port, ...etcdPorts];
    const carry = async (server: ServerProcess) => {
      parts.defer(() => server.kill());
      await server.ready();
    };
    await carry(outerEnd(folder, ports));
    await Promise.all(segment.nodes.map(station => carry(innerEnd(folder, station, ports))));
    const kubeconfig = plane.kubeconfig({ token: plane.adminToken });
    const flags = [
      ...['--interface', 'eth0', '--kubeconfig', kubeconfig, '--etcd-endpoint', etcd.endpoints.join(',')],
      ...(options.flags ?? []),
    ];
    const nodes = segment.nodes.map(station => new PublicIpNode(station, flags, etcdPorts));
    for (const { station } of nodes) await registerNode(plane, station);
    return new World(plane, etcd, segment, nodes, kubeconfig, flags, parts.move());
  }

  /** Starts our process on every node. */
  async startAll(...flags: readonly string[]): Promise<void> {
    await Promise.all(this.nodes.map(node => node.start(...flags)));
  }

  node(name: string): PublicIpNode {
    return this.nodes.find(node => node.name === name)!;
  }

  /** The node whose interface has this MAC address. */
  nodeOf(mac: string): PublicIpNode {
    return this.nodes.find(node => node.mac === mac)!;
  }

  /** Both judges, and foreign noise on every node. */
  async judge(addresses: readonly string[], every?: number): Promise<Judges> {
    await using parts = new AsyncDisposableStack();
    const exact = parts.use(await ExactJudge.start(this.nodes.map(({ machine }) => machine)));
    const seen = parts.use(await SeenJudge.start(this.segment.client.machine, addresses, every));
    for (const { machine, station } of this.nodes) parts.use(new AddressNoise(machine, station.number));
    return new Judges(exact, seen, parts.move());
  }

  async createService(wanted: ServiceSpec): Promise<void> {
    const metadata = { name: wanted.name, ...(wanted.annotations && { annotations: wanted.annotations }) };
    await this.plane.api('POST', servicesPath, { apiVersion: 'v1', kind: 'Service', metadata, spec: specOf(wanted) });
  }

  /** Merges into the Service of this name. */
  async patchService(name: string, patch: object): Promise<void> {
    await this.plane.api('PATCH', `${servicesPath}/${name}`, patch, { contentType: 'application/merge-patch+json' });
  }

  async deleteService(name: string): Promise<void> {
    await this.plane.api('DELETE', `${servicesPath}/${name}`);
  }

  /** Agent ids by the address that they claim. */
  async claims(): Promise<ReadonlyMap<string, string>> {
    const entries = await this.keys('/kiwi/publicips/');
    return new Map([...entries].map(([key, value]) => [key.slice('/kiwi/publicips/'.length), value]));
  }

  async keys(prefix: string): Promise<ReadonlyMap<string, string>> {
    const { kvs = [] } = JSON.parse(await this.etcd.ctl('get', '--prefix', prefix, '--write-out', 'json')) as {
      readonly kvs?: readonly { readonly key: string; readonly value?: string }[];
    };
    const text = (base64 = '') => Buffer.from(base64, 'base64').toString();
    return new Map(kvs.map(({ key, value }) => [text(key), text(value)]));
  }

  /** Messages of events that the API has of this reason. */
  async events(reason: string): Promise<readonly string[]> {
    const { items } = await this.plane.api<{
      readonly items: readonly { reason: string; note?: string; message?: string }[];
    }>('GET', '/api/v1/events');
    return items.filter(event => event.reason === reason).map(({ message, note }) => message ?? note ?? '');
  }

  /** Between tests: no Service, no claim, no process, nothing in a kernel. */
  async clear(): Promise<void> {
    const { items } = await this.plane.api<{
      readonly items: readonly { readonly metadata: { readonly name: string } }[];
    }>('GET', servicesPath);
    for (const { metadata } of items) if (metadata.name !== 'kubernetes') await this.deleteService(metadata.name);
    await Promise.all(this.nodes.map(node => node.clear()));
    await this.etcd.ctl('del', '--prefix', '/kiwi/');
    await this.etcd.ctl('del', '--prefix', '/kube-ipam/');
    // What the client remembers of who was where.
    await this.segment.client.machine.must(['ip', 'neigh', 'flush', 'all']);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#parts.disposeAsync();
  }
}

/** What must never be, and who answers when. */
export class Judges implements AsyncDisposable {
  readonly exact: ExactJudge;
  readonly seen: SeenJudge;
  readonly #parts: AsyncDisposableStack;

  constructor(exact: ExactJudge, seen: SeenJudge, parts: AsyncDisposableStack) {
    this.exact = exact;
    this.seen = seen;
    this.#parts = parts;
  }

  /** Empty unless two nodes ever answered for one address. */
  verdict(): readonly unknown[] {
    return [...this.seen.doubles().slice(0, 5), ...this.exact.overlaps().slice(0, 5)];
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#parts.disposeAsync();
  }
}

/** Asks again until it holds; the last look's complaint when it does not in time. */
export async function eventually(check: () => Promise<void> | void, within = 30_000): Promise<void> {
  for (const until = monotonic() + within; ; await sleep(20)) {
    try {
      return await check();
    } catch (error) {
      if (monotonic() > until) throw error;
    }
  }
}

const servicesPath = '/api/v1/namespaces/default/services';

function specOf({ addresses, ports = [{ port: 80 }], spec }: ServiceSpec): object {
  const named = ports.map(each => ({ name: `${each.protocol ?? 'TCP'}-${each.port}`.toLowerCase(), ...each }));
  return { externalIPs: addresses, ports: named, selector: { app: 'web' }, ...spec };
}

async function registerNode(plane: ControlPlane, { machine, address, address6 }: Station): Promise<void> {
  const name = machine.hostname;
  await plane.api('POST', '/api/v1/nodes', { apiVersion: 'v1', kind: 'Node', metadata: { name } });
  const addresses = [address, address6].map(each => ({ type: 'InternalIP', address: each }));
  const conditions = [{ type: 'Ready', status: 'True', reason: 'Test', message: '' }];
  await plane.api(
    'PATCH',
    `/api/v1/nodes/${name}/status`,
    { status: { addresses, conditions } },
    {
      contentType: 'application/strategic-merge-patch+json',
    },
  );
}

/** From sockets in the folder to the servers on the test's own loopback. */
function outerEnd(folder: string, ports: readonly number[]): ServerProcess {
  const last = join(folder, String(ports.at(-1)));
  return new ServerProcess({
    name: 'the way to the servers',
    argv: tunnelArgv(ports.flatMap(port => [join(folder, String(port)), String(port)])),
    answers: () => accepts(last),
  });
}

/** The same ports on the node's loopback, to those sockets. */
function innerEnd(folder: string, { machine }: Station, ports: readonly number[]): ServerProcess {
  const ready = join(folder, machine.hostname);
  const routes = [...ports.flatMap(port => [String(port), join(folder, String(port))]), ready, String(ports[0])];
  return new ServerProcess({
    name: `the way of ${machine.hostname} to the servers`,
    argv: ['nsenter', '--target', String(machine.pid), '--net', '--', ...tunnelArgv(routes)],
    answers: () => accepts(ready),
  });
}
