// The command line: takes the arguments apart, runs one command, and turns what it throws into words and an exit code.
import { FailureError, messageOf } from '../base/errors.ts';
import { UnansweredError } from '../kube/failure.ts';
import { UnknownFateError, UnreachableError } from '../store/kv.ts';
import { exit, UsageError } from './command.ts';
import { type Face, faceOf } from './face.ts';
import { parseArgs } from './parse.ts';
import { NotConfiguredError } from './store-access.ts';
import { didYouMean } from './suggest.ts';

/** What a command may use of the process it runs in. */
export interface CliIo {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** The name that this program was called by, without folder. */
  readonly calledAs: string;
  /** Path of this executable, symbolic links resolved. */
  readonly executable: string;
  /** All of stdin. */
  readStdin(): Buffer;
  /** Writes everything before it returns. */
  writeStdout(text: string): void;
  writeStderr(text: string): void;
  /** Whether a person reads stdout: colour and progress only then. */
  readonly isTerminal: boolean;
  /** Width of the terminal, 80 where there is none. */
  readonly columns: number;
  /** CLOCK_MONOTONIC in milliseconds: the same for all processes of this host. */
  monotonicNow(): number;
  /** From the first call on, SIGTERM and SIGINT abort this signal instead of ending the process. */
  stopSignal(): AbortSignal;
}

/** Runs the command that `argv` (without the program's name) asks for, and returns the exit code. */
export async function runCli(argv: readonly string[], io: CliIo): Promise<number> {
  if (io.calledAs === 'kubectl_complete-ipam') return (await import('./kubectl/complete.ts')).complete(argv, io);
  const face = await faceOf(io.calledAs);
  try {
    return await dispatch(face, face.usual === undefined ? familiar(argv) : argv, io);
  } catch (error) {
    io.writeStderr(`${face.name}: ${told(error)}\n`);
    return exitCodeOf(error);
  }
}

async function dispatch(face: Face, given: readonly string[], io: CliIo): Promise<number> {
  const argv = withUsual(face, given);
  const [verb, ...rest] = argv;
  if (verb === undefined) {
    io.writeStderr(face.help());
    return exit.usage;
  }
  if (verb === 'help' && (rest[0] === undefined || rest[0].startsWith('-'))) {
    io.writeStdout(face.help());
    return exit.fine;
  }
  const wanted = verb === 'help' ? rest[0]! : verb;
  const entry = [...face.commands, ...(face.hidden ?? [])].find(command => command.verb === wanted);
  if (entry === undefined) throw unknownCommand(face, wanted);
  if (entry.tool !== undefined)
    return dispatch(await entry.tool(), verb === 'help' ? ['help', ...rest.slice(1)] : rest, io);
  const command = await entry.load();
  const parsed = await parseArgs(command, verb === 'help' ? [wanted, '--help'] : argv, io.columns, face);
  if (!('help' in parsed)) return await command.run(parsed.args, io);
  io.writeStdout(`${parsed.help}\n`);
  return exit.fine;
}

/** A tool that runs where no command is named: its help is asked for by --help alone. */
export function withUsual({ usual }: Pick<Face, 'usual'>, argv: readonly string[]): readonly string[] {
  if (usual === undefined) return argv;
  if (['--help', '-h'].includes(argv[0] ?? '')) return ['help'];
  return argv[0] === undefined || argv[0].startsWith('-') ? [usual, ...argv] : argv;
}

function unknownCommand({ name, commands }: Face, word: string): UsageError {
  const names = [...commands.map(({ verb }) => verb), 'help'];
  const what = word.startsWith('-') ? 'a command must come first, and' : 'there is no command';
  const which = word.startsWith('-') ? `"${word}" is none` : `"${word}"`;
  return new UsageError(`${what} ${which}${didYouMean(word, names)}; "${name} help" lists them all`);
}

/** Release 0.2 knew `-version`, `-help` and `-outputconf PLUGIN`, with one dash or two, as Go's flags do. */
function familiar(argv: readonly string[]): readonly string[] {
  const [first = '', ...rest] = argv;
  const [, name, value] = /^--?([a-z]+)(?:=(.*))?$/.exec(first) ?? [];
  if (name === 'version' && value === undefined) return ['version', ...rest];
  if ((name === 'help' || name === 'h') && value === undefined) return ['help', ...rest];
  if (name !== 'outputconf') return argv;
  const plugin = value === undefined ? rest : [value, ...rest];
  // Calico's network is a chain of three plugins, which no .conf file can hold.
  return ['conf', ...plugin, ...(plugin[0] === 'calico' ? [] : ['--single'])];
}

function told(error: unknown): string {
  if (error instanceof UsageError || error instanceof FailureError) return error.message;
  return `internal error: ${messageOf(error)}; please report it`;
}

function exitCodeOf(error: unknown): number {
  if (error instanceof UsageError) return exit.usage;
  const unreachable = [UnreachableError, UnknownFateError, UnansweredError, NotConfiguredError].some(
    kind => error instanceof kind,
  );
  return unreachable ? exit.unreachable : exit.trouble;
}
