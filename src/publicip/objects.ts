// The cluster's Services, Nodes and EndpointSlices, as far as public addresses depend on them, kept up to date.
import { type Deadline, deadlineIn } from '../base/clock.ts';
import type { Client } from '../kube/client.ts';
import { Informer } from '../kube/informer.ts';
import type { KubeObject } from '../kube/objects.ts';
import { endpointSlices, nodes, pathOf, services } from '../kube/resources.ts';

/** What is remembered of every object: its metadata without what only the API server needs, spec and status. */
interface Kept extends KubeObject {
  readonly spec?: unknown;
  readonly status?: unknown;
}

interface Slice extends KubeObject {
  readonly addressType?: string;
  readonly endpoints?: readonly { readonly nodeName?: string; readonly conditions?: unknown }[];
}

export interface KeptNode extends Kept {
  readonly metadata: KubeObject['metadata'];
}

export class Objects implements AsyncDisposable {
  readonly #services: Informer<Kept>;
  readonly #slices: Informer<Slice>;
  readonly #nodes: Informer<Kept>;

  /** @param onChange called after each change that may matter; must not take long. */
  constructor(client: Client, onChange: () => void, onBug: (error: unknown) => void) {
    const common = { onChange, onBug, onState: onChange };
    this.#services = new Informer<Kept>(client, pathOf(services), { ...common, keep: keptService });
    this.#slices = new Informer<Slice>(client, pathOf(endpointSlices), { ...common, keep: keptSlice });
    // A node's status is renewed all the time, and few of its changes matter.
    this.#nodes = new Informer<Kept>(client, pathOf(nodes), {
      ...common,
      keep: keptNode,
      onChange: (old, now) => {
        if (JSON.stringify(bare(old)) !== JSON.stringify(bare(now))) onChange();
      },
    });
  }

  start(): void {
    for (const informer of this.#all) informer.start();
  }

  /** Whether every collection was held as a whole once: before, what seems unwanted may only be unknown. */
  get isComplete(): boolean {
    return this.#all.every(({ isSynced }) => isSynced);
  }

  /** Why a collection is not followed now; undefined: all are. */
  get trouble(): string | undefined {
    return this.#all.map(({ trouble }) => trouble).find(trouble => trouble !== undefined);
  }

  async whenComplete(deadline: Deadline = deadlineIn(30_000)): Promise<boolean> {
    const all = await Promise.all(this.#all.map(informer => informer.whenSynced(deadline)));
    return all.every(Boolean);
  }

  get services(): readonly Kept[] {
    return this.#services.list();
  }

  get slices(): readonly Slice[] {
    return this.#slices.list();
  }

  get nodes(): readonly KeptNode[] {
    return this.#nodes.list();
  }

  node(name: string): KeptNode | undefined {
    return this.#nodes.get(undefined, name);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#all.map(informer => informer.close()));
  }

  get #all(): readonly (Informer<Kept> | Informer<Slice>)[] {
    return [this.#services, this.#slices, this.#nodes];
  }
}

function keptMeta({
  name,
  namespace,
  uid,
  creationTimestamp,
  deletionTimestamp,
  labels,
  annotations,
}: KubeObject['metadata']) {
  return {
    name,
    uid,
    ...(namespace && { namespace }),
    ...(creationTimestamp && { creationTimestamp }),
    ...(deletionTimestamp && { deletionTimestamp }),
    ...(labels && { labels }),
    ...(annotations && { annotations: withoutLastApplied(annotations) }),
  };
}

/** kubectl writes the whole object into it once more. */
function withoutLastApplied(annotations: Readonly<Record<string, string>>): Readonly<Record<string, string>> {
  const { 'kubectl.kubernetes.io/last-applied-configuration': _, ...others } = annotations;
  return others;
}

function keptService({ metadata, spec, status }: Kept): Kept {
  return { metadata: keptMeta(metadata), spec, status };
}

function keptSlice({ metadata, addressType, endpoints = [] }: Slice): Slice {
  const kept = endpoints.map(({ nodeName, conditions }) => ({ ...(nodeName && { nodeName }), conditions }));
  return { metadata: keptMeta(metadata), ...(addressType && { addressType }), endpoints: kept };
}

/** Of its status only the addresses. */
function keptNode({ metadata, spec, status }: Kept): Kept {
  const { podCIDR, podCIDRs } = (spec ?? {}) as { podCIDR?: string; podCIDRs?: readonly string[] };
  const { addresses } = (status ?? {}) as { addresses?: unknown };
  return { metadata: keptMeta(metadata), spec: { podCIDR, podCIDRs }, status: { addresses } };
}

/** The same but for annotations that others renew all the time. */
function bare(node: Kept | undefined): unknown {
  if (node === undefined) return undefined;
  const { labels, annotations = {} } = node.metadata;
  const ours = Object.entries(annotations).filter(([name]) => name.startsWith('kube-ipam.io/'));
  return { labels, ours, spec: node.spec, status: node.status };
}
