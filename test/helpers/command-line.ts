// The command line as a user has it: a process of the built executable, with folders that belong to one test.
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Json } from './plugin.ts';
import { program } from './plugin-process.ts';
import { project } from './project.ts';

export interface Said {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly input?: string;
  /** Another copy of the program than the built executable. */
  readonly program?: string;
  readonly env?: Readonly<Record<string, string>>;
}

/** The sources as a program, without a build. */
export const sources = [join(project, 'node_modules/.bin/node'), join(project, 'src/main.ts')] as const;

/** Runs `kube-ipam` with these arguments, to its end. */
export function kubeIpam(argv: readonly string[], options: RunOptions = {}): Promise<Said> {
  return runProcess(options.program ?? program, argv, options);
}

export function runProcess(command: string, argv: readonly string[], options: RunOptions = {}): Promise<Said> {
  return new Promise((resolve, reject) => {
    const env = options.env ?? { PATH: process.env.PATH ?? '' };
    const child = spawn(command, argv, { env, timeout: 60_000, killSignal: 'SIGKILL' });
    const out: Buffer[] = [];
    const err: Buffer[] = [];
    child.stdout.on('data', chunk => out.push(chunk));
    child.stderr.on('data', chunk => err.push(chunk));
    child.on('error', reject);
    child.on('close', code =>
      resolve({ code: code ?? -1, stdout: Buffer.concat(out).toString(), stderr: Buffer.concat(err).toString() }),
    );
    child.stdin.on('error', () => {});
    child.stdin.end(options.input ?? '');
  });
}

/** A folder of a node's own, in which the commands find their configurations. */
export class Desk implements Disposable {
  readonly folder = mkdtempSync(join(tmpdir(), 'kube-ipam-cli-'));
  readonly confDir = join(this.folder, 'net.d');
  readonly dataDir = join(this.folder, 'data');

  constructor() {
    mkdirSync(this.confDir);
  }

  /** Writes a network over this store into the folder of configurations; gives the path. */
  network(name: string, ipam: Json, more: Json = {}): string {
    const logFile = join(this.folder, 'log');
    const conf = { cniVersion: '1.0.0', name, type: 'bridge', ...more };
    return this.write(`net.d/${name}.conf`, { ...conf, ipam: { type: 'kube-ipam', logFile, ...ipam } });
  }

  write(name: string, content: object | string): string {
    const path = join(this.folder, name);
    writeFileSync(path, typeof content === 'string' ? content : JSON.stringify(content, null, 2));
    return path;
  }

  run(argv: readonly string[], options: RunOptions = {}): Promise<Said> {
    return kubeIpam([...argv, '--conf-dir', this.confDir], options);
  }

  /** Runs it and reads its JSON. */
  async json<T>(argv: readonly string[]): Promise<T> {
    const { stdout, stderr } = await this.run([...argv, '-o', 'json']);
    try {
      return JSON.parse(stdout) as T;
    } catch (cause) {
      throw new Error(`no JSON: ${stdout}${stderr}`, { cause });
    }
  }

  [Symbol.dispose](): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}
