// nftables: whole files that the kernel takes at once or not at all, and what stands in a set.
import type { Deadline } from '../base/clock.ts';
import { code, FailureError } from '../base/errors.ts';
import type { Finished } from './exec.ts';
import { complaintOf, followTool, runTool } from './tool.ts';

/**
 * Gives the kernel a file in nft's own language. Undefined: all of it holds. Else why not, on one line: nothing of it
 * holds, unless it did not end in time, which leaves that open. Throws FailureError only where nft cannot be started.
 */
export async function runNft(text: string, deadline: Deadline): Promise<string | undefined> {
  const finished = await runTool('nft', ['-f', '-'], text, deadline);
  return finished.code === 0 ? undefined : complaintIn(finished);
}

/** nft repeats the faulty line with a row of carets below; its errors say enough. */
function complaintIn(finished: Finished): string {
  const errors = finished.stderr.split('\n').filter(line => /\bError: /.test(line));
  return errors.length === 0 ? complaintOf(finished) : errors.join('; ').replaceAll('/dev/stdin:', 'line ');
}

export interface NftElement {
  /** As nft prints it. */
  readonly value: string;
  /** Seconds with their fractions; undefined for one that stays. */
  readonly expires?: number;
}

/** The elements of a set; undefined when there is no such set. Throws FailureError. */
export async function readNftSet(
  family: string,
  table: string,
  set: string,
  deadline: Deadline,
): Promise<NftElement[] | undefined> {
  const finished = await runTool('nft', ['list', 'set', family, table, set], '', deadline);
  if (finished.code === 0) return elementsIn(finished.stdout);
  if (finished.stderr.startsWith('Error: No such file or directory')) return undefined;
  throw new FailureError(code.io, `nft set ${family} ${table} ${set} cannot be read: ${complaintIn(finished)}`);
}

/** Its JSON would be easier to read, and has no fractions of seconds. */
export function elementsIn(listing: string): NftElement[] {
  const [, inside = ''] = /\belements = \{([^}]*)\}/.exec(listing) ?? [];
  const elements = inside.split(',').map(text => text.trim().split(/\s+/));
  return elements.flatMap(([value = '', ...options]) => {
    if (value === '') return [];
    const expires = options.indexOf('expires');
    return [expires < 0 ? { value } : { value, expires: secondsOf(options[expires + 1] ?? '') }];
  });
}

const secondsIn: Readonly<Record<string, number>> = { d: 86_400, h: 3600, m: 60, s: 1, ms: 0.001 };

/** Of a time like `1d2h3m4s5ms`. */
function secondsOf(time: string): number {
  const parts = [...time.matchAll(/(\d+)(ms|[dhms])/g)];
  return parts.reduce((sum, [, count, unit = '']) => sum + Number(count) * secondsIn[unit]!, 0);
}

/** A table as nft prints it, without the elements of its sets; undefined when it cannot be read. */
export async function readNftTable(family: string, table: string, deadline: Deadline): Promise<string | undefined> {
  const finished = await runTool('nft', ['--terse', 'list', 'table', family, table], '', deadline);
  return finished.code === 0 ? finished.stdout : undefined;
}

/** Whether this kernel takes what a gate needs: tried on it, and taken back by it. */
export async function hasNft(deadline: Deadline): Promise<boolean> {
  const text = ['arp', 'inet']
    .map(
      family =>
        `table ${family} kube_ipam_trial {\n` +
        '  set trial { type ipv4_addr; flags timeout; }\n' +
        `  chain trial { type filter hook ${family === 'arp' ? 'output' : 'prerouting'} priority 0; }\n}\n`,
    )
    .join('');
  try {
    const finished = await runTool('nft', ['--check', '-f', '-'], text, deadline);
    return finished.code === 0;
  } catch (error) {
    if (error instanceof FailureError) return false;
    throw error;
  }
}

/**
 * Every rule, chain or table of this namespace that somebody removed, as a line of nft's (`delete rule ip mangle ...`), until
 * the signal comes. 'resync' stands for what nobody heard: said as soon as it listens, at first and after a restart.
 */
export function monitorNft(onLine: (line: string) => void, signal: AbortSignal): void {
  // Elements are left out: a gate renews them all the time.
  followTool('nft', ['monitor', 'destroy', 'rules'], line => void (line.startsWith('#') || onLine(line)), signal);
}
