// Finds the store that a command works on, from a network configuration or from flags, and opens it.
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { renewableDeadline } from '../base/clock.ts';
import { durationRule, parsePositiveDuration } from '../base/duration.ts';
import { code, FailureError, messageOf, systemCode } from '../base/errors.ts';
import { type AccessConfig, readAccessConfig } from '../ipam/config.ts';
import { nodeOf, openSurroundings } from '../ipam/open.ts';
import type { PatientSurroundings } from '../ipam/service/patience.ts';
import { UnreachableError } from '../store/kv.ts';
import { type Args, type Flags, text, UsageError } from './command.ts';
import { emptySurroundings } from './empty-store.ts';
import { defaultConfDir, type FoundNetwork, networksIn, readConfFile, readConfFolder } from './networks.ts';

export const confFlags: Flags = {
  conf: { type: 'string', value: 'FILE', describe: 'network configuration that names the store' },
  'conf-dir': {
    type: 'string',
    value: 'DIR',
    describe: `where to look for the first network of kube-ipam without --conf (${defaultConfDir})`,
  },
};

export const etcdFlags: Flags = {
  'etcd-url': { type: 'string', value: 'URLS', describe: 'etcd endpoints, separated by commas' },
  'etcd-cert': { type: 'string', value: 'FILE', describe: 'client certificate for etcd' },
  'etcd-key': { type: 'string', value: 'FILE', describe: 'key of the client certificate' },
  'etcd-ca': { type: 'string', value: 'FILE', describe: "authority of etcd's server certificates" },
  'etcd-user': { type: 'string', value: 'NAME', describe: 'etcd user' },
  'etcd-password-file': { type: 'string', value: 'FILE', describe: "file that holds the etcd user's password" },
};

export const dataDirFlag: Flags = {
  'data-dir': { type: 'string', value: 'DIR', describe: 'folder of the embedded store' },
};

/** Flags by which every command finds its store. */
export const storeFlags: Flags = {
  ...confFlags,
  ...etcdFlags,
  ...dataDirFlag,
  network: { type: 'string', value: 'NAME', describe: 'the network, where several are configured' },
  space: { type: 'string', value: 'NAME', describe: "address space (the network's own, or default)" },
  'node-name': { type: 'string', value: 'NAME', describe: "this node's name in the store" },
};

/** The keys of `etcdConfig` that the flags stand for; undefined without --etcd-url. */
export function etcdConfigOf(args: Args): Readonly<Record<string, string>> | undefined {
  const url = text(args, 'etcd-url');
  const others: readonly (readonly [string, string | undefined])[] = [
    ['etcdCertFile', text(args, 'etcd-cert')],
    ['etcdKeyFile', text(args, 'etcd-key')],
    ['etcdTrustedCAFileFile', text(args, 'etcd-ca')],
    ['etcdUsername', text(args, 'etcd-user')],
    ['etcdPasswordFile', text(args, 'etcd-password-file')],
  ];
  const set = others.filter(([, value]) => value !== undefined);
  if (url === undefined && set.length > 0) throw new UsageError('flags for etcd need --etcd-url, its endpoints');
  return url === undefined ? undefined : { etcdURL: url, ...Object.fromEntries(set) };
}

/** A store that can be opened, and the network that led to it. */
export interface StoreChoice {
  readonly access: AccessConfig;
  /** Absent when flags named the store. */
  readonly network?: FoundNetwork;
}

/** Follows the flags, or the configurations. `anyNetwork`: --network only filters, so it need not be configured. */
export function chooseStore(args: Args, options: { anyNetwork?: boolean } = {}): StoreChoice {
  const access = storeOfFlags(args);
  if (access !== undefined) return { access };
  const network = chooseNetwork(args, options.anyNetwork === true);
  return { access: adjusted(readAccessConfig(network.conf), args), network };
}

/** The store that the flags name themselves; undefined when none does. */
export function storeOfFlags(args: Args): AccessConfig | undefined {
  const etcdConfig = etcdConfigOf(args);
  const dataDir = text(args, 'data-dir');
  if (etcdConfig === undefined && dataDir === undefined) return undefined;
  if (text(args, 'conf') !== undefined) throw new UsageError('give either --conf or the store itself, not both');
  const ipam = { ...(etcdConfig && { etcdConfig }), ...(dataDir !== undefined && { dataDir }), logLevel: 'off' };
  try {
    return adjusted(readAccessConfig({ name: text(args, 'network') ?? '', ipam }), args);
  } catch (error) {
    if (!(error instanceof FailureError)) throw error;
    throw new UsageError(`the flags name no usable store: ${error.message.replace(/^network "[^"]*": /, '')}`);
  }
}

function adjusted(access: AccessConfig, args: Args): AccessConfig {
  const nodeName = text(args, 'node-name');
  const space = text(args, 'space');
  return {
    ...access,
    timeout: timeoutOf(args) ?? access.timeout,
    ...(nodeName !== undefined && { nodeName }),
    ...(space !== undefined && { space }),
  };
}

/** Milliseconds of --timeout. */
export function timeoutOf(args: Args): number | undefined {
  const given = text(args, 'timeout');
  if (given === undefined) return undefined;
  const ms = parsePositiveDuration(given);
  if (ms === undefined) throw new UsageError(`--timeout ${JSON.stringify(given)}: ${durationRule}, above 0`);
  return ms;
}

function chooseNetwork(args: Args, anyNetwork: boolean): FoundNetwork {
  const file = text(args, 'conf');
  const wanted = text(args, 'network');
  const folder = text(args, 'conf-dir') ?? defaultConfDir;
  const place = file ?? folder;
  const networks = file === undefined ? readConfFolder(folder).networks : networksIn(readConfFile(file), file);
  const first = networks[0];
  if (first === undefined) {
    const why = file === undefined ? brokenOf(folder) : '';
    throw new NotConfiguredError(
      `${place} holds no network of kube-ipam${why}: name a configuration with --conf, or the store with --etcd-url or --data-dir`,
    );
  }
  if (wanted === undefined) return first;
  const named = networks.find(({ name }) => name === wanted);
  if (named !== undefined) return named;
  if (anyNetwork) return first;
  const names = [...new Set(networks.map(({ name }) => name))].join(', ');
  throw new NotConfiguredError(`${place} holds no network "${wanted}" of kube-ipam; it holds ${names}`);
}

function brokenOf(folder: string): string {
  const { broken } = readConfFolder(folder);
  return broken.length === 0
    ? ''
    : ` that can be read (${broken.map(({ reason }) => reason.split('\n')[0]).join('; ')})`;
}

/** No configuration leads to a store: exit code 3. */
export class NotConfiguredError extends FailureError {
  override name = 'NotConfiguredError';

  constructor(message: string) {
    super(code.config, message);
  }
}

export interface OpenStore extends AsyncDisposable, StoreChoice {
  readonly around: PatientSurroundings;
  /** This node's name in the store. */
  readonly node: string;
}

/** What becomes of an embedded store that does not exist: an error unless said otherwise. */
export interface OpenOptions {
  readonly absent?: 'make' | 'seem empty';
}

export async function openChosen(choice: StoreChoice, { absent }: OpenOptions = {}): Promise<OpenStore> {
  const { access } = choice;
  const { store } = access;
  const isMissing = store.kind === 'embedded' && absent !== 'make' && isAbsent(join(store.dataDir, 'store.db'));
  if (isMissing && absent === undefined) {
    throw new UnreachableError(
      `there is no store ${store.dataDir}/store.db: the first address that is given out makes it (or "kube-ipam install"); another folder is named with --data-dir, a configuration with --conf`,
    );
  }
  const openGrpc = store.kind === 'etcd' ? (await import('../store/etcd/grpc.ts')).openGrpc : undefined;
  const deadline = renewableDeadline(access.timeout);
  const around = isMissing
    ? emptySurroundings(access, deadline)
    : { ...(await openSurroundings(access, deadline, openGrpc)), deadline };
  return { ...choice, around, node: nodeOf(access), [Symbol.asyncDispose]: () => around.kv[Symbol.asyncDispose]() };
}

function isAbsent(file: string): boolean {
  try {
    statSync(file);
    return false;
  } catch (error) {
    // The folder is for root only, so "there is no store" would tell anybody else something untrue.
    if (!['ENOENT', 'ENOTDIR'].includes(systemCode(error) ?? '')) {
      const cure = systemCode(error) === 'EACCES' ? '; run this command as root' : '';
      throw new UnreachableError(`the store ${file} cannot be used: ${messageOf(error)}${cure}`, { cause: error });
    }
    return true;
  }
}
