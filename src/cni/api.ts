// What the plugin alone asks of the Kubernetes API: a GET for each question, and nothing is remembered.
import type { Deadline } from '../base/clock.ts';
import { code, FailureError } from '../base/errors.ts';
import type { Labels } from '../base/selector.ts';
import type { Pod } from '../ipam/model.ts';
import type { Api } from '../ipam/ports.ts';
import type { ParseYaml } from '../kube/config.ts';
import { openReader, type Reader } from '../kube/light.ts';
import type { Found, KubeObject, Pod as KubePod, Node } from '../kube/objects.ts';
import { namespaces, nodes, pathOf, pods } from '../kube/resources.ts';

/** `parseYaml`: for a kubeconfig that is no JSON; without it such a one is NeedsAssetError. */
export function openApi(kubeConfig: string, parseYaml?: ParseYaml): Api {
  return new PluginApi(openReader(kubeConfig, parseYaml));
}

class PluginApi implements Api {
  readonly #reader: Reader;

  constructor(reader: Reader) {
    this.#reader = reader;
  }

  ownPod({ namespace, name }: Pod, deadline: Deadline): Promise<KubePod | undefined> {
    return this.pod(namespace, name, deadline);
  }

  async pod(namespace: string, name: string, deadline: Deadline): Promise<KubePod | undefined> {
    return (await this.#reader.get<KubePod>(pathOf(pods, { namespace, name }), deadline))?.object;
  }

  node(name: string, deadline: Deadline): Promise<Found<Node> | undefined> {
    return this.#reader.get<Node>(pathOf(nodes, { name }), deadline);
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
    return this.#reader.get<KubeObject>(pathOf(namespaces, { name }), deadline);
  }
}

function labelsOf(found: Found<KubeObject> | undefined): Labels | undefined {
  return found && (found.object.metadata.labels ?? {});
}
