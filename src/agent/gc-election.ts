// Elects the one agent of a cluster that judges, beside its own node, what no living agent is there for.

import type { Part, PartState } from '../base/part.ts';
import type { Client } from '../kube/client.ts';
import { Election, type ElectionTiming } from '../kube/election.ts';

export interface GcElectionOptions {
  /** Of the Lease: the same for all agents of the cluster. */
  readonly namespace: string;
  /** This agent, as people know it. */
  readonly identity: string;
  readonly timing?: Partial<ElectionTiming>;
}

export class GcElection implements Part {
  readonly name = 'gc-election';
  readonly #election: Election;

  constructor(client: Client, options: GcElectionOptions) {
    // The loop looks whether it leads at each scan; to lead is only to have the Lease.
    const lead = (signal: AbortSignal) =>
      new Promise<void>(resolve => signal.addEventListener('abort', () => resolve(), { once: true }));
    this.#election = new Election(client, { ...options, name: 'kube-ipam-gc', lead });
  }

  get isLeader(): boolean {
    return this.#election.isLeader;
  }

  async start(): Promise<void> {
    this.#election.start();
  }

  /** Pods do not wait for it: it is never a reason to be not ready. */
  state(): PartState {
    const { isLeader, leader, trouble } = this.#election;
    const who = isLeader ? 'this agent leads' : leader === undefined ? 'nobody leads' : `${leader} leads`;
    return { ready: true, detail: trouble === undefined ? who : `${who}; ${trouble}` };
  }

  stop(): Promise<void> {
    return this.#election.stop();
  }
}
