// Work of any length on a store: it goes on for as long as answers come, and in steps that can be repeated.
import { backoff, pause, type RenewableDeadline } from '../../base/clock.ts';
import { formatKey, Keys, parseKey, root } from '../../store/keys.ts';
import { afterPrefix, type Entry, UnknownFateError, UnreachableError } from '../../store/kv.ts';
import { currentFormat } from '../model.ts';
import type { Surroundings } from '../ports.ts';
import { refuseNewerFormat } from './look.ts';

/** Surroundings whose deadline each answer of the store moves on. */
export interface PatientSurroundings extends Surroundings {
  readonly deadline: RenewableDeadline;
}

/** Told after each step how much is done. */
export type Step = (done: number) => void;

/** A commit takes at most so many conditions and writes (etcd's limit is 128). */
export const batchSize = 100;

/** All entries `from <= key < to` at one revision, page by page. */
export async function* scanAll(around: PatientSurroundings, from: string, to: string): AsyncIterable<readonly Entry[]> {
  const { kv, deadline } = around;
  deadline.renew();
  for await (const { entries } of kv.scan(from, to, deadline)) {
    yield entries;
    deadline.renew();
  }
}

/** After a piece of work that nobody waits for: leaves twice its time to those whom somebody waits for. */
export function giveWay(around: PatientSurroundings, begun: number): Promise<void> {
  around.deadline.renew();
  return pause(Math.min(500, 2 * (performance.now() - begun)), around.deadline);
}

/**
 * Repeats `work` until it says that it is done (not undefined): a lost commit returns undefined. `work` is told whether it
 * ran before, and must be safe to repeat whatever became of its last commit. Ends with the store's error when nothing
 * succeeds within the deadline.
 */
export async function untilDone<T>(
  around: PatientSurroundings,
  work: (repeated: boolean) => Promise<T | undefined>,
): Promise<T> {
  around.deadline.renew();
  for (let tries = 1; ; tries++) {
    let failure: unknown;
    try {
      const done = await work(tries > 1);
      if (done !== undefined) return done;
      failure = new UnreachableError('others changed the same records until the time was over');
    } catch (error) {
      if (!(error instanceof UnknownFateError)) throw error;
      failure = error;
    }
    if (around.deadline.passed) throw failure;
    await pause(backoff(tries, 20, 500), around.deadline);
    if (around.deadline.passed) throw failure;
  }
}

/** Refuses a store that only newer programs may write (code 101), and marks a new one with our format. */
export async function prepareStore(around: PatientSurroundings): Promise<void> {
  await untilDone(around, async () => {
    const { kv, deadline } = around;
    const format = (await kv.read([{ key: formatKey }], deadline)).answers[0]!.entries[0];
    refuseNewerFormat(format);
    if (format !== undefined) return true;
    const writes = [{ put: formatKey, value: JSON.stringify(currentFormat) }];
    return (await kv.commit({ conditions: [{ absent: formatKey }], writes }, deadline)).won || undefined;
  });
}

/** The address spaces that hold any key. */
export async function spacesOf(around: PatientSurroundings): Promise<string[]> {
  const spaces: string[] = [];
  const end = afterPrefix(root);
  for (let from = root; ; ) {
    const key = await firstKey(around, from, end);
    if (key === undefined) return spaces;
    const [name = '', section] = key.slice(root.length).split('/');
    // `format` has nothing behind it, and `clusters/` is no space.
    const isSpace = section !== undefined && parseKey(key)?.type !== 'cluster';
    if (isSpace) spaces.push(new Keys(name).space);
    from = section === undefined ? `${key}\0` : afterPrefix(`${root}${name}/`);
  }
}

async function firstKey(around: PatientSurroundings, from: string, to: string): Promise<string | undefined> {
  for await (const entries of scanAll(around, from, to)) return entries[0]?.key;
  return undefined;
}
