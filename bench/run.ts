// `npm run bench`: the figures of docs/performance.md, each a ratio measured in one run. `--only NAME` picks one.
import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { openEmbedded } from '../src/store/embedded/embedded.ts';
import { openGrpc } from '../src/store/etcd/grpc.ts';
import type { Kv } from '../src/store/kv.ts';
import { type EtcdCluster, engines, startEtcd } from '../test/helpers/etcd.ts';
import { tree } from '../test/helpers/executable.ts';
import { type AgentBench, agentFigures, agentOnClusterFigures } from './agent.ts';
import { makeEmptyExecutable } from './floor.ts';
import { gcFigures } from './gc.ts';
import { kubeletFigure } from './kubelet.ts';
import { compare, peakMemory, type Timing } from './measure.ts';
import { add, addAndDelete, empty, fill, fillHostLocal, hostLocal, type Network, network } from './networks.ts';
import { Report } from './report.ts';
import { roundTrips } from './round-trips.ts';

const { values } = parseArgs({
  options: {
    only: { type: 'string' },
    runs: { type: 'string', default: '60' },
    records: { type: 'string', default: '1000000' },
  },
});
const runs = Number(values.runs);
const records = Number(values.records);
const folder = mkdtempSync(join(tmpdir(), 'kube-ipam-bench-'));
// Both as fresh copies: how the kernel keeps a file's pages depends on how they were written, and makes up to 8 %.
const executable = join(folder, 'tree', 'kube-ipam');
cpSync(tree, join(folder, 'tree'), { recursive: true });
cpSync(makeEmptyExecutable(join(folder, 'made')), join(folder, 'floor'));
const floor = empty(join(folder, 'floor'));
const report = new Report();

function tell({ name, median, p90, ratio }: Timing): string {
  return `${name}: median ${median.toFixed(1)} ms, p90 ${p90.toFixed(1)} ms, ${ratio.toFixed(2)} × empty`;
}

function judge(what: string, ratio: number, goal: number): void {
  report.add({ what, goal: `<= ${goal}`, measured: ratio.toFixed(2), met: ratio <= goal });
}

async function embedded(): Promise<void> {
  for (const taken of [0, 50_000]) {
    const net = network(`embedded-${taken}`, folder, '10.64.0.0/16');
    if (taken > 0) {
      await using kv = await openEmbedded(net.config.store.dataDir);
      await fill(kv, net, '10.64.0.2', taken);
    }
    const peer = join(folder, `host-local-${taken}`);
    fillHostLocal(peer, '10.64.0.2', taken);
    const subjects = [floor, add('embedded', executable, net), hostLocal('host-local', peer, '10.64.0.0/16')];
    const timings = await compare(subjects, runs);
    judge(`ADD embedded ÷ empty executable, ${taken} taken`, timings[1]!.ratio, 1.6);
    for (const timing of timings) report.note(`${taken} taken: ${tell(timing)}`);
  }
}

function etcdNetwork(cluster: EtcdCluster, name: string, subnet: string, more: object = {}): Network {
  const { endpoints, caFile } = cluster.target();
  // A certificate without a common name: one with would make etcd refuse its gateway.
  const { cert: certFile, key: keyFile } = cluster.certificates?.namelessClient ?? {};
  const files = {
    ...(caFile && { etcdTrustedCAFile: caFile }),
    ...(certFile && keyFile && { etcdCertFile: certFile, etcdKeyFile: keyFile }),
  };
  return network(name, folder, subnet, { etcdURL: endpoints.join(','), ...files }, more);
}

async function single(cluster: EtcdCluster, secure: EtcdCluster): Promise<void> {
  const plain = etcdNetwork(cluster, 'single', '10.65.0.0/16');
  const tls = etcdNetwork(secure, 'single-tls', '10.65.0.0/16');
  const subjects = [floor, add('etcd', executable, plain), add('etcd over TLS', executable, tls)];
  const timings = await compare(subjects, runs);
  judge('ADD etcd (gateway, no agent) ÷ empty executable', timings[1]!.ratio, 1.7);
  judge('the same over TLS with client certificates', timings[2]!.ratio, 2.4);
  for (const timing of timings) report.note(tell(timing));
  const memory = subjects.map(subject => `${subject.name} ${peakMemory(subject).toFixed(0)} MiB`);
  report.add({
    what: 'peak memory of one ADD (resident, file pages of the executable included)',
    goal: 'reported',
    measured: memory.join(', '),
  });
}

async function crowd(cluster: EtcdCluster): Promise<void> {
  const net = etcdNetwork(cluster, 'crowd', '10.66.0.0/16');
  for (const [count, repeats] of [
    [20, 15],
    [100, 7],
  ] as const) {
    const timings = await compare([floor, add('etcd', executable, net)], repeats, count);
    judge(`${count} ADDs at once, etcd ÷ ${count} empty executables at once`, timings[1]!.ratio, 2.0);
    report.note(`${count} at once: ${timings.map(({ name, median }) => `${name} ${median.toFixed(0)} ms`).join(', ')}`);
  }
}

/** How an ADD fares as the range and the store fill up, beside an etcd that stays nearly empty. */
async function filled(cluster: EtcdCluster, kv: Kv, small: EtcdCluster): Promise<void> {
  const bare = add('nothing taken', executable, etcdNetwork(small, 'bare', '10.67.0.0/16'));
  const full = etcdNetwork(cluster, 'filled', '10.68.0.0/16');
  await fill(kv, full, '10.68.0.2', 60_000);
  const atFill = await compare([bare, add('60 000 taken', executable, full)], runs);
  judge('ADD at 60 000 taken ÷ ADD at 0, one /16, etcd', atFill[1]!.ratio, 1.15);
  const last = etcdNetwork(cluster, 'last', '10.69.0.0/16');
  await fill(kv, last, '10.69.0.2', 65_532);
  const atEnd = await compare([bare, addAndDelete('last free address', executable, last)], runs);
  judge('last free address of a /16 ÷ ADD at 0', atEnd[1]!.ratio, 1.6);
  await fill(kv, etcdNetwork(cluster, 'bulk', '10.128.0.0/9'), '10.128.0.2', records);
  const among = etcdNetwork(cluster, 'among', '10.70.0.0/16');
  const atMany = await compare([bare, add(`${records} records in the store`, executable, among)], runs);
  judge(`ADD with ${records} records in the store ÷ ADD in an empty one`, atMany[1]!.ratio, 1.15);
  for (const [before, after] of [atFill, atEnd, atMany]) {
    report.note(
      `${before!.name}: median ${before!.median.toFixed(1)} ms; ${after!.name}: ${after!.median.toFixed(1)} ms`,
    );
  }
}

async function etcd(): Promise<void> {
  const engine = engines()[0];
  if (engine === undefined) throw new Error('no etcd was found: npm run setup bench');
  const flags = ['--quota-backend-bytes', String(8 * 2 ** 30), '--auto-compaction-retention', '1h'];
  await using cluster = await startEtcd(engine, { flags, durable: true });
  await using secure = await startEtcd(engine, { tls: { verifyClients: true }, durable: true });
  await using kv = openGrpc(cluster.target());
  if (wanted('single')) await single(cluster, secure);
  if (wanted('crowd')) await crowd(cluster);
  if (wanted('trips'))
    for (const figure of await roundTrips(cluster, executable, etcdNetwork(cluster, 'trips', '10.71.0.0/16')))
      report.add(figure);
  if (wanted('agent')) {
    const networkOf: AgentBench['networkOf'] = (name, subnet, more) => etcdNetwork(cluster, name, subnet, more);
    const bench = { cluster, executable, floor, networkOf, runs };
    const { figures, timings } = await agentFigures(bench);
    for (const figure of [...figures, ...(await agentOnClusterFigures(bench))]) report.add(figure);
    for (const timing of timings) report.note(tell(timing));
  }
  if (wanted('gc')) {
    await using scanned = await startEtcd(engine, { flags, durable: true });
    await using store = openGrpc(scanned.target());
    const net = etcdNetwork(scanned, 'gc', '10.72.0.0/15');
    for (const figure of await gcFigures(store, net, add('ADD', executable, net), runs)) report.add(figure);
  }
  if (wanted('filled')) {
    await using small = await startEtcd(engine, { durable: true });
    await filled(cluster, kv, small);
  }
  if (wanted('kubelet')) {
    const { figure, notes } = await kubeletFigure();
    report.add(figure);
    for (const note of notes) report.note(note);
  }
  if (values.only === undefined) report.write(`etcd ${engine.version}`);
}

function wanted(part: string): boolean {
  return values.only === undefined || values.only === part;
}

try {
  if (wanted('embedded')) await embedded();
  if (values.only !== 'embedded') await etcd();
} finally {
  rmSync(folder, { recursive: true, force: true });
}
