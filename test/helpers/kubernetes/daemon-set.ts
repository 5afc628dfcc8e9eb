// kube-ipam on the nodes of a test as a user brings it there: by the DaemonSet of deploy/base, from an image that they have.
import { cpSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ConfList } from '../../../src/cli/conf-templates.ts';
import { project } from '../project.ts';
import type { ControlPlane } from './control-plane.ts';

export const daemonSet = 'daemonset/kube-ipam';

/** Applies an overlay with this network, again perhaps, and waits until the agent is ready on every node. */
export async function applyDaemonSet(
  plane: ControlPlane,
  network: ConfList,
  agentFlags: readonly string[] = [],
): Promise<void> {
  await plane.kubectl(['apply', '-k', writeOverlay(plane, network, agentFlags)]);
  const rollout = ['rollout', 'status', '-n', 'kube-system', daemonSet, '--timeout=120s'];
  try {
    await plane.kubectl(rollout, { timeout: 130_000 });
  } catch (cause) {
    const pods = await plane.kubectl(['describe', 'pods', '-n', 'kube-system']);
    const logs = await plane.kubectl(['logs', '-n', 'kube-system', daemonSet, '--all-containers']).catch(String);
    throw new Error(`kube-ipam does not get ready: ${pods.slice(-4000)}\n${logs.slice(-4000)}`, { cause });
  }
}

/** What deploy/example shows, for this cluster; gives its folder. */
function writeOverlay(plane: ControlPlane, network: ConfList, agentFlags: readonly string[]): string {
  const folder = join(plane.folder, 'deploy');
  // kustomize reads nothing above a base, wherever that lies.
  cpSync(join(project, 'deploy/base'), join(folder, 'base'), { recursive: true });
  mkdirSync(join(folder, 'overlay'), { recursive: true });
  writeFileSync(join(folder, 'overlay/network.conflist'), JSON.stringify(network));
  const add = (list: 'args' | 'env', value: unknown) => ({
    op: 'add',
    path: `/spec/template/spec/containers/0/${list}/-`,
    value,
  });
  // The API server as nodes reach it: there is no kube-proxy.
  const patch = [
    add('env', { name: 'KUBERNETES_SERVICE_HOST', value: '127.0.0.1' }),
    add('env', { name: 'KUBERNETES_SERVICE_PORT', value: String(plane.port) }),
    ...agentFlags.map(flag => add('args', flag)),
  ];
  const kustomization = {
    apiVersion: 'kustomize.config.k8s.io/v1beta1',
    kind: 'Kustomization',
    namespace: 'kube-system',
    resources: ['../base'],
    configMapGenerator: [{ name: 'kube-ipam-network', behavior: 'replace', files: ['network.conflist'] }],
    patches: [{ target: { kind: 'DaemonSet', name: 'kube-ipam' }, patch: JSON.stringify(patch) }],
  };
  writeFileSync(join(folder, 'overlay/kustomization.yaml'), JSON.stringify(kustomization));
  return join(folder, 'overlay');
}
