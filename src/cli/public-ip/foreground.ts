// Runs one part of public IPs in the foreground, with its pages, until told to stop.
import { dirname } from 'node:path';
import { makeFolder } from '../../base/folder.ts';
import { Log } from '../../base/log.ts';
import { Metrics } from '../../base/metrics.ts';
import type { Part } from '../../base/part.ts';
import type { Config } from '../../publicip/config.ts';
import { exit } from '../command.ts';
import type { CliIo } from '../program.ts';

/** What the part is made with. */
export interface Surroundings {
  readonly log: Log;
  readonly metrics: Metrics;
  readonly stop: AbortSignal;
}

/**
 * @param name of what runs, in the log.
 * @param open gives nothing when it was told to stop before the store answered.
 */
export async function runInForeground(
  name: string,
  config: Config,
  io: CliIo,
  open: (around: Surroundings) => Promise<Part | undefined>,
): Promise<number> {
  const { Pages } = await import('../../agent/pages.ts');
  const stop = io.stopSignal();
  const log = logOf(config, io);
  const metrics = new Metrics();
  const part = await open({ log, metrics, stop });
  if (part === undefined) return exit.fine;
  const parts: Part[] = [part];
  if (config.listen !== undefined) parts.unshift(new Pages(config.listen, () => parts, metrics));
  const started: Part[] = [];
  try {
    for (const one of parts) {
      await one.start();
      started.unshift(one);
    }
    log.info(`${name} started`, { id: config.id });
    await stopped(stop);
    log.info(`${name} stops`);
  } finally {
    for (const one of started) await one.stop();
  }
  log.info(`${name} stopped`);
  return exit.fine;
}

function logOf({ log: { file, level } }: Config, io: CliIo): Log {
  if (file !== undefined) makeFolder(dirname(file), 0o750);
  const target = { file: file ?? '/dev/stderr', level, maxSize: 100 * 2 ** 20 };
  return file === undefined ? new Log(target, {}, (_, lines) => io.writeStderr(lines)) : new Log(target);
}

function stopped(signal: AbortSignal): Promise<void> {
  return new Promise(resolve => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
