// containerd with its CRI plugin on a test's machine, everything of it in the machine's folder.
import { createHash } from 'node:crypto';
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ConfList } from '../../src/cli/conf-templates.ts';
import { CriClient } from './cri.ts';
import { type Daemon, type Machine, run } from './machine.ts';

/** An image made by hand, which needs no registry: busybox that sleeps. */
export const sandboxImage = 'localhost/pause:1';

/** Where a containerd keeps its things, and looks for plugins and networks. */
export interface RuntimePlaces {
  readonly root: string;
  readonly state: string;
  readonly socket: string;
  readonly plugins: string;
  readonly networks: string;
}

/** Why containerd cannot be tried here; undefined when it can. */
export async function whyNoContainerd(): Promise<string | undefined> {
  for (const command of [
    ['containerd', '--version'],
    ['ctr', '--version'],
    ['runc', '--version'],
  ]) {
    const tried = await run(command, {}).catch(() => undefined);
    if (tried?.code !== 0) return `${command[0]} is not installed`;
  }
  return undefined;
}

export class Containerd implements AsyncDisposable {
  readonly #machine: Machine;
  readonly #folder: string;
  #daemon: Daemon;
  #cri: CriClient;

  private constructor(machine: Machine, folder: string, daemon: Daemon) {
    this.#machine = machine;
    this.#folder = folder;
    this.#daemon = daemon;
    this.#cri = new CriClient(join(folder, 'c.sock'));
  }

  /** Starts containerd with one network and an image for sandboxes. */
  static async start(machine: Machine, plugins: string, network: ConfList): Promise<Containerd> {
    const folder = join(machine.folder, 'containerd');
    for (const sub of ['', 'net.d', 'logs']) mkdirSync(join(folder, sub));
    const places = {
      root: join(folder, 'root'),
      state: join(folder, 'state'),
      socket: join(folder, 'c.sock'),
      plugins,
      networks: join(folder, 'net.d'),
    };
    writeFileSync(join(folder, 'config.toml'), configToml(places));
    writeFileSync(join(folder, 'net.d/10-pods.conflist'), JSON.stringify(network));
    const containerd = new Containerd(machine, folder, await launch(machine, folder));
    try {
      await containerd.#untilReady();
      await containerd.ctr('images', 'import', await makeSandboxImage(folder));
      return containerd;
    } catch (cause) {
      throw new Error(`containerd did not start: ${containerd.log()}`, { cause });
    }
  }

  get cri(): CriClient {
    return this.#cri;
  }

  log(): string {
    return this.#daemon.log();
  }

  /** Runs containerd's own client, in the namespace that Kubernetes uses; gives its standard output. */
  ctr(...argv: readonly string[]): Promise<string> {
    return this.#machine.must(['ctr', '-a', join(this.#folder, 'c.sock'), '-n', 'k8s.io', ...argv]);
  }

  /** Runs a sandbox for a new pod of that name. */
  run(name: string): Promise<string> {
    const pod = { namespace: 'default', name, uid: crypto.randomUUID() };
    return this.#cri.runPod(pod, this.#machine.cgroup, join(this.#folder, 'logs'));
  }

  /** kill -9 and start again, as after a crash; the sandboxes' own processes live on. */
  async crashAndRestart(): Promise<void> {
    this.#cri[Symbol.dispose]();
    await this.#daemon.end('SIGKILL');
    this.#daemon = await launch(this.#machine, this.#folder);
    this.#cri = new CriClient(join(this.#folder, 'c.sock'));
    await this.#untilReady();
  }

  /** Pings from inside a sandbox's network. */
  async pings(id: string, address: string): Promise<boolean> {
    const { pid } = await this.#cri.status(id);
    const ping = ['busybox', 'ping', '-c', '1', '-W', '3', address];
    const ended = await this.#machine.run(['nsenter', '--target', String(pid), '--net', '--', ...ping]);
    return ended.code === 0;
  }

  async removeAll(): Promise<void> {
    for (const id of await this.#cri.list()) {
      await this.#cri.stopPod(id);
      await this.#cri.removePod(id);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#cri[Symbol.dispose]();
    await this.#daemon.end('SIGTERM');
  }

  async #untilReady(): Promise<void> {
    let last: unknown;
    for (const started = performance.now(); performance.now() - started < 30_000; await sleep(100)) {
      try {
        await this.#cri.version();
        return;
      } catch (error) {
        last = error;
      }
    }
    throw new Error('containerd does not answer', { cause: last });
  }
}

function launch(machine: Machine, folder: string): Promise<Daemon> {
  return machine.spawn(['containerd', '--config', join(folder, 'config.toml')]);
}

/** Writes the sandbox image into the folder, in docker's archive form; gives the path of the tar file. */
export async function makeSandboxImage(folder: string): Promise<string> {
  const archive = join(folder, 'image');
  mkdirSync(join(archive, 'layer'), { recursive: true });
  copyFileSync('/usr/bin/busybox', join(archive, 'layer/busybox'));
  const tar = async (file: string, from: string, ...what: readonly string[]) => {
    const ended = await run(['tar', '-C', from, '-cf', file, ...what], {});
    if (ended.code !== 0) throw new Error(`tar: ${ended.stderr}`);
  };
  await tar(join(archive, 'layer.tar'), join(archive, 'layer'), 'busybox');
  const layer = createHash('sha256')
    .update(readFileSync(join(archive, 'layer.tar')))
    .digest('hex');
  const config = {
    architecture: process.arch === 'arm64' ? 'arm64' : 'amd64',
    os: 'linux',
    // As the first process of its namespace it hears a signal only where it has a handler.
    config: { Entrypoint: ['/busybox', 'sh', '-c', 'trap exit TERM; /busybox sleep 1000000 & wait'] },
    rootfs: { type: 'layers', diff_ids: [`sha256:${layer}`] },
  };
  writeFileSync(join(archive, 'config.json'), JSON.stringify(config));
  const manifest = [{ Config: 'config.json', RepoTags: [sandboxImage], Layers: ['layer.tar'] }];
  writeFileSync(join(archive, 'manifest.json'), JSON.stringify(manifest));
  await tar(join(folder, 'pause.tar'), archive, 'manifest.json', 'config.json', 'layer.tar');
  return join(folder, 'pause.tar');
}

/** Small machines lack CAP_SYS_RESOURCE (out-of-memory scores), AppArmor and overlay-on-overlay. */
export function configToml({ root, state, socket, plugins, networks }: RuntimePlaces): string {
  return `version = 2
root = "${root}"
state = "${state}"
[grpc]
address = "${socket}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "${sandboxImage}"
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "${plugins}"
conf_dir = "${networks}"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
`;
}
