// A small machine of its own for a test: private mounts, network, host name and processes, all gone when it ends.
import { type ChildProcess, spawn } from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { removeControlGroups } from './control-groups.ts';

export interface Finished {
  /** The exit code; -1 when a signal or the deadline ended the command. */
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly input?: string;
  /** The whole environment, not an addition. */
  readonly env?: Readonly<Record<string, string>>;
  /** Milliseconds; the command is killed after them. */
  readonly timeout?: number;
}

/** A process that runs on in a machine; `pid` is its number outside. */
export interface Daemon {
  readonly pid: number;
  /** What it wrote to both of its outputs. */
  log(): string;
  /** Ends it with `signal` and waits until it is gone. */
  end(signal: 'SIGTERM' | 'SIGKILL'): Promise<void>;
}

/** Of programs, on every machine. */
export const searchPath = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** What the first process of a machine waits for. */
const waiting = 'busybox cat';

/** Why no machine can be made here; undefined when one can. */
export async function whyNoMachine(): Promise<string | undefined> {
  if (process.getuid?.() !== 0) return 'needs root, to make namespaces';
  const flags = ['--mount', '--net', '--uts', '--ipc', '--pid', '--fork', '--mount-proc'];
  const tried = await run(['unshare', ...flags, 'busybox', 'true'], {});
  return tried.code === 0 ? undefined : `namespaces cannot be made here: ${tried.stderr.trim()}`;
}

/** Runs one command on the test's own machine and waits for its end; a failing exit code is an answer, not an error. */
export function run(argv: readonly string[], options: RunOptions): Promise<Finished> {
  const [command, ...rest] = argv;
  if (command === undefined) throw new RangeError('nothing to run');
  return new Promise((resolve, reject) => {
    const child = spawn(command, rest, { env: options.env ?? { PATH: searchPath } });
    const late = setTimeout(() => killWithChild(child), options.timeout ?? 30_000);
    const out: Buffer[] = [];
    const err: Buffer[] = [];
    child.stdout.on('data', chunk => out.push(chunk));
    child.stderr.on('data', chunk => err.push(chunk));
    child.on('error', reject);
    child.on('close', code => {
      clearTimeout(late);
      resolve({ code: code ?? -1, stdout: Buffer.concat(out).toString(), stderr: Buffer.concat(err).toString() });
    });
    // A command that ends without reading its input must not end the test.
    child.stdin.on('error', () => {});
    child.stdin.end(options.input ?? '');
  });
}

/**
 * Its first process reads a pipe from the test: when the test dies, however, that pipe ends, and the kernel then ends
 * every process, mount and interface of the machine. /run, /var/lib and /var/log are its own, so a program may use
 * its default paths; /tmp and the rest of the disk are shared.
 */
export class Machine implements AsyncDisposable {
  readonly hostname: string;
  /** A scratch folder with the same path inside and outside; removed at the end. */
  readonly folder: string;
  readonly #first: ChildProcess;
  #pid = 0;

  private constructor(hostname: string) {
    this.hostname = hostname;
    this.folder = mkdtempSync(join(tmpdir(), 'kube-ipam-machine-'));
    const flags = ['--mount', '--net', '--uts', '--ipc', '--pid', '--fork', '--kill-child', '--mount-proc'];
    // The shell stays in wait(2) below cat, so that orphans of the runtimes are reaped as init would do.
    const init = ['busybox', 'sh', '-c', `${waiting}; exit 0`];
    this.#first = spawn('unshare', [...flags, ...init], { stdio: ['pipe', 'ignore', 'ignore'] });
  }

  static async start(hostname = 'node-a'): Promise<Machine> {
    const machine = new Machine(hostname);
    try {
      await machine.#settle();
      return machine;
    } catch (cause) {
      await machine[Symbol.asyncDispose]();
      throw new Error(`machine ${hostname} did not start`, { cause });
    }
  }

  /** A path of the machine's own /run, /var/lib or /var/log, as seen from outside. */
  path(inside: string): string {
    return `/proc/${this.#pid}/root${inside}`;
  }

  /** The number of its first process outside; what joins two machines needs it. */
  get pid(): number {
    return this.#pid;
  }

  run(argv: readonly string[], options: RunOptions = {}): Promise<Finished> {
    return run(this.#enter(argv), { ...options, env: options.env ?? this.environment() });
  }

  /** As `run`, for a command that has to succeed; gives its standard output. */
  async must(argv: readonly string[], options: RunOptions = {}): Promise<string> {
    const ended = await this.run(argv, options);
    if (ended.code !== 0) {
      throw new Error(`${this.hostname}: ${argv.join(' ')}: exit ${ended.code}: ${ended.stderr || ended.stdout}`);
    }
    return ended.stdout;
  }

  /** Starts a command that stays; its output goes to a file in the folder. */
  async spawn(argv: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<Daemon> {
    const logFile = join(
      this.folder,
      `${(argv[0] ?? '').replaceAll('/', '_')}-${Math.random().toString(36).slice(2)}.log`,
    );
    const log = openSync(logFile, 'a');
    const [command, ...rest] = this.#enter(argv);
    const entering = spawn(command ?? '', rest, {
      stdio: ['ignore', log, log],
      env: { ...this.environment(), ...env },
    });
    closeSync(log);
    const pid = await childOf(entering.pid ?? 0);
    return {
      pid,
      log: () => readFileSync(logFile, 'utf8'),
      async end(signal) {
        if (existsSync(`/proc/${pid}`)) process.kill(pid, signal);
        while (entering.exitCode === null && entering.signalCode === null) await sleep(10);
      },
    };
  }

  /** SIGKILL for every process in it; the machine itself stays. */
  killAll(): void {
    const own = namespaceOf(this.#pid);
    const inside = processes().filter(pid => pid !== this.#pid && namespaceOf(pid) === own);
    for (const pid of inside.filter(pid => commandOf(pid) !== waiting)) kill(pid);
  }

  environment(): Readonly<Record<string, string>> {
    return { PATH: searchPath, HOME: this.folder, LANG: 'C.UTF-8' };
  }

  /** A parent for control groups that is this machine's alone: the kernel keeps groups when their processes end. */
  get cgroup(): string {
    return `/${basename(this.folder)}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#first.stdin?.end();
    const started = performance.now();
    while (this.#first.exitCode === null && this.#first.signalCode === null) {
      if (performance.now() - started > 5_000) this.#first.kill('SIGKILL');
      await sleep(10);
    }
    removeControlGroups(this.cgroup);
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
  }

  #enter(argv: readonly string[]): readonly string[] {
    // --root: a test that runs in a chroot must stay there; a mount namespace leads to the root it was made from.
    const namespaces = ['--mount', '--net', '--uts', '--ipc', '--pid', '--root', '--wdns=/'];
    return ['nsenter', '--target', String(this.#pid), ...namespaces, '--', ...argv];
  }

  async #settle(): Promise<void> {
    this.#pid = await childOf(this.#first.pid ?? 0);
    // Until the child is the shell, unshare is still mounting /proc.
    while (!readFileSync(`/proc/${this.#pid}/cmdline`, 'utf8').startsWith('busybox')) await sleep(5);
    const own = { '/var/lib': join(this.folder, 'lib'), '/var/log': join(this.folder, 'log') };
    for (const [inside, outside] of Object.entries(own)) {
      mkdirSync(outside);
      await this.must(['mount', '--bind', outside, inside]);
    }
    await this.must(['mount', '-t', 'tmpfs', 'tmpfs', '/run']);
    await this.must(['mkdir', '-p', '/run/netns', '/run/lock', '/var/lib/cni']);
    await this.#ownSys();
    await this.must(['hostname', this.hostname]);
    await this.must(['ip', 'link', 'set', 'lo', 'up']);
  }

  /**
   * Without a new sysfs, the runtimes would see the real machine's interfaces. It hides the control groups, so they
   * are carried over, all but the unified tree of a hybrid layout: crun refuses to start beside it.
   */
  async #ownSys(): Promise<void> {
    await this.must(['mkdir', '/run/cgroup']);
    await this.must(['mount', '--rbind', '/sys/fs/cgroup', '/run/cgroup']);
    if (existsSync(this.path('/run/cgroup/unified'))) await this.must(['umount', '/run/cgroup/unified']);
    await this.must(['umount', '--recursive', '--lazy', '/sys']);
    await this.must(['mount', '-t', 'sysfs', 'sysfs', '/sys']);
    await this.must(['mount', '--rbind', '/run/cgroup', '/sys/fs/cgroup']);
    await this.must(['umount', '-l', '/run/cgroup']);
  }
}

/** nsenter passes no signal on, and what it started would keep the pipes open. */
function killWithChild(child: ChildProcess): void {
  for (const pid of childrenOf(child.pid ?? 0)) process.kill(pid, 'SIGKILL');
  child.kill('SIGKILL');
  child.stdout?.destroy();
  child.stderr?.destroy();
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has just ended.
  }
}

function processes(): readonly number[] {
  return readdirSync('/proc').map(Number).filter(Number.isInteger);
}

/** Undefined where it has just ended. */
function namespaceOf(pid: number): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/ns/pid`);
  } catch {
    return undefined;
  }
}

/** Empty where it has just ended. */
function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim();
  } catch {
    return '';
  }
}

function childrenOf(parent: number): readonly number[] {
  const file = `/proc/${parent}/task/${parent}/children`;
  if (!existsSync(file)) return [];
  return readFileSync(file, 'utf8').trim().split(' ').filter(Boolean).map(Number);
}

/** The only child of a process that has just been started (unshare and nsenter fork once). */
async function childOf(parent: number): Promise<number> {
  for (const started = performance.now(); performance.now() - started < 10_000; await sleep(5)) {
    const [child] = childrenOf(parent);
    if (child !== undefined) return child;
    if (!existsSync(`/proc/${parent}`)) break;
  }
  throw new Error(`process ${parent} ended before it had a child`);
}

/** A cable between two machines; gives the address of the first on it. */
export async function joinMachines(first: Machine, second: Machine): Promise<string> {
  const near = ['lan0', 'netns', String(first.pid)];
  const far = ['lan0', 'netns', String(second.pid)];
  const made = await run(['ip', 'link', 'add', ...near, 'type', 'veth', 'peer', 'name', ...far], {});
  if (made.code !== 0) throw new Error(`no cable between machines: ${made.stderr}`);
  const addresses = ['169.254.53.1', '169.254.53.2'] as const;
  for (const [index, machine] of [first, second].entries()) {
    await machine.must(['ip', 'address', 'add', `${addresses[index]}/30`, 'dev', 'lan0']);
    await machine.must(['ip', 'link', 'set', 'lan0', 'up']);
  }
  return addresses[0];
}
