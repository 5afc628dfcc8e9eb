// One pass over all Services that are to have addresses of pools: lends what is missing, publishes it, takes back what is left over.
import { backoff } from '../base/clock.ts';
import { code, FailureError } from '../base/errors.ts';
import type { Labels } from '../base/selector.ts';
import { isLentTo, lendingId, poolNetwork, type ServiceHolder } from '../ipam/model.ts';
import { isInPool, type Pool } from '../ipam/pool.ts';
import { readRecords } from '../ipam/service/holdings.ts';
import { type LendOptions, lend, reclaim, type Unclaimed } from '../ipam/service/lend.ts';
import type { PatientSurroundings } from '../ipam/service/patience.ts';
import { HeldError } from '../ipam/service/succession.ts';
import { type Lent, readLent } from '../ipam/service/sweep-loans.ts';
import { type Family, formatIp, type Ip, parseIp, sameIp } from '../net/ip.ts';
import type { Span } from '../net/span.ts';
import type { AttachmentId } from '../store/keys.ts';
import { oldestFirst, type ServiceRef } from './model.ts';
import { type Denial, type Pools, poolsFor, type Wish, whyNotTogether } from './wishes.ts';

export const feature = 'public-ip';

/** What the cluster wants, at one moment. */
export interface Demand {
  /** By uid. */
  readonly wishes: ReadonlyMap<string, Wish>;
  /** Whether the Service of this uid is known to want nothing any more: it was deleted, or is of another class now. */
  isOver(uid: string): boolean;
  readonly pools: Pools;
  /** Changes whenever the pools or the labels of namespaces do. */
  readonly version: number;
  labelsOf(namespace: string): Labels;
  /** Addresses that are in use without the store's knowing. */
  readonly keptClear: readonly Span[];
}

export interface AllocationPorts {
  readonly around: PatientSurroundings;
  readonly cluster: string;
  readonly clusterUid: string;
  readonly unclaimed: Unclaimed;
  /** Writes the Service's status. */
  publish(wish: Wish, addresses: readonly string[]): Promise<void>;
  /** Never throws. */
  deny(service: ServiceRef, denial: Denial): void;
}

export interface PassResult {
  readonly lent: number;
  readonly freed: number;
  /** Addresses that cannot be taken back yet. */
  readonly waiting: number;
  /** Milliseconds until a Service that was denied is worth another try; undefined: none was. */
  readonly retryIn: number | undefined;
}

interface Denied {
  /** What it was denied: another wish, or other pools, may have another fate. */
  readonly sign: string;
  readonly tries: number;
  /** performance.now() */
  readonly until: number;
}

/** An address that a Service has, and through which attachment. */
interface Chosen {
  readonly id: AttachmentId;
  readonly ip: Ip;
}

export class Allocation {
  readonly #ports: AllocationPorts;
  /** By uid and family. */
  #denied = new Map<string, Denied>();
  #lent = 0;
  #freed = 0;
  #waiting = 0;

  constructor(ports: AllocationPorts) {
    this.#ports = ports;
  }

  /**
   * May be stopped at any point, and run again. `verify`: also whether the records still say what the attachments do;
   * `leads`: asked before each step, as a process that was paused may wake up behind another one's back. Throws what store
   * and API throw.
   */
  async pass(demand: Demand, verify: boolean, leads: () => boolean): Promise<PassResult> {
    [this.#lent, this.#freed, this.#waiting] = [0, 0, 0];
    const { around } = this.#ports;
    around.deadline.renew();
    const all = await readLent(around, feature);
    const lent = Map.groupBy(verify ? await this.#verified(all, demand) : all, ({ id }) => id.containerID);
    for (const [uid, loans] of lent) {
      if (!leads()) break;
      if (demand.wishes.has(uid) || !demand.isOver(uid)) continue;
      for (const { id } of loans) await this.#reclaim(id, []);
      lent.delete(uid);
    }
    const chosen = new Map<string, readonly Chosen[]>();
    for (const [uid, loans] of lent) chosen.set(uid, loans.flatMap(chosenOf));
    for (const wish of [...demand.wishes.values()].sort(inTurn)) {
      if (!leads()) break;
      await this.#serve(wish, lent.get(wish.ref.uid) ?? [], demand, chosen);
    }
    return { lent: this.#lent, freed: this.#freed, waiting: this.#waiting, retryIn: this.#retryIn(demand) };
  }

  /** Without the addresses whose record is gone, or another's: they are lent anew. */
  async #verified(all: readonly Lent[], { wishes }: Demand): Promise<readonly Lent[]> {
    const own = all.filter(({ id }) => wishes.has(id.containerID));
    const records = await readRecords(
      this.#ports.around,
      own.flatMap(({ addresses }) => addresses),
    );
    const isThere = (id: AttachmentId, ip: Ip) =>
      records.some(record => sameIp(record.ip, ip) && isLentTo(record.owner, id));
    return all.map(loan => {
      if (!wishes.has(loan.id.containerID)) return loan;
      return { ...loan, addresses: loan.addresses.filter(ip => isThere(loan.id, ip)) };
    });
  }

  async #serve(wish: Wish, loans: readonly Lent[], demand: Demand, chosen: Map<string, readonly Chosen[]>) {
    const own: Chosen[] = [];
    const addresses: string[] = [];
    for (const family of wish.families) {
      const ofFamily = loans.filter(({ id }) => id.ifname === lendingId(holderOf(wish.ref), '', family).ifname);
      const had = ofFamily.flatMap(chosenOf);
      const fitting = had.filter(one => fits(wish, family, one)).sort(byPublished(wish));
      // What it has already is better than nothing while it cannot have what it wants.
      const one = fitting[0] ?? (await this.#lend(wish, family, demand, chosen)) ?? had.sort(byPublished(wish))[0];
      if (one !== undefined) own.push(one);
      addresses.push(...(one === undefined ? await this.#unowned(wish, family) : [formatIp(one.ip)]));
      chosen.set(wish.ref.uid, own);
    }
    if (addresses.join() !== wish.published.join()) await this.#ports.publish(wish, addresses);
    for (const { id, addresses: listed } of loans) {
      const keep = own.filter(one => sameId(one.id, id)).map(({ ip }) => ip);
      if (!listed.every(ip => keep.some(kept => sameIp(kept, ip)))) await this.#reclaim(id, keep);
    }
  }

  /** What its status has and nobody owns: an allocator that was led to the wrong store, or to no pool, must wipe out nothing. */
  async #unowned({ published }: Wish, family: Family): Promise<readonly string[]> {
    const ips = published.flatMap(text => parseIp(text) ?? []).filter(ip => ip.family === family);
    const records = ips.length === 0 ? [] : await readRecords(this.#ports.around, ips);
    return ips.filter(ip => !records.some(record => sameIp(record.ip, ip))).map(formatIp);
  }

  async #reclaim(id: AttachmentId, keep: readonly Ip[]): Promise<void> {
    const { around, unclaimed } = this.#ports;
    around.deadline.renew();
    const { freed, waiting } = await reclaim(around, id, keep, unclaimed);
    this.#freed += freed.length;
    this.#waiting += waiting.length;
  }

  /** Undefined where it is denied, which is told. */
  async #lend(
    wish: Wish,
    family: Family,
    demand: Demand,
    chosen: ReadonlyMap<string, readonly Chosen[]>,
  ): Promise<Chosen | undefined> {
    const key = `${wish.ref.uid} ${family}`;
    const sign = JSON.stringify([
      wish.families,
      wish.named.map(formatIp),
      wish.pool,
      wish.shareKey,
      [...wish.ports],
      wish.fault,
      demand.version,
    ]);
    const before = this.#denied.get(key);
    if (before?.sign === sign && performance.now() < before.until) return undefined;
    const result = await this.#tryPools(wish, family, demand, chosen);
    this.#denied.delete(key);
    if ('ip' in result) {
      this.#lent++;
      return result;
    }
    const tries = before?.sign === sign ? before.tries + 1 : 1;
    this.#denied.set(key, { sign, tries, until: performance.now() + backoff(tries, 5000, 300_000) });
    this.#ports.deny(wish.ref, result);
    return undefined;
  }

  async #tryPools(
    wish: Wish,
    family: Family,
    demand: Demand,
    chosen: ReadonlyMap<string, readonly Chosen[]>,
  ): Promise<Chosen | Denial> {
    if (wish.fault !== undefined) return { reason: 'AddressInvalid', message: wish.fault };
    const pools = poolsFor(wish, family, demand.labelsOf(wish.ref.namespace), demand.pools);
    if ('reason' in pools) return pools;
    let denial: Denial | undefined;
    for (const pool of pools) {
      for (const wanted of this.#candidates(wish, family, pool, demand, chosen)) {
        const result = await this.#tryPool(wish, family, pool, wanted, demand);
        if ('ip' in result) return result;
        denial = result;
      }
    }
    return denial!;
  }

  /** The address that it names; else the one that its status has (the store may be another), one to share, or any. */
  #candidates(
    wish: Wish,
    family: Family,
    pool: Pool,
    { wishes }: Demand,
    chosen: ReadonlyMap<string, readonly Chosen[]>,
  ): readonly (Ip | undefined)[] {
    const named = wish.named.find(ip => ip.family === family);
    if (named !== undefined) return [named];
    const published = wish.published.flatMap(text => parseIp(text) ?? []);
    const shared = [...wishes.values()]
      .filter(other => other !== wish && whyNotTogether(wish, other) === undefined)
      .flatMap(other => chosen.get(other.ref.uid) ?? [])
      .filter(({ id }) => id.network === poolNetwork(pool.name))
      .map(({ ip }) => ip);
    const first = [...published, ...shared].filter(ip => ip.family === family && isInPool(pool, ip));
    return [...first, undefined];
  }

  async #tryPool(
    wish: Wish,
    family: Family,
    pool: Pool,
    wanted: Ip | undefined,
    { keptClear, wishes }: Demand,
  ): Promise<Chosen | Denial> {
    const { around, cluster, clusterUid } = this.#ports;
    const object = holderOf(wish.ref);
    const whyNotShared: LendOptions['whyNotShared'] = others => {
      const whys = others.map(({ uid, namespace, name }) => {
        const other = wishes.get(uid);
        return other === undefined ? `Service ${namespace}/${name} is about to leave it` : whyNotTogether(wish, other);
      });
      return whys.find(why => why !== undefined);
    };
    around.deadline.renew();
    try {
      const options = { object, pool, family, cluster, clusterUid, keptClear, whyNotShared, ...(wanted && { wanted }) };
      return { id: lendingId(object, pool.name, family), ip: await lend(around, options) };
    } catch (error) {
      const denial = denialFor(error);
      if (denial === undefined) throw error;
      return denial;
    }
  }

  #retryIn({ wishes }: Demand): number | undefined {
    for (const key of this.#denied.keys()) if (!wishes.has(key.split(' ')[0]!)) this.#denied.delete(key);
    // What has come back may be what somebody waits for.
    const [first] = this.#denied.keys();
    if (this.#freed > 0 && first !== undefined) {
      this.#denied.clear();
      return 0;
    }
    const soonest = Math.min(...[...this.#denied.values()].map(({ until }) => until));
    return Number.isFinite(soonest) ? Math.max(0, soonest - performance.now()) : undefined;
  }
}

/** Undefined for what does not say anything about the wish: store or API are away. */
function denialFor(error: unknown): Denial | undefined {
  if (!(error instanceof FailureError)) return undefined;
  const { message } = error;
  if (error instanceof HeldError) return { reason: 'AddressInUse', message };
  if (error.code === code.exhausted) return { reason: 'PoolExhausted', message };
  return error.code === code.config ? { reason: 'AddressForbidden', message } : undefined;
}

/** Who has an address already comes first: where the store has lost it, nobody else must be given it. */
function inTurn(a: Wish, b: Wish): number {
  const hasNone = ({ published }: Wish) => Number(published.length === 0);
  return hasNone(a) - hasNone(b) || oldestFirst(a, b);
}

export function holderOf({ namespace, name, uid }: ServiceRef): ServiceHolder {
  return { feature, group: '', kind: 'Service', namespace, name, uid };
}

/** The first that an attachment lists is in use. */
function chosenOf({ id, addresses }: Lent): Chosen[] {
  return addresses[0] === undefined ? [] : [{ id, ip: addresses[0] }];
}

/** Whether it is what the Service wants; what one wants whose annotations cannot be read nobody knows. */
function fits({ pool, named, fault }: Wish, family: Family, { id, ip }: Chosen): boolean {
  if (fault !== undefined) return false;
  const wanted = named.find(one => one.family === family);
  return (pool === undefined || id.network === poolNetwork(pool)) && (wanted === undefined || sameIp(wanted, ip));
}

function byPublished({ published }: Wish): (a: Chosen, b: Chosen) => number {
  const place = ({ ip }: Chosen) => Number(!published.includes(formatIp(ip)));
  return (a, b) => place(a) - place(b);
}

function sameId(a: AttachmentId, b: AttachmentId): boolean {
  return a.network === b.network && a.containerID === b.containerID && a.ifname === b.ifname;
}
