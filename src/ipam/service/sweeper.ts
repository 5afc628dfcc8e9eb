// One scanner of one address space: what it saw in its last scan, and the order in which the parts of a scan run.
import { mayBeGone } from '../gc.ts';
import { proveCluster } from './identity.ts';
import { giveWay } from './patience.ts';
import { Suspects } from './suspects.ts';
import { type Finding, type NodeNames, type Sweep, sweepEarlierBoots, sweepNode } from './sweep.ts';
import { mend, survey, sweepWorkloads } from './sweep-space.ts';

const workloads = 'workloads';
const partOf = (node: string): string => `node ${node}`;

/**
 * How far a scan looks. `node`: at this node. `cluster`: also at nodes that seem gone, and at what workloads keep; one
 * scanner of a cluster is enough for that. `all`: also at records without attachments, and at what nodes that are there
 * should have freed themselves, which costs much and can wait.
 */
export type Reach = 'node' | 'cluster' | 'all';

export interface Scope extends NodeNames {
  readonly reach: Reach;
}

/**
 * Scans again and again; two scans that see the same thing dead, a grace apart, free it. The first thing that store or
 * API do not answer ends a scan, by their error; nothing is freed on an answer that did not come.
 */
export class Sweeper {
  readonly #suspects = new Map<string, Suspects>();

  /** One scan; what it says is in the order in which it is done. */
  async *scan(sweep: Sweep, { node, kubeNode, reach }: Scope): AsyncIterable<Finding> {
    const { around, api, options } = sweep;
    yield* sweepEarlierBoots(around, node, options);
    await proveCluster(around, api, options);
    const found = reach === 'node' ? undefined : await survey(sweep, reach === 'all');
    if (found !== undefined) {
      yield* mend(sweep, found.strays);
      yield* sweepWorkloads(sweep, found.unheld, this.#of(workloads));
    }
    yield* sweepNode(sweep, { node, kubeNode }, true, this.#of(partOf(node)));
    // An embedded store knows one node only.
    const others = options.embedded ? [] : (found?.nodes ?? []).filter(other => other !== node);
    for (const other of await this.#worthALook(sweep, others, reach)) {
      const begun = performance.now();
      yield* sweepNode(sweep, { node: other, kubeNode: other }, false, this.#of(partOf(other)));
      await giveWay(around, begun);
    }
    this.#forget(new Set([workloads, ...[node, ...others].map(partOf)]));
  }

  /** A list of nodes proves nothing; each that seems gone by it is asked for before anything there is freed. */
  async #worthALook({ api }: Sweep, nodes: readonly string[], reach: Reach): Promise<readonly string[]> {
    if (nodes.length === 0 || reach === 'all') return nodes;
    const living = new Set((await api.nodes()).filter(node => !mayBeGone(node)).map(({ metadata }) => metadata.name));
    return nodes.filter(node => !living.has(node));
  }

  #of(part: string): Suspects {
    const known = this.#suspects.get(part) ?? new Suspects();
    this.#suspects.set(part, known);
    return known;
  }

  #forget(seen: ReadonlySet<string>): void {
    for (const part of this.#suspects.keys()) if (!seen.has(part)) this.#suspects.delete(part);
  }
}
