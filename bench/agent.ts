// ADDs through the node agent beside empty executables, what a fixed address costs there, and the agent's memory in a full cluster.
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { openGrpc } from '../src/store/etcd/grpc.ts';
import { Agent, until } from '../test/helpers/agent.ts';
import type { EtcdCluster } from '../test/helpers/etcd.ts';
import { startControlPlane } from '../test/helpers/kubernetes/control-plane.ts';
import { compare, type Subject, type Timing } from './measure.ts';
import { add, addAndDelete, environment, type Network } from './networks.ts';
import { populate, recordsOf } from './population.ts';
import type { Figure } from './report.ts';

export interface AgentBench {
  readonly cluster: EtcdCluster;
  readonly executable: string;
  readonly floor: Subject;
  /** A network on that etcd, with further keys of `ipam`. */
  readonly networkOf: (name: string, subnet: string, more: object) => Network;
  readonly runs: number;
}

function judged(what: string, ratio: number, goal: number): Figure {
  return { what, goal: `<= ${goal}`, measured: ratio.toFixed(2), met: ratio <= goal };
}

/** One at a time, and crowds. */
export async function agentFigures(bench: AgentBench): Promise<{ figures: Figure[]; timings: Timing[] }> {
  const { executable, floor, networkOf, runs } = bench;
  const dataDir = networkOf('through', '10.73.0.0/16', {}).config.store.dataDir;
  await using agent = await Agent.start({ dataDir });
  const net = networkOf('through', '10.73.0.0/16', { agentSocket: agent.socket });
  const subjects = [floor, add('through the agent', executable, net)];
  const single = await compare(subjects, runs);
  const figures = [judged('ADD through the agent, etcd ÷ empty executable', single[1]!.ratio, 1.35)];
  const timings = [...single];
  for (const [count, repeats] of [
    [20, 15],
    [100, 7],
  ] as const) {
    const crowd = await compare(subjects, repeats, count);
    figures.push(judged(`${count} ADDs at once through the agent ÷ ${count} empty executables`, crowd[1]!.ratio, 1.5));
    timings.push(...crowd);
  }
  return { figures, timings };
}

const full = { nodes: 50, podsPerNode: 100, interfaces: 12 };

/** With a real API server: 5 000 pods, 60 000 addresses, an agent that leads gc. */
export async function agentOnClusterFigures(bench: AgentBench): Promise<Figure[]> {
  const { cluster, executable, networkOf, runs } = bench;
  await using plane = await startControlPlane();
  await using kv = openGrpc(cluster.target());
  const kubeConfig = plane.adminKubeconfig;
  const plain = networkOf('clustered', '10.74.0.0/15', {});
  await populate(plane, kv, plain, full);
  const gc = ['--gc-interval', '5s', '--node', 'node-0'];
  const flags = ['--kubeconfig', kubeConfig, '--plugin-kubeconfig', 'off', ...gc];
  await using agent = await Agent.start({ dataDir: plain.config.store.dataDir, flags });
  const net = networkOf('clustered', '10.74.0.0/15', { agentSocket: agent.socket, kubeConfig });
  const pods = await makePods(plane);
  const [random, fixed] = await compare(
    pods.map(({ name, uid }) => ({
      ...addAndDelete(name, executable, net),
      environment: run => ({ ...environment(run), CNI_ARGS: argsOf(name, uid) }),
    })),
    runs,
  );
  await until(async () => ((await agent.metric('kube_ipam_gc_scans_total{result="done"}')) ?? 0) >= 3, 300_000);
  const crowd = add('crowd', executable, net);
  await compare(
    [{ ...crowd, environment: run => ({ ...environment(run), CNI_ARGS: argsOf(random!.name, pods[0]!.uid) }) }],
    3,
    100,
  );
  const peak = memoryOf(agent, 'VmHWM');
  // Between two scans, and when the agent has given back what it does not need.
  let rest = Number.POSITIVE_INFINITY;
  for (let second = 0; second < 60; second++) {
    await sleep(1000);
    rest = Math.min(rest, memoryOf(agent, 'VmRSS'));
  }
  const scans = await agent.metric('kube_ipam_gc_scans_total{result="done"}');
  const records = `${full.nodes * full.podsPerNode} pods, ${recordsOf(full)} addresses`;
  return [
    judged('fixed-IP ADD through the agent ÷ random ADD', fixed!.median / random!.median, 1.05),
    {
      what: `agent memory at ${records}, leading gc, after 100 ADDs at once (resident at rest; peak)`,
      goal: '<= 150 MB',
      measured: `${rest.toFixed(0)} MB; ${peak.toFixed(0)} MB after ${scans} scans`,
      met: rest <= 150,
    },
  ];
}

interface Made {
  readonly metadata: { readonly uid: string };
}

/** One pod that wishes nothing, one that wishes an address. */
async function makePods(plane: Awaited<ReturnType<typeof startControlPlane>>) {
  const made: { name: string; uid: string }[] = [];
  for (const [name, annotations] of [
    ['random', {}],
    ['fixed', { 'kube-ipam.ip': '10.75.200.200' }],
  ] as const) {
    const spec = { nodeName: 'node-0', containers: [{ name: 'c', image: 'localhost/none' }] };
    const body = { metadata: { name, annotations }, spec };
    const { metadata } = await plane.api<Made>('POST', '/api/v1/namespaces/default/pods', body);
    made.push({ name, uid: metadata.uid });
  }
  return made;
}

function argsOf(name: string, uid: string): string {
  return `IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=${name};K8S_POD_UID=${uid}`;
}

/** In megabytes, as the kernel counts. */
function memoryOf(agent: Agent, what: 'VmRSS' | 'VmHWM'): number {
  const status = readFileSync(`/proc/${agent.child.pid}/status`, 'utf8');
  return (Number(new RegExp(`^${what}:\\s+(\\d+) kB$`, 'm').exec(status)![1]) * 1024) / 1e6;
}
