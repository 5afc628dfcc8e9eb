// Chooses the face that this process shows: the CNI plugin, a named tool, or the command line.
import { basename } from 'node:path';
import { code, messageOf } from './base/errors.ts';
import { throughAgent } from './main/agent.ts';
import { evaluate, type Parts } from './main/asset.ts';
import { disarm } from './main/environment.ts';
import { readToEnd, writeFully } from './main/stdio.ts';

declare const KUBE_IPAM_VERSION: string;

/** Names under which later versions of this program act as a tool of their own. */
const laterFaces = ['eipctl', 'eip_agent', 'kube-router'];

let stdin: Buffer | undefined;
let answered = false;

/** All of stdin; kept, because the plugin face may be run a second time, from the asset. */
function readStdin(): Buffer {
  stdin ??= readToEnd(0);
  return stdin;
}

function writeStdout(text: string): void {
  answered = true;
  if (!writeFully(1, text)) process.exitCode = 1;
}

const builtin = (id: string): unknown => process.getBuiltinModule(id);

/**
 * The executable evaluates an asset; from the sources it is a plain import of the same code. The bundler drops the
 * import, with all behind it, only where the condition is spelled out in its place.
 */
async function loadPlugin(): Promise<Parts['plugin']> {
  return typeof KUBE_IPAM_VERSION === 'string' ? evaluate('plugin', builtin) : import('./cni/plugin.ts');
}

async function loadApp(): Promise<Parts['app']> {
  return typeof KUBE_IPAM_VERSION === 'string' ? evaluate('app', builtin) : import('./app.ts');
}

const monotonicNow = (): number => Number(process.hrtime.bigint()) / 1e6;

async function plugin(): Promise<number> {
  const asked = await throughAgent({ env: process.env, readStdin, monotonicNow });
  if (typeof asked === 'object') {
    writeStdout(asked.answer.stdout);
    return asked.answer.exitCode;
  }
  const io = { env: process.env, readStdin, writeStdout, ...(asked !== 'self' && { unanswered: asked }) };
  const outcome = await (await loadPlugin()).runPlugin(io);
  if (outcome !== 'asset') return outcome;
  const again = await (await loadApp()).runPlugin(io);
  if (again === 'asset') throw new Error('the plugin asked for parts where it has them');
  return again;
}

async function commandLine(calledAs: string): Promise<number> {
  const { runCli } = await loadApp();
  // Lazily: node:tty brings node:net, 2 ms that a plugin has no use for.
  const { isatty } = await import('node:tty');
  const isTerminal = isatty(1);
  return runCli(process.argv.slice(2), {
    env: process.env,
    calledAs,
    executable: process.execPath,
    readStdin,
    writeStdout,
    writeStderr: text => void writeFully(2, text),
    isTerminal,
    columns: isTerminal ? process.stdout.columns : 80,
    monotonicNow,
    stopSignal,
  });
}

function stopSignal(): AbortSignal {
  const stop = new AbortController();
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => stop.abort());
  return stop.signal;
}

function refuseFace(name: string): number {
  writeFully(2, `${name}: this tool is not part of this version of kube-ipam\n`);
  return 2;
}

/** A bug is told once, in the words that the caller understands: to a container runtime as a CNI error object. */
function failOfBug(isPlugin: boolean, error: unknown): never {
  const msg = `internal error: ${messageOf(error)}`;
  if (!isPlugin) writeFully(2, `kube-ipam: ${msg}\n`);
  else if (!answered) writeFully(1, `${JSON.stringify({ cniVersion: spokenVersion(), code: code.bug, msg })}\n`);
  process.exit(1);
}

/** The version of the CNI specification that the caller speaks, as far as its configuration can be read. */
function spokenVersion(): string {
  try {
    const { cniVersion } = JSON.parse(String(stdin));
    if (typeof cniVersion === 'string') return cniVersion;
  } catch {
    // The configuration may be the very thing that is broken.
  }
  return '1.1.0';
}

function start(): Promise<number> {
  if (isPlugin) return plugin();
  const name = basename(process.argv[1] ?? '');
  return laterFaces.includes(name) ? Promise.resolve(refuseFace(name)) : commandLine(name);
}

disarm(process.env, process.getBuiltinModule);
const isPlugin = process.env.CNI_COMMAND !== undefined;
const fail = (error: unknown): never => failOfBug(isPlugin, error);
process.on('uncaughtException', fail);
// process.exit: connections kept alive for a next call that never comes must not hold a container runtime up.
start().then(exitCode => process.exit(process.exitCode ?? exitCode), fail);
