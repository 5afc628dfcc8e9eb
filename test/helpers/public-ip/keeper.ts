// Keepers on a node of a test, with a real etcd behind them, and what they say of lease and addresses.
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { deadlineIn } from '../../../src/base/clock.ts';
import { Keeper, type KeeperEvents, type KeeperOptions, type Lease } from '../../../src/publicip/keeper/parent.ts';
import type { KeeperConfig } from '../../../src/publicip/keeper/protocol.ts';
import type { GrpcKv } from '../../../src/store/etcd/grpc.ts';
import { type EtcdCluster, type EtcdOptions, engines, startEtcd } from '../etcd.ts';
import { accepts, tunnelArgv } from '../kubernetes/tunnel-end.ts';
import { searchPath } from '../machine.ts';
import { ServerProcess } from '../server-process.ts';
import { monotonic } from './clock.ts';
import { Segment, type Station } from './segment.ts';

/** A segment whose nodes reach an etcd on their own loopback. */
export class KeeperWorld implements AsyncDisposable {
  readonly etcd: EtcdCluster;
  readonly segment: Segment;
  readonly #parts: AsyncDisposableStack;

  private constructor(etcd: EtcdCluster, segment: Segment, parts: AsyncDisposableStack) {
    this.etcd = etcd;
    this.segment = segment;
    this.#parts = parts;
  }

  static async start(names: readonly string[], options: EtcdOptions = {}): Promise<KeeperWorld> {
    await using parts = new AsyncDisposableStack();
    const etcd = parts.use(await startEtcd(engines().at(-1)!, options));
    const segment = parts.use(await Segment.start(names));
    const ports = etcd.endpoints.map(endpoint => new URL(endpoint).port);
    const carry = async (name: string, argv: readonly string[], socket: string) => {
      const server = new ServerProcess({ name, argv, answers: () => accepts(socket) });
      parts.defer(() => server.kill());
      await server.ready();
    };
    const socketOf = (port: string) => join(etcd.folder, `${port}.sock`);
    const out = ports.flatMap(port => [socketOf(port), port]);
    await carry('the way to etcd', tunnelArgv(out), socketOf(ports.at(-1)!));
    for (const { machine } of segment.nodes) {
      const ready = join(machine.folder, 'ready.sock');
      const back = tunnelArgv([...ports.flatMap(port => [port, socketOf(port)]), ready, ports[0]!]);
      const enter = ['nsenter', '--target', String(machine.pid), '--net', '--'];
      await carry(`the way of ${machine.hostname} to etcd`, [...enter, ...back], ready);
    }
    return new KeeperWorld(etcd, segment, parts.move());
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#parts.disposeAsync();
  }
}

/** A command that runs from the sources in the network of a node; `prefix` stands before it. */
export function keeperCommand({ machine }: Station, prefix: readonly string[] = []): readonly [string, ...string[]] {
  const enter = ['--target', String(machine.pid), '--net', '--'];
  return ['nsenter', ...enter, ...prefix, process.execPath, join(import.meta.dirname, 'keeper-process.ts')];
}

export function keeperConfig(
  etcd: EtcdCluster,
  { machine }: Station,
  prefix: string,
  changes: Partial<KeeperConfig> = {},
): KeeperConfig {
  mkdirSync(join(machine.folder, 'run'), { recursive: true });
  return {
    etcd: etcd.target(),
    prefix,
    ttl: 5,
    dev: 'eth0',
    lock: join(machine.folder, 'run', 'keeper.lock'),
    state: join(machine.folder, 'notes.json'),
    drives: true,
    uptime: '/proc/uptime',
    ...changes,
  };
}

/** One keeper, and all that it told. Times are CLOCK_MONOTONIC in milliseconds. */
export class Kept implements AsyncDisposable {
  readonly keeper: Keeper;
  readonly told: readonly { readonly at: number; readonly what: keyof KeeperEvents; readonly detail: unknown }[];
  readonly #kv: GrpcKv;
  readonly #prefix: string;

  private constructor(keeper: Keeper, told: Kept['told'], kv: GrpcKv, prefix: string) {
    this.keeper = keeper;
    this.told = told;
    this.#kv = kv;
    this.#prefix = prefix;
  }

  static async start(kv: GrpcKv, node: Station, config: KeeperConfig, prefix: readonly string[] = []): Promise<Kept> {
    const told: { at: number; what: keyof KeeperEvents; detail: unknown }[] = [];
    const tell = (what: keyof KeeperEvents) => (detail: unknown) => void told.push({ at: monotonic(), what, detail });
    const on: KeeperEvents = {
      leased: tell('leased'),
      renewed: tell('renewed'),
      lost: tell('lost'),
      fenced: tell('fenced'),
      trouble: tell('trouble'),
      failed: tell('failed'),
    };
    const options: KeeperOptions = {
      ...config,
      command: keeperCommand(node, prefix),
      env: { PATH: searchPath },
      monotonicNow: monotonic,
      onLog: tell('trouble'),
    };
    return new Kept(await Keeper.start(options, on), told, kv, config.prefix);
  }

  /** All that it told of this kind. */
  heard(what: keyof KeeperEvents): readonly unknown[] {
    return this.told.filter(one => one.what === what).map(({ detail }) => detail);
  }

  async lease(): Promise<Lease> {
    for (const until = monotonic() + 20_000; ; await new Promise(resolve => setTimeout(resolve, 10))) {
      const lease = this.keeper.lease();
      if (lease !== undefined) return lease;
      if (monotonic() > until) throw new Error(`no lease: ${JSON.stringify(this.told)}`);
    }
  }

  /** Permit, claim, grant; gives the failures. */
  async own(...addresses: readonly string[]): Promise<Readonly<Record<string, string>>> {
    const lease = await this.lease();
    await this.keeper.permit(addresses);
    await this.claim(addresses, lease.id);
    return Object.fromEntries(await this.keeper.grant(addresses));
  }

  async claim(addresses: readonly string[], lease: string): Promise<void> {
    const writes = addresses.map(address => ({ put: `${this.#prefix}publicips/${address}`, value: 'me', lease }));
    await this.#kv.commit({ conditions: [], writes }, deadlineIn(20_000));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.keeper[Symbol.asyncDispose]();
  }
}
