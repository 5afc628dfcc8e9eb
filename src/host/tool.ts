// The system's own programs that features drive: how they are called, and which package has them.
import { readFileSync } from 'node:fs';
import { type Deadline, deadlineIn, rest } from '../base/clock.ts';
import { code, FailureError } from '../base/errors.ts';
import { type Conversation, converse, execute, type Finished, type Listener } from './exec.ts';

/** Their names as Debian's packages have them. */
const packages = {
  ip: 'iproute2',
  nft: 'nftables',
  arping: 'iputils-arping',
  ndisc6: 'ndisc6',
  ndptool: 'libndp-tools',
  conntrack: 'conntrack',
} as const;

export type Tool = keyof typeof packages;

/** Their whole environment: where root's programs are, and English, because what they say is read by this program. */
export const toolEnv = {
  PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
  LC_ALL: 'C',
} as const;

/** Runs a tool to its end. Throws FailureError only where it cannot be started. */
export async function runTool(
  tool: Tool,
  args: readonly string[],
  input: string,
  deadline: Deadline,
  signal?: AbortSignal,
): Promise<Finished> {
  const finished = await execute(tool, args, toolEnv, input, deadline, signal);
  if (finished.failure === 'ENOENT') throw new FailureError(code.unavailable, absence(tool, packages[tool]));
  return finished;
}

/** Whether it can be started here. */
export async function hasTool(tool: Tool, deadline: Deadline): Promise<boolean> {
  return (await execute(tool, ['--help'], toolEnv, '', deadline)).failure !== 'ENOENT';
}

/** A tool that stays. That it cannot be started is told to the listener's `ended`. */
export function converseWith(tool: Tool, args: readonly string[], listener: Listener): Conversation {
  return converse(tool, args, toolEnv, listener);
}

/** Milliseconds from the end of a follower to its next start. */
const pauseOfFollower = 500;

/**
 * A tool that tells of the kernel's changes, by netlink, until the signal comes. It is started again whenever it ends;
 * 'resync' stands for changes that it may have missed, and is said as soon as it listens, at first and each time again.
 * Where this process is killed, it ends at the next change, which it has nobody to tell.
 */
export function followTool(
  tool: Tool,
  args: readonly string[],
  onLine: (line: string) => void,
  signal: AbortSignal,
): void {
  if (signal.aborted) return;
  const over = new AbortController();
  const hear = (line: string): void => void (signal.aborted || onLine(line));
  const stop = (): void => follower[Symbol.dispose]();
  const follower = converseWith(tool, args, {
    line: hear,
    complaint: () => {},
    ended: () => {
      over.abort();
      signal.removeEventListener('abort', stop);
      void rest(pauseOfFollower, signal).then(() => followTool(tool, args, onLine, signal));
    },
  });
  signal.addEventListener('abort', stop);
  void whenSubscribed(follower.pid, over.signal).then(() => over.signal.aborted || hear('resync'));
}

/** Milliseconds after which a process that shows no subscription is taken for one that listens all the same. */
const patience = 2000;

/** Until the process listens to changes: the kernel shows the groups that a netlink socket has joined. */
async function whenSubscribed(pid: number | undefined, over: AbortSignal): Promise<void> {
  const deadline = deadlineIn(patience);
  const listens = new RegExp(`^\\S+ +\\d+ +${pid} +(?!0{8} )[0-9a-f]{8} `, 'm');
  while (!over.aborted && !deadline.passed && !listens.test(readFileSync('/proc/self/net/netlink', 'utf8'))) {
    await rest(10, over);
  }
}

export function absence(tool: string, debianPackage: string): string {
  return `${tool} is not installed here: install it (Debian's package is ${debianPackage})`;
}

/** Why a tool failed, on one line: its own words, else how it ended. */
export function complaintOf({ code: exitCode, stderr, failure }: Finished): string {
  return stderr.replace(/\s+/g, ' ').trim() || failure || `exit code ${exitCode}`;
}
