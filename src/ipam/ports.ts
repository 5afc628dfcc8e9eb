// What the service needs from outside: it is handed these and touches nothing else.
import type { Deadline } from '../base/clock.ts';
import type { Log } from '../base/log.ts';
import type { Machine } from '../base/node.ts';
import type { AttachmentId, Keys } from '../store/keys.ts';
import type { Kv } from '../store/kv.ts';

/** Remembers, on this node's disk, the attachments whose ADD ended without knowing the fate of its commit. */
export interface Doubts {
  has(id: AttachmentId): boolean;
  /** Durable when it returns; never throws. */
  leave(id: AttachmentId): void;
  clear(id: AttachmentId): void;
}

/** One command's surroundings. */
export interface Surroundings {
  readonly kv: Kv;
  readonly keys: Keys;
  readonly deadline: Deadline;
  readonly machine: Machine;
  readonly doubts: Doubts;
  readonly log: Log;
  /** Wall clock in milliseconds, for what people read. */
  now(): number;
}
