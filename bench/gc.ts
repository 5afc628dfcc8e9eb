// What a scan of gc over many records costs, and what pods feel of it: a scanner beside timed ADDs, real API server and etcd.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { deadlineIn } from '../src/base/clock.ts';
import { type Pod, renderAttachment } from '../src/ipam/model.ts';
import { renderOwner } from '../src/ipam/records.ts';
import { Keys } from '../src/store/keys.ts';
import type { Kv, Write } from '../src/store/kv.ts';
import { type ControlPlane, startControlPlane } from '../test/helpers/kubernetes/control-plane.ts';
import { project } from '../test/helpers/project.ts';
import { compare, type Subject } from './measure.ts';
import type { Network } from './networks.ts';
import type { Figure } from './report.ts';

/** Nodes and pods on each of them; every pod has so many interfaces, which makes the number of records. */
const [nodes, podsPerNode, interfaces] = [100, 5, 120];

const records = nodes * podsPerNode * interfaces;

/**
 * Fills the network's space with living attachments, and times ADDs by `subject` while a leader's scans follow each other,
 * in turn with ADDs while the scanner stands still.
 */
export async function gcFigures(kv: Kv, net: Network, subject: Subject, runs: number): Promise<Figure[]> {
  await using plane = await startControlPlane();
  for (let i = 0; i < nodes; i++) await makeNode(plane, `node-${i}`);
  for (let i = 0; i < nodes * podsPerNode; i++) {
    const node = `node-${i % nodes}`;
    const spec = { nodeName: node, containers: [{ name: 'c', image: 'localhost/none' }] };
    const body = { metadata: { name: `pod-${i}` }, spec };
    const { metadata } = await plane.api<Created>('POST', '/api/v1/namespaces/default/pods', body);
    await attach(kv, net, node, { namespace: 'default', name: `pod-${i}`, uid: metadata.uid }, i * interfaces);
  }
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
        what: `gc scan of ${records} records on ${nodes} nodes, all by the leader`,
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

interface Created {
  readonly metadata: { readonly uid: string };
}

/** A line of the scanner. */
interface Scan {
  readonly ms: number;
  /** Resident memory. */
  readonly mib: number;
}

async function makeNode(plane: ControlPlane, name: string): Promise<void> {
  await plane.api('POST', '/api/v1/nodes', { metadata: { name } });
  const conditions = [{ type: 'Ready', status: 'True', lastTransitionTime: new Date().toISOString(), reason: 'Bench' }];
  const contentType = 'application/merge-patch+json';
  await plane.api('PATCH', `/api/v1/nodes/${name}/status`, { status: { conditions } }, { contentType });
}

async function attach(kv: Kv, { config, name }: Network, node: string, pod: Pod, offset: number): Promise<void> {
  const keys = new Keys(config.space);
  const first = config.sets[0]![0]!.first + BigInt(offset);
  const writes = Array.from({ length: interfaces }, (_, i): Write[] => {
    const ip = { family: 4 as const, value: first + BigInt(i) };
    const id = { node, network: name, containerID: ip.value.toString(16).padStart(64, 'f'), ifname: `net${i}` };
    const owner = {
      id,
      cluster: 'default',
      machine: '0123456789abcdef',
      boot: 'b',
      netns: '/var/run/netns/cni-x',
      pod,
    };
    return [
      { put: keys.address(ip), value: renderOwner(owner, 'dynamic', 0, Date.now()) },
      { put: keys.attachment(id), value: renderAttachment([ip], false) },
    ];
  }).flat();
  for (let start = 0; start < writes.length; start += 80) {
    await kv.commit({ conditions: [], writes: writes.slice(start, start + 80) }, deadlineIn(30_000));
  }
}
