// Times whole processes, always beside the floor in the same minute: the ratio is the figure, not the milliseconds.
import { spawn, spawnSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';

/** A process to time: each run may differ in its input and environment. */
export interface Subject {
  readonly name: string;
  readonly file: string;
  environment(run: string): Readonly<Record<string, string>>;
  readonly stdin: string;
  /** Undoes a run, untimed. */
  after?(run: string): void;
}

export interface Timing {
  readonly name: string;
  /** Milliseconds. */
  readonly median: number;
  readonly p90: number;
  /** Median against that of the first subject. */
  readonly ratio: number;
}

function once(subject: Subject): number {
  const run = randomUUID();
  const env = subject.environment(run);
  const begin = performance.now();
  const ended = spawnSync(subject.file, [], { input: subject.stdin, env, encoding: 'utf8' });
  const took = performance.now() - begin;
  if (ended.status !== 0) throw new Error(`${subject.name} failed: ${ended.stdout}${ended.stderr}`);
  subject.after?.(run);
  return took;
}

function started(subject: Subject): Promise<void> {
  return new Promise((resolve, reject) => {
    const env = subject.environment(randomUUID());
    const child = spawn(subject.file, [], { env, stdio: ['pipe', 'pipe', 'ignore'] });
    let output = '';
    child.stdout.on('data', chunk => {
      output += chunk;
    });
    child.on('error', reject);
    child.on('close', status => (status === 0 ? resolve() : reject(new Error(`${subject.name} failed: ${output}`))));
    child.stdin.on('error', () => {});
    child.stdin.end(subject.stdin);
  });
}

async function together(subject: Subject, count: number): Promise<number> {
  const begin = performance.now();
  await Promise.all(Array.from({ length: count }, () => started(subject)));
  return performance.now() - begin;
}

/** Runs each subject in turn, `runs` times over, and compares them with the first. */
export async function compare(subjects: readonly Subject[], runs: number, count = 1): Promise<Timing[]> {
  const times = subjects.map((): number[] => []);
  // Two turns that do not count bring files and caches to where they stay.
  for (let turn = -2; turn < runs; turn++) {
    for (const [i, subject] of subjects.entries()) {
      const ms = count === 1 ? once(subject) : await together(subject, count);
      if (turn >= 0) times[i]!.push(ms);
    }
  }
  const medians = times.map(list => quantile(list, 0.5));
  return subjects.map(({ name }, i) => ({
    name,
    median: medians[i]!,
    p90: quantile(times[i]!, 0.9),
    ratio: medians[i]! / medians[0]!,
  }));
}

/** The value below which that part of them lies. */
export function quantile(list: readonly number[], at: number): number {
  const sorted = [...list].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * at))]!;
}

/** Largest resident memory of one run, in MiB, by GNU time. */
export function peakMemory(subject: Subject): number {
  const env = subject.environment(randomUUID());
  const ended = spawnSync('/usr/bin/time', ['-f', '%M', subject.file], { input: subject.stdin, env, encoding: 'utf8' });
  if (ended.status !== 0) throw new Error(`${subject.name} failed: ${ended.stdout}${ended.stderr}`);
  return Number(ended.stderr.trim().split('\n').at(-1)) / 1024;
}
