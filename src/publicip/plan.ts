// Which node is to carry which public address: the same answer on every node that sees the same. Pure.

/** A node's agent, as its key in the store describes it. */
export interface PlanAgent {
  readonly id: string;
  /** Name of its node in Kubernetes. */
  readonly node: string;
  /** Whether it may own addresses at all; if not, `why`. */
  readonly fit: boolean;
  readonly why?: string | undefined;
  /** Addresses that it cannot put, or must leave alone. */
  readonly refuses: ReadonlySet<string>;
}

export interface PlanInput {
  /** The live agents of this cluster, fit or not. */
  readonly agents: readonly PlanAgent[];
  /** `nodes`: the only nodes that may carry the address (externalTrafficPolicy Local); absent: all. */
  readonly wants: readonly { readonly address: string; readonly nodes?: ReadonlySet<string> | undefined }[];
  /** Address -> id of the agent that has claimed it. */
  readonly owners: ReadonlyMap<string, string>;
  /** Whether a fit owner may be asked to hand an address over for the sake of balance. */
  readonly rebalance: boolean;
}

/** One address that its fit owner is to hand over, for balance alone. */
export interface Move {
  readonly address: string;
  /** Ids of agents. */
  readonly from: string;
  readonly to: string;
}

export interface Plan {
  /**
   * Address -> ids of the agents that may own it: the planned one first, then those that step in, in turn. An owner that
   * is not in its line has ceased to be eligible and lets go; one that is merely not the first keeps the address unless
   * `moves` names it. Only addresses that somebody may own.
   */
  readonly lines: ReadonlyMap<string, readonly string[]>;
  /** To be made one at a time, the first first; after each the plan that is made anew has one move less. */
  readonly moves: readonly Move[];
  /** Address -> why nobody may own it, agent by agent. */
  readonly nobody: ReadonlyMap<string, string>;
}
