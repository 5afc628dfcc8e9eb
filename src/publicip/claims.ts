// Who owns which public address: the keys of agents, claims and release marks, watched and written (contract N4-N6).
import type { Deadline } from '../base/clock.ts';
import { code, FailureError } from '../base/errors.ts';
import type { ServiceHolder } from '../ipam/model.ts';
import type { GrpcKv } from '../store/etcd/grpc.ts';

/** What an agent says of itself under `<prefix>agents/<id>`. */
export interface AgentInfo {
  /** Name of its node in Kubernetes. */
  readonly node: string;
  readonly cluster: string;
  readonly machine: string;
  readonly boot: string;
  /** `<device>:<inode>` of its network namespace. */
  readonly netns: string;
  readonly version: string;
  /** Seconds of its lease. */
  readonly ttl: number;
  /** Whether its node may own addresses at all; if not, why. */
  readonly fit: boolean;
  readonly why?: string;
  /** Addresses that it cannot carry now. */
  readonly refuses?: readonly string[];
}

export interface Owner {
  /** Id of the agent. */
  readonly id: string;
  readonly lease: string;
  readonly revision: number;
}

/** All that is claimed, at one revision. Times are milliseconds of performance.now(). */
export interface ClaimsView {
  readonly revision: number;
  /** By id. */
  readonly agents: ReadonlyMap<string, AgentInfo & { readonly lease: string; readonly revision: number }>;
  /** By address, as canonical text. */
  readonly owners: ReadonlyMap<string, Owner>;
  /** Addresses that were let go in order, by whom and, when directed, to whom; with the time at which that was seen. */
  readonly released: ReadonlyMap<string, { readonly id: string; readonly to?: string; readonly at: number }>;
  /**
   * Addresses whose claim was seen to vanish: from when on another may claim it. At once, unless its former owner may
   * still answer for it (N4).
   */
  readonly freeFrom: ReadonlyMap<string, number>;
}

export type ClaimsEvent =
  /** Another agent, another state of one, or one that is gone. */
  | { readonly type: 'agent'; readonly id: string }
  /** Undefined: as it was or is not claimed. */
  | {
      readonly type: 'owner';
      readonly address: string;
      readonly before: Owner | undefined;
      readonly now: Owner | undefined;
    }
  | { readonly type: 'released'; readonly address: string }
  /** The watch is interrupted (why), or events flow again (undefined). */
  | { readonly type: 'connection'; readonly trouble: string | undefined };

export interface ClaimsOptions {
  /** Begins and ends with "/". */
  readonly prefix: string;
  /** This agent's id. */
  readonly id: string;
  /** Seconds for which a release mark stands. */
  readonly ttl: number;
  /** Where the owner records stand; undefined: in another store than the claims, so they are left alone. */
  readonly records?: { readonly space: string; readonly cluster: string };
}

export type Claimed =
  | { readonly won: true; readonly revision: number }
  /** `lost`: why, for people. */
  | { readonly won: false; readonly lost: string; readonly reason: 'owned' | 'waiting' | 'taken' };

export class Claims implements AsyncDisposable {
  /** Reads everything, then watches. Throws what the store throws. */
  static async open(_kv: GrpcKv, _options: ClaimsOptions, _deadline: Deadline): Promise<Claims> {
    throw new FailureError(code.unavailable, 'claims cannot be read');
  }

  view(): ClaimsView {
    throw new FailureError(code.unavailable, 'claims were not read');
  }

  /** Called after each change, with the view that has it. Must not throw. */
  onChange(_listener: (view: ClaimsView, events: readonly ClaimsEvent[]) => void): void {}

  /** Everything read again, now, from a quorum: what a view is worth after a fence. */
  async refresh(_deadline: Deadline): Promise<ClaimsView> {
    return this.view();
  }

  /**
   * Puts this agent's key on the lease, or renews what it says. An agent of the same machine, boot and network namespace
   * is an earlier process of this one (its lock is ours) and is replaced; any other that lives has the id.
   */
  async register(
    _lease: string,
    _info: AgentInfo,
    _deadline: Deadline,
  ): Promise<'done' | { readonly inUseBy: AgentInfo }> {
    return 'done';
  }

  /** One transaction: the claim is absent, or ours on this lease; the address belongs to nobody else (design 5). */
  async claim(_address: string, _lease: string, _holder: ServiceHolder, _deadline: Deadline): Promise<Claimed> {
    return { won: false, lost: '', reason: 'owned' };
  }

  /** Deletes this agent's claim, and says in the same commit that it was let go. False: it was not ours any more. */
  async release(_address: string, _options: { readonly to?: string }, _deadline: Deadline): Promise<boolean> {
    return false;
  }

  /** Deletes the owner record of an address that no Service wants. False: it is claimed, just released, or not ours. */
  async forget(_address: string, _deadline: Deadline): Promise<boolean> {
    return false;
  }

  /** Puts what an earlier process of this id had claimed on this lease; returns those addresses (N5). */
  async adopt(_lease: string, _deadline: Deadline): Promise<readonly string[]> {
    return [];
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}
