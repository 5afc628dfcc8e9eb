// A cluster full of living pods: nodes and pods in a real API server, and the records of all their interfaces in a store.
import { deadlineIn } from '../src/base/clock.ts';
import { type Pod, renderAttachment } from '../src/ipam/model.ts';
import { renderOwner } from '../src/ipam/records.ts';
import { Keys } from '../src/store/keys.ts';
import type { Kv, Write } from '../src/store/kv.ts';
import type { ControlPlane } from '../test/helpers/kubernetes/control-plane.ts';
import type { Network } from './networks.ts';

export interface Population {
  readonly nodes: number;
  readonly podsPerNode: number;
  /** Of each pod. */
  readonly interfaces: number;
}

export function recordsOf({ nodes, podsPerNode, interfaces }: Population): number {
  return nodes * podsPerNode * interfaces;
}

interface Created {
  readonly metadata: { readonly uid: string };
}

/** Makes all of it; some requests at once, as the API server has work of its own. */
export async function populate(plane: ControlPlane, kv: Kv, net: Network, population: Population): Promise<void> {
  const { nodes, podsPerNode, interfaces } = population;
  for (let i = 0; i < nodes; i++) await makeNode(plane, `node-${i}`);
  const numbers = Array.from({ length: nodes * podsPerNode }, (_, i) => i);
  const work = async (): Promise<void> => {
    for (let i = numbers.pop(); i !== undefined; i = numbers.pop()) {
      const node = `node-${i % nodes}`;
      const spec = { nodeName: node, containers: [{ name: 'c', image: 'localhost/none' }] };
      const body = { metadata: { name: `pod-${i}` }, spec };
      const { metadata } = await plane.api<Created>('POST', '/api/v1/namespaces/default/pods', body);
      const pod = { namespace: 'default', name: `pod-${i}`, uid: metadata.uid };
      await attach(kv, net, node, pod, i * interfaces, interfaces);
    }
  };
  await Promise.all(Array.from({ length: 8 }, work));
}

async function makeNode(plane: ControlPlane, name: string): Promise<void> {
  await plane.api('POST', '/api/v1/nodes', { metadata: { name } });
  const conditions = [{ type: 'Ready', status: 'True', lastTransitionTime: new Date().toISOString(), reason: 'Bench' }];
  const contentType = 'application/merge-patch+json';
  await plane.api('PATCH', `/api/v1/nodes/${name}/status`, { status: { conditions } }, { contentType });
}

async function attach(
  kv: Kv,
  { config, name }: Network,
  node: string,
  pod: Pod,
  offset: number,
  interfaces: number,
): Promise<void> {
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
