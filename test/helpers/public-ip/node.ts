// A node of the public IP tests: a machine on the segment that runs our executable, and can lose its servers, its cable or its processes.
import { mkdirSync, readFileSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Daemon, Finished, Machine } from '../machine.ts';
import { program } from '../plugin-process.ts';
import { allStopped } from '../server-process.ts';
import type { Station } from './segment.ts';

/** An address as `ip -json address` has it. */
export interface ShownAddress {
  readonly address: string;
  readonly prefix: number;
  readonly label: string | undefined;
  /** Seconds; undefined: for ever. */
  readonly validFor: number | undefined;
}

/** One process of ours with its keeper, from its start on; it may be ended, stopped and killed. */
export class Runner {
  readonly #daemon: Daemon;
  /** The process that brought it into the machine, and waits for it. */
  readonly #entered: number;

  constructor(daemon: Daemon) {
    this.#daemon = daemon;
    this.#entered = parentOf(daemon.pid);
  }

  get pid(): number {
    return this.#daemon.pid;
  }

  /** All that it wrote to standard error. */
  get log(): string {
    return this.#daemon.log();
  }

  get running(): boolean {
    return isAlive(this.pid);
  }

  /** The number of its keeper outside, once it has one. */
  async keeper(): Promise<number> {
    for (const until = performance.now() + 30_000; ; await sleep(10)) {
      const found = childrenOf(this.pid).find(pid => commandOf(pid).includes('keeper'));
      if (found !== undefined) return found;
      if (performance.now() > until || !this.running) throw new Error(`there is no keeper: ${this.log.slice(-4000)}`);
    }
  }

  /** SIGKILL for the main process: what it has at that moment stays as it is. */
  kill(): Promise<void> {
    return this.#daemon.end('SIGKILL');
  }

  /** Ends it in order and waits, for as long as it takes. */
  stop(): Promise<void> {
    return this.#daemon.end('SIGTERM');
  }

  /** Stops main process and keeper where they are, or those named: resolves when no thread of them runs. */
  async freeze(...pids: readonly number[]): Promise<void> {
    const all = pids.length > 0 ? pids : [this.pid, ...childrenOf(this.pid)];
    for (const pid of all) signal(pid, 'SIGSTOP');
    while (!all.every(pid => allStopped(pid) || !isAlive(pid))) await sleep(2);
  }

  /** Lets go on what was frozen, as far as nobody has ended it meanwhile. */
  thaw(...pids: readonly number[]): void {
    const all = pids.length > 0 ? pids : [this.pid, ...childrenOf(this.pid)];
    // nsenter stops itself when what it has started stops.
    for (const pid of [...all, this.#entered]) signal(pid, 'SIGCONT');
  }
}

/** As a machine has them before anybody changes them. */
const usualSettings = [
  ...['arp_ignore=0', 'arp_announce=0'].map(each => `net.ipv4.conf.eth0.${each}`),
  ...['accept_dad=1', 'ndisc_notify=0'].map(each => `net.ipv6.conf.eth0.${each}`),
];

export class PublicIpNode {
  readonly station: Station;
  readonly #flags: readonly string[];
  readonly #ports: readonly number[];
  readonly #runners: Runner[] = [];

  /** `flags` are given to each process; `ports` of loopback lead to etcd. */
  constructor(station: Station, flags: readonly string[], ports: readonly number[]) {
    this.station = station;
    this.#flags = flags;
    this.#ports = ports;
  }

  get name(): string {
    return this.machine.hostname;
  }

  get machine(): Machine {
    return this.station.machine;
  }

  get mac(): string {
    return this.station.mac;
  }

  run(...argv: readonly string[]): Promise<Finished> {
    return this.machine.run(argv);
  }

  must(...argv: readonly string[]): Promise<string> {
    return this.machine.must(argv);
  }

  /** Runs one of our commands here to its end, with the flags that say where the servers are. */
  command(...argv: readonly string[]): Promise<Finished> {
    return this.machine.run([program, 'public-ip', ...argv]);
  }

  /** Starts `kube-ipam public-ip run`. */
  start(...flags: readonly string[]): Promise<Runner> {
    return this.#spawn([program, 'public-ip', 'run', ...this.#flags, ...flags]);
  }

  /** Starts the executable by its other name, with these flags alone. */
  startKiwi(...flags: readonly string[]): Promise<Runner> {
    return this.#spawn([this.link('kiwi'), ...flags]);
  }

  /** The executable under another name, in the node's scratch folder. */
  link(name: string): string {
    const folder = join(this.machine.folder, 'bin');
    if (mkdirSync(folder, { recursive: true }) !== undefined) symlinkSync(program, join(folder, name));
    return join(folder, name);
  }

  /** Public addresses that are on the interface now: all but the node's own ones and noise. */
  async addresses(dev = 'eth0'): Promise<ShownAddress[]> {
    const links = JSON.parse(await this.must('ip', '-json', 'address', 'show', 'dev', dev)) as {
      readonly addr_info: readonly {
        readonly local: string;
        readonly prefixlen: number;
        readonly label?: string;
        readonly valid_life_time: number;
      }[];
    }[];
    return links
      .flatMap(({ addr_info }) => addr_info)
      .filter(({ local, prefixlen }) => !/^(198\.51\.100\.|2001:db8:|fe80:)/.test(local) && prefixlen >= 32)
      .filter(({ prefixlen }) => prefixlen === 32 || prefixlen === 128)
      .map(({ local, prefixlen, label, valid_life_time: seconds }) => ({
        address: local,
        prefix: prefixlen,
        label,
        validFor: seconds === 4_294_967_295 ? undefined : seconds,
      }));
  }

  /** The rules of the chain as iptables prints them, the line that makes the chain not among them; empty without one. */
  async rules(chain = 'KUBE-PUBLIC', iptables = 'iptables'): Promise<string[]> {
    const { code, stdout } = await this.run(iptables, '-w', '-t', 'mangle', '-S', chain);
    return code === 0 ? stdout.split('\n').filter(line => line.startsWith('-A')) : [];
  }

  /** Nothing comes from etcd any more, and nothing says so: the packets are dropped. Disposing of it mends it. */
  async cutFromEtcd(): Promise<AsyncDisposable> {
    const ports = this.#ports.join(', ');
    await this.machine.must(['nft', '-f', '-'], {
      input: `table inet cut {
        chain output {
          type filter hook output priority -500
          oifname lo tcp dport { ${ports} } drop
          oifname lo tcp sport { ${ports} } drop
        }
      }`,
    });
    return { [Symbol.asyncDispose]: async () => void (await this.run('nft', 'delete table inet cut')) };
  }

  /** Everything that still runs is killed, and nothing of ours stays in the kernel. */
  async clear(): Promise<void> {
    for (const runner of this.#runners.splice(0)) {
      if (!runner.running) continue;
      runner.thaw();
      await runner.kill();
    }
    await this.must('nft', 'flush ruleset');
    for (const family of ['iptables', 'ip6tables']) {
      await this.run(family, '-w', '-t', 'mangle', '-F');
      await this.run(family, '-w', '-t', 'mangle', '-X');
    }
    for (const { address, prefix } of await this.addresses()) {
      await this.run('ip', 'address', 'del', `${address}/${prefix}`, 'dev', 'eth0');
    }
    await this.must('sysctl', '-qw', ...usualSettings);
    await this.must('rm', '-rf', '/var/lib/kube-ipam', '/run/kube-ipam');
  }

  async #spawn(argv: readonly string[]): Promise<Runner> {
    // A process group of its own, as a service manager makes it.
    const runner = new Runner(await this.machine.spawn(['setsid', ...argv]));
    this.#runners.push(runner);
    return runner;
  }
}

function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'latin1'));
  } catch {
    return false;
  }
}

function signal(pid: number, name: 'SIGSTOP' | 'SIGCONT'): void {
  try {
    process.kill(pid, name);
  } catch {
    // It has ended.
  }
}

function parentOf(pid: number): number {
  return Number(/^PPid:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))![1]);
}

/** Empty where it has just ended. */
function childrenOf(parent: number): readonly number[] {
  try {
    return readFileSync(`/proc/${parent}/task/${parent}/children`, 'latin1').split(' ').filter(Boolean).map(Number);
  } catch {
    return [];
  }
}

function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'latin1').replaceAll('\0', ' ');
  } catch {
    return '';
  }
}
