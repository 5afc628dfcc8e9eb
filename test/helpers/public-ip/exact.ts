// The exact judge: from each node's own address and nftables events, the times in which its kernel would answer for an address.
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { publicIp } from '../../../src/host/numbers.ts';
import type { Machine } from '../machine.ts';
import { monotonic } from './clock.ts';
import { Piped } from './piped.ts';

/** From when to when a node answers, in milliseconds of CLOCK_MONOTONIC; `to` is open. */
export interface Interval {
  readonly from: number;
  readonly to: number;
}

/** Two nodes answered for one address at the same time. */
export interface Overlap extends Interval {
  readonly address: string;
  readonly nodes: readonly [string, string];
}

const { gate } = publicIp;
const stamp = join(import.meta.dirname, 'stamp.pl');
/** Events reach the judge some microseconds late, and not those of all nodes equally late. */
const tolerance = 3;

interface Address {
  present: boolean;
  readonly intervals: Interval[];
  since: number | undefined;
}

/** What the gate of one address family says. */
interface Gate {
  /** Without a rule, sets decide nothing. */
  rules: number;
  readonly owned: Set<string>;
  /** When the element runs out, by address. */
  readonly live: Map<string, number>;
}

const units: Readonly<Record<string, number>> = { d: 86_400_000, h: 3_600_000, m: 60_000, s: 1000, ms: 1 };

/** The times in which one node answers, out of the stamped lines of `ip -o monitor address` and `nft monitor`. */
export class AnswerTimes {
  readonly #addresses = new Map<string, Address>();
  readonly #gates = { arp: emptyGate(), inet: emptyGate() };
  readonly #dev: string;

  constructor(dev: string) {
    this.#dev = dev;
  }

  /** A line behind its microsecond. */
  hear(stamped: string): void {
    const [, time, line] = /^(\d+) (.*)$/.exec(stamped) ?? [];
    if (line === undefined) return;
    const at = Number(time) / 1000;
    if (/^(add|delete) /.test(line)) this.#hearNft(at, line);
    else this.#hearIp(at, line);
  }

  /** Until `end`, which is now. */
  intervals(address: string, end: number): Interval[] {
    const known = this.#addresses.get(address);
    if (known === undefined) return [];
    const last = known.since === undefined ? [] : [{ from: known.since, to: Math.min(end, this.#until(address)) }];
    return [...known.intervals, ...last];
  }

  get addresses(): readonly string[] {
    return [...this.#addresses.keys()];
  }

  #hearIp(at: number, line: string): void {
    const [, deleted, dev, address] = /^(Deleted )?\d+: (\S+) +inet6? ([^/ ]+)/.exec(line) ?? [];
    if (address === undefined || dev !== this.#dev) return;
    // An address that is still being tried answers nobody.
    const present = deleted === undefined && !/ (tentative|dadfailed) /.test(line);
    this.#change(at, [address], () => {
      this.#address(address).present = present;
    });
  }

  #hearNft(at: number, line: string): void {
    const [verb, what, family, table, name] = line.split(' ');
    if (table !== gate.table || (family !== 'arp' && family !== 'inet')) return;
    const of = this.#gates[family];
    const [, inner] = /\{ (.*) \}/.exec(line) ?? [];
    const elements = what === 'element' ? (inner ?? '').split(', ') : [];
    const values = elements.map(element => element.split(' ')[0]!);
    const affected = what === 'element' ? values : this.addresses;
    this.#change(at, affected, () => {
      if (what === 'rule') of.rules += verb === 'add' ? 1 : -1;
      if (verb === 'delete' && what === 'table') Object.assign(of, emptyGate());
      const isLive = name === gate.live4 || name === gate.live6;
      const isOwned = name === gate.owned4 || name === gate.owned6;
      if (verb === 'delete' && what === 'set') (isLive ? of.live : isOwned ? of.owned : new Set()).clear();
      for (const [place, value] of values.entries()) {
        if (isOwned && verb === 'add') of.owned.add(value);
        if (isOwned && verb === 'delete') of.owned.delete(value);
        if (isLive && verb === 'add') of.live.set(value, at + timeoutOf(elements[place]!));
        if (isLive && verb === 'delete') of.live.delete(value);
      }
    });
  }

  /** Closes what has run out before, applies the event, and opens or closes by what then holds. */
  #change(at: number, addresses: readonly string[], apply: () => void): void {
    for (const address of addresses) this.#close(address, at, this.#until(address));
    apply();
    for (const address of addresses) {
      const known = this.#address(address);
      const until = this.#until(address);
      if (until > at) known.since ??= at;
      else this.#close(address, at, at);
    }
  }

  #close(address: string, at: number, until: number): void {
    const known = this.#address(address);
    if (known.since === undefined || until > at) return;
    known.intervals.push({ from: known.since, to: until });
    known.since = undefined;
  }

  /** Until when it answers if nothing happens; -Infinity: it does not. */
  #until(address: string): number {
    const of = this.#gates[address.includes(':') ? 'inet' : 'arp'];
    if (!this.#addresses.get(address)?.present) return Number.NEGATIVE_INFINITY;
    if (of.rules === 0 || !of.owned.has(address)) return Number.POSITIVE_INFINITY;
    return of.live.get(address) ?? Number.NEGATIVE_INFINITY;
  }

  #address(address: string): Address {
    const known = this.#addresses.get(address) ?? { present: false, intervals: [], since: undefined };
    this.#addresses.set(address, known);
    return known;
  }
}

function emptyGate(): Gate {
  return { rules: 0, owned: new Set(), live: new Map() };
}

/** Milliseconds of "192.168.1.41 timeout 7s232ms expires 7s232ms": what is left, not what it was given. */
function timeoutOf(element: string): number {
  const [, text] = / expires (\S+)/.exec(element) ?? / timeout (\S+)/.exec(element) ?? [];
  if (text === undefined) return Number.POSITIVE_INFINITY;
  return [...text.matchAll(/(\d+)(ms|[dhms])/g)].reduce(
    (sum, [, count, unit]) => sum + Number(count) * units[unit!]!,
    0,
  );
}

/** Watches nodes from before they hold anything. */
export class ExactJudge implements AsyncDisposable {
  readonly #times = new Map<string, AnswerTimes>();
  readonly #watches: Piped[] = [];

  static async start(nodes: readonly Machine[], dev = 'eth0'): Promise<ExactJudge> {
    const judge = new ExactJudge();
    try {
      await Promise.all(nodes.map(node => judge.#watch(node, dev)));
      return judge;
    } catch (error) {
      await judge[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** When the node answered for the address, until now. */
  intervals(node: string, address: string): Interval[] {
    for (const watch of this.#watches) watch.check();
    return this.#times.get(node)!.intervals(address, monotonic());
  }

  /** Times in which two nodes answered for one address: there must never be one. */
  overlaps(): Overlap[] {
    const nodes = [...this.#times.keys()];
    const addresses = new Set([...this.#times.values()].flatMap(times => times.addresses));
    const pairs = nodes.flatMap((one, place) => nodes.slice(place + 1).map(other => [one, other] as const));
    return [...addresses].flatMap(address =>
      pairs.flatMap(pair => {
        const [one, other] = pair.map(node => this.intervals(node, address));
        return intersections(one!, other!).map(both => ({ address, nodes: pair, ...both }));
      }),
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#watches.map(watch => watch[Symbol.asyncDispose]()));
  }

  /** Resolves when both monitors of the node are known to tell, by events of the judge's own. */
  async #watch(node: Machine, dev: string): Promise<void> {
    const times = new AnswerTimes(dev);
    this.#times.set(node.hostname, times);
    const told = { ip: false, nft: false };
    const commands = ['ip', '-o', 'monitor', 'address', '--', 'nft', 'monitor'];
    const onLine = (line: string) => {
      told.ip ||= line.includes(' 127.0.0.99/');
      told.nft ||= line.includes(' table inet judge');
      times.hear(line);
    };
    const watch = new Piped(node, ['perl', stamp, ...commands], { urgent: true, onLine });
    this.#watches.push(watch);
    for (const until = monotonic() + 30_000; !(told.ip && told.nft); await sleep(20)) {
      watch.check();
      if (monotonic() > until) throw new Error(`no events come from ${node.hostname}`);
      await node.must(['ip', 'address', 'add', '127.0.0.99/32', 'dev', 'lo']);
      await node.must(['ip', 'address', 'del', '127.0.0.99/32', 'dev', 'lo']);
      await node.must(['nft', 'add table inet judge; delete table inet judge']);
    }
  }
}

function intersections(one: readonly Interval[], other: readonly Interval[]): Interval[] {
  return one
    .flatMap(a => other.map(b => ({ from: Math.max(a.from, b.from), to: Math.min(a.to, b.to) })))
    .filter(({ from, to }) => to - from > tolerance);
}
