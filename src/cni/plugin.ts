// The CNI plugin: reads what the runtime sent, does the command's work, prints the answer (CNI specification 0.1.0 to 1.1.0).
import { accessSync, constants } from 'node:fs';
import { type Deadline, deadlineIn } from '../base/clock.ts';
import { code, FailureError, messageOf } from '../base/errors.ts';
import { makeFolder } from '../base/folder.ts';
import { Log } from '../base/log.ts';
import { type AccessConfig, type NetworkConfig, readAccessConfig, readNetworkConfig } from '../ipam/config.ts';
import { describeAddresses } from '../ipam/describe.ts';
import { FileDoubts } from '../ipam/doubts.ts';
import type { Pod } from '../ipam/model.ts';
import { nodeOf, openSurroundings } from '../ipam/open.ts';
import type { Surroundings } from '../ipam/ports.ts';
import { allocate } from '../ipam/service/allocate.ts';
import { collect } from '../ipam/service/collect.ts';
import { ready } from '../ipam/service/ready.ts';
import { release } from '../ipam/service/release.ts';
import { verify } from '../ipam/service/verify.ts';
import { Spool } from '../ipam/spool.ts';
import { parseIpWithPrefix } from '../net/cidr.ts';
import { type Ip, parseIp } from '../net/ip.ts';
import type { AttachmentId } from '../store/keys.ts';
import { UnknownFateError, UnreachableError } from '../store/kv.ts';
import type { OpenGrpc } from '../store/open.ts';
import { type CniArgs, readArgs } from './args.ts';
import { readDns } from './dns.ts';
import { type CniEnv, type Environment, readEnv } from './env.ts';
import {
  checkConf,
  type NetConf,
  newestVersion,
  parseConf,
  previousAddresses,
  spokenVersion,
  type Version,
  validAttachments,
  versions,
} from './netconf.ts';
import { renderError, renderResult } from './result.ts';

export interface PluginIo {
  readonly env: Environment;
  /** All of stdin. */
  readStdin(): Buffer;
  /** Writes all of it. */
  writeStdout(text: string): void;
  /** Given where all of the program is at hand. */
  readonly parts?: Parts;
  /** Given in the agent, which works for a plugin that waits for it. */
  readonly resident?: Resident;
  /** The agent had this command and gave no answer: its connection broke, or the time is over. */
  readonly unanswered?: 'lost' | 'late';
}

/** What the agent has that a process for one command has not. */
export interface Resident {
  readonly open: Open;
  /** Milliseconds since the plugin was started: its budget counts from there. */
  readonly elapsed: () => number;
  /** Told why the command has failed. */
  readonly failed?: (error: unknown) => void;
}

/** What is too slow to load for most pods. */
export interface Parts {
  /** For an etcd whose JSON gateway is off. */
  readonly loadGrpc: () => Promise<OpenGrpc>;
  /** For a kubeconfig that is not JSON. */
  readonly parseYaml: (text: string) => unknown;
}

/** Opens what a command works with; a kubeconfig is given where a pod has to be looked up. */
export type Open = (access: AccessConfig, deadline: Deadline, kubeConfig?: string) => Promise<Surroundings>;

/** Longest time a STATUS may take, in milliseconds: runtimes ask every few seconds. */
const statusTimeout = 3000;

/** Milliseconds for which the agent tries a DEL before it keeps it on disk: a runtime deletes many pods one by one. */
const delPatience = 3000;

/** How a command reaches its store and learns the time. */
interface Context {
  readonly open: Open;
  readonly elapsed: () => number;
  /** A command's end, `ms` milliseconds after its process started. */
  deadline(ms: number): Deadline;
  /** Whether a DEL may wait on disk: somebody must be there to do it later. */
  readonly keepsDels: boolean;
}

/**
 * Runs one command. Returns the exit code, or 'asset' when the same command must be run where all parts are at hand:
 * nothing was written to stdout then.
 */
export async function runPlugin(io: PluginIo): Promise<number | 'asset'> {
  let version: Version = newestVersion;
  try {
    const env = readEnv(io.env);
    const bytes = readConf(io);
    if (env.command === 'VERSION') {
      io.writeStdout(versionAnswer(bytes));
      return 0;
    }
    const conf = parseConf(bytes);
    version = spokenVersion(conf) ?? newestVersion;
    const netConf = checkConf(conf, env.command);
    if (io.unanswered !== undefined) afterAgent(io.unanswered, env, netConf);
    const answer = await run(env, netConf, io);
    if (answer !== undefined) io.writeStdout(answer);
    return 0;
  } catch (error) {
    if (io.parts === undefined && wantsParts(error)) return 'asset';
    io.resident?.failed?.(error);
    io.writeStdout(renderError(version, asFailure(error)));
    return 1;
  }
}

/** Whether another part of the program can do what this one cannot. */
function wantsParts(error: unknown): boolean {
  return error instanceof Error && ['GatewayOffError', 'NeedsAssetError'].includes(error.name);
}

/** etcd is spoken to over gRPC only where its gateway is off: most often the gateway is the quicker way. */
async function run(env: CniEnv, netConf: NetConf, { parts, resident }: PluginIo): Promise<string | undefined> {
  const command = commandsOf[env.command as keyof typeof commandsOf];
  if (resident !== undefined) return command(env, netConf, contextOf(resident, true));
  const elapsed = () => performance.now();
  try {
    return await command(env, netConf, contextOf({ open: opener(parts), elapsed }, false));
  } catch (error) {
    if (parts === undefined || !wantsParts(error)) throw error;
    const open = opener(parts, await parts.loadGrpc());
    return command(env, netConf, contextOf({ open, elapsed }, false));
  }
}

function contextOf({ open, elapsed }: Resident, keepsDels: boolean): Context {
  return { open, elapsed, deadline: ms => deadlineIn(ms - elapsed()), keepsDels };
}

/**
 * Nobody knows what the agent has done or will do: the DEL of this attachment must turn away what comes late. Throws when
 * there is no time left to do the work here.
 */
function afterAgent(unanswered: 'lost' | 'late', env: CniEnv, { conf }: NetConf): void {
  if (env.command === 'ADD') {
    const config = readAccessConfig(conf);
    const doubts = new FileDoubts(config.store.dataDir, new Log(config.log));
    doubts.leave(attachmentId(env, nodeOf(config), config.network));
  }
  if (unanswered === 'lost') return;
  throw new FailureError(
    env.command === 'STATUS' ? code.unavailable : code.tryAgain,
    'the kube-ipam agent on this node took this request and has not answered in time: see its log (journalctl -u kube-ipam-agent, or kubectl logs of its pod) and /readyz',
  );
}

function opener(parts: Parts | undefined, openGrpc?: OpenGrpc): Open {
  return async (access, deadline, kubeConfig) => {
    const around = await openSurroundings(access, deadline, openGrpc);
    if (kubeConfig === undefined) return around;
    // Lazily: most networks have no kubeconfig.
    const { openApi } = await import('./api.ts');
    return { ...around, api: openApi(kubeConfig, parts?.parseYaml) };
  };
}

function readConf(io: PluginIo): Buffer {
  try {
    return io.readStdin();
  } catch (error) {
    throw new FailureError(code.io, `the network configuration cannot be read from stdin: ${messageOf(error)}`);
  }
}

/** What was not foreseen is a bug, told as such and without its stack. */
function asFailure(error: unknown): FailureError {
  if (error instanceof FailureError) return error;
  return new FailureError(code.bug, `internal error of kube-ipam: ${messageOf(error)}; please report it`);
}

function versionAnswer(bytes: Buffer): string {
  const text = bytes.toString('utf8').trim();
  const version = text === '' ? newestVersion : (spokenVersion(parseConf(bytes)) ?? newestVersion);
  return JSON.stringify({ cniVersion: version, supportedVersions: versions });
}

type Run = (env: CniEnv, netConf: NetConf, context: Context) => Promise<string | undefined>;

const commandsOf: Readonly<Record<'ADD' | 'DEL' | 'CHECK' | 'GC' | 'STATUS', Run>> = {
  ADD: add,
  DEL: del,
  CHECK: check,
  GC: gc,
  STATUS: status,
};

/** A name for the log of what one attachment's command does. */
function attachmentLog(log: Log, id: AttachmentId, pod?: Pod): Log {
  const { network, containerID, ifname } = id;
  return log.with({ network, containerID, ifname, ...(pod && { pod: `${pod.namespace}/${pod.name}` }) });
}

async function add(env: CniEnv, { version, conf }: NetConf, context: Context): Promise<string> {
  const args = readArgs(env.args);
  const config = readNetworkConfig(conf, version);
  refuseUnsupported(config);
  const requested = requestedAddresses(config, args);
  const dns = config.resolvConf === undefined ? {} : readDns(config.resolvConf);
  const around = await context.open(config, context.deadline(config.timeout), kubeConfigFor(config, args));
  const id = attachmentId(env, nodeOf(config), config.network);
  const { machine, boot } = around.machine;
  const netns = env.netns.length <= 255 ? env.netns : '';
  const owner = { id, cluster: config.cluster, machine, boot, netns, ...(args.pod && { pod: args.pod }) };
  const log = attachmentLog(around.log, id, args.pod);
  return logged(log, context, 'add', async () => {
    // A DEL of this name that still waits for the store was for what this container held before.
    new Spool(config.store.dataDir).remove(id);
    const { addresses, tries } = await allocate({ ...around, log }, config, owner, requested);
    const text = renderResult(version, { addresses, routes: config.routes, dns });
    return [text, { address: describeAddresses(addresses.map(({ ip }) => ip)), tries }];
  });
}

/** A container of podman has a name without a namespace: it is no pod of a cluster. */
function kubeConfigFor({ kubeConfig }: NetworkConfig, { pod }: CniArgs): string | undefined {
  return pod === undefined || pod.namespace === '' ? undefined : kubeConfig;
}

/** To ignore a key of a later release would hand out an address that was not meant. */
function refuseUnsupported({ network, unsupportedKeys }: NetworkConfig): void {
  if (unsupportedKeys.length === 0) return;
  throw new FailureError(
    code.unsupported,
    `network ${network}: ${unsupportedKeys.join(', ')} cannot be honoured by this version of kube-ipam: remove it, or install a release that can`,
  );
}

/** runtimeConfig.ips or args.cni.ips, else CNI_ARGS IP (CONVENTIONS.md of CNI: args win over CNI_ARGS). */
function requestedAddresses(config: NetworkConfig, args: CniArgs): Ip[] {
  const texts = config.requested.length > 0 ? config.requested : args.ip === undefined ? [] : [args.ip];
  return texts.map(text => {
    const ip = parseIp(text) ?? parseIpWithPrefix(text)?.ip;
    if (ip !== undefined) return ip;
    throw new FailureError(code.environment, `CNI_ARGS: IP ${JSON.stringify(text.slice(0, 80))} is not an IP address`);
  });
}

function attachmentId(env: CniEnv, node: string, network: string): AttachmentId {
  return { node, network, containerID: env.containerID, ifname: env.ifname };
}

/** Logs the outcome with its duration, whichever it is. */
async function logged<T>(
  log: Log,
  { elapsed }: Context,
  event: string,
  work: () => Promise<readonly [T, Readonly<Record<string, string | number>>]>,
): Promise<T> {
  const ms = () => Math.round(elapsed());
  try {
    const [result, fields] = await work();
    log.info(event, { ...fields, ms: ms() });
    return result;
  } catch (error) {
    if (wantsParts(error)) throw error;
    const failure = asFailure(error);
    log.error(event, { code: failure.code, message: failure.message, ms: ms() });
    throw error;
  }
}

async function del(env: CniEnv, { conf }: NetConf, context: Context): Promise<undefined> {
  const config = readAccessConfig(conf);
  const around = await context.open(config, context.deadline(config.timeout));
  const id = attachmentId(env, nodeOf(config), config.network);
  const log = attachmentLog(around.log, id);
  const spool = new Spool(config.store.dataDir);
  const deadline = context.keepsDels ? around.deadline.within(delPatience) : around.deadline;
  await logged(log, context, 'del', async () => {
    try {
      const freed = await release({ ...around, deadline, log }, id, { cooldown: config.cooldown });
      spool.remove(id);
      return [undefined, { address: describeAddresses(freed) }];
    } catch (error) {
      if (!context.keepsDels || !isAway(error)) throw error;
      spool.keep({ id, conf });
      return [undefined, { kept: messageOf(error) }];
    }
  });
}

/** The store did not say what it did, or could not be asked. */
function isAway(error: unknown): boolean {
  return error instanceof UnreachableError || error instanceof UnknownFateError;
}

async function check(env: CniEnv, { version, conf }: NetConf, context: Context): Promise<undefined> {
  const config = readNetworkConfig(conf, version);
  const around = await context.open(config, context.deadline(config.timeout));
  await verify(around, config, attachmentId(env, nodeOf(config), config.network), previousAddresses(conf));
}

async function gc(_env: CniEnv, { conf }: NetConf, context: Context): Promise<undefined> {
  const valid = validAttachments(conf);
  const config = readAccessConfig(conf);
  const around = await context.open(config, context.deadline(config.timeout));
  await logged(around.log.with({ network: config.network }), context, 'gc', async () => {
    return [undefined, { freed: await collect(around, config, nodeOf(config), valid) }];
  });
}

async function status(_env: CniEnv, { version, conf }: NetConf, context: Context): Promise<undefined> {
  const config = readNetworkConfig(conf, version);
  const deadline = context.deadline(Math.min(config.timeout, statusTimeout));
  try {
    refuseUnsupported(config);
    checkFiles(config);
    if (config.status === 'full' || config.store.kind === 'embedded') await statusOfStore(config, deadline, context);
  } catch (error) {
    if (wantsParts(error)) throw error;
    const { message } = asFailure(error);
    throw new FailureError(code.unavailable, message, { cause: error });
  }
}

async function statusOfStore(config: NetworkConfig, deadline: Deadline, context: Context): Promise<void> {
  const around = await context.open(config, deadline);
  if (config.status === 'full') await ready(around, config, nodeOf(config));
}

/** What another node would not have too: files that root must be able to read, the folder it must be able to write. */
function checkFiles({ store, resolvConf, kubeConfig }: NetworkConfig): void {
  const files = store.kind === 'etcd' ? [store.certFile, store.keyFile, store.caFile, store.passwordFile] : [];
  for (const file of [...files, resolvConf, kubeConfig]) {
    if (file === undefined) continue;
    try {
      accessSync(file, constants.R_OK);
    } catch (error) {
      const keeper = file === kubeConfig ? '; where an agent keeps it, look whether that runs, and at its /readyz' : '';
      throw new FailureError(code.unavailable, `${file} cannot be read: ${messageOf(error)}${keeper}`);
    }
  }
  try {
    makeFolder(store.dataDir, 0o700);
    accessSync(store.dataDir, constants.W_OK);
  } catch (error) {
    throw new FailureError(code.unavailable, `dataDir ${store.dataDir} cannot be written: ${messageOf(error)}`);
  }
}
