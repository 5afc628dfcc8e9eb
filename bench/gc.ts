// What a scan of gc over many records costs, and what pods feel of it: a scanner beside timed ADDs, real API server and etcd.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Kv } from '../src/store/kv.ts';
import { startControlPlane } from '../test/helpers/kubernetes/control-plane.ts';
import { project } from '../test/helpers/project.ts';
import { compare, type Subject } from './measure.ts';
import type { Network } from './networks.ts';
import { populate, recordsOf } from './population.ts';
import type { Figure } from './report.ts';

const population = { nodes: 100, podsPerNode: 5, interfaces: 120 };
const records = recordsOf(population);

/**
 * Fills the network's space with living attachments, and times ADDs by `subject` while a leader's scans follow each other,
 * in turn with ADDs while the scanner stands still.
 */
export async function gcFigures(kv: Kv, net: Network, subject: Subject, runs: number): Promise<Figure[]> {
  await using plane = await startControlPlane();
  await populate(plane, kv, net, population);
  const program = join(project, 'bench/gc-scanner.ts');
  const scanner = spawn(process.execPath, [program], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const scans: Scan[] = [];
  const lines = createInterface({ input: scanner.stdout }).on('line', line => scans.push(JSON.parse(line)));
  try {
    scanner.stdin.end(JSON.stringify({ conf: net.conf, kubeconfig: plane.adminKubeconfig }));
    const said = () => Promise.race([once(lines, 'line'), once(lines, 'close').then(fail)]);
    await said();
    const when = (name: string, signal: 'SIGSTOP' | 'SIGCONT'): Subject => ({
      ...subject,
      name,
      environment: run => {
        scanner.kill(signal);
        // It wakes with all its rests over: only some time later does it work and rest by turns again.
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 200 + Math.random() * 300);
        return subject.environment(run);
      },
    });
    const [idle, busy] = await compare([when('no scan', 'SIGSTOP'), when('scans', 'SIGCONT')], runs);
    scanner.kill('SIGCONT');
    // The lines of meanwhile first; and what stood still in between says nothing of a scan's length.
    await sleep(200);
    const from = scans.length + 1;
    while (scans.length < from + 3) await said();
    const alone = scans.slice(from).map(({ ms }) => ms);
    const memory = Math.max(...scans.map(({ mib }) => mib));
    return [
      {
        what: `gc scan of ${records} records on ${population.nodes} nodes, all by the leader`,
        goal: 'reported',
        measured: `${(Math.min(...alone) / 1000).toFixed(1)} s, ${memory.toFixed(0)} MiB resident`,
      },
      {
        what: 'ADD while such scans follow each other without a pause ÷ ADD without',
        goal: '<= 1.2',
        measured: `${busy!.ratio.toFixed(2)} (${idle!.median.toFixed(1)} ms, ${busy!.median.toFixed(1)} ms)`,
        met: busy!.ratio <= 1.2,
      },
    ];
  } finally {
    scanner.kill('SIGKILL');
  }
}

function fail(): never {
  throw new Error('the scanner has ended');
}

/** A line of the scanner. */
interface Scan {
  readonly ms: number;
  /** Resident memory. */
  readonly mib: number;
}
