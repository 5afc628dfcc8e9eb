// The CNI plugin: reads what the runtime sent, does the command's work, prints the answer (CNI specification 0.1.0 to 1.1.0).
import { accessSync, constants, mkdirSync } from 'node:fs';
import { type Deadline, deadlineSinceStart } from '../base/clock.ts';
import { code, FailureError, messageOf } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { type AccessConfig, type NetworkConfig, readAccessConfig, readNetworkConfig } from '../ipam/config.ts';
import { describeAddresses } from '../ipam/describe.ts';
import type { Pod } from '../ipam/model.ts';
import { nodeOf, openSurroundings } from '../ipam/open.ts';
import type { Surroundings } from '../ipam/ports.ts';
import { allocate } from '../ipam/service/allocate.ts';
import { collect } from '../ipam/service/collect.ts';
import { ready } from '../ipam/service/ready.ts';
import { release } from '../ipam/service/release.ts';
import { verify } from '../ipam/service/verify.ts';
import { parseIpWithPrefix } from '../net/cidr.ts';
import { type Ip, parseIp } from '../net/ip.ts';
import type { AttachmentId } from '../store/keys.ts';
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
}

/** What is too slow to load for most pods. */
export interface Parts {
  /** For an etcd whose JSON gateway is off. */
  readonly loadGrpc: () => Promise<OpenGrpc>;
  /** For a kubeconfig that is not JSON. */
  readonly parseYaml: (text: string) => unknown;
}

/** Opens what a command works with; a kubeconfig is given where a pod has to be looked up. */
type Open = (access: AccessConfig, deadline: Deadline, kubeConfig?: string) => Promise<Surroundings>;

/** Longest time a STATUS may take, in milliseconds: runtimes ask every few seconds. */
const statusTimeout = 3000;

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
    const answer = await run(env, checkConf(conf, env.command), io.parts);
    if (answer !== undefined) io.writeStdout(answer);
    return 0;
  } catch (error) {
    if (io.parts === undefined && wantsParts(error)) return 'asset';
    io.writeStdout(renderError(version, asFailure(error)));
    return 1;
  }
}

/** Whether another part of the program can do what this one cannot. */
function wantsParts(error: unknown): boolean {
  return error instanceof Error && ['GatewayOffError', 'NeedsAssetError'].includes(error.name);
}

/** etcd is spoken to over gRPC only where its gateway is off: most often the gateway is the quicker way. */
async function run(env: CniEnv, netConf: NetConf, parts: Parts | undefined): Promise<string | undefined> {
  const command = commandsOf[env.command as keyof typeof commandsOf];
  try {
    return await command(env, netConf, opener(parts));
  } catch (error) {
    if (parts === undefined || !wantsParts(error)) throw error;
    return command(env, netConf, opener(parts, await parts.loadGrpc()));
  }
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

type Run = (env: CniEnv, netConf: NetConf, open: Open) => Promise<string | undefined>;

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

async function add(env: CniEnv, { version, conf }: NetConf, open: Open): Promise<string> {
  const args = readArgs(env.args);
  const config = readNetworkConfig(conf, version);
  refuseUnsupported(config);
  const requested = requestedAddresses(config, args);
  const dns = config.resolvConf === undefined ? {} : readDns(config.resolvConf);
  const around = await open(config, deadlineSinceStart(config.timeout), kubeConfigFor(config, args));
  const id = attachmentId(env, nodeOf(config), config.network);
  const { machine, boot } = around.machine;
  const netns = env.netns.length <= 255 ? env.netns : '';
  const owner = { id, cluster: config.cluster, machine, boot, netns, ...(args.pod && { pod: args.pod }) };
  const log = attachmentLog(around.log, id, args.pod);
  return logged(log, 'add', async () => {
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
  event: string,
  work: () => Promise<readonly [T, Readonly<Record<string, string | number>>]>,
): Promise<T> {
  const ms = () => Math.round(performance.now());
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

async function del(env: CniEnv, { conf }: NetConf, open: Open): Promise<undefined> {
  const config = readAccessConfig(conf);
  const around = await open(config, deadlineSinceStart(config.timeout));
  const id = attachmentId(env, nodeOf(config), config.network);
  const log = attachmentLog(around.log, id);
  await logged(log, 'del', async () => {
    const freed = await release({ ...around, log }, id, { cooldown: config.cooldown });
    return [undefined, { address: describeAddresses(freed) }];
  });
}

async function check(env: CniEnv, { version, conf }: NetConf, open: Open): Promise<undefined> {
  const config = readNetworkConfig(conf, version);
  const around = await open(config, deadlineSinceStart(config.timeout));
  await verify(around, config, attachmentId(env, nodeOf(config), config.network), previousAddresses(conf));
}

async function gc(_env: CniEnv, { conf }: NetConf, open: Open): Promise<undefined> {
  const valid = validAttachments(conf);
  const config = readAccessConfig(conf);
  const around = await open(config, deadlineSinceStart(config.timeout));
  await logged(around.log.with({ network: config.network }), 'gc', async () => {
    return [undefined, { freed: await collect(around, config, nodeOf(config), valid) }];
  });
}

async function status(_env: CniEnv, { version, conf }: NetConf, open: Open): Promise<undefined> {
  const config = readNetworkConfig(conf, version);
  const deadline = deadlineSinceStart(Math.min(config.timeout, statusTimeout));
  try {
    refuseUnsupported(config);
    checkFiles(config);
    if (config.status === 'full' || config.store.kind === 'embedded') await statusOfStore(config, deadline, open);
  } catch (error) {
    if (wantsParts(error)) throw error;
    const { message } = asFailure(error);
    throw new FailureError(code.unavailable, message, { cause: error });
  }
}

async function statusOfStore(config: NetworkConfig, deadline: Deadline, open: Open): Promise<void> {
  const around = await open(config, deadline);
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
      throw new FailureError(code.unavailable, `${file} cannot be read: ${messageOf(error)}`);
    }
  }
  try {
    mkdirSync(store.dataDir, { recursive: true, mode: 0o700 });
    accessSync(store.dataDir, constants.W_OK);
  } catch (error) {
    throw new FailureError(code.unavailable, `dataDir ${store.dataDir} cannot be written: ${messageOf(error)}`);
  }
}
