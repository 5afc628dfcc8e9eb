// The plugin called in this process, through its front door, and stores of each kind for it to work on.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { deadlineIn } from '../../src/base/clock.ts';
import { runPlugin } from '../../src/cni/plugin.ts';
import { openEmbedded } from '../../src/store/embedded/embedded.ts';
import { openGateway } from '../../src/store/etcd/gateway.ts';
import { Keys } from '../../src/store/keys.ts';
import { afterPrefix, type Entry, type Kv } from '../../src/store/kv.ts';
import { type EtcdCluster, engines, startEtcd } from './etcd.ts';

export type Json = Record<string, unknown>;
export type Command = 'ADD' | 'DEL' | 'CHECK' | 'GC' | 'STATUS' | 'VERSION';

/** One call of a runtime. What is absent has an ordinary value. */
export interface Call {
  readonly conf: Json;
  readonly containerID?: string;
  readonly ifname?: string;
  readonly netns?: string;
  readonly args?: string;
}

export interface CniError {
  readonly cniVersion: string;
  readonly code: number;
  readonly msg: string;
}

/** What a runtime saw. `addresses` without their prefix length, in the order of the result. */
export interface Answer {
  readonly exitCode: number;
  readonly stdout: string;
  readonly error?: CniError;
  readonly result?: Json;
  readonly addresses: readonly string[];
}

export function environment(command: string, call: Omit<Call, 'conf'>): Record<string, string> {
  return {
    CNI_COMMAND: command,
    CNI_CONTAINERID: call.containerID ?? 'pod-1',
    CNI_NETNS: call.netns ?? '/run/netns/pod-1',
    CNI_IFNAME: call.ifname ?? 'eth0',
    CNI_ARGS: call.args ?? '',
    CNI_PATH: '/opt/cni/bin',
  };
}

/** Runs the command in this process, through the plugin's own front door. */
export async function call(command: Command, of: Call): Promise<Answer> {
  return callWith(environment(command, of), Buffer.from(JSON.stringify(of.conf)));
}

/** As `call`, with any environment and any bytes. */
export async function callWith(env: Record<string, string | undefined>, stdin: Buffer): Promise<Answer> {
  let stdout = '';
  const writeStdout = (text: string) => {
    stdout += text;
  };
  const exitCode = await runPlugin({ env, readStdin: () => stdin, writeStdout });
  if (exitCode === 'asset') throw new Error('the plugin asks for gRPC');
  return answerOf(exitCode, stdout);
}

export function answerOf(exitCode: number, stdout: string): Answer {
  const said = stdout === '' ? undefined : (JSON.parse(stdout) as Json);
  if (exitCode !== 0) return { exitCode, stdout, error: said as unknown as CniError, addresses: [] };
  return { exitCode, stdout, ...(said && { result: said }), addresses: said === undefined ? [] : addressesOf(said) };
}

/** The addresses of a result of any version, IPv4 before IPv6 in the old shape. */
function addressesOf(result: Json): string[] {
  const { ips, ip4, ip6 } = result as { ips?: { address: string }[]; ip4?: { ip: string }; ip6?: { ip: string } };
  const texts = ips?.map(({ address }) => address) ?? [ip4, ip6].flatMap(one => one?.ip ?? []);
  return texts.map(text => text.split('/')[0]!);
}

export const storeKinds = ['embedded', 'etcd'] as const;
export type StoreKind = (typeof storeKinds)[number];

/** A store that nobody else uses: a file of its own, or a space of its own in an etcd. */
export interface Site {
  readonly kind: StoreKind;
  /** Under this name the plugin keeps what it writes. */
  readonly node: string;
  readonly folder: string;
  /** The keys of `ipam` that lead here. */
  readonly access: Json;
  readonly keys: Keys;
  readonly kv: Kv;
  /** Everything in it, the format mark aside. */
  entries(): Promise<Entry[]>;
  /** What is neither cursor nor recorded network: owners, attachments, fences. */
  remains(): Promise<string[]>;
  /** The events logged so far. */
  events(): Json[];
  put(key: string, value: unknown, ttl?: number): Promise<void>;
  remove(...keys: readonly string[]): Promise<void>;
}

/** Where sites are made: a folder, and an etcd when that is the kind. */
export class Ground implements AsyncDisposable {
  readonly kind: StoreKind;
  readonly folder: string;
  readonly cluster: EtcdCluster | undefined;
  readonly #open: Kv[] = [];
  #sites = 0;

  private constructor(kind: StoreKind, cluster: EtcdCluster | undefined) {
    this.kind = kind;
    this.cluster = cluster;
    this.folder = mkdtempSync(join(tmpdir(), 'kube-ipam-plugin-'));
  }

  static async make(kind: StoreKind, cluster?: EtcdCluster): Promise<Ground> {
    return new Ground(kind, kind === 'etcd' ? (cluster ?? (await startEtcd(anEngine()))) : undefined);
  }

  async site(): Promise<Site> {
    const folder = join(this.folder, String(++this.#sites));
    const space = this.kind === 'etcd' ? `site-${this.#sites}` : 'default';
    const keys = new Keys(space);
    const kv = this.cluster === undefined ? await openEmbedded(folder) : openGateway(this.cluster.target());
    this.#open.push(kv);
    const soon = () => deadlineIn(20_000);
    const entries = async () => {
      const { answers } = await kv.read([{ from: keys.prefix, to: afterPrefix(keys.prefix) }], soon());
      return [...answers[0]!.entries];
    };
    const logFile = join(this.folder, `log-${this.#sites}`);
    const etcdConfig = this.cluster && { etcdURL: this.cluster.endpoints.join(',') };
    return {
      kind: this.kind,
      node: this.kind === 'etcd' ? 'node-a' : 'local',
      folder,
      // In this process the command's budget counts from the start of the whole test run.
      access: {
        dataDir: folder,
        addressSpace: space,
        nodeName: 'node-a',
        logFile,
        timeout: '1h',
        ...(etcdConfig && { etcdConfig }),
      },
      keys,
      kv,
      entries,
      remains: async () => (await entries()).map(({ key }) => key).filter(key => !/\/(cursors|networks)\//.test(key)),
      events: () =>
        readFileSync(logFile, 'utf8')
          .split('\n')
          .filter(Boolean)
          .map(line => JSON.parse(line) as Json),
      remove: async (...gone) => {
        await kv.commit({ conditions: [], writes: gone.map(key => ({ delete: key })) }, soon());
      },
      put: async (key, value, ttl) => {
        const text = typeof value === 'string' ? value : JSON.stringify(value);
        const write = { put: key, value: text, ...(ttl !== undefined && { ttl }) };
        if (!(await kv.commit({ conditions: [], writes: [write] }, soon())).won) throw new Error(`${key} was not put`);
      },
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const kv of this.#open) await kv[Symbol.asyncDispose]();
    await this.cluster?.[Symbol.asyncDispose]();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** The oldest etcd of this machine: the store suite runs all of them, other tests one. */
export function anEngine() {
  const engine = engines()[0];
  if (engine === undefined) throw new Error('no etcd was found: apt-get install etcd-server etcd-client');
  return engine;
}

/** A network configuration that leads to the site. */
export function confOf(site: Site, ipam: Json = {}, more: Json = {}): Json {
  return {
    cniVersion: '1.0.0',
    name: 'net',
    type: 'bridge',
    ...more,
    ipam: { type: 'kube-ipam', ...site.access, ...ipam },
  };
}
