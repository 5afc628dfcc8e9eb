// The plugin as a runtime calls it: a process of the built executable, with environment, stdin, stdout and exit code.
import { type ChildProcess, spawn } from 'node:child_process';
import { type Answer, answerOf, type Call, type Command, environment } from './plugin.ts';

/** KUBE_IPAM_EXECUTABLE names another one to be tested, an installed one for instance; else it is built when it is old. */
export const program: string = process.env.KUBE_IPAM_EXECUTABLE ?? (await import('./executable.ts')).executable;

/** A command that runs as a process of its own. */
export interface Running {
  readonly child: ChildProcess;
  readonly ended: Promise<Ended>;
}

export interface Ended extends Answer {
  readonly signal: NodeJS.Signals | null;
  readonly stderr: string;
  /** Milliseconds from start to end. */
  readonly ms: number;
}

/** Starts the built executable; an answer that was cut off by a signal counts as none. */
export function start(command: Command, of: Call): Running {
  return startWith(environment(command, of), JSON.stringify(of.conf));
}

export function startWith(env: Record<string, string>, stdin: string | Buffer): Running {
  const begun = performance.now();
  const child = spawn(program, [], { env, stdio: ['pipe', 'pipe', 'pipe'], cwd: '/' });
  const out: Buffer[] = [];
  const err: Buffer[] = [];
  child.stdout.on('data', chunk => out.push(chunk));
  child.stderr.on('data', chunk => err.push(chunk));
  // A process that is killed does not read its input.
  child.stdin.on('error', () => {});
  child.stdin.end(stdin);
  const ended = new Promise<Ended>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => {
      const stdout = signal === null ? Buffer.concat(out).toString() : '';
      const stderr = Buffer.concat(err).toString();
      const ms = performance.now() - begun;
      try {
        resolve({ ...answerOf(code ?? -1, stdout), signal, stderr, ms });
      } catch (cause) {
        reject(new Error(`no JSON on stdout: ${JSON.stringify({ code, signal, stdout, stderr })}`, { cause }));
      }
    });
  });
  return { child, ended };
}

export function run(command: Command, of: Call): Promise<Ended> {
  return start(command, of).ended;
}
