// A real Kubernetes control plane for tests: etcd and API server, controllers and scheduler when wanted, on loopback.
import { execFile } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { authority, type KeyPair, leaf } from '../certificates.ts';
import { type EtcdCluster, type EtcdOptions, freePorts, startEtcd } from '../etcd.ts';
import { endsWithParent, ServerProcess } from '../server-process.ts';
import { ApiClient, type RequestOptions } from './api.ts';
import { type Credential, kubeconfigText } from './kubeconfig.ts';
import { Lan } from './lan.ts';
import { etcdOfKubernetes, kubernetesProgram, whyMissing } from './tools.ts';
import { accepts, tunnelArgv } from './tunnel-end.ts';

/** Somebody whom the API server knows by a token; what they may do is said by RBAC objects. */
export interface User {
  readonly name: string;
  readonly token: string;
  readonly groups?: readonly string[];
}

export interface ControlPlaneOptions {
  /** Pods get service accounts and their tokens; that takes the controller manager, which makes the accounts. */
  readonly serviceAccounts?: boolean;
  readonly controllerManager?: boolean | ControllerManagerOptions;
  readonly scheduler?: boolean;
  /** Known by their tokens, beside the administrator. */
  readonly users?: readonly User[];
  readonly etcd?: EtcdOptions;
  /** More flags of kube-apiserver. */
  readonly flags?: readonly string[];
}

export interface ControllerManagerOptions {
  /** Seconds until a node that falls silent is NotReady; absent: 50, as everywhere. */
  readonly nodeMonitorGracePeriod?: number;
  /** More flags of kube-controller-manager. */
  readonly flags?: readonly string[];
}

export interface KubectlOptions {
  readonly input?: string;
  /** Absent: the administrator's. */
  readonly kubeconfig?: string;
  /** Milliseconds. */
  readonly timeout?: number;
}

const administrator: User = { name: 'admin', token: 'admin-token', groups: ['system:masters'] };

/** Why no control plane can be started here; undefined when one can. */
export function whyNoControlPlane(options: ControlPlaneOptions = {}): string | undefined {
  if (etcdOfKubernetes() === undefined) return 'no etcd was found: apt-get install etcd-server etcd-client';
  return whyMissing(
    'kube-apiserver',
    'kubectl',
    ...(options.controllerManager ? ['kube-controller-manager'] : []),
    ...(options.scheduler ? ['kube-scheduler'] : []),
  );
}

/** Ready when this resolves, after some seconds; its processes end with it, or with the process that started it. */
export async function startControlPlane(options: ControlPlaneOptions = {}): Promise<ControlPlane> {
  const obstacle = whyNoControlPlane(options);
  if (obstacle !== undefined) throw new Error(obstacle);
  await using parts = new AsyncDisposableStack();
  const folder = mkdtempSync(join(tmpdir(), 'kube-ipam-control-plane-'));
  parts.defer(() => rmSync(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 }));
  const place = await prepare(folder, [administrator, ...(options.users ?? [])]);
  const etcd = parts.use(await startEtcd(etcdOfKubernetes()!, options.etcd));
  const start = async (server: ServerProcess) => {
    parts.defer(() => server.kill());
    await server.ready();
    return server;
  };
  const client = parts.use(new ApiClient(place.url, place.caFile, administrator.token));
  const ports = [place.port, ...etcd.endpoints.map(endpoint => Number(new URL(endpoint).port))];
  const [apiServer] = await Promise.all([
    start(apiServerOf(place, client, etcd, options)),
    start(tunnelFor(place, ports)),
  ]);
  const [controllerManager, scheduler] = await Promise.all([
    options.controllerManager && start(await controllerManagerOf(place, client, options)),
    options.scheduler && start(await schedulerOf(place)),
  ]);
  return new ControlPlane(place, parts.move(), {
    etcd,
    client,
    apiServer,
    ...(controllerManager && { controllerManager }),
    ...(scheduler && { scheduler }),
  });
}

/** What is on disk before anything runs. */
interface Place {
  readonly folder: string;
  readonly port: number;
  readonly url: string;
  readonly caFile: string;
  readonly server: KeyPair;
  readonly tokensFile: string;
  readonly accountKey: string;
  readonly adminKubeconfig: string;
  /** A folder of sockets, by which nodes in networks of their own reach this one, and are reached. */
  readonly sockets: string;
  readonly egress: string;
}

interface Parts {
  readonly etcd: EtcdCluster;
  readonly client: ApiClient;
  readonly apiServer: ServerProcess;
  readonly controllerManager?: ServerProcess;
  readonly scheduler?: ServerProcess;
}

export class ControlPlane implements AsyncDisposable {
  readonly folder: string;
  /** https://127.0.0.1:PORT, the same after each restart. */
  readonly url: string;
  readonly port: number;
  /** The authority that signed the API server's certificate and signs those of clients. */
  readonly caFile: string;
  /** Of a user in the group system:masters. */
  readonly adminToken = administrator.token;
  readonly adminKubeconfig: string;
  /** It keeps Kubernetes' objects, and may keep addresses too: kube-ipam's keys and Kubernetes' do not meet. */
  readonly etcd: EtcdCluster;
  /** `kill`, `stop`, `cont` and `restart` take it away and bring it back on the same port. */
  readonly apiServer: ServerProcess;
  readonly controllerManager: ServerProcess | undefined;
  readonly scheduler: ServerProcess | undefined;
  /** A socket in it named by a port leads there; one named HOST:PORT leads the API server to a node. */
  readonly sockets: string;
  readonly #client: ApiClient;
  readonly #parts: AsyncDisposableStack;
  #lan: Promise<Lan> | undefined;
  #files = 0;

  constructor(place: Place, owned: AsyncDisposableStack, parts: Parts) {
    this.folder = place.folder;
    this.url = place.url;
    this.port = place.port;
    this.caFile = place.caFile;
    this.adminKubeconfig = place.adminKubeconfig;
    this.sockets = place.sockets;
    this.etcd = parts.etcd;
    this.apiServer = parts.apiServer;
    this.controllerManager = parts.controllerManager;
    this.scheduler = parts.scheduler;
    this.#client = parts.client;
    this.#parts = owned;
  }

  /** One request; gives the parsed answer, throws an ApiRefusal for a status other than 2xx. */
  api<T = unknown>(method: string, path: string, body?: unknown, options: RequestOptions = {}): Promise<T> {
    return this.#client.request<T>(method, path, body, options);
  }

  /** Runs kubectl; gives its standard output, throws with what it wrote when it fails. */
  kubectl(argv: readonly string[], options: KubectlOptions = {}): Promise<string> {
    const env = { PATH: process.env.PATH, HOME: this.folder, KUBECONFIG: options.kubeconfig ?? this.adminKubeconfig };
    return new Promise((resolve, reject) => {
      const limits = { env, timeout: options.timeout ?? 60_000, maxBuffer: 64 << 20 };
      const [command, ...args] = [...endsWithParent, kubernetesProgram('kubectl')!, ...argv];
      const running = execFile(command!, args, limits, (cause, stdout, stderr) => {
        if (cause === null) resolve(stdout);
        else reject(new Error(`kubectl ${argv.join(' ')}: ${stderr || cause.message}`, { cause }));
      });
      // A command that ends without reading its input must not end the test.
      running.stdin?.on('error', () => {});
      running.stdin?.end(options.input ?? '');
    });
  }

  /** A certificate by which the API server knows this user, groups and all, from now on. */
  clientCertificate(name: string, groups: readonly string[] = []): Promise<KeyPair> {
    const subject = [...groups.map(group => `/O=${group}`), `/CN=${name}`].join('');
    return leaf(this.folder, `client-${++this.#files}`, subject, ['extendedKeyUsage=clientAuth']);
  }

  /** Writes a kubeconfig file (0600) and gives its path; `server` may be a proxy before the API server. */
  kubeconfig(credential: Credential, server: string = this.url): string {
    const path = join(this.folder, `kubeconfig-${++this.#files}`);
    writeFileSync(path, kubeconfigText(server, this.caFile, credential), { mode: 0o600 });
    return path;
  }

  /** etcd forgets all revisions before the present one: what goes on from an older one gets 410 Gone. */
  async compact(): Promise<void> {
    const [status] = JSON.parse(await this.etcd.ctl('endpoint', 'status', '--write-out', 'json')) as [
      { readonly Status: { readonly header: { readonly revision: number } } },
    ];
    await this.etcd.ctl('compact', String(status.Status.header.revision));
  }

  /** The wire between its nodes. */
  lan(): Promise<Lan> {
    this.#lan ??= Lan.start().then(lan => this.#parts.use(lan));
    return this.#lan;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#parts.disposeAsync();
  }
}

async function prepare(folder: string, users: readonly User[]): Promise<Place> {
  const caFile = await authority(folder, 'ca');
  const names = ['IP:127.0.0.1', 'DNS:localhost', 'DNS:kubernetes.default.svc', 'IP:10.96.0.1'].join(',');
  const server = await leaf(folder, 'server', '/CN=kube-apiserver', [
    `subjectAltName=${names}`,
    'extendedKeyUsage=serverAuth',
  ]);
  const [port] = await freePorts(1);
  const url = `https://127.0.0.1:${port}`;
  const write = (name: string, text: string) => {
    writeFileSync(join(folder, name), text, { mode: 0o600 });
    return join(folder, name);
  };
  const line = ({ name, token, groups = [] }: User) => `${token},${name},${name},"${groups.join(',')}"\n`;
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
  const sockets = join(folder, 'sockets');
  mkdirSync(sockets);
  return {
    folder,
    port: port!,
    url,
    caFile,
    server,
    tokensFile: write('tokens.csv', users.map(line).join('')),
    accountKey: write('service-accounts.key', privateKey.export({ type: 'sec1', format: 'pem' }) as string),
    sockets,
    egress: write('egress.json', egressText(join(sockets, 'connect'))),
    adminKubeconfig: write('admin.kubeconfig', kubeconfigText(url, caFile, { token: administrator.token })),
  };
}

function apiServerOf(place: Place, client: ApiClient, etcd: EtcdCluster, options: ControlPlaneOptions): ServerProcess {
  const { ca, namedClient } = etcd.certificates ?? {};
  const flags = [
    ...['--etcd-servers', etcd.endpoints.join(',')],
    ...(ca && namedClient
      ? ['--etcd-cafile', ca, '--etcd-certfile', namedClient.cert, '--etcd-keyfile', namedClient.key]
      : []),
    ...['--bind-address', '127.0.0.1', '--secure-port', String(place.port)],
    ...['--tls-cert-file', place.server.cert, '--tls-private-key-file', place.server.key],
    ...['--client-ca-file', place.caFile, '--token-auth-file', place.tokensFile, '--authorization-mode', 'Node,RBAC'],
    ...['--service-account-issuer', 'https://kubernetes.default.svc'],
    ...['--service-account-key-file', place.accountKey, '--service-account-signing-key-file', place.accountKey],
    ...['--service-cluster-ip-range', '10.96.0.0/16', '--allow-privileged'],
    // An API server on loopback cannot be an endpoint of the Service "kubernetes".
    ...['--advertise-address', '127.0.0.1', '--endpoint-reconciler-type', 'none'],
    ...['--egress-selector-config-file', place.egress],
    ...(options.serviceAccounts ? [] : ['--disable-admission-plugins', 'ServiceAccount']),
    ...(options.flags ?? []),
  ];
  const argv = [kubernetesProgram('kube-apiserver')!, ...flags];
  return new ServerProcess({ name: `kube-apiserver at ${place.url}`, argv, answers: () => client.answers('/readyz') });
}

async function controllerManagerOf(
  place: Place,
  client: ApiClient,
  options: ControlPlaneOptions,
): Promise<ServerProcess> {
  const { nodeMonitorGracePeriod: grace, flags = [] }: ControllerManagerOptions =
    typeof options.controllerManager === 'object' ? options.controllerManager : {};
  const own = [
    ...['--service-account-private-key-file', place.accountKey, '--root-ca-file', place.caFile],
    ...(grace === undefined ? [] : ['--node-monitor-grace-period', `${grace}s`, '--node-monitor-period', '1s']),
    ...flags,
  ];
  // A pod is refused until the account of its namespace is there.
  const account = () => client.answers('/api/v1/namespaces/default/serviceaccounts/default');
  return clientOfApi(place, 'kube-controller-manager', own, account);
}

function schedulerOf(place: Place): Promise<ServerProcess> {
  return clientOfApi(place, 'kube-scheduler', [], () => Promise.resolve(true));
}

async function clientOfApi(
  place: Place,
  program: string,
  flags: readonly string[],
  works: () => Promise<boolean>,
): Promise<ServerProcess> {
  const [port] = await freePorts(1);
  const common = [
    ...['--kubeconfig', place.adminKubeconfig, '--leader-elect=false'],
    ...['--bind-address', '127.0.0.1', '--secure-port', String(port)],
    ...['--tls-cert-file', place.server.cert, '--tls-private-key-file', place.server.key],
  ];
  const health = async () => {
    using own = new ApiClient(`https://127.0.0.1:${port}`, place.caFile, administrator.token);
    return (await own.answers('/healthz')) && works();
  };
  return new ServerProcess({
    name: program,
    argv: [kubernetesProgram(program)!, ...common, ...flags],
    answers: health,
  });
}

/** What the API server itself connects to (kubelets, for logs and exec) is asked of the tunnel. */
function egressText(socket: string): string {
  const connection = { proxyProtocol: 'HTTPConnect', transport: { uds: { udsName: socket } } };
  return JSON.stringify({
    apiVersion: 'apiserver.k8s.io/v1beta1',
    kind: 'EgressSelectorConfiguration',
    egressSelections: [{ name: 'cluster', connection }],
  });
}

function tunnelFor({ sockets }: Place, ports: readonly number[]): ServerProcess {
  const last = join(sockets, 'connect');
  const routes = [...ports.flatMap(port => [join(sockets, String(port)), String(port)]), last, `connect:${sockets}`];
  return new ServerProcess({
    name: 'the tunnel to the nodes',
    argv: tunnelArgv(routes),
    answers: () => accepts(last),
  });
}
