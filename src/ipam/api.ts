// What the service asks of the Kubernetes API: a GET for each question, over whatever connection there is, and nothing is remembered.
import type { Deadline } from '../base/clock.ts';
import { code, FailureError } from '../base/errors.ts';
import type { Labels } from '../base/selector.ts';
import type { Found, KubeObject, Pod as KubePod, Node } from '../kube/objects.ts';
import { namespaces, nodes, pathOf, pods } from '../kube/resources.ts';
import type { Pod } from './model.ts';
import type { Api } from './ports.ts';

/** The plugin's one connection, or the client of agent and command line. */
export interface Getter {
  get<T extends KubeObject>(path: string, deadline: Deadline): Promise<Found<T> | undefined>;
}

export class GetApi implements Api {
  readonly #getter: Getter;

  constructor(getter: Getter) {
    this.#getter = getter;
  }

  ownPod({ namespace, name }: Pod, deadline: Deadline): Promise<KubePod | undefined> {
    return this.pod(namespace, name, deadline);
  }

  async pod(namespace: string, name: string, deadline: Deadline): Promise<KubePod | undefined> {
    return (await this.#getter.get<KubePod>(pathOf(pods, { namespace, name }), deadline))?.object;
  }

  node(name: string, deadline: Deadline): Promise<Found<Node> | undefined> {
    return this.#getter.get<Node>(pathOf(nodes, { name }), deadline);
  }

  async nodeLabels(name: string, deadline: Deadline): Promise<Labels | undefined> {
    return labelsOf(await this.node(name, deadline));
  }

  async namespaceLabels(name: string, deadline: Deadline): Promise<Labels | undefined> {
    return labelsOf(await this.#namespace(name, deadline));
  }

  async clusterUid(deadline: Deadline): Promise<string> {
    const uid = (await this.#namespace('kube-system', deadline))?.object.metadata.uid;
    if (uid !== undefined) return uid;
    throw new FailureError(
      code.tryAgain,
      'the Kubernetes API has no namespace kube-system: is the cluster still being set up?',
    );
  }

  #namespace(name: string, deadline: Deadline): Promise<Found<KubeObject> | undefined> {
    return this.#getter.get<KubeObject>(pathOf(namespaces, { name }), deadline);
  }
}

function labelsOf(found: Found<KubeObject> | undefined): Labels | undefined {
  return found && (found.object.metadata.labels ?? {});
}
