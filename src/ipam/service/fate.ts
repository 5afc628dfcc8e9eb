// Whether a container whose pod is dead may still use its addresses: asked of this host, or of the node that it was on.
import { machineOf } from '../../base/node.ts';
import { whyGone } from '../gc.ts';
import type { Holder } from '../model.ts';
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
  #machines: Promise<ReadonlyMap<string, LivingMachine>> | undefined;

  constructor(sweep: Sweep, names: NodeNames) {
    this.#sweep = sweep;
    this.#names = names;
  }

  async whyMayLive({ subject, holder }: Judged): Promise<string | undefined> {
    const { around, options } = this.#sweep;
    const { machine } = around.machine;
    if (endedWithBoot(subject, around.machine)) return undefined;
    if (!options.embedded && ![machine, ''].includes(holder.machine) && machine !== '') {
      return this.#whyNotFormer(machine, holder);
    }
    if (!holder.netns.startsWith('/')) return 'its record names no network namespace to look at';
    const { gone, why } = lookAtNamespace(holder.netns);
    return gone ? undefined : why;
  }

  /** A machine that was replaced under its name has taken its containers with it; two that share a name have not. */
  async #whyNotFormer(machine: string, holder: Holder): Promise<string | undefined> {
    const { around, api } = this.#sweep;
    const { node, kubeNode } = this.#names;
    around.deadline.renew();
    const found = await api.node(kubeNode, around.deadline);
    const isOurs = machineOf(found?.object.status?.nodeInfo?.machineID ?? '') === machine;
    if (!isOurs) return `another machine that is called ${node} too wrote it`;
    this.#machines ??= readMachines(this.#sweep);
    const other = nodeOfMachine(await this.#machines, holder);
    return other && `another machine that is called ${node} too wrote it, node ${other}: give each its own nodeName`;
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
    const node = nodeOfMachine(await this.#machines, holder);
    return node && `its machine is node ${node}, which is there: set nodeName, or /etc/kube-ipam/node, to that`;
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

/** The node that the holder's machine is, and was when it wrote that; undefined when no node is, or it was started again. */
function nodeOfMachine(machines: ReadonlyMap<string, LivingMachine>, { machine, boot }: Holder): string | undefined {
  const found = machine === '' ? undefined : machines.get(machine);
  const isStartedAgain = boot !== '' && found?.boot !== '' && found?.boot !== boot;
  return isStartedAgain ? undefined : found?.node;
}
