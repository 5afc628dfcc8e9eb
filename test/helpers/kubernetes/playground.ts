// A whole cluster on one machine: control plane, controllers, scheduler, and nodes whose pods share one network of kube-ipam.
import { join } from 'node:path';
import { pluginKubeconfig } from '../../../scripts/deploy/networks.ts';
import { type ConfList, confFor, type RangeConf } from '../../../src/cli/conf-templates.ts';
import { project } from '../project.ts';
import { type ControlPlane, startControlPlane, whyNoControlPlane } from './control-plane.ts';
import { applyDaemonSet } from './daemon-set.ts';
import { kubeconfigText } from './kubeconfig.ts';
import { type Node, startNode, whyNoNode } from './node.ts';

export interface PlaygroundOptions {
  readonly nodes: readonly string[];
  /** Absent: the range of the examples. */
  readonly ranges?: readonly (readonly RangeConf[])[];
  /** More keys of `ipam`. */
  readonly ipam?: Readonly<Record<string, unknown>>;
  /** Tar file of the image that the DaemonSet runs; absent: the executable is installed without an agent. */
  readonly image?: string;
  /** More flags of the DaemonSet's agent. */
  readonly agentFlags?: readonly string[];
  /** Seconds until a node that falls silent is NotReady. */
  readonly nodeMonitorGracePeriod?: number;
  /** Hears of each step. */
  readonly tell?: (step: string) => void;
}

const options = { serviceAccounts: true, controllerManager: true, scheduler: true };
const bridge = 'cni0';

/** Why no cluster can be started here; undefined when one can. */
export async function whyNoPlayground(): Promise<string | undefined> {
  return whyNoControlPlane(options) ?? (await whyNoNode());
}

/** All nodes are Ready when this resolves. */
export async function startPlayground(wanted: PlaygroundOptions): Promise<Playground> {
  const tell = wanted.tell ?? (() => {});
  await using parts = new AsyncDisposableStack();
  tell('starting etcd, API server, controllers and scheduler');
  const grace = wanted.nodeMonitorGracePeriod;
  const controllerManager = grace === undefined ? true : { nodeMonitorGracePeriod: grace };
  const plane = parts.use(await startControlPlane({ ...options, controllerManager }));
  const network = networkOf(plane, wanted);
  const installed = wanted.image
    ? { images: [wanted.image] }
    : { network, files: { [pluginKubeconfig]: await pluginAccess(plane) } };
  tell(`starting ${wanted.nodes.join(' and ')}`);
  const starting = wanted.nodes.map(name => startNode(plane, { name, bridge, ...installed }));
  // Those that did start are ended with the others when one does not.
  const outcomes = await Promise.allSettled(starting);
  const nodes = outcomes.flatMap(outcome => (outcome.status === 'fulfilled' ? [parts.use(outcome.value)] : []));
  for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
  if (wanted.image) {
    tell('installing kube-ipam by its DaemonSet');
    await applyDaemonSet(plane, network, wanted.agentFlags);
    await Promise.all(nodes.map(node => node.ready()));
  }
  return new Playground(plane, nodes, parts.move());
}

export class Playground implements AsyncDisposable {
  readonly plane: ControlPlane;
  readonly nodes: readonly Node[];
  readonly #parts: AsyncDisposableStack;

  constructor(plane: ControlPlane, nodes: readonly Node[], parts: AsyncDisposableStack) {
    this.plane = plane;
    this.nodes = nodes;
    this.#parts = parts;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#parts.disposeAsync();
  }
}

/** The bridge is a switch to the wire, so one subnet spans all nodes. */
function networkOf(plane: ControlPlane, { ranges, ipam }: PlaygroundOptions): ConfList {
  const etcd = { urls: plane.etcd.endpoints.join(',') };
  const list = confFor('bridge', { bridge, etcd, kubeConfig: pluginKubeconfig, ...(ranges && { ranges }) });
  return { ...list, plugins: list.plugins.map(each => ({ ...each, ipam: { ...(each.ipam as object), ...ipam } })) };
}

/** What the agent would write: a kubeconfig of the plugin's own account, which may get pods, nodes and namespaces. */
async function pluginAccess(plane: ControlPlane): Promise<string> {
  await plane.kubectl(['apply', '-f', join(project, 'deploy/base/rbac.yaml')]);
  const { status } = await plane.api<{ readonly status: { readonly token: string } }>(
    'POST',
    '/api/v1/namespaces/kube-system/serviceaccounts/kube-ipam-plugin/token',
    { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest', spec: { expirationSeconds: 48 * 3600 } },
  );
  return kubeconfigText(plane.url, plane.caFile, { token: status.token });
}
