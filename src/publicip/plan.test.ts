// The plan of owners: who comes first, who steps in, what moves, and what must hold whatever the cluster looks like.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { membersOf, type Plan, type PlanAgent, type PlanInput, plan } from './plan.ts';

const agent = (id: string, rest: Partial<PlanAgent> = {}): PlanAgent => ({
  id,
  node: id,
  fit: true,
  refuses: new Set(),
  ...rest,
});

const ids = Array.from({ length: 5 }, (_, i) => `node-${i}`);
const addresses = Array.from({ length: 40 }, (_, i) => `192.168.1.${i}`);

interface Asked {
  readonly address: string;
  /** One of the ids, or of an agent that is not there; low numbers are frequent, so that loads are uneven. */
  readonly owner: string | undefined;
  readonly nodes: readonly string[] | undefined;
  readonly refusedBy: readonly string[];
}

/** @param isEven whether every fit agent may own every address */
function clusters(isEven: boolean): fc.Arbitrary<PlanInput> {
  const asked = fc.record<Asked>({
    address: fc.constantFrom(...addresses),
    owner: fc.oneof(fc.constantFrom(undefined, 'gone', ...ids), fc.constantFrom(...ids.slice(0, 2))),
    nodes: isEven ? fc.constant(undefined) : fc.option(fc.subarray(ids), { nil: undefined }),
    refusedBy: isEven ? fc.constant([]) : fc.oneof(fc.constant([]), fc.subarray(ids, { maxLength: 2 })),
  });
  return fc
    .record({
      agents: fc.oneof(fc.constant(ids), fc.subarray(ids, { minLength: 1 })),
      unfit: fc.oneof(fc.constant<string[]>([]), fc.subarray(ids, { maxLength: 2 })),
      wants: fc.uniqueArray(asked, { selector: ({ address }) => address, maxLength: 40, size: 'max' }),
      rebalance: fc.boolean(),
    })
    .map(({ agents, unfit, wants, rebalance }) => ({
      agents: agents.map(id =>
        agent(id, {
          fit: !unfit.includes(id),
          refuses: new Set(wants.filter(({ refusedBy }) => refusedBy.includes(id)).map(({ address }) => address)),
        }),
      ),
      wants: wants.map(({ address, nodes }) =>
        nodes === undefined ? { address } : { address, nodes: new Set(nodes) },
      ),
      owners: new Map(wants.flatMap(({ address, owner }) => (owner === undefined ? [] : [[address, owner] as const]))),
      rebalance,
    }));
}

const even = clusters(true);
const uneven = clusters(false);
const any = fc.oneof(even, uneven);

/** Who may own the address, by the words of the contract and nothing else. */
function able({ agents }: PlanInput, { address, nodes }: PlanInput['wants'][number]): string[] {
  return agents
    .filter(one => one.fit && !one.refuses.has(address) && (nodes === undefined || nodes.has(one.node)))
    .map(({ id }) => id)
    .sort();
}

function isFree(input: PlanInput, want: PlanInput['wants'][number]): boolean {
  return able(input, want).length === input.agents.filter(({ fit }) => fit).length;
}

const first = ({ lines }: Plan, address: string): string => lines.get(address)![0]!;

/** How many of these addresses each fit agent is planned to carry. */
function loadsOf(input: PlanInput, made: Plan, wants = input.wants): Map<string, number> {
  const loads = new Map(input.agents.filter(({ fit }) => fit).map(({ id }) => [id, 0]));
  for (const { address } of wants) {
    const carrier = made.lines.get(address)?.[0];
    if (carrier !== undefined) loads.set(carrier, loads.get(carrier)! + 1);
  }
  return loads;
}

function difference(loads: ReadonlyMap<string, number>): number {
  return loads.size === 0 ? 0 : Math.max(...loads.values()) - Math.min(...loads.values());
}

const withOwners = (input: PlanInput, owners: ReadonlyMap<string, string>): PlanInput => ({ ...input, owners });

/** What the store holds once every address is where the plan wants it. */
const settled = (input: PlanInput): ReadonlyMap<string, string> =>
  new Map([...plan(input).lines].map(([address, [carrier]]) => [address, carrier!]));

/** The least number of hand-overs after which no agent has two more than another: worked out, not tried out. */
function needed(loads: readonly number[]): number {
  const total = loads.reduce((sum, load) => sum + load, 0);
  const floor = Math.floor(total / loads.length);
  const tall = total - floor * loads.length;
  const excess = loads.reduce((sum, load) => sum + Math.max(0, load - floor), 0);
  return excess - Math.min(tall, loads.filter(load => load > floor).length);
}

const often = { numRuns: 500 };

describe('whatever the cluster looks like', () => {
  it('a line holds exactly those who may own the address, each once; where nobody may, it says why', () => {
    fc.assert(
      fc.property(any, input => {
        const made = plan(input);
        for (const want of input.wants) {
          const line = made.lines.get(want.address);
          expect([...(line ?? [])].sort()).toEqual(able(input, want));
          expect(made.nobody.has(want.address)).toBe(line === undefined);
        }
        expect(made.lines.size + made.nobody.size).toBe(input.wants.length);
      }),
      often,
    );
  });

  it('the order in which agents, wants and owners come makes no difference', () => {
    const shuffled = any.chain(input =>
      fc.record({
        input: fc.constant(input),
        agents: fc.shuffledSubarray([...input.agents], { minLength: input.agents.length }),
        wants: fc.shuffledSubarray([...input.wants], { minLength: input.wants.length }),
        owners: fc.shuffledSubarray([...input.owners], { minLength: input.owners.size }),
      }),
    );
    fc.assert(
      fc.property(shuffled, ({ input, agents, wants, owners }) => {
        expect(plan({ ...input, agents, wants, owners: new Map(owners) })).toEqual(plan(input));
      }),
      often,
    );
  });

  it('an owner that may own its address keeps it, unless a move names it', () => {
    fc.assert(
      fc.property(any, input => {
        const made = plan(input);
        const moved = new Map(made.moves.map(move => [move.address, move]));
        for (const want of input.wants) {
          const owner = input.owners.get(want.address);
          if (owner === undefined || !able(input, want).includes(owner)) {
            expect(moved.has(want.address)).toBe(false);
          } else if (first(made, want.address) === owner) {
            expect(moved.has(want.address)).toBe(false);
          } else {
            const to = first(made, want.address);
            expect(moved.get(want.address)).toEqual({ address: want.address, from: owner, to });
          }
        }
        if (!input.rebalance) expect(made.moves).toEqual([]);
      }),
      often,
    );
  });

  it('addresses that every agent may own are spread evenly among themselves, by no move more than it takes', () => {
    fc.assert(
      fc.property(uneven, input => {
        const made = plan({ ...input, rebalance: true });
        expect(
          difference(
            loadsOf(
              input,
              made,
              input.wants.filter(want => isFree(input, want)),
            ),
          ),
        ).toBeLessThanOrEqual(1);
      }),
      often,
    );
    fc.assert(
      fc.property(even, input => {
        const kept = plan({ ...input, rebalance: false });
        const made = plan({ ...input, rebalance: true });
        const loads = [...loadsOf(input, kept).values()];
        if (loads.length > 0) expect(made.moves.length).toBe(needed(loads));
      }),
      often,
    );
  });

  it('the others lie as evenly as the best of all assignments', () => {
    const small = uneven.filter(input => {
      const bound = input.wants.filter(want => !isFree(input, want) && able(input, want).length > 0);
      return bound.reduce((product, want) => product * able(input, want).length, 1) <= 3000;
    });
    fc.assert(
      fc.property(small, input => {
        const bound = input.wants.filter(want => !isFree(input, want) && able(input, want).length > 0);
        const made = plan({ ...input, rebalance: true });
        const squares = (loads: Iterable<number>) => [...loads].reduce((sum, load) => sum + load * load, 0);
        const best = (at: number, loads: Map<string, number>): number => {
          const want = bound[at];
          if (want === undefined) return squares(loads.values());
          return Math.min(
            ...able(input, want).map(id => best(at + 1, new Map(loads).set(id, (loads.get(id) ?? 0) + 1))),
          );
        };
        expect(squares(loadsOf(input, made, bound).values())).toBe(best(0, new Map()));
      }),
      { numRuns: 50 },
    );
  });

  it('what is planned is where it stays: a plan made again with everything in its place moves nothing', () => {
    fc.assert(
      fc.property(any, input => {
        const owners = settled(input);
        const again = plan(withOwners(input, owners));
        expect(again.moves).toEqual([]);
        for (const [address, owner] of owners) expect(first(again, address)).toBe(owner);
      }),
      often,
    );
  });

  /** How many moves are made until none is left, when only the first of each plan is made before the next plan. */
  function movesMade(input: PlanInput): { readonly planned: number; readonly made: number } {
    let now = { ...input, owners: settled({ ...input, rebalance: false }), rebalance: true };
    const planned = plan(now).moves.length;
    for (let made = 0; ; made++) {
      const next = plan(now).moves[0];
      if (next === undefined || made > 3 * input.wants.length) return { planned, made };
      now = { ...now, owners: new Map(now.owners).set(next.address, next.to) };
    }
  }

  it('moves made one at a time, with a new plan after each, come to an end, and no sooner or later than planned', () => {
    fc.assert(
      fc.property(even, input => {
        const { planned, made } = movesMade(input);
        expect(made).toBe(planned);
      }),
      often,
    );
    fc.assert(
      fc.property(uneven, input => {
        const { planned, made } = movesMade(input);
        expect(made).toBeLessThanOrEqual(2 * planned);
      }),
      often,
    );
  });
});

describe('when membership changes', () => {
  const three = ids.slice(0, 3).map(id => agent(id));
  const wants = addresses.slice(0, 30).map(address => ({ address }));
  const before: PlanInput = { agents: three, wants, owners: new Map(), rebalance: true };

  it('a node that leaves hands over what it had, and nothing else moves', () => {
    const owners = settled(before);
    const after = plan({ ...before, agents: three.slice(1), owners });
    expect(after.moves).toEqual([]);
    for (const [address, owner] of owners) if (owner !== 'node-0') expect(first(after, address)).toBe(owner);
    expect([...loadsOf({ ...before, agents: three.slice(1) }, after).values()]).toEqual([15, 15]);
  });

  it('a node that joins gets its share, and no address moves between the others', () => {
    const agents = [...three, agent('node-3')];
    const after = plan({ ...before, agents, owners: settled(before) });
    expect(after.moves.map(({ to }) => to)).toEqual(Array(7).fill('node-3'));
    expect(difference(loadsOf({ ...before, agents }, after))).toBe(1);
  });

  it('nothing moves where rebalancing is off; the new node gets what is new', () => {
    const agents = [...three, agent('node-3')];
    const owners = settled(before);
    const more = [...wants, ...addresses.slice(30, 35).map(address => ({ address }))];
    const after = plan({ agents, wants: more, owners, rebalance: false });
    expect(after.moves).toEqual([]);
    for (const address of addresses.slice(30, 35)) expect(first(after, address)).toBe('node-3');
  });

  it('an owner that is not fit any more stands in no line', () => {
    const owners = settled(before);
    const agents = [agent('node-0', { fit: false, why: 'eth0 is down' }), ...three.slice(1)];
    const after = plan({ ...before, agents, owners });
    expect([...after.lines.values()].flat()).not.toContain('node-0');
    expect(after.moves).toEqual([]);
  });
});

describe('while agents claim at the same time', () => {
  it('a plan made of a view in which some have claimed already is the same plan', () => {
    const input = even.map(one => ({ ...one, owners: new Map<string, string>(), rebalance: false }));
    const partly = input.chain(one =>
      fc.record({ input: fc.constant(one), claimed: fc.subarray(one.wants.map(({ address }) => address)) }),
    );
    fc.assert(
      fc.property(partly, ({ input, claimed }) => {
        const planned = settled(input);
        const owners = new Map([...planned].filter(([address]) => claimed.includes(address)));
        const seen = settled(withOwners(input, owners));
        const carriers = new Set(planned.values()).size;
        // Those that lie on top of the even level may change places; each agent has at most one of them.
        const moved = [...seen].filter(([address, id]) => planned.get(address) !== id).length;
        expect(moved).toBeLessThanOrEqual(2 * carriers);
        expect(difference(loadsOf(input, plan(withOwners(input, owners))))).toBeLessThanOrEqual(1);
      }),
      often,
    );
  });

  it('who steps in differs from address to address', () => {
    const agents = ids.map(id => agent(id));
    const made = plan({
      agents,
      wants: addresses.map(address => ({ address })),
      owners: new Map(addresses.map(address => [address, 'node-0'])),
      rebalance: false,
    });
    const seconds = Map.groupBy(made.lines.values(), line => line[1]!);
    expect(seconds.size).toBe(ids.length - 1);
    expect(Math.max(...[...seconds.values()].map(({ length }) => length))).toBeLessThan(addresses.length / 2);
  });
});

describe('where nobody may own an address', () => {
  it('each agent has its reason', () => {
    const made = plan({
      agents: [
        agent('a', { node: 'worker-1', fit: false, why: 'eth0 is down' }),
        agent('b', { node: 'worker-2' }),
        agent('c', { node: 'worker-3', refuses: new Set(['192.168.1.1']) }),
        agent('e', {
          node: 'worker-5',
          refuses: new Set(['192.168.1.1']),
          reasons: { '192.168.1.1': 'ForeignAddress: on eth1' },
        }),
        agent('d', { node: 'worker-4', fit: false, why: 'eth0 is down' }),
      ],
      wants: [{ address: '192.168.1.1', nodes: new Set(['worker-3', 'worker-5']) }],
      owners: new Map(),
      rebalance: true,
    });
    expect(made.nobody).toEqual(
      new Map([
        [
          '192.168.1.1',
          'eth0 is down (worker-1, worker-4); no endpoint there is ready (worker-2); cannot have this address (worker-3); ForeignAddress: on eth1 (worker-5)',
        ],
      ]),
    );
  });

  it('says so when there is no agent at all', () => {
    const made = plan({ agents: [], wants: [{ address: '10.0.0.1' }], owners: new Map(), rebalance: true });
    expect(made.nobody.get('10.0.0.1')).toBe('no agent is alive');
    expect(made.lines.size).toBe(0);
  });
});

it('members are the agents of one cluster, as their keys describe them', () => {
  const mine = { cluster: 'east', node: 'worker-1', fit: true, refuses: ['10.0.0.1'], reasons: { '10.0.0.1': 'no' } };
  const agents = new Map([
    ['east.worker-1', mine],
    ['west.worker-1', { ...mine, cluster: 'west' }],
  ]);
  expect(membersOf(agents, 'east')).toEqual([
    {
      id: 'east.worker-1',
      node: 'worker-1',
      fit: true,
      why: undefined,
      refuses: new Set(['10.0.0.1']),
      reasons: { '10.0.0.1': 'no' },
    },
  ]);
});
