// What the service needs from outside: it is handed these and touches nothing else.

import type { Deadline } from '../base/clock.ts';
import type { FailureError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { Machine } from '../base/node.ts';
import type { Labels } from '../base/selector.ts';
import type { Found, Pod as KubePod, Node, StatefulSet } from '../kube/objects.ts';
import type { Ip } from '../net/ip.ts';
import type { AttachmentId, Keys } from '../store/keys.ts';
import type { Kv } from '../store/kv.ts';
import type { Pod } from './model.ts';

/** Remembers, on this node's disk, the attachments whose ADD ended without knowing the fate of its commit. */
export interface Doubts {
  has(id: AttachmentId): boolean;
  /** Durable when it returns; never throws. */
  leave(id: AttachmentId): void;
  clear(id: AttachmentId): void;
}

/**
 * What the Kubernetes API says. Undefined: it says that there is no such object. Throws code 11 for everything else: an
 * API that is away, slow, or says no has said nothing.
 */
export interface Api {
  /** The pod that an ADD is for; what is known of it may be as old as its uid proves it to be the right one. */
  ownPod(pod: Pod, deadline: Deadline): Promise<KubePod | undefined>;
  namespaceLabels(name: string, deadline: Deadline): Promise<Labels | undefined>;
  nodeLabels(name: string, deadline: Deadline): Promise<Labels | undefined>;
  /** The uid of namespace kube-system, by which clusters are told apart. */
  clusterUid(deadline: Deadline): Promise<string>;
  /** As the API has it now, for decisions about an address that another pod holds. */
  pod(namespace: string, name: string, deadline: Deadline): Promise<KubePod | undefined>;
  /** As the API has it now, with the API server's clock. */
  node(name: string, deadline: Deadline): Promise<Found<Node> | undefined>;
}

/** What gc asks: all of it as the API has it now (quorum reads, no cache). Throws as `Api` does. */
export interface GcApi extends Pick<Api, 'clusterUid' | 'pod' | 'node'> {
  /** Outlines of all pods that are bound to a node. A list may take longer than one answer: it has its own deadline. */
  podsOn(node: string): Promise<readonly KubePod[]>;
  /** Outlines of all nodes. */
  nodes(): Promise<readonly Node[]>;
  statefulSet(namespace: string, name: string, deadline: Deadline): Promise<StatefulSet | undefined>;
  /**
   * Whether there is a VM of KubeVirt, or an instance of one, of this name; false also where it is proven that the
   * cluster has no KubeVirt.
   */
  hasVm(namespace: string, name: string, deadline: Deadline): Promise<boolean>;
}

/**
 * Addresses that commands of one process are about to write: each chooses others while there are some, and so does not
 * lose against its own kind. They bind nobody; the store alone decides.
 */
export interface Claims {
  has(ip: Ip): boolean;
  add(ip: Ip): void;
}

/** Where commands of one process left the cursors: the next one may look there before it has asked. */
export interface CursorMemory {
  /** Undefined also where others have moved it lately, so that a guess would be wrong. */
  expected(key: string): Ip | undefined;
  /** What the store says now. */
  saw(key: string, cursor: Ip | undefined): void;
  /** What a commit has put. */
  left(key: string, cursor: Ip): void;
}

/** That a set has no free address, as far as several commands of one process are concerned with it at the same moment. */
export interface Verdicts {
  /** What `look` gives, or the failure that it gave another command within the last second. An address is never shared. */
  share<T>(key: string, look: () => Promise<T | FailureError>): Promise<T | FailureError>;
}

/** One command's surroundings. */
export interface Surroundings {
  readonly kv: Kv;
  readonly keys: Keys;
  readonly deadline: Deadline;
  readonly machine: Machine;
  readonly doubts: Doubts;
  readonly log: Log;
  /** Absent where the configuration names no kubeconfig: then no pod is looked up. */
  readonly api?: Api;
  /** Given where several commands run in one process, and so are the cursors. */
  readonly claims?: Claims;
  readonly cursors?: CursorMemory;
  readonly verdicts?: Verdicts;
  /** Given where this process may stand where it does not see this node's network namespaces; why it cannot tell them. */
  readonly whyBlind?: () => string | undefined;
  /** Wall clock in milliseconds, for what people read. */
  now(): number;
}
