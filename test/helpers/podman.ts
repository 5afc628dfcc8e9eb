// podman with its CNI back end on a test's machine, without service, registry or systemd.
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ConfList } from '../../src/cli/conf-templates.ts';
import { type Finished, type Machine, run } from './machine.ts';

const image = 'localhost/kube-ipam-test/busybox';

/** Why podman cannot be tried here; undefined when it can. */
export async function whyNoPodman(): Promise<string | undefined> {
  for (const command of [
    ['podman', '--version'],
    ['crun', '--version'],
    ['conmon', '--version'],
  ]) {
    const tried = await run(command, {}).catch(() => undefined);
    if (tried?.code !== 0) return `${command[0]} is not installed`;
  }
  return undefined;
}

export class Podman {
  readonly #machine: Machine;
  readonly #conf: string;

  private constructor(machine: Machine, conf: string) {
    this.#machine = machine;
    this.#conf = conf;
  }

  /** Writes podman's configuration and the networks, and builds an image that holds busybox and nothing else. */
  static async prepare(machine: Machine, plugins: string, networks: readonly ConfList[]): Promise<Podman> {
    const folder = join(machine.folder, 'podman');
    for (const sub of ['', 'net.d', 'image', 'tmp']) mkdirSync(join(folder, sub));
    writeFileSync(join(folder, 'containers.conf'), containersConf(folder, plugins));
    writeFileSync(join(folder, 'storage.conf'), storageConf(folder));
    for (const network of networks) {
      writeFileSync(join(folder, 'net.d', `50-${network.name}.conflist`), JSON.stringify(network));
    }
    copyFileSync('/usr/bin/busybox', join(folder, 'image/busybox'));
    const recipe = 'FROM scratch\nCOPY busybox /bin/busybox\nENTRYPOINT ["/bin/busybox"]\n';
    writeFileSync(join(folder, 'image/Containerfile'), recipe);
    const podman = new Podman(machine, folder);
    await podman.must(['build', '-q', '-t', image, '-f', join(folder, 'image/Containerfile'), join(folder, 'image')]);
    return podman;
  }

  run(argv: readonly string[]): Promise<Finished> {
    const env = {
      ...this.#machine.environment(),
      CONTAINERS_CONF: join(this.#conf, 'containers.conf'),
      CONTAINERS_STORAGE_CONF: join(this.#conf, 'storage.conf'),
    };
    return this.#machine.run(['podman', ...argv], { env, timeout: 50_000 });
  }

  async must(argv: readonly string[]): Promise<string> {
    const ended = await this.run(argv);
    if (ended.code !== 0) throw new Error(`podman ${argv.join(' ')}: exit ${ended.code}: ${ended.stderr}`);
    return ended.stdout.trim();
  }

  /** Starts a container that sleeps; `options` are podman's. */
  async start(name: string, options: readonly string[]): Promise<string> {
    return this.must([
      'run',
      '-d',
      '--cgroup-parent',
      this.#machine.cgroup,
      '--name',
      name,
      ...options,
      image,
      'sleep',
      '300',
    ]);
  }

  /** Runs one busybox command in a container of its own and gives podman's whole answer. */
  once(options: readonly string[], command: readonly string[]): Promise<Finished> {
    return this.run(['run', '--rm', '--cgroup-parent', this.#machine.cgroup, ...options, image, ...command]);
  }

  /** What podman itself shows as the address in a network. */
  address(name: string, network: string): Promise<string> {
    return this.must(['inspect', name, '--format', `{{(index .NetworkSettings.Networks "${network}").IPAddress}}`]);
  }

  async pings(name: string, address: string): Promise<boolean> {
    const ended = await this.run(['exec', name, '/bin/busybox', 'ping', '-c', '1', '-W', '3', address]);
    return ended.code === 0;
  }

  async removeAll(): Promise<void> {
    await this.must(['rm', '--all', '--force', '--time', '0']);
  }
}

/**
 * Three cures for small machines: netavark may be the default back end; limits above the process's own need
 * CAP_SYS_RESOURCE; without systemd the control groups are files.
 */
function containersConf(folder: string, plugins: string): string {
  return `[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[network]
network_backend = "cni"
network_config_dir = "${folder}/net.d"
cni_plugin_dirs = ["${plugins}"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "crun"
tmp_dir = "${folder}/tmp"
`;
}

function storageConf(folder: string): string {
  return `[storage]
driver = "vfs"
runroot = "${folder}/run"
graphroot = "${folder}/root"
`;
}
