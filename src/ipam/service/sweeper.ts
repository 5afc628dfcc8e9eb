// One scanner of one address space: what it saw in its last scan, and the order in which the parts of a scan run.
import { proveCluster } from './identity.ts';
import { Suspects } from './suspects.ts';
import { type Finding, type NodeNames, type Sweep, sweepEarlierBoots, sweepNode } from './sweep.ts';
import { mend, survey, sweepWorkloads } from './sweep-space.ts';

const workloads = 'workloads';
const partOf = (node: string): string => `node ${node}`;

/** Which parts of the space a scan judges. */
export interface Scope extends NodeNames {
  /** Beside this node: what other nodes left behind that are gone, and what workloads keep. One node at a time is enough. */
  readonly everywhere: boolean;
}

/**
 * Scans again and again; two scans that see the same thing dead, a grace apart, free it. The first thing that store or
 * API do not answer ends a scan, by their error; nothing is freed on an answer that did not come.
 */
export class Sweeper {
  readonly #suspects = new Map<string, Suspects>();

  /** One scan; what it says is in the order in which it is done. */
  async *scan(sweep: Sweep, { node, kubeNode, everywhere }: Scope): AsyncIterable<Finding> {
    const { around, api, options } = sweep;
    yield* sweepEarlierBoots(around, node, options);
    await proveCluster(around, api, options);
    const found = everywhere ? await survey(sweep) : undefined;
    if (found !== undefined) {
      yield* mend(sweep, found.strays);
      yield* sweepWorkloads(sweep, found.unheld, this.#of(workloads));
    }
    yield* sweepNode(sweep, { node, kubeNode }, true, this.#of(partOf(node)));
    // An embedded store knows one node only.
    const others = options.embedded ? [] : (found?.nodes ?? []).filter(other => other !== node);
    for (const other of others) {
      yield* sweepNode(sweep, { node: other, kubeNode: other }, false, this.#of(partOf(other)));
    }
    this.#forget(new Set([workloads, ...[node, ...others].map(partOf)]));
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
