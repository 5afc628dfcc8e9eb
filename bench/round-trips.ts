// How many calls and writes one ADD costs etcd, by etcd's own counters.

import { spawnSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import type { EtcdCluster } from '../test/helpers/etcd.ts';
import { add, type Network } from './networks.ts';
import type { Figure } from './report.ts';

interface Counters {
  readonly calls: number;
  readonly revision: number;
}

async function counters(cluster: EtcdCluster): Promise<Counters> {
  const text = await (await fetch(new URL('/metrics', cluster.endpoints[0]))).text();
  const unary = [...text.matchAll(/^grpc_server_handled_total\{.*grpc_type="unary".*\} (\S+)$/gm)];
  const revision = /^etcd_debugging_mvcc_current_revision (\S+)$/m.exec(text)?.[1];
  return { calls: unary.reduce((sum, [, count]) => sum + Number(count), 0), revision: Number(revision) };
}

/** One ADD on a network that has been used before, one that repeats it, and its DEL. */
export async function roundTrips(cluster: EtcdCluster, executable: string, network: Network): Promise<Figure[]> {
  const subject = add('etcd', executable, network);
  const run = (command: string, id: string) => {
    const env = { ...subject.environment(id), CNI_COMMAND: command };
    const ended = spawnSync(subject.file, [], { input: subject.stdin, env, encoding: 'utf8' });
    if (ended.status !== 0) throw new Error(`${command} failed: ${ended.stdout}`);
  };
  run('ADD', randomUUID());
  const id = randomUUID();
  const figures: Figure[] = [];
  for (const [command, goal] of [
    ['ADD', 3],
    ['DEL', 2],
  ] as const) {
    const before = await counters(cluster);
    run(command, id);
    const after = await counters(cluster);
    const calls = after.calls - before.calls;
    const writes = after.revision - before.revision;
    figures.push({
      what: `calls to etcd of one ${command}, and writes among them`,
      goal: `<= ${goal}, 1 write`,
      measured: `${calls}, ${writes} write`,
      met: calls <= goal && writes === 1,
    });
  }
  return figures;
}
