// Tells people, by events of their Services and in the log, what Services do not get: each thing once, by one agent for all.
import type { Log } from '../base/log.ts';
import type { EventSubject, EventType } from '../kube/events.ts';
import type { ServiceRef, Wants } from './model.ts';

/** Milliseconds after which a state is more than a start or a change under way. */
const lasting = 5000;

export interface TellerOptions {
  /** This agent's id. */
  readonly id: string;
  readonly tell: (subject: EventSubject, type: EventType, reason: string, message: string) => void;
  readonly log: Log;
}

export class Teller {
  readonly #options: TellerOptions;
  #told: ReadonlyMap<string, string> = new Map();
  /** Since when nobody may own an address, in milliseconds. */
  readonly #nobodySince = new Map<string, number>();

  constructor(options: TellerOptions) {
    this.#options = options;
  }

  /** What stands against each Service. */
  service({ namespace, name, uid }: Omit<ServiceRef, 'created'>, reason: string, message: string): void {
    this.#options.tell({ apiVersion: 'v1', kind: 'Service', namespace, name, uid }, 'Warning', reason, message);
  }

  /**
   * What is refused, and what nobody may own (with why), as they are now. One agent speaks for all, so that people do not
   * read everything once for each node.
   */
  report({ wants, refusals }: Wants, nobody: ReadonlyMap<string, string>, agents: Iterable<string>): void {
    const { id, log } = this.#options;
    const [speaker] = [...agents].sort();
    // What is noted as told before there is somebody to tell it would never be heard.
    if (speaker === undefined) return;
    const now = new Map<string, string>();
    const isNews = (parts: readonly string[], message: string): boolean => {
      const key = JSON.stringify(parts);
      now.set(key, message);
      return this.#told.get(key) !== message;
    };
    for (const { service, address, reason, message } of refusals) {
      if (!isNews([service.uid, address, reason], message)) continue;
      log.info('refused', { service: `${service.namespace}/${service.name}`, address, reason, message });
      if (speaker === id) this.service(service, reason, message);
    }
    for (const [address, why] of this.#lastingly(nobody)) {
      if (!isNews([address, 'NoEligibleNode'], why) || speaker !== id) continue;
      const { services = [] } = wants.find(one => one.address === address) ?? {};
      for (const service of services) this.service(service, 'NoEligibleNode', `${address}: ${why}`);
    }
    this.#told = now;
  }

  /** What time alone mends, as when nodes start, is nothing to tell people. */
  #lastingly(nobody: ReadonlyMap<string, string>): readonly (readonly [string, string])[] {
    const now = performance.now();
    for (const address of this.#nobodySince.keys()) if (!nobody.has(address)) this.#nobodySince.delete(address);
    for (const address of nobody.keys()) if (!this.#nobodySince.has(address)) this.#nobodySince.set(address, now);
    return [...nobody].filter(([address]) => now - this.#nobodySince.get(address)! > lasting);
  }
}
