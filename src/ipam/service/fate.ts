// Whether a container whose pod is dead may still use its addresses: asked of this host, or of the node that it was on.
import { machineOf } from '../../base/node.ts';
import { whyGone } from '../gc.ts';
import { endedWithBoot, lookAtNamespace } from './namespace.ts';
import type { Judged, NodeNames, Outcome, Sweep } from './sweep.ts';

/** What the place says beside the API: whether a container whose pod is dead may still use its addresses. */
export interface Fate {
  readonly doubted: Outcome;
  /** Undefined when it is proven that it does not. */
  whyMayLive(judged: Judged): Promise<string | undefined>;
}

/** On this node: a network namespace that is there may have processes in it, whatever the API has forgotten. */
export class OurFate implements Fate {
  readonly doubted = 'orphan';
  readonly #sweep: Sweep;
  readonly #names: NodeNames;

  constructor(sweep: Sweep, names: NodeNames) {
    this.#sweep = sweep;
    this.#names = names;
  }

  async whyMayLive({ subject, holder }: Judged): Promise<string | undefined> {
    const { around, options } = this.#sweep;
    const { machine } = around.machine;
    if (endedWithBoot(subject, around.machine)) return undefined;
    if (!options.embedded && ![machine, ''].includes(holder.machine) && machine !== '') return this.#whyFormer(machine);
    if (!holder.netns.startsWith('/')) return 'its record names no network namespace to look at';
    const { gone, why } = lookAtNamespace(holder.netns);
    return gone ? undefined : why;
  }

  /** A machine that was replaced under its name has taken its containers with it; two that share a name have not. */
  async #whyFormer(machine: string): Promise<string | undefined> {
    const { around, api } = this.#sweep;
    const { node, kubeNode } = this.#names;
    around.deadline.renew();
    const found = await api.node(kubeNode, around.deadline);
    if (machineOf(found?.object.status?.nodeInfo?.machineID ?? '') === machine) return undefined;
    return `another machine that is called ${node} too wrote it`;
  }
}

/** On any other node: what ran there counts as lost when the node itself does. */
export class DistantFate implements Fate {
  readonly doubted = 'left';
  readonly #sweep: Sweep;
  readonly #names: NodeNames;
  #gone: Promise<{ readonly why: string | undefined; readonly absent: boolean }> | undefined;
  #machines: Promise<ReadonlyMap<string, LivingMachine>> | undefined;

  constructor(sweep: Sweep, names: NodeNames) {
    this.#sweep = sweep;
    this.#names = names;
  }

  async whyMayLive({ holder }: Judged): Promise<string | undefined> {
    this.#gone ??= this.#readNode();
    const { why, absent } = await this.#gone;
    if (why === undefined) return `node ${this.#names.kubeNode} is not gone: its own agent frees it`;
    if (!absent) return undefined;
    // A host may write another name into the store than it has in the API: then it is only called gone.
    this.#machines ??= readMachines(this.#sweep);
    const machine = holder.machine === '' ? undefined : (await this.#machines).get(holder.machine);
    if (machine === undefined || (holder.boot !== '' && machine.boot !== '' && machine.boot !== holder.boot))
      return undefined;
    return `its machine is node ${machine.node}, which is there: set nodeName, or /etc/kube-ipam/node, to that`;
  }

  async #readNode() {
    const { around, api, options } = this.#sweep;
    around.deadline.renew();
    const node = await api.node(this.#names.kubeNode, around.deadline);
    return { why: whyGone(node, options.nodeGrace), absent: node === undefined };
  }
}

interface LivingMachine {
  readonly node: string;
  readonly boot: string;
}

/** By the marks of their machines, as records have them. */
async function readMachines({ api }: Sweep): Promise<ReadonlyMap<string, LivingMachine>> {
  const nodes = await api.nodes();
  const marked = nodes.map(({ metadata, status }) => {
    const { machineID = '', bootID = '' } = status?.nodeInfo ?? {};
    return [machineOf(machineID), { node: metadata.name, boot: bootID }] as const;
  });
  return new Map(marked.filter(([machine]) => machine !== ''));
}
