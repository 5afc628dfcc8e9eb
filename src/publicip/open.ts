// Brings the feature together with the store, the API and this host; for the command line, and for the agent.
import { statSync } from 'node:fs';
import { backoff, deadlineIn, rest } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { Metrics } from '../base/metrics.ts';
import { readMachine } from '../base/node.ts';
import type { Part } from '../base/part.ts';
import { monitor, readLinks } from '../host/ip.ts';
import { Ledger } from '../host/ledger.ts';
import { hasNft } from '../host/nft.ts';
import { proxyDevices, publicIpSysctls } from '../host/numbers.ts';
import { holdSysctl, releaseSysctls } from '../host/sysctl.ts';
import { hasTool, toolEnv } from '../host/tool.ts';
import { type Client, openClient } from '../kube/client.ts';
import { EventRecorder } from '../kube/events.ts';
import { type GrpcKv, openGrpc } from '../store/etcd/grpc.ts';
import { hostOf } from './apply.ts';
import { Claims, type ClaimsOptions } from './claims.ts';
import { type Config, leastTtlWithoutNft } from './config.ts';
import { PublicIps } from './feature.ts';
import { Keeper } from './keeper/parent.ts';
import { PublicIpMetrics } from './metrics.ts';
import { Objects } from './objects.ts';
import { feature, placesOf } from './places.ts';

/** Milliseconds for reading all claims once. */
const openTime = 10_000;

export interface Tools {
  readonly log: Log;
  readonly metrics: Metrics;
  /** How the keeper is started. */
  readonly keeper: readonly [file: string, ...args: string[]];
  /** CLOCK_MONOTONIC in milliseconds. */
  readonly monotonicNow: () => number;
  /** Ends waiting for a store that does not answer yet. */
  readonly stop: AbortSignal;
}

/** A part that holds connections of its own: they end when it has stopped. Waits for the store as long as it takes. */
export async function openFeature(asked: Config, tools: Tools): Promise<Part | undefined> {
  const config = await withSafeTtl(asked, tools.log);
  const client = await openClient(config.kubernetes);
  const kv = openGrpc(config.etcd);
  try {
    const claims = await openClaims(kv, config, tools);
    if (claims !== undefined) return new OpenedFeature(config, tools, client, kv, claims);
  } catch (error) {
    await closeAll(kv, client);
    throw error;
  }
  await closeAll(kv, client);
  return undefined;
}

/** Without nft the addresses' lifetimes are the only fence, which must not run out between two renewals (F3). */
async function withSafeTtl(config: Config, log: Log): Promise<Config> {
  if (config.ttl >= leastTtlWithoutNft || !config.drives || (await hasNft(deadlineIn(openTime)))) return config;
  log.warn('without nft, claims must live longer than was asked for', { asked: config.ttl, ttl: leastTtlWithoutNft });
  return { ...config, ttl: leastTtlWithoutNft };
}

export async function closeAll(...all: readonly AsyncDisposable[]): Promise<void> {
  for (const one of all) await one[Symbol.asyncDispose]();
}

/** Undefined when it was told to stop before the store answered. */
export async function openClaims(
  kv: GrpcKv,
  config: Config,
  { log, stop }: Pick<Tools, 'log' | 'stop'>,
): Promise<Claims | undefined> {
  const { prefix, id, ttl, space, cluster } = config;
  const records = config.store === undefined ? { records: { space, cluster } } : {};
  const options: ClaimsOptions = { prefix, id, ttl, ...records };
  for (let tries = 1; !stop.aborted; tries++) {
    try {
      return await Claims.open(kv, options, deadlineIn(openTime));
    } catch (error) {
      log.warn('claims cannot be read yet', { cause: messageOf(error) });
      await rest(backoff(tries, 500, config.reconnect), stop);
    }
  }
  return undefined;
}

class OpenedFeature implements Part {
  readonly name = feature;
  readonly #config: Config;
  readonly #client: Client;
  readonly #kv: GrpcKv;
  readonly #claims: Claims;
  readonly #objects: Objects;
  readonly #events: EventRecorder;
  readonly #feature: PublicIps;
  readonly #ledger: Ledger;
  readonly #log: Log;
  readonly #ending = new AbortController();
  #sysctlTimer: NodeJS.Timeout | undefined;
  #canAsk: boolean | undefined;

  constructor(config: Config, tools: Tools, client: Client, kv: GrpcKv, claims: Claims) {
    const { log, metrics, monotonicNow } = tools;
    this.#config = config;
    this.#client = client;
    this.#kv = kv;
    this.#claims = claims;
    this.#log = log;
    const machine = readMachine();
    const places = placesOf(config);
    this.#ledger = new Ledger(places.ledger, machine.boot);
    const onBug = (error: unknown) =>
      log.error('a change of the cluster could not be dealt with', { cause: messageOf(error) });
    this.#objects = new Objects(client, () => this.#feature.wake(), onBug);
    this.#events = new EventRecorder(client, { component: 'kube-ipam-public-ip', host: config.node });
    const netns = statSync('/proc/self/ns/net');
    const identity = { machine: machine.machine, boot: machine.boot, netns: `${netns.dev}:${netns.ino}` };
    const keeperConfig = {
      etcd: config.etcd,
      prefix: config.prefix,
      ttl: config.ttl,
      dev: config.interface,
      lock: places.lock,
      state: places.notes,
      drives: config.drives,
      uptime: '/proc/uptime',
    };
    const started = { command: tools.keeper, env: { ...toolEnv }, monotonicNow };
    this.#feature = new PublicIps({
      config,
      identity,
      claims,
      objects: this.#objects,
      startKeeper: on => Keeper.start({ ...keeperConfig, ...started, onLog: line => log.info('keeper', { line }) }, on),
      host: hostOf(config, () => this.#releaseSysctls()),
      tell: (...event) => this.#events.record(...event),
      metrics: new PublicIpMetrics(metrics, {
        owned: () => this.#feature.owned,
        wanted: () => this.#feature.wanted,
        unplaced: () => this.#feature.unplaced,
        secondsSinceRenewal: () => this.#feature.secondsSinceRenewal,
      }),
      log,
    });
  }

  async start(): Promise<void> {
    await this.#holdSysctls();
    this.#objects.start();
    await this.#feature.start();
    if (this.#config.drives) monitor(() => this.#feature.wake(), this.#ending.signal);
    this.#sysctlTimer = setInterval(() => void this.#holdSysctls(), 30_000);
  }

  state() {
    return this.#feature.state();
  }

  async stop(): Promise<void> {
    clearInterval(this.#sysctlTimer);
    this.#ending.abort();
    await this.#feature.stop();
    await closeAll(this.#objects, this.#events, this.#claims, this.#kv, this.#client);
  }

  /** An interface that comes later has its own settings. */
  async #holdSysctls(): Promise<void> {
    const { sysctl, drives } = this.#config;
    if (!sysctl || !drives) return;
    const { ipv4, ipv6 } = publicIpSysctls(this.#config.interface);
    // Where nobody can be asked whether an IPv6 address is in use, the kernel's own question stays on, and costs 2 s.
    this.#canAsk ??= await hasTool('ndisc6', deadlineIn(openTime));
    for (const [name, value] of Object.entries({ ...ipv4, ...(this.#canAsk && ipv6) })) {
      try {
        await holdSysctl(this.#ledger, feature, name, value, deadlineIn(openTime));
      } catch (error) {
        this.#log.warn('a kernel setting cannot be made', { name, value, cause: messageOf(error) });
      }
    }
  }

  async #releaseSysctls(): Promise<void> {
    const links = await readLinks(deadlineIn(openTime));
    // Answered as before, requests for what a proxy has on a device of its own would be answered beside the owner.
    const hasProxy = links.some(({ name }) => proxyDevices.includes(name));
    const names = hasProxy ? Object.keys(publicIpSysctls(this.#config.interface).ipv6) : undefined;
    await releaseSysctls(this.#ledger, feature, deadlineIn(openTime), names);
  }
}
