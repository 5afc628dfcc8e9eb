// Spreads addresses over the agents that may own them, with as few hand-overs as an even spread takes. Pure.

/** One address, and who may carry it. */
export interface Load {
  readonly address: string;
  /** Ids of agents, the one to be preferred first. At least one. */
  readonly able: readonly string[];
  /** The one of them that carries it now. */
  readonly owner: string | undefined;
}

export interface Spread {
  /** Address -> id of the agent that is to carry it. */
  readonly carriers: ReadonlyMap<string, string>;
  /** Addresses that their owners are to hand over, in the order in which that evens out the most. */
  readonly moved: readonly string[];
}

/**
 * Addresses that every agent may own are spread evenly among themselves: no agent has two more of them than another.
 * The others lie where they weigh least, as near to even as it goes. What has an owner stays there unless `mayMove`.
 */
export function spread(loads: readonly Load[], agents: readonly string[], mayMove: boolean): Spread {
  const restricted = loads.filter(({ able }) => able.length < agents.length);
  const bound = new Placement(restricted, new Set(restricted.flatMap(({ able }) => able)));
  bound.placeRarestFirst();
  bound.relieve(false);
  if (mayMove) bound.relieve(true);
  const free = new Placement(
    loads.filter(({ able }) => able.length === agents.length),
    new Set(agents),
  );
  free.fill(id => bound.weight(id));
  if (mayMove) free.level(id => bound.weight(id));
  return {
    carriers: new Map([...bound.carriers(), ...free.carriers()]),
    moved: [...bound.moved(), ...free.moved()],
  };
}

type Chain = readonly { readonly load: Load; readonly to: string }[];

/** Where each load lies now; those that have an owner begin there. */
class Placement {
  readonly #loads: readonly Load[];
  readonly #carrier = new Map<Load, string>();
  readonly #carried: ReadonlyMap<string, Set<Load>>;
  readonly #moved = new Set<Load>();

  /** @param agents all that may carry any of the loads */
  constructor(loads: readonly Load[], agents: ReadonlySet<string>) {
    this.#loads = loads;
    this.#carried = new Map([...agents].map(id => [id, new Set()]));
    for (const load of loads) if (load.owner !== undefined) this.#put(load, load.owner);
  }

  weight(id: string): number {
    return this.#carried.get(id)?.size ?? 0;
  }

  *carriers(): Generator<[address: string, id: string]> {
    for (const [{ address }, id] of this.#carrier) yield [address, id];
  }

  /** In the order in which they were moved; without those that have come back. */
  moved(): string[] {
    return [...this.#moved].filter(load => this.#carrier.get(load) !== load.owner).map(({ address }) => address);
  }

  /** What few can carry chooses first, and takes whoever carries the least. */
  placeRarestFirst(): void {
    const homeless = this.#homeless().sort((a, b) => a.able.length - b.able.length);
    for (const load of homeless)
      this.#put(
        load,
        least(load.able, id => [this.weight(id)]),
      );
  }

  /**
   * Gives every load to the agent it prefers among those below the level that all of them reach together; what is left
   * then goes on top, one for each agent, where `others` weighs least. While agents carry out this plan at the same time,
   * each with a view of its own of what has been claimed, it stays the same plan: a share that is partly claimed is as
   * full in the end as one that is not.
   */
  fill(others: (id: string) => number): void {
    const homeless = this.#homeless();
    const level = levelOf([...this.#carried.values()].map(({ size }) => size).sort(ascending), homeless.length);
    for (const load of homeless) {
      const below = load.able.find(id => this.weight(id) < level);
      this.#put(load, below ?? least(load.able, id => [this.weight(id), others(id)]));
    }
  }

  /** Moves from whoever carries the most to whoever carries the least; between equals, `others` counts. */
  level(others: (id: string) => number): void {
    const ids = [...this.#carried.keys()];
    while (ids.length > 1) {
      const to = least(ids, id => [this.weight(id), others(id)]);
      const from = least(ids, id => [-this.weight(id), -others(id)]);
      const difference = this.weight(from) - this.weight(to);
      if (difference === 0 || (difference === 1 && others(from) <= others(to))) return;
      this.#move(this.#handedOver(from), to);
    }
  }

  /**
   * Moves along chains (a hands over to b, which hands over to c) for as long as one exists whose end carries two less
   * than its beginning: then nothing can be more even (Harvey et al., "Semi-matchings for bipartite graphs and load
   * balancing", 2006). The shortest ones come first, as each link is a hand-over. Unless `all`, loads with an owner stay.
   */
  relieve(all: boolean): void {
    for (;;) {
      const heaviestFirst = [...this.#carried.keys()].sort((a, b) => this.weight(b) - this.weight(a));
      const lightest = this.weight(heaviestFirst.at(-1) ?? '');
      let shortest: Chain | undefined;
      for (const id of heaviestFirst) {
        if (shortest?.length === 1 || this.weight(id) - 2 < lightest) break;
        const chain = this.#chainFrom(id, all);
        if (chain !== undefined && (shortest === undefined || chain.length < shortest.length)) shortest = chain;
      }
      if (shortest === undefined) return;
      for (const { load, to } of shortest) this.#move(load, to);
    }
  }

  /** The shortest one, its last hand-over first: so no agent carries more in between than before or after. */
  #chainFrom(start: string, all: boolean): Chain | undefined {
    const reachedBy = new Map<string, { load: Load; from: string }>();
    for (let frontier = [start]; frontier.length > 0; ) {
      const reached: string[] = [];
      for (const { load, from, to } of this.#handOversFrom(frontier, all)) {
        if (to === start || reachedBy.has(to)) continue;
        reachedBy.set(to, { load, from });
        reached.push(to);
      }
      const ends = reached.filter(id => this.weight(id) <= this.weight(start) - 2);
      if (ends.length > 0)
        return backFrom(
          least(ends, id => [this.weight(id)]),
          reachedBy,
        );
      frontier = reached;
    }
    return undefined;
  }

  *#handOversFrom(ids: readonly string[], all: boolean): Generator<{ load: Load; from: string; to: string }> {
    for (const from of ids) {
      for (const load of this.#carried.get(from)!) {
        if (load.owner === undefined || all) for (const to of load.able) yield { load, from, to };
      }
    }
  }

  /** One that has no owner, or has left it already, costs nothing more. */
  #handedOver(from: string): Load {
    const carried = [...this.#carried.get(from)!];
    return carried.find(({ owner }) => owner !== from) ?? carried[0]!;
  }

  #homeless(): Load[] {
    return this.#loads.filter(load => !this.#carrier.has(load));
  }

  #move(load: Load, to: string): void {
    this.#put(load, to);
    if (load.owner !== undefined) this.#moved.add(load);
  }

  #put(load: Load, id: string): void {
    const before = this.#carrier.get(load);
    if (before !== undefined) this.#carried.get(before)!.delete(load);
    this.#carrier.set(load, id);
    this.#carried.get(id)!.add(load);
  }
}

/** The height to which `amount` raises all that lies lower. */
function levelOf(heights: readonly number[], amount: number): number {
  let left = amount;
  for (const [i, height] of heights.entries()) {
    const next = heights[i + 1] ?? Number.POSITIVE_INFINITY;
    const wide = i + 1;
    if (left < (next - height) * wide) return height + Math.floor(left / wide);
    left -= (next - height) * wide;
  }
  return 0;
}

function backFrom(end: string, reachedBy: ReadonlyMap<string, { load: Load; from: string }>): Chain {
  const chain: Chain[number][] = [];
  for (let to = end, step = reachedBy.get(to); step !== undefined; to = step.from, step = reachedBy.get(to)) {
    chain.push({ load: step.load, to });
  }
  return chain;
}

const ascending = (a: number, b: number): number => a - b;

/** The first one with the least key; keys of equal length are compared number by number. */
function least<T extends object | string>(items: readonly T[], keyOf: (item: T) => readonly number[]): T {
  let best = items[0]!;
  let bestKey = keyOf(best);
  for (const item of items.slice(1)) {
    const key = keyOf(item);
    const i = key.findIndex((part, at) => part !== bestKey[at]);
    if (i >= 0 && key[i]! < bestKey[i]!) [best, bestKey] = [item, key];
  }
  return best;
}
