// A real Kubernetes node for tests: containerd and kubelet on a small machine of their own, on the control plane's wire.
import { randomUUID } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ConfList } from '../../../src/cli/conf-templates.ts';
import { makeSandboxImage, whyNoContainerd } from '../containerd.ts';
import { makeControlGroups, whyNoControlGroups } from '../control-groups.ts';
import { type Daemon, type Finished, Machine, type RunOptions, whyNoMachine } from '../machine.ts';
import { ServerProcess } from '../server-process.ts';
import { type ControlPlane, whyNoControlPlane } from './control-plane.ts';
import { files, kubeletPort, layOutDisk, mountDisk, runtime, write, writeKubeletConfig } from './node-disk.ts';
import { kubernetesProgram, toolFolder, whyMissing } from './tools.ts';
import { accepts, tunnelArgv } from './tunnel-end.ts';

export interface NodeOptions {
  readonly name: string;
  /** Installed by `kube-ipam install`, which makes the node Ready; absent: for whoever installs one in another way. */
  readonly network?: ConfList;
  /** Joins pods with the wire, so that those of all nodes are in one network; absent: the main plugin makes its own. */
  readonly bridge?: string;
  /** Tar files of images beside the sandbox's. */
  readonly images?: readonly string[];
  /** Texts of files (0600) by their path on the node. */
  readonly files?: Readonly<Record<string, string>>;
}

export interface RestartOptions {
  /** The node says another boot ID from now on; its containers see the kernel's, as in a node that is one of LXC. */
  readonly newBootId?: boolean;
}

/** Why no node can be started here; undefined when one can. */
export async function whyNoNode(): Promise<string | undefined> {
  const plugins = toolFolder('cni-plugins');
  return (
    whyNoControlPlane() ??
    whyMissing('kubelet') ??
    (existsSync(join(plugins, 'bridge')) ? undefined : `nothing in ${plugins}: run scripts/tools.sh cni-plugins`) ??
    (existsSync('/dev/kmsg') ? undefined : 'no /dev/kmsg here, which a kubelet reads') ??
    (await whyNoMachine()) ??
    whyNoControlGroups() ??
    (await whyNoContainerd())
  );
}

/** Ready when this resolves, or registered where it has no network yet. */
export async function startNode(plane: ControlPlane, options: NodeOptions): Promise<Node> {
  const disk = mkdtempSync(join(tmpdir(), 'kube-ipam-node-'));
  const node = new Node(plane, disk, options);
  try {
    layOutDisk(disk, options.name);
    const certificate = await plane.clientCertificate(`system:node:${options.name}`, ['system:nodes']);
    write(disk, files.kubeconfig, readFileSync(plane.kubeconfig({ certificate }), 'utf8'), 0o600);
    for (const [path, text] of Object.entries(options.files ?? {})) write(disk, path, text, 0o600);
    await node.restart();
    return node;
  } catch (error) {
    await node[Symbol.asyncDispose]();
    throw error;
  }
}

/** A node between two boots: what ends with its machine. */
interface Up {
  readonly machine: Machine;
  readonly address: string;
  readonly uplink: ServerProcess;
  containerd: Daemon;
  kubelet?: Daemon;
}

export class Node implements AsyncDisposable {
  readonly name: string;
  readonly #plane: ControlPlane;
  readonly #options: NodeOptions;
  /** /etc, /opt and /var/lib, which outlive a boot. */
  readonly #disk: string;
  #installed = false;
  #up: Up | undefined;

  constructor(plane: ControlPlane, disk: string, options: NodeOptions) {
    this.name = options.name;
    this.#plane = plane;
    this.#disk = disk;
    this.#options = options;
  }

  /** On the wire; the node's InternalIP. */
  get address(): string {
    return this.#running.address;
  }

  /** What leads to the API server and to etcd: `stop` cuts the node off in silence, `kill` at once, `restart` mends it. */
  get uplink(): ServerProcess {
    return this.#running.uplink;
  }

  /** A path of the node, as it is seen from outside. */
  path(inside: string): string {
    return this.#running.machine.path(inside);
  }

  /** Runs a command on the node; a failing exit code is an answer. */
  run(argv: readonly string[], options?: RunOptions): Promise<Finished> {
    return this.#running.machine.run(argv, options);
  }

  /** As `run`, for a command that has to succeed; gives its standard output. */
  must(argv: readonly string[], options?: RunOptions): Promise<string> {
    return this.#running.machine.must(argv, options);
  }

  /** Starts a command that stays, until it or the node is ended. */
  spawn(argv: readonly string[], env?: Readonly<Record<string, string>>): Promise<Daemon> {
    return this.#running.machine.spawn(argv, env);
  }

  /** Runs containerd's own client, in the namespace that Kubernetes uses. */
  ctr(...argv: readonly string[]): Promise<string> {
    return this.must(['ctr', '-a', runtime.socket, '-n', 'k8s.io', ...argv], { timeout: 120_000 });
  }

  /** Gives the node the images of a tar file. */
  async importImage(tar: string): Promise<void> {
    await this.ctr('images', 'import', tar);
  }

  /** The kubelet ends in order; pods run on, and the node falls silent. */
  async stopKubelet(): Promise<void> {
    await this.#running.kubelet?.end('SIGTERM');
    delete this.#running.kubelet;
  }

  async startKubelet(): Promise<void> {
    const up = this.#running;
    const flags = ['--config', files.kubelet, '--kubeconfig', files.kubeconfig, '--node-ip', up.address];
    const started = Math.floor(Date.now() / 1000) * 1000;
    up.kubelet = await up.machine.spawn([kubernetesProgram('kubelet')!, ...flags, '--hostname-override', this.name]);
    // What the API server knows of an earlier boot says nothing of this one.
    await this.#until('is not heard of', ({ lastHeartbeatTime }) => Date.parse(lastHeartbeatTime) >= started);
  }

  /**
   * The runtime forgets all that it ran, and every container ends without it: nobody calls DEL, and network namespaces
   * stay, which are files. Resolves when the kubelet is there again.
   */
  async loseContainers(): Promise<void> {
    const up = this.#running;
    await this.stopKubelet();
    up.machine.killAll();
    await up.containerd.end('SIGKILL');
    await this.must(['rm', '-rf', runtime.root]);
    up.containerd = await startContainerd(up.machine);
    await this.#install();
    await this.startKubelet();
  }

  /** As a power cut does: every process, mount and interface ends at once, and nobody is told. */
  async kill(): Promise<void> {
    const up = this.#up;
    this.#up = undefined;
    await up?.uplink.kill();
    await up?.machine[Symbol.asyncDispose]();
  }

  /** Boots it with its disk, after a power cut where it is running. */
  async restart(options: RestartOptions = {}): Promise<void> {
    await this.kill();
    if (options.newBootId) write(this.#disk, files.bootId, `${randomUUID()}\n`);
    this.#up = await boot(this.#plane, this.#disk, this.#options);
    await Promise.all([this.#installed ? undefined : this.#install(), this.startKubelet()]);
    if (this.#options.network !== undefined) await this.ready();
  }

  /** Until the API server has it as Ready. */
  async ready(): Promise<void> {
    await this.#until('is not Ready', ({ status }) => status === 'True');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
    rmSync(this.#disk, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
  }

  get #running(): Up {
    if (this.#up === undefined) throw new Error(`node ${this.name} is down`);
    return this.#up;
  }

  async #install(): Promise<void> {
    const { machine } = this.#running;
    await this.importImage(await makeSandboxImage(machine.folder));
    for (const image of this.#options.images ?? []) await this.importImage(image);
    if (this.#options.network !== undefined) {
      const { program } = await import('../plugin-process.ts');
      const network = join(machine.folder, `${this.#options.network.name}.conflist`);
      write('/', network, JSON.stringify(this.#options.network));
      await this.must([program, 'install', '--conf', network, '--node', this.name]);
    }
    this.#installed = true;
  }

  async #until(complaint: string, done: (ready: Condition) => boolean): Promise<void> {
    for (const until = performance.now() + 120_000; ; await sleep(50)) {
      // Not there yet, or the API server is busy: asked again.
      const node = await this.#plane.api<NodeObject>('GET', `/api/v1/nodes/${this.name}`).catch(() => undefined);
      const ready = node?.status.conditions?.find(({ type }) => type === 'Ready');
      if (ready !== undefined && done(ready)) return;
      const { kubelet } = this.#running;
      if (performance.now() > until || kubelet === undefined || !existsSync(`/proc/${kubelet.pid}`)) {
        throw new Error(`node ${this.name} ${complaint}: ${kubelet?.log().slice(-4000) ?? 'no kubelet'}`);
      }
    }
  }
}

interface Condition {
  readonly type: string;
  readonly status: string;
  /** RFC 3339, to the second. */
  readonly lastHeartbeatTime: string;
}

interface NodeObject {
  readonly status: { readonly conditions?: readonly Condition[] };
}

/** A machine with this disk, wired, and with its runtime running. */
async function boot(plane: ControlPlane, disk: string, { name, bridge }: NodeOptions): Promise<Up> {
  await using parts = new AsyncDisposableStack();
  const machine = parts.use(await Machine.start(name));
  await mountDisk(machine, disk);
  makeControlGroups(machine.cgroup);
  writeKubeletConfig(disk, machine.cgroup);
  const address = await (await plane.lan()).attach(machine, bridge);
  const uplink = uplinkOf(plane.sockets, machine);
  parts.defer(() => uplink.kill());
  await uplink.ready();
  const containerd = await startContainerd(machine);
  parts.move();
  return { machine, address, uplink, containerd };
}

async function startContainerd(machine: Machine): Promise<Daemon> {
  const containerd = await machine.spawn(['containerd', '--config', files.containerd]);
  for (const started = performance.now(); !(await accepts(machine.path(runtime.socket))); await sleep(50)) {
    if (performance.now() - started > 60_000) throw new Error(`containerd of ${machine.hostname}: ${containerd.log()}`);
  }
  return containerd;
}

/** In the node's network only, so that it needs nothing of the node's disk. */
function uplinkOf(sockets: string, machine: Machine): ServerProcess {
  const here = join(sockets, `${machine.hostname}:${kubeletPort}`);
  const ports = readdirSync(sockets).filter(name => /^\d+$/.test(name));
  const routes = [...ports.flatMap(port => [port, join(sockets, port)]), here, String(kubeletPort)];
  return new ServerProcess({
    name: `the uplink of ${machine.hostname}`,
    argv: ['nsenter', '--target', String(machine.pid), '--net', '--', ...tunnelArgv(routes)],
    answers: () => accepts(here),
  });
}
