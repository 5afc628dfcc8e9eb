// The command line: takes the arguments apart and runs one command.
import { commit, nodeVersion, version } from '../base/version.ts';

/** What a command may use of the process it runs in. */
export interface CliIo {
  readonly env: Readonly<Record<string, string | undefined>>;
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
}

/** Runs the command that `argv` (without the program's name) asks for, and returns the exit code. */
export async function runCli(argv: readonly string[], io: CliIo): Promise<number> {
  if (argv.length === 1 && ['version', '--version', '-version'].includes(argv[0]!)) {
    io.writeStdout(`kube-ipam ${version} (commit ${commit}, Node ${nodeVersion})\n`);
    return 0;
  }
  io.writeStderr('usage: kube-ipam version\n');
  return 2;
}
