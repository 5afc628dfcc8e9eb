// How long a real kubelet takes for many pods at once: with kube-ipam, agent and etcd, and with host-local, each on its node.
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { pluginKubeconfig } from '../scripts/deploy/networks.ts';
import { confFor } from '../src/cli/conf-templates.ts';
import { type ControlPlane, startControlPlane } from '../test/helpers/kubernetes/control-plane.ts';
import { type Node, startNode, whyNoNode } from '../test/helpers/kubernetes/node.ts';
import { createPod, type Pod } from '../test/helpers/kubernetes/pods.ts';
import { quantile } from './measure.ts';
import type { Figure } from './report.ts';

const podsAtOnce = 30;
const goal = 1.15;
const what = `${podsAtOnce} pods at once on a real kubelet, first create to last Running, kube-ipam ÷ host-local`;
const ranges = [[{ subnet: '10.205.0.0/16' }]];
const pods = '/api/v1/namespaces/default/pods';

/** Seconds of one turn. */
interface Took {
  readonly start: number;
  readonly end: number;
}

/** The two take turns, `runs` times over. */
export async function kubeletFigure(runs = 3): Promise<{ readonly figure: Figure; readonly notes: readonly string[] }> {
  const obstacle = await whyNoNode();
  if (obstacle !== undefined)
    return { figure: { what, goal: `<= ${goal}`, measured: `not here: ${obstacle}` }, notes: [] };
  await using plane = await startControlPlane({ etcd: { durable: true } });
  await using parts = new AsyncDisposableStack();
  const subjects = [
    { name: 'host-local', node: parts.use(await startHostLocal(plane)), took: [] as Took[] },
    { name: 'kube-ipam', node: parts.use(await startKubeIpam(plane)), took: [] as Took[] },
  ] as const;
  // One turn that does not count brings files and caches to where they stay.
  for (let turn = -1; turn < runs; turn++) {
    for (const { node, took } of subjects) {
      const once = await measure(plane, node);
      if (turn >= 0) took.push(once);
    }
  }
  const median = (took: readonly Took[], part: keyof Took) =>
    quantile(
      took.map(one => one[part]),
      0.5,
    );
  const [theirs, ours] = subjects.map(({ took }) => median(took, 'start'));
  const ratio = ours! / theirs!;
  return {
    figure: { what, goal: `<= ${goal}`, measured: ratio.toFixed(2), met: ratio <= goal },
    notes: subjects.map(
      ({ name, took }) =>
        `${podsAtOnce} pods at once, ${name}: all run after ${median(took, 'start').toFixed(1)} s, all are gone after ${median(took, 'end').toFixed(1)} s`,
    ),
  };
}

async function startHostLocal(plane: ControlPlane): Promise<Node> {
  const list = confFor('bridge', { ranges });
  const plugins = list.plugins.map(plugin => ({ ...plugin, ipam: { type: 'host-local', ranges } }));
  const network = { '/etc/cni/net.d/10-pods.conflist': JSON.stringify({ ...list, plugins }) };
  const node = await startNode(plane, { name: 'host-local', files: network });
  await node.ready();
  return node;
}

/** As its DaemonSet would run it, but for the container around it. */
async function startKubeIpam(plane: ControlPlane): Promise<Node> {
  const etcd = { urls: plane.etcd.endpoints.join(',') };
  const name = 'kube-ipam';
  const node = await startNode(plane, {
    name,
    network: confFor('bridge', { ranges, etcd, kubeConfig: pluginKubeconfig }),
    files: { [pluginKubeconfig]: readFileSync(plane.adminKubeconfig, 'utf8') },
  });
  const flags = ['--kubeconfig', pluginKubeconfig, '--plugin-kubeconfig', 'off', '--node', name];
  const agent = await node.spawn(['/opt/cni/bin/kube-ipam', 'agent', '--listen', '127.0.0.1:20244', ...flags]);
  const page = ['busybox', 'wget', '-q', '-O', '-', 'http://127.0.0.1:20244/readyz'];
  for (const until = performance.now() + 60_000; (await node.run(page)).code !== 0; await sleep(200)) {
    if (performance.now() > until) throw new Error(`the agent does not get ready: ${agent.log()}`);
  }
  return node;
}

async function measure(plane: ControlPlane, node: Node): Promise<Took> {
  const names = Array.from({ length: podsAtOnce }, (_, index) => `pod-${index}`);
  const start = await secondsUntil(
    plane,
    all => all.filter(isRunning).length === podsAtOnce,
    async () => {
      await Promise.all(names.map(name => createPod(plane, { name, node: node.name })));
    },
  );
  const end = await secondsUntil(
    plane,
    all => all.length === 0,
    () => plane.api('DELETE', pods),
  );
  return { start, end };
}

async function secondsUntil(
  plane: ControlPlane,
  done: (all: readonly Pod[]) => boolean,
  begin: () => Promise<unknown>,
): Promise<number> {
  const begun = performance.now();
  await begin();
  for (const until = begun + 300_000; ; await sleep(50)) {
    const { items } = await plane.api<{ readonly items: readonly Pod[] }>('GET', pods);
    if (done(items)) return (performance.now() - begun) / 1000;
    if (performance.now() > until)
      throw new Error(`pods stay as they are: ${JSON.stringify(items.map(({ status }) => status))}`);
  }
}

function isRunning({ status }: Pod): boolean {
  return status.phase === 'Running';
}
