// The store over etcd's gRPC: for the agent and the command line, and for the plugin where the JSON gateway is off.
import type { Deadline } from '../../base/clock.ts';
import type { CommitResult, Kv } from '../kv.ts';
import type { EtcdTarget } from '../target.ts';
import { Calls } from './calls.ts';
import { GrpcTransport } from './channel.ts';
import { EtcdKv, type KeptCommit } from './etcd-kv.ts';
import { type KeptLease, keep, type Renewal } from './lease.ts';
import { Streams } from './streams.ts';
import { type WatchBatch, type WatchOptions, watch } from './watch.ts';

export { RelistError } from './errors.ts';
export type { KeptCommit, KeptWrite } from './etcd-kv.ts';
export type { KeptLease, Renewal } from './lease.ts';
export type { WatchBatch, WatchEvent, WatchOptions } from './watch.ts';

/** The port, with what only a lasting connection can do. */
export interface GrpcKv extends Kv {
  /** As in the port; a put may also name a kept lease (`lease: kept.id`). */
  commit(commit: KeptCommit, deadline: Deadline): Promise<CommitResult>;
  /**
   * Every event under `prefix` (ends in "/") from `fromRevision` on, without loss across drops and changes of member.
   * Ends with the signal or the store; throws RelistError (list again) or RefusedError.
   */
  watch(prefix: string, fromRevision: number, options?: WatchOptions): AsyncIterable<WatchBatch>;
  /** Grants a lease of `ttl` seconds and keeps it alive until it is revoked or disposed. */
  keepLease(ttl: number, deadline: Deadline, renewal?: Renewal): Promise<KeptLease>;
  /** Grants a lease that nobody renews: for what is to vanish by itself, keys of several commits together. */
  grant(ttl: number, deadline: Deadline): Promise<{ readonly id: string; readonly ttl: number }>;
  /** The keys that stand on a lease; undefined when the lease is gone. */
  leaseKeys(lease: string, deadline: Deadline): Promise<ReadonlySet<string> | undefined>;
}

/** Opens etcd over gRPC; nothing is sent before the first call. */
export function openGrpc(target: EtcdTarget): GrpcKv {
  return new GrpcStore(target);
}

class GrpcStore extends EtcdKv implements GrpcKv {
  readonly #streams: Streams;
  readonly #closing: AbortController;

  constructor(target: EtcdTarget) {
    const transport = new GrpcTransport(target);
    const calls = new Calls(target, transport);
    super(calls);
    this.#closing = new AbortController();
    this.#streams = new Streams(target, transport, calls, this.#closing.signal);
  }

  watch(prefix: string, fromRevision: number, options: WatchOptions = {}): AsyncIterable<WatchBatch> {
    return watch(this.#streams, prefix, fromRevision, options);
  }

  async keepLease(ttl: number, deadline: Deadline, renewal: Renewal = {}): Promise<KeptLease> {
    const asked = performance.now();
    const granted = await this.grant(ttl, deadline);
    const revoke = (lease: string, limit: Deadline) => this.revoke(lease, limit);
    return keep(this.#streams, { ...granted, asked }, { ...renewal, revoke });
  }

  override async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort();
    await super[Symbol.asyncDispose]();
  }
}
