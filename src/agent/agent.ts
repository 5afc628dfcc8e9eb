// The node agent: brings its parts together, starts them, and stops them when it is told to.
import { join } from 'node:path';
import { code, FailureError, messageOf } from '../base/errors.ts';
import { makeFolder } from '../base/folder.ts';
import type { ListenAddress } from '../base/listen.ts';
import { Log, type LogLevel } from '../base/log.ts';
import { Metrics } from '../base/metrics.ts';
import type { Part } from '../base/part.ts';
import { commit, nodeVersion, version } from '../base/version.ts';
import type { Parts } from '../cni/plugin.ts';
import { takeLock } from '../host/lock.ts';
import { surroundingsOf } from '../ipam/open.ts';
import { Certificates } from './certificates.ts';
import { ClaimBooks } from './claims.ts';
import { Apis, Cluster, type ClusterOptions } from './cluster.ts';
import { Cursors } from './cursors.ts';
import { FixedWatch } from './fixed-watch.ts';
import { ClientGcApi } from './gc-api.ts';
import { GcLoop, type GcTimes } from './gc-loop.ts';
import { Memory, residentMemory } from './memory.ts';
import { type Conf, Networks } from './networks.ts';
import { Pages } from './pages.ts';
import { Replay } from './replay.ts';
import { lockFileOf, Requests } from './requests.ts';
import { StoreWatch } from './store-watch.ts';
import { WarmStores } from './stores.ts';
import { Turns } from './turns.ts';
import { VerdictBooks } from './verdicts.ts';

export interface AgentOptions {
  readonly socket: string;
  /** Absent: no pages. */
  readonly listen?: ListenAddress;
  /** Where plugins keep their state unless their configuration says otherwise. */
  readonly dataDir: string;
  /** Where the agent keeps its own. */
  readonly stateDir: string;
  readonly logLevel: LogLevel;
  /** A mounted Secret whose files plugins need on the node; absent: none. */
  readonly certificates?: string;
  /** The configurations in the runtime's folder, as they are now. */
  readonly configured: () => readonly Conf[];
  readonly parts: Parts;
  readonly gc: GcTimes;
  /** Absent: this node belongs to no cluster of Kubernetes. */
  readonly cluster?: ClusterOptions;
}

/** What the agent uses of its process. */
export interface AgentIo {
  writeStderr(text: string): void;
  /** CLOCK_MONOTONIC in milliseconds. */
  monotonicNow(): number;
  /** Aborted when the agent is told to stop. */
  readonly stop: AbortSignal;
}

/** Another agent runs on this node. */
export class AlreadyRunningError extends FailureError {
  override name = 'AlreadyRunningError';

  constructor(socket: string) {
    super(
      code.tryAgain,
      `another agent serves ${socket}: stop that one first, or give this one a --socket of its own, which plugins find by "agentSocket" in their configuration`,
    );
  }
}

/** Runs until it is told to stop. Throws AlreadyRunningError, or why a part cannot start. */
export async function runAgent(options: AgentOptions, io: AgentIo): Promise<void> {
  using lock = takeLock(lockFileOf(options.socket));
  if (lock === undefined) throw new AlreadyRunningError(options.socket);
  // A journal's socket cannot be opened as a file, so the log goes through the stream that is there.
  const target = { file: '/dev/stderr', level: options.logLevel, maxSize: Number.POSITIVE_INFINITY };
  const log = new Log(target, {}, (_, lines) => io.writeStderr(lines));
  await using stores = new WarmStores();
  await using cluster = options.cluster && (await Cluster.open(options.cluster, log));
  await using apis = new Apis(cluster);
  const parts = partsOf(options, io, log, { stores, cluster, apis });
  const started: Part[] = [];
  try {
    for (const part of parts) {
      await part.start();
      started.unshift(part);
    }
    log.info('agent started', { version, commit, socket: options.socket, ...pagesOf(parts) });
    await stopped(io.stop);
    log.info('agent stops');
  } finally {
    for (const part of started) await part.stop();
  }
  log.info('agent stopped');
}

interface Connections {
  readonly stores: WarmStores;
  readonly cluster: Cluster | undefined;
  readonly apis: Apis;
}

/** In the order in which they start; they stop in the opposite one, plugins first. */
function partsOf(options: AgentOptions, io: AgentIo, log: Log, { stores, cluster, apis }: Connections): Part[] {
  const metrics = new Metrics();
  metrics.gauge('kube_ipam_build_info', 'What this program was built from.', () => 1, {
    version,
    commit,
    node: nodeVersion,
  });
  metrics.gauge('process_resident_memory_bytes', 'Resident memory.', residentMemory);
  const networks = new Networks({
    configured: options.configured,
    file: join(options.stateDir, 'networks.json'),
    log,
  });
  // A plugin takes the agent only where its state folder is there already: both must mean the same folder.
  const dataDirs = () => [...new Set([options.dataDir, ...networks.all().map(({ store }) => store.dataDir)])];
  for (const dataDir of dataDirs()) makeStateFolder(dataDir, log);
  const turns = new Turns();
  const replay = new Replay({ dataDirs, stores, turns, log, metrics });
  const requests = new Requests({
    socket: options.socket,
    turns,
    stores,
    claims: new ClaimBooks(),
    cursors: new Cursors(),
    verdicts: new VerdictBooks(),
    log,
    metrics,
    parts: options.parts,
    api: kubeConfig => apis.open(kubeConfig),
    monotonicNow: io.monotonicNow,
    onServed: conf => networks.served(conf),
    tellPod: (kubeConfig, { namespace, name, uid }, reason, message) => {
      // Another kubeconfig may lead to another cluster, whose pods have the same names.
      if (cluster?.isOurs(kubeConfig)) cluster.tellPod({ namespace, name, uid }, reason, message);
    },
  });
  const fixed = new FixedWatch({
    networks: () => networks.all(),
    open: target => stores.open(target),
    tell: ({ metadata }, reason, message) => cluster?.tellPod(metadata, reason, message),
    log,
  });
  cluster?.onPodChange(fixed.onChange);
  const gc = new GcLoop(
    {
      networks: () => networks.all(),
      open: async (access, deadline) => surroundingsOf(access, await stores.open(access.store), deadline, log),
      ...(cluster && { api: new ClientGcApi(cluster.client) }),
      ...(options.cluster && { kubeNode: options.cluster.node }),
      leads: () => cluster?.election.isLeader ?? false,
      tellNode: (node, reason, message) =>
        // The kubelet too gives a node its name as uid, and kubectl looks for that.
        cluster?.events.record({ apiVersion: 'v1', kind: 'Node', name: node, uid: node }, 'Warning', reason, message),
      log,
      metrics,
    },
    options.gc,
  );
  const watch = new StoreWatch(() => networks.all(), stores, metrics);
  const memory = new Memory(() => requests.isBusy);
  const parts: Part[] = [...(cluster?.parts ?? []), watch, replay, gc, requests, memory];
  // First of all: what the others open may need them.
  if (options.certificates !== undefined) parts.unshift(new Certificates({ folder: options.certificates, log }));
  if (options.listen !== undefined) parts.unshift(new Pages(options.listen, () => parts, metrics));
  return parts;
}

function pagesOf(parts: readonly Part[]): { readonly port?: number } {
  const pages = parts.find(part => part instanceof Pages);
  return pages === undefined ? {} : { port: pages.port };
}

function makeStateFolder(folder: string, log: Log): void {
  try {
    makeFolder(folder, 0o700);
  } catch (error) {
    log.warn('a state folder cannot be made: its plugins do their work themselves', { cause: messageOf(error) });
  }
}

function stopped(signal: AbortSignal): Promise<void> {
  return new Promise(resolve => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
