// What the main process and its keeper say to each other: a line of JSON each, over the keeper's stdin and stdout.
import type { EtcdTarget } from '../../store/target.ts';

/** What a keeper is told once, in its first line. */
export interface KeeperConfig {
  readonly etcd: EtcdTarget;
  /** Of the claims' keys: begins and ends with "/". */
  readonly prefix: string;
  /** Seconds to ask etcd for. */
  readonly ttl: number;
  /** The interface that carries the addresses. */
  readonly dev: string;
  /** Held by the keeper for its life: nobody else writes to this kernel's gate and addresses meanwhile. */
  readonly lock: string;
  /** Where the IPv6 addresses are noted, which have no label to be known by. */
  readonly state: string;
  /** False: nothing is put into the kernel; the lease is kept all the same. */
  readonly drives: boolean;
  /** Where the time since boot stands, with what a suspended machine slept. */
  readonly uptime: string;
}

/** What can be asked of a keeper about addresses (canonical texts). */
export type Verb = 'permit' | 'grant' | 'drop' | 'adopt';

/** Main to keeper. Each line, of whatever kind, tells that main is alive. */
export type Request =
  | { readonly configure: KeeperConfig }
  | { readonly ask: number; readonly verb: Verb; readonly addresses: readonly string[] }
  | { readonly alive: true }
  /** Ends the keeper. With `revoke`, the lease ends too, and with it every key on it. */
  | { readonly leave: { readonly revoke: boolean } };

/** A lease as the keeper has it; times are CLOCK_MONOTONIC in milliseconds, the same for all processes of a host. */
export interface LeaseState {
  /** As etcd's API writes it: a decimal number. */
  readonly id: string;
  /** Seconds that etcd granted. */
  readonly ttl: number;
  /** Until when etcd cannot have let it expire. */
  readonly heldUntil: number;
}

/** Keeper to main. */
export type Report =
  /** Said first: it has the lock. `gated`: this host has nft, so that the gate decides and not the lifetimes. */
  | { readonly ready: { readonly gated: boolean } }
  /** Said instead: why it ends without having done anything. */
  | { readonly refused: string }
  /** A new lease, or a renewal of the one that stands; its claims were verified to stand on it. */
  | { readonly lease: LeaseState }
  /** The lease is gone, and its keys with it; everything was dropped. A new one follows by itself. */
  | { readonly lost: readonly string[] }
  /** No renewal came in time, or the kernel had let go: these were dropped. The lease may stand. */
  | { readonly fenced: readonly string[]; readonly why: string }
  /** The addresses that failed, each with the reason. */
  | { readonly answer: number; readonly failures: Readonly<Record<string, string>> }
  /** Something that people should know of; the keeper goes on. */
  | { readonly trouble: string };
