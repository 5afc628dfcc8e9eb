// Real etcd for tests: any engine found here, one member or three, with or without TLS, gone when the test ends.
import { execFile, execFileSync } from 'node:child_process';
import { accessSync, constants, mkdtempSync, readdirSync, readFileSync as readFile, rmSync, statSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import net from 'node:net';
import { homedir, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import type { EtcdTarget } from '../../src/store/target.ts';
import { type Certificates, makeCertificates } from './certificates.ts';
import { ServerProcess } from './server-process.ts';

const run = promisify(execFile);

export interface Engine {
  readonly version: string;
  readonly etcd: string;
  readonly etcdctl: string;
}

/** Every etcd of this machine, one of each version: Debian's, those of ETCD_BINARIES, those of the tools cache. */
export function engines(): readonly Engine[] {
  const cache = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'kube-ipam', 'tools');
  const cached = folders(cache).map(name => join(cache, name, 'etcd'));
  const named = (process.env.ETCD_BINARIES ?? '').split(':').filter(Boolean).flatMap(binaries);
  const inPath = (process.env.PATH ?? '').split(':').map(folder => join(folder, 'etcd'));
  const found = new Map<string, Engine>();
  for (const etcd of [...named, ...inPath, ...cached]) {
    const engine = executable(etcd) ? identify(etcd) : undefined;
    if (engine !== undefined && !found.has(engine.version)) found.set(engine.version, engine);
  }
  return [...found.values()].sort((a, b) => a.version.localeCompare(b.version, 'en', { numeric: true }));
}

function folders(folder: string): readonly string[] {
  try {
    return readdirSync(folder).filter(name => name.startsWith('etcd-'));
  } catch {
    return [];
  }
}

function binaries(path: string): readonly string[] {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory()
    ? [
        join(path, 'etcd'),
        ...readdirSync(path)
          .filter(name => /^etcd-?v?\d/.test(name))
          .map(name => join(path, name)),
      ]
    : [path];
}

function executable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

/** Which etcd an executable is; undefined when it is none. */
export function identify(etcd: string): Engine | undefined {
  const output = execFileSync(etcd, ['--version'], { encoding: 'utf8', timeout: 20_000 });
  const version = output.match(/^etcd Version: (\S+)/m)?.[1];
  if (version === undefined) return undefined;
  const beside = join(dirname(etcd), 'etcdctl');
  return { version, etcd, etcdctl: executable(beside) ? beside : 'etcdctl' };
}

export interface EtcdOptions {
  readonly members?: 1 | 3;
  /** Client connections over TLS; `verifyClients` asks every client for a certificate. */
  readonly tls?: { readonly verifyClients: boolean; readonly commonName?: string };
  readonly flags?: readonly string[];
  /** Writes are synced, as they are in production; tests do without. */
  readonly durable?: boolean;
}

export async function startEtcd(engine: Engine, options: EtcdOptions = {}): Promise<EtcdCluster> {
  const folder = mkdtempSync(join(tmpdir(), 'kube-ipam-etcd-'));
  try {
    const certificates = options.tls && (await makeCertificates(folder, options.tls.commonName ?? 'root'));
    const ports = await freePorts(2 * (options.members ?? 1));
    const cluster = new EtcdCluster(engine, folder, ports, certificates, options);
    try {
      await cluster.ready();
      return cluster;
    } catch (error) {
      await cluster[Symbol.asyncDispose]();
      throw error;
    }
  } catch (error) {
    rmSync(folder, { recursive: true, force: true });
    throw error;
  }
}

export class EtcdCluster implements AsyncDisposable {
  readonly engine: Engine;
  readonly folder: string;
  readonly certificates: Certificates | undefined;
  readonly members: readonly EtcdMember[];
  readonly #options: EtcdOptions;

  constructor(
    engine: Engine,
    folder: string,
    ports: readonly number[],
    certificates: Certificates | undefined,
    options: EtcdOptions,
  ) {
    this.engine = engine;
    this.folder = folder;
    this.certificates = certificates;
    this.#options = options;
    const peers = ports
      .filter((_, place) => place % 2 === 1)
      .map((port, place) => `m${place}=http://127.0.0.1:${port}`);
    const common = [
      ...security(certificates, options),
      ...(options.durable ? [] : speed(engine)),
      ...(options.flags ?? []),
    ];
    this.members = peers.map((peer, place) => {
      const endpoint = `${certificates ? 'https' : 'http'}://127.0.0.1:${ports[2 * place]}`;
      const peerUrl = peer.slice(peer.indexOf('=') + 1);
      const flags = [
        ['--name', `m${place}`, '--data-dir', join(folder, `m${place}`)],
        ['--listen-client-urls', endpoint, '--advertise-client-urls', endpoint],
        ['--listen-peer-urls', peerUrl, '--initial-advertise-peer-urls', peerUrl],
        ['--initial-cluster', peers.join(','), '--initial-cluster-state', 'new'],
        common,
      ].flat();
      return new EtcdMember(engine.etcd, endpoint, flags, () => this.#healthy(endpoint));
    });
  }

  get endpoints(): readonly string[] {
    return this.members.map(member => member.endpoint);
  }

  /** How to reach it, with a state folder of its own. */
  target(changes: Partial<EtcdTarget> = {}): EtcdTarget {
    return {
      kind: 'etcd',
      endpoints: this.endpoints,
      dialTimeout: 1000,
      requestTimeout: 3000,
      dataDir: mkdtempSync(join(this.folder, 'state-')),
      ...(this.certificates === undefined ? {} : { caFile: this.certificates.ca }),
      ...changes,
    };
  }

  /** Runs etcdctl against it. */
  ctl(...args: readonly string[]): Promise<string> {
    return this.ctlWithInput('', ...args);
  }

  /** The same, with something to read for etcdctl: a password. */
  async ctlWithInput(input: string, ...args: readonly string[]): Promise<string> {
    const { certificates } = this;
    const { cert, key } = certificates?.namedClient ?? { cert: '', key: '' };
    const client = certificates && ['--cacert', certificates.ca, '--cert', cert, '--key', key];
    const all = ['--endpoints', this.endpoints.join(','), ...(client ?? []), ...args];
    const env = { ...process.env, ETCDCTL_API: '3' };
    const running = run(this.engine.etcdctl, all, { env, timeout: 20_000 });
    // It ends without reading what it does not ask for.
    running.child.stdin?.on('error', () => {});
    running.child.stdin?.end(input);
    return (await running).stdout;
  }

  async ready(): Promise<void> {
    await Promise.all(this.members.map(member => member.ready()));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.members.map(member => member.kill()));
    rmSync(this.folder, { recursive: true, force: true });
  }

  #healthy(endpoint: string): Promise<boolean> {
    const client = this.#options.tls?.verifyClients ? this.certificates?.namedClient : undefined;
    return healthy(endpoint, this.certificates?.ca, client);
  }
}

function security(certificates: Certificates | undefined, options: EtcdOptions): readonly string[] {
  if (certificates === undefined) return [];
  const server = ['--cert-file', certificates.server.cert, '--key-file', certificates.server.key];
  return options.tls?.verifyClients ? [...server, '--client-cert-auth', '--trusted-ca-file', certificates.ca] : server;
}

const noFsync = new Map<string, boolean>();

function speed(engine: Engine): readonly string[] {
  let known = noFsync.get(engine.etcd);
  if (known === undefined) {
    known = execFileSync(engine.etcd, ['--help'], { encoding: 'utf8', timeout: 20_000, stdio: 'pipe' }).includes(
      '--unsafe-no-fsync',
    );
    noFsync.set(engine.etcd, known);
  }
  return known ? ['--unsafe-no-fsync'] : [];
}

/** One member; it can be killed, paused and started again with its data. */
export class EtcdMember extends ServerProcess {
  readonly endpoint: string;

  constructor(etcd: string, endpoint: string, flags: readonly string[], answers: () => Promise<boolean>) {
    super({ name: `etcd at ${endpoint}`, argv: [etcd, ...flags], answers });
    this.endpoint = endpoint;
  }
}

function healthy(
  endpoint: string,
  ca: string | undefined,
  client: { cert: string; key: string } | undefined,
): Promise<boolean> {
  const url = new URL('/health', endpoint);
  const certificates = client && { cert: readFile(client.cert), key: readFile(client.key) };
  const options = { timeout: 2000, agent: false, ...(ca === undefined ? {} : { ca: readFile(ca) }), ...certificates };
  return new Promise(resolve => {
    const request = (ca === undefined ? http : https).get(url, options, response => {
      let body = '';
      response.on('data', chunk => {
        body += chunk;
      });
      response.on('end', () => resolve(/"health": ?"?true/.test(body)));
      response.on('error', () => resolve(false));
    });
    request.on('timeout', () => request.destroy());
    request.on('error', () => resolve(false));
    request.on('close', () => resolve(false));
  });
}

/** Ports that were free a moment ago, all different. */
export async function freePorts(count: number): Promise<readonly number[]> {
  const servers = await Promise.all(
    Array.from({ length: count }, async () => {
      const server = net.createServer();
      await new Promise<void>((resolve, reject) => server.once('error', reject).listen(0, '127.0.0.1', resolve));
      return server;
    }),
  );
  const ports = servers.map(server => (server.address() as net.AddressInfo).port);
  await Promise.all(servers.map(server => new Promise(resolve => server.close(resolve))));
  return ports;
}
