// What gc asks of the Kubernetes API, asked over the client of agent and command line; nothing is remembered.
import { type Deadline, deadlineIn } from '../base/clock.ts';
import { GetApi } from '../ipam/api.ts';
import { outlineOf, outlineOfNode } from '../ipam/gc.ts';
import type { GcApi } from '../ipam/ports.ts';
import type { Client } from '../kube/client.ts';
import { ApiError } from '../kube/failure.ts';
import type { KubeObject, Node, Pod, StatefulSet } from '../kube/objects.ts';
import { nodes, pathOf, pods, type Resource, statefulSets } from '../kube/resources.ts';

/** A whole list, in milliseconds; each of its pages has less. */
const listTimeout = 60_000;

const vms: readonly Resource[] = [
  { apiVersion: 'kubevirt.io/v1', kind: 'VirtualMachineInstance', plural: 'virtualmachineinstances' },
  { apiVersion: 'kubevirt.io/v1', kind: 'VirtualMachine', plural: 'virtualmachines' },
];

const definitions: Resource = {
  apiVersion: 'apiextensions.k8s.io/v1',
  kind: 'CustomResourceDefinition',
  plural: 'customresourcedefinitions',
};

export class ClientGcApi extends GetApi implements GcApi {
  readonly #client: Client;

  constructor(client: Client) {
    super(client);
    this.#client = client;
  }

  async podsOn(node: string): Promise<readonly Pod[]> {
    const selection = { fieldSelector: `spec.nodeName=${node}` };
    return (await this.#client.list(pathOf(pods), selection, deadlineIn(listTimeout), outlineOf)).items;
  }

  async nodes(): Promise<readonly Node[]> {
    return (await this.#client.list(pathOf(nodes), {}, deadlineIn(listTimeout), outlineOfNode)).items;
  }

  async statefulSet(namespace: string, name: string, deadline: Deadline): Promise<StatefulSet | undefined> {
    return (await this.#client.get<StatefulSet>(pathOf(statefulSets, { namespace, name }), deadline))?.object;
  }

  async hasVm(namespace: string, name: string, deadline: Deadline): Promise<boolean> {
    for (const resource of vms) if (await this.#has(resource, { namespace, name }, deadline)) return true;
    return false;
  }

  async #has(resource: Resource, place: { namespace: string; name: string }, deadline: Deadline): Promise<boolean> {
    try {
      return (await this.#client.get<KubeObject>(pathOf(resource, place), deadline)) !== undefined;
    } catch (error) {
      // The kind itself is unknown to the server. While it starts that may be wrong; that nobody defines it is proof.
      if (!(error instanceof ApiError) || error.status !== 404) throw error;
      const group = resource.apiVersion.split('/')[0];
      const definition = pathOf(definitions, { name: `${resource.plural}.${group}` });
      if ((await this.#client.get(definition, deadline)) !== undefined) throw error;
      return false;
    }
  }
}
