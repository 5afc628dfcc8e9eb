// What is known of agents, claims and release marks: kept from lists, the watch and own writes, whichever is first (contract N4).
import { isObject } from '../base/section.ts';
import type { WatchBatch, WatchEvent } from '../store/etcd/grpc.ts';
import type { Entry } from '../store/kv.ts';

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
  /** Why, for people; not of all of them, as there may be many. */
  readonly reasons?: Readonly<Record<string, string>>;
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
  readonly agents: ReadonlyMap<string, Agent>;
  /** By address, as canonical text. */
  readonly owners: ReadonlyMap<string, Owner>;
  /** Addresses that were let go in order, by whom and, when directed, to whom; with the time at which that was seen. */
  readonly released: ReadonlyMap<string, Released>;
  /**
   * Addresses whose claim was seen to vanish: from when on another may claim it. At once, unless its former owner may
   * still answer for it (N4).
   */
  readonly freeFrom: ReadonlyMap<string, number>;
  /** Addresses that somebody asked their owner to hand over, and to which agent: its id, "" for whichever is next. */
  readonly moves: ReadonlyMap<string, string>;
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
  | { readonly type: 'released' | 'move'; readonly address: string }
  /** The watch is interrupted (why), or events flow again (undefined). */
  | { readonly type: 'connection'; readonly trouble: string | undefined };

export type Agent = AgentInfo & { readonly lease: string; readonly revision: number };

export interface Released {
  readonly id: string;
  readonly to?: string;
  readonly at: number;
  readonly revision: number;
}

const kinds = ['agents', 'publicips', 'released', 'moves'] as const;

/** The keys under one prefix, which begins and ends with "/". */
export class ClaimKeys {
  readonly prefix: string;

  constructor(prefix: string) {
    this.prefix = prefix;
  }

  agent(id: string): string {
    return `${this.prefix}agents/${id}`;
  }

  claim(address: string): string {
    return `${this.prefix}publicips/${address}`;
  }

  mark(address: string): string {
    return `${this.prefix}released/${address}`;
  }

  move(address: string): string {
    return `${this.prefix}moves/${address}`;
  }

  /** Keys of others under the prefix are none of this program's business. */
  parse(key: string): [(typeof kinds)[number] | undefined, string] {
    const [kind = '', name = '', ...more] = key.slice(this.prefix.length).split('/');
    const known = kinds.find(one => one === kind);
    return name === '' || more.length > 0 ? [undefined, name] : [known, name];
  }
}

export class ClaimsState {
  readonly #keys: ClaimKeys;
  readonly #isOwn: (owner: Owner) => boolean;
  readonly #agents = new Map<string, Agent>();
  readonly #owners = new Map<string, Owner>();
  readonly #released = new Map<string, Released>();
  readonly #freeFrom = new Map<string, number>();
  readonly #moves = new Map<string, string>();
  /** Keys that this process wrote, and the revision: the watch brings what is older later. */
  readonly #ahead = new Map<string, number>();
  #revision = 0;
  #view: ClaimsView | undefined;

  /** @param isOwn whether a claim is this process's own. */
  constructor(keys: ClaimKeys, isOwn: (owner: Owner) => boolean) {
    this.#keys = keys;
    this.#isOwn = isOwn;
  }

  /** Up to which all is known. */
  get revision(): number {
    return this.#revision;
  }

  /** Frozen: another one stands for each change. */
  get view(): ClaimsView {
    this.#view ??= {
      revision: this.#revision,
      agents: new Map(this.#agents),
      owners: new Map(this.#owners),
      released: new Map(this.#released),
      freeFrom: new Map(this.#freeFrom),
      moves: new Map(this.#moves),
    };
    return this.#view;
  }

  agent(id: string): Agent | undefined {
    return this.#agents.get(id);
  }

  owner(address: string): Owner | undefined {
    return this.#owners.get(address);
  }

  /** Milliseconds for which a former owner may still answer. */
  waitFor(address: string): number {
    return Math.max(0, (this.#freeFrom.get(address) ?? 0) - performance.now());
  }

  /** A batch of the watch; each commit as a whole, so that a deleted claim is judged with what was written beside it. */
  take({ events, revision }: WatchBatch): ClaimsEvent[] {
    const told: ClaimsEvent[] = [];
    for (const commit of byRevision(events)) {
      const news = commit.filter(
        event => revisionOf(event) > Math.max(this.#revision, this.#ahead.get(keyOf(event)) ?? 0),
      );
      told.push(...this.#apply(news));
    }
    this.#revision = Math.max(this.#revision, revision);
    for (const [key, written] of this.#ahead) if (written <= this.#revision) this.#ahead.delete(key);
    return told;
  }

  /** What this process has just written itself is known before the watch tells. */
  wrote(puts: readonly Entry[], deleted: readonly string[], revision: number): ClaimsEvent[] {
    const keys = [...puts.map(({ key }) => key), ...deleted];
    // The watch, or a list, was quicker.
    const late = keys.filter(key => revision > Math.max(this.#revision, this.#ahead.get(key) ?? 0));
    for (const key of late) this.#ahead.set(key, revision);
    const events = [
      ...puts.map(entry => ({ type: 'put', entry }) as const),
      ...deleted.map(key => ({ type: 'delete', key, revision }) as const),
    ];
    return this.#apply(events.filter(event => late.includes(keyOf(event))));
  }

  /** A list: what is not in it is gone. */
  replace(found: readonly Entry[], revision: number): ClaimsEvent[] {
    if (revision < this.#revision) this.#ahead.clear();
    const there = new Set(found.map(({ key }) => key));
    const known = [
      ...[...this.#agents.keys()].map(id => this.#keys.agent(id)),
      ...[...this.#owners.keys()].map(address => this.#keys.claim(address)),
      ...[...this.#released.keys()].map(address => this.#keys.mark(address)),
      ...[...this.#moves.keys()].map(address => this.#keys.move(address)),
    ];
    const events: WatchEvent[] = [
      ...found.map(entry => ({ type: 'put', entry }) as const),
      ...known.filter(key => !there.has(key)).map(key => ({ type: 'delete', key, revision }) as const),
    ];
    const told = this.#apply(events.filter(event => revision >= (this.#ahead.get(keyOf(event)) ?? 0)));
    this.#revision = revision;
    return told;
  }

  /** Events of one commit, or the difference between two lists: agents and marks first, by which claims are judged. */
  #apply(events: readonly WatchEvent[]): ClaimsEvent[] {
    const parsed = events.flatMap(event => {
      const [kind, name] = this.#keys.parse(keyOf(event));
      return kind === undefined ? [] : [{ kind, name, entry: event.type === 'put' ? event.entry : undefined }];
    });
    const of = (kind: string) => parsed.filter(one => one.kind === kind);
    if (parsed.length > 0) this.#view = undefined;
    return [
      ...of('agents').map(({ name, entry }) => this.#setAgent(name, entry)),
      ...of('released').map(({ name, entry }) => this.#setReleased(name, entry)),
      ...of('moves').map(({ name, entry }) => this.#setMove(name, entry)),
      ...of('publicips').flatMap(({ name, entry }) => this.#setOwner(name, entry)),
    ];
  }

  #setAgent(id: string, entry: Entry | undefined): ClaimsEvent {
    const agent = entry && agentOf(entry);
    if (agent === undefined) this.#agents.delete(id);
    else this.#agents.set(id, agent);
    return { type: 'agent', id };
  }

  #setReleased(address: string, entry: Entry | undefined): ClaimsEvent {
    if (entry === undefined) this.#released.delete(address);
    else {
      const [id = '', to] = entry.value.split('>');
      const before = this.#released.get(address);
      const at = before?.revision === entry.revision ? before.at : performance.now();
      this.#released.set(address, { id, ...(to && { to }), at, revision: entry.revision });
    }
    return { type: 'released', address };
  }

  #setMove(address: string, entry: Entry | undefined): ClaimsEvent {
    if (entry === undefined) this.#moves.delete(address);
    else this.#moves.set(address, entry.value);
    return { type: 'move', address };
  }

  #setOwner(address: string, entry: Entry | undefined): ClaimsEvent[] {
    const before = this.#owners.get(address);
    const now = entry && ownerOf(entry);
    if (now === undefined) {
      if (before === undefined) return [];
      this.#owners.delete(address);
      this.#freeFrom.set(address, performance.now() + this.#mayAnswerFor(address, before));
    } else {
      if (before?.revision === now.revision) return [];
      this.#owners.set(address, now);
      this.#freeFrom.delete(address);
    }
    return [{ type: 'owner', address, before, now }];
  }

  /**
   * For how many milliseconds the owner of a claim that vanished may go on answering. Not at all where it let the address
   * go in order, or where its lease has ended, which it counts from an earlier moment than etcd; else somebody deleted
   * the claim under a living owner, who stops at the latest when its next renewal shows that the claim is not there.
   */
  #mayAnswerFor(address: string, former: Owner): number {
    const mark = this.#released.get(address);
    // Its own drop is this agent's own work, which comes before any new claim.
    if (this.#isOwn(former)) return 0;
    if (mark?.id === former.id && mark.revision > former.revision) return 0;
    const agent = this.#agents.get(former.id);
    return agent?.lease === former.lease ? agent.ttl * 1000 : 0;
  }
}

export function ownerOf({ value, lease = '', revision }: Entry): Owner {
  return { id: value, lease, revision };
}

/** A value that cannot be read is an agent of which nothing is known but that it lives: it may own nothing. */
export function agentOf({ value, lease = '', revision }: Entry): Agent {
  const { node, cluster, machine, boot, netns, version, ttl, fit, why, refuses, reasons } = fieldsOf(value);
  const text = (field: unknown): string => (typeof field === 'string' ? field : '');
  return {
    node: text(node),
    cluster: text(cluster),
    machine: text(machine),
    boot: text(boot),
    netns: text(netns),
    version: text(version),
    ttl: typeof ttl === 'number' && ttl > 0 ? ttl : unknownTtl,
    fit: fit === true,
    ...(typeof why === 'string' && { why }),
    ...(Array.isArray(refuses) && { refuses: refuses.filter(one => typeof one === 'string') }),
    ...(isObject(reasons) && {
      reasons: Object.fromEntries(Object.entries(reasons).map(([address, reason]) => [address, text(reason)])),
    }),
    lease,
    revision,
  };
}

/** Seconds that an agent may need to stop, when it does not say. */
const unknownTtl = 60;

function fieldsOf(value: string): Readonly<Record<string, unknown>> {
  try {
    const parsed: unknown = JSON.parse(value);
    return isObject(parsed) ? parsed : {};
  } catch {
    return {};
  }
}

function byRevision(events: readonly WatchEvent[]): WatchEvent[][] {
  return [...Map.groupBy(events, revisionOf).values()];
}

function revisionOf(event: WatchEvent): number {
  return event.type === 'put' ? event.entry.revision : event.revision;
}

function keyOf(event: WatchEvent): string {
  return event.type === 'put' ? event.entry.key : event.key;
}
