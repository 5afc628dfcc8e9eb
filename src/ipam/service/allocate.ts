// ADD: gives an attachment one address of every set in one commit, whatever others do at the same time (docs/architecture.md).
import { backoff, pause } from '../../base/clock.ts';
import { code, FailureError } from '../../base/errors.ts';
import { formatIp, type Ip } from '../../net/ip.ts';
import { formatSpan, spanContains } from '../../net/span.ts';
import { clusterKey, formatKey } from '../../store/keys.ts';
import { type Condition, type Entry, UnknownFateError, UnreachableError, type Write } from '../../store/kv.ts';
import type { Ring } from '../candidates.ts';
import type { Allotment, NetworkConfig } from '../config.ts';
import {
  currentFormat,
  type Holder,
  isLentTo,
  namesAttachment,
  type OwnerRecord,
  parseCluster,
  parseOwner,
  renderAttachment,
  renderCluster,
  renderWorkload,
  sameAttachment,
  sameWorkload,
} from '../model.ts';
import type { Surroundings } from '../ports.ts';
import {
  afterRelease,
  describeRanges,
  holderOf,
  type Owner,
  renderNetwork,
  renderOwner,
  renderService,
  renderSticky,
  renewOwner,
  shareService,
} from '../records.ts';
import { exhaustedError } from './exhausted.ts';
import { ipOfKey, Looker, type Seen, type SetLook } from './look.ts';
import { type Assigned, assign, fits, type SetPlan } from './plan.ts';
import { freeEarlierBoots, type HeldAttachment, readHeld, releaseWrites } from './release.ts';
import { type Loan, type Request, readRequest } from './request.ts';
import { findFree } from './search.ts';
import { HeldError, mayTakeOver, succeed } from './succession.ts';
import { asRead, fence } from './writes.ts';

/** A cursor read longer ago than this (ms) is not put back: a process that was stopped must not drag it along. */
const cursorAge = 2000;

export interface Allocation {
  /** One for each set, in the order configured. */
  readonly addresses: readonly Assigned[];
  readonly tries: number;
}

/** An address on its way to the commit. */
interface Choice {
  readonly ip: Ip;
  /** The record that is there now: our own (renewed), our workload's, a hold for us, or one to be taken over. */
  readonly current?: Entry;
  readonly value: string;
  readonly movesCursor: boolean;
  /** A workload keeps it. */
  readonly sticky: boolean;
  /** It outlives the attachment: a workload keeps it, or a hold follows. */
  readonly kept: boolean;
}

/** What one try has settled on. */
interface Settled {
  readonly choices: readonly Choice[];
  /**
   * Addresses that stay beside those chosen: another holder of the workload uses them still, or somebody may answer for
   * what was lent.
   */
  readonly alsoKept: readonly Ip[];
  /** Dead holders: their attachments go in the same commit. */
  readonly gone: readonly HeldAttachment[];
}

/**
 * Allocates, or answers a repeated request with the addresses it has.
 * Errors: 7 (a requested address that cannot be given), 11 (held by another; store away), 100 (exhausted), 101, 104, 105.
 */
export async function allocate(
  around: Surroundings,
  config: NetworkConfig,
  owner: Owner,
  requested: readonly Ip[],
): Promise<Allocation> {
  return allocateFor(around, config, await readRequest(around, config, owner, requested));
}

/** The same for a request that is understood already. */
export async function allocateFor(around: Surroundings, config: Allotment, request: Request): Promise<Allocation> {
  const attempt = new Attempt(around, config, request);
  try {
    return await attempt.run();
  } catch (error) {
    if (attempt.fateUnknown) around.doubts.leave(request.owner.id);
    throw error;
  }
}

class Attempt {
  fateUnknown = false;
  readonly #around: Surroundings;
  readonly #config: Allotment;
  readonly #owner: Owner;
  readonly #request: Request;
  #plans: readonly SetPlan[];
  #looker: Looker;
  /** Revision of the fence when this ADD began (0: absent). Whoever moves it withdraws this ADD. */
  #fence: number | undefined;
  #tries = 0;
  #oldBootsFreed = false;

  constructor(around: Surroundings, config: Allotment, request: Request) {
    this.#around = around;
    this.#config = config;
    this.#owner = request.owner;
    this.#request = request;
    this.#plans = request.plans;
    this.#looker = this.#newLooker();
  }

  #newLooker(): Looker {
    const { keys } = this.#around;
    const { clusterUid } = this.#request;
    return new Looker(keys, this.#owner.id, this.#plans, {
      ...(clusterUid !== undefined && { cluster: clusterKey(this.#config.cluster) }),
      ...(this.#workloadKey !== undefined && { workload: this.#workloadKey }),
    });
  }

  get #workloadKey(): string | undefined {
    const { id } = this.#owner;
    const workload = this.#request.sticky?.workload;
    return workload && this.#around.keys.workload(this.#config.cluster, id.network, workload, id.ifname);
  }

  async run(): Promise<Allocation> {
    for (let failures = 0; ; ) {
      try {
        return await this.#round();
      } catch (error) {
        if (error instanceof UnknownFateError) this.fateUnknown = true;
        // Once a commit may be under way only its outcome is an answer: ask for as long as we may.
        const again = this.fateUnknown && (error instanceof UnknownFateError || error instanceof UnreachableError);
        if (!again || this.#around.deadline.passed) throw error;
        await pause(backoff(++failures, 20, 500), this.#around.deadline);
      }
    }
  }

  /** Reads, then commits until one commit wins. */
  async #round(): Promise<Allocation> {
    const { kv, deadline } = this.#around;
    for (;;) {
      const found = await this.#looker.find(kv, deadline, this.#around.cursors);
      const { held, owned, windows } = found;
      const lookQueries = this.#looker.lookQueries(windows);
      let { seen, looks } = found;
      // Round robin while nobody else is there. Where the store moves between two reads, or a commit is lost, others
      // reach for the same next address, and chance keeps us apart.
      let crowded = this.#tries > 0 || found.revision !== seen.revision;
      while (performance.now() - seen.at < cursorAge) {
        this.#refuseWithdrawn(seen);
        this.#refuseOtherCluster(seen);
        const settled = await this.#settle(looks, owned, crowded);
        if (settled === undefined) break;
        const seenQueries = this.#looker.seenQueries();
        const result = await kv.commit(
          { ...this.#commit(seen, settled, owned), otherwise: [...seenQueries, ...lookQueries] },
          deadline,
        );
        if (result.won) return this.#answer(seen, settled.choices);
        const at = performance.now();
        const next = this.#looker.seen({ ...result, answers: result.answers.slice(0, seenQueries.length) }, at);
        // Somebody wrote our own attachment or workload: its addresses must be read before anything is decided.
        const ours = ({ attachment, workload }: Seen) => `${attachment?.revision} ${workload?.revision}`;
        if (ours(next) !== ours(seen) || held.length > 0) break;
        seen = next;
        crowded = true;
        looks = this.#looker.look(windows, result.answers.slice(seenQueries.length));
      }
      if (deadline.passed) throw this.#lostEveryTry();
    }
  }

  #refuseWithdrawn(seen: Seen): void {
    const fence = seen.fence?.revision ?? 0;
    this.#fence ??= fence;
    // One that ran out withdraws nothing. Our own repeated commit moves it too, but then the attachment is there.
    if (fence <= this.#fence || seen.attachment !== undefined) return;
    throw new FailureError(code.tryAgain, 'a DEL of this container came while its ADD was under way; nothing is held');
  }

  /** A name of clusters that two of them use would let each judge the other's pods. */
  #refuseOtherCluster({ cluster }: Seen): void {
    const { clusterUid } = this.#request;
    if (cluster === undefined || parseCluster(cluster.value) === clusterUid) return;
    const { network } = this.#owner.id;
    const name = this.#config.cluster;
    throw new FailureError(
      code.config,
      `network ${network}: set "cluster": ${name} belongs to another cluster, whose namespace kube-system has uid ${parseCluster(cluster.value) ?? 'unknown'}, not ${clusterUid}`,
    );
  }

  /** One choice for each set; undefined when something changed on the way and all must be read again. */
  async #settle(looks: readonly SetLook[], owned: readonly Entry[], scatter: boolean): Promise<Settled | undefined> {
    const mine = owned.flatMap(entry => {
      const owner = parseOwner(entry.value);
      return this.#isOurs(owner) ? [{ entry, owner }] : [];
    });
    this.#tries++;
    const gone: Holder[] = [];
    const choices: Choice[] = [];
    for (const [i, plan] of this.#plans.entries()) {
      const at = mine.findIndex(({ entry }) => fits(plan, this.#config, ipOfKey(entry.key)!));
      const kept = at < 0 ? undefined : mine.splice(at, 1)[0];
      const choice = kept ? await this.#keep(kept, gone) : await this.#take(plan, looks[i]!, scatter, gone);
      if (choice === undefined) return undefined;
      choices.push(choice);
    }
    const alsoKept: Ip[] = [];
    for (const { entry, owner } of mine) {
      if (this.#isLoan(owner)) alsoKept.push(ipOfKey(entry.key)!);
      if (!this.#isOfWorkload(owner)) continue;
      const { stay } = await this.#succeed(entry, owner, gone);
      if (stay.length > 0) alsoKept.push(ipOfKey(entry.key)!);
    }
    return { choices, alsoKept, gone: await this.#readGone(gone) };
  }

  #isOurs(owner: OwnerRecord): boolean {
    return namesAttachment(owner, this.#owner.id) || this.#isOfWorkload(owner) || this.#isLoan(owner);
  }

  #isLoan(owner: OwnerRecord): boolean {
    return this.#request.loan !== undefined && owner.cluster === this.#owner.cluster && isLentTo(owner, this.#owner.id);
  }

  /** The record goes by its name inside this cluster, network and interface. */
  #isOfWorkload(owner: OwnerRecord): boolean {
    const { id, cluster } = this.#owner;
    return (
      sameWorkload(this.#request.sticky?.workload, owner.workload) &&
      owner.cluster === cluster &&
      owner.raw.network === id.network &&
      owner.raw.ifname === id.ifname
    );
  }

  #succeed(entry: Entry, owner: OwnerRecord, gone: Holder[]) {
    return succeed(this.#around, this.#request, this.#request.sticky!, ipOfKey(entry.key)!, owner).then(result => {
      gone.push(...result.gone);
      return result;
    });
  }

  async #keep({ entry, owner }: { entry: Entry; owner: OwnerRecord }, gone: Holder[]): Promise<Choice> {
    const ip = ipOfKey(entry.key)!;
    const common = { ip, current: entry, movesCursor: false };
    if (this.#isLoan(owner)) return { ...common, value: entry.value, sticky: false, kept: true };
    if (!this.#isOfWorkload(owner)) {
      // One of a workload that does not keep it any more stays as it is: gc knows when the workload is gone.
      const isSticky = owner.kind === 'sticky';
      const value = isSticky ? entry.value : renewOwner(owner, this.#owner);
      return { ...common, value, sticky: false, kept: isSticky || owner.hold !== undefined };
    }
    const { stay } = await this.#succeed(entry, owner, gone);
    const holders = [...stay, holderOf(this.#owner)];
    const { workload } = this.#request.sticky!;
    const value = renderSticky(this.#owner, workload, holders, owner, this.#around.now());
    return { ...common, value, sticky: true, kept: true };
  }

  async #take(plan: SetPlan, look: SetLook, scatter: boolean, gone: Holder[]): Promise<Choice | undefined> {
    const now = this.#around.now();
    const { loan } = this.#request;
    if (plan.requested !== undefined && loan !== undefined) return this.#borrow(loan, plan.requested, look.record);
    if (plan.requested !== undefined) {
      const current = look.record;
      if (current !== undefined && !(await this.#mayTakeOver(plan, plan.requested, current, gone))) return undefined;
      // Of a pod that the API knows, a named address is a fixed one, however it was named.
      const isFixed = this.#request.pod !== undefined;
      const hold =
        isFixed && plan.ring.spans.some(span => spanContains(span, plan.requested!)) ? this.#config.fixedHold : 0;
      return {
        ip: plan.requested,
        ...(current && { current }),
        value: renderOwner(this.#owner, isFixed ? 'fixed' : 'dynamic', hold, now),
        movesCursor: plan.fixed === undefined,
        sticky: false,
        kept: hold > 0,
      };
    }
    const ip = this.#pick(look.free, scatter) ?? (await this.#search(plan.ring, scatter));
    if (ip instanceof FailureError) throw ip;
    return ip && { ip, ...this.#fresh(now) };
  }

  /** Behind the window; undefined: there is room now that was none before. */
  #search(ring: Ring, scatter: boolean): Promise<Ip | FailureError | undefined> {
    const { network } = this.#config;
    const look = async () => {
      const ip = await findFree(this.#around, ring, scatter);
      if (ip !== undefined || (await this.#freeEarlierBoots())) return ip;
      return exhaustedError(this.#around, network, ring);
    };
    const { verdicts, keys } = this.#around;
    if (verdicts === undefined) return look();
    return verdicts.share(JSON.stringify([keys.space, network, ring.spans.map(formatSpan)]), look);
  }

  /** A pool's address that was asked for: nobody has it, or those who have it share it. */
  #borrow({ object, pool, whyNotShared }: Loan, ip: Ip, current: Entry | undefined): Choice {
    const common = { ip, movesCursor: true, sticky: false, kept: true };
    const { cluster } = this.#owner;
    if (current === undefined)
      return { ...common, value: renderService(object, { cluster, pool }, this.#around.now()) };
    const owner = parseOwner(current.value);
    const why = whyNotShared(owner);
    if (why !== undefined) throw new HeldError(this.#config.network, ip, owner, why);
    return { ...common, current, value: shareService(owner, object, pool) };
  }

  /** What another ADD of this process is about to write counts as taken, as long as there is something else. */
  #pick(free: readonly Ip[], scatter: boolean): Ip | undefined {
    const { claims } = this.#around;
    const first = scatter ? Math.floor(Math.random() * free.length) : 0;
    const isLeft = (one: Ip) => !claims?.has(one);
    const ip = free.slice(first).find(isLeft) ?? free.find(isLeft) ?? free[first];
    if (ip !== undefined) claims?.add(ip);
    return ip;
  }

  /** Of an address that nobody had: it is the workload's, or this attachment's. */
  #fresh(now: number) {
    const { loan } = this.#request;
    if (loan !== undefined) {
      const { cluster } = this.#owner;
      const value = renderService(loan.object, { cluster, pool: loan.pool }, now);
      return { value, movesCursor: true, sticky: false, kept: true };
    }
    const workload = this.#request.sticky?.workload;
    if (workload === undefined) {
      return { value: renderOwner(this.#owner, 'dynamic', 0, now), movesCursor: true, sticky: false, kept: false };
    }
    const value = renderSticky(this.#owner, workload, [holderOf(this.#owner)], undefined, now);
    return { value, movesCursor: false, sticky: true, kept: true };
  }

  /**
   * Whether we may have the address that somebody else holds or held; false when things have changed by the asking, and
   * all must be read again. Throws HeldError.
   */
  async #mayTakeOver(plan: SetPlan, ip: Ip, record: Entry, gone: Holder[]): Promise<boolean> {
    const holder = parseOwner(record.value);
    const succession = await mayTakeOver(this.#around, this.#request, holder);
    if (succession.free) {
      gone.push(...succession.gone);
      return true;
    }
    if (succession.sibling && plan.fixed?.bare === true) {
      this.#leaveToSibling(plan);
      return false;
    }
    if (await this.#freeEarlierBoots()) return false;
    throw new HeldError(this.#config.network, ip, holder, succession.hint);
  }

  /** A bare item of the annotation that another interface of this sandbox has already is done: ours is any address. */
  #leaveToSibling(plan: SetPlan): void {
    this.#plans = this.#plans.map(one => (one === plan ? { set: one.set, ring: one.ring } : one));
    this.#looker = this.#newLooker();
  }

  /** The attachments of holders that go, each once. */
  async #readGone(gone: readonly Holder[]): Promise<HeldAttachment[]> {
    const once = gone.filter((holder, i) => gone.findIndex(other => sameAttachment(other, holder)) === i);
    const found = await Promise.all(once.map(async id => ({ id, ...(await readHeld(this.#around, id)) })));
    return found.flatMap(({ attachment, ...held }) => (attachment === undefined ? [] : [{ ...held, attachment }]));
  }

  /** Once an ADD; true when something was freed. */
  async #freeEarlierBoots(): Promise<boolean> {
    if (this.#oldBootsFreed || this.#request.loan !== undefined) return false;
    this.#oldBootsFreed = true;
    return (await freeEarlierBoots(this.#around, this.#owner.id.node, this.#owner.cluster)) > 0;
  }

  #commit(seen: Seen, { choices, alsoKept, gone }: Settled, owned: readonly Entry[]) {
    const { keys } = this.#around;
    const { id } = this.#owner;
    const conditions: Condition[] = [asRead(keys.attachment(id), seen.attachment), asRead(keys.fence(id), seen.fence)];
    const addresses = choices.map(({ ip }) => ip);
    const listed = this.#request.loan === undefined ? addresses : [...addresses, ...alsoKept];
    const kept = choices.some(choice => choice.kept);
    // The API may have taken its time to speak of a holder.
    const isFresh = performance.now() - seen.at < cursorAge;
    const writes: Write[] = [
      { put: keys.attachment(id), value: renderAttachment(listed, kept, seen.attachment?.value) },
    ];
    for (const [i, { ip, current, value, movesCursor }] of choices.entries()) {
      conditions.push(asRead(keys.address(ip), current));
      writes.push({ put: keys.address(ip), value });
      if (movesCursor && isFresh) writes.push({ put: this.#looker.cursorKey(this.#plans[i]!), value: formatIp(ip) });
    }
    const written = new Set(addresses.map(ip => keys.address(ip)));
    this.#giveBack(owned, alsoKept, written, conditions, writes);
    for (const held of gone) {
      const after = releaseWrites(this.#around, held.id, held, this.#config);
      conditions.push(...after.conditions);
      writes.push(...after.writes.filter(write => !written.has('put' in write ? write.put : write.delete)));
    }
    if (this.#workloadKey !== undefined) {
      const own = choices.filter(({ sticky }) => sticky).map(({ ip }) => ip);
      conditions.push(asRead(this.#workloadKey, seen.workload));
      writes.push(...keep(this.#workloadKey, [...own, ...alsoKept], seen.workload));
    }
    const once = (key: string, entry: Entry | undefined, value: () => string) => {
      if (entry !== undefined) return;
      conditions.push({ absent: key });
      writes.push({ put: key, value: value() });
    };
    once(formatKey, seen.format, () => JSON.stringify(currentFormat));
    once(keys.network(id.network), seen.network, () => renderNetwork(this.#config, id.node, this.#around.now()));
    const { clusterUid } = this.#request;
    if (clusterUid !== undefined) once(clusterKey(this.#config.cluster), seen.cluster, () => renderCluster(clusterUid));
    if (this.fateUnknown) writes.push(fence(keys.fence(id), this.#around.now()));
    return { conditions, writes };
  }

  /** What we held and do not want any more: it goes, unless another holder of the workload uses it. */
  #giveBack(
    owned: readonly Entry[],
    alsoKept: readonly Ip[],
    written: Set<string>,
    conditions: Condition[],
    writes: Write[],
  ): void {
    const keys = this.#around.keys;
    const staying = new Set(alsoKept.map(ip => keys.address(ip)));
    for (const entry of owned) {
      const owner = parseOwner(entry.value);
      if (written.has(entry.key) || !this.#isOurs(owner) || this.#isLoan(owner)) continue;
      conditions.push(asRead(entry.key, entry));
      const isOthers = owner.kind === 'sticky' && !this.#isOfWorkload(owner);
      const after = staying.has(entry.key) || isOthers ? afterRelease(owner, this.#owner.id, 0, 0) : undefined;
      writes.push(after === undefined ? { delete: entry.key } : { put: entry.key, ...after });
      written.add(entry.key);
    }
  }

  #answer(seen: Seen, choices: readonly Choice[]): Allocation {
    this.#reportOtherRanges(seen.network);
    for (const [i, { ip, movesCursor }] of choices.entries()) {
      if (movesCursor) this.#around.cursors?.left(this.#looker.cursorKey(this.#plans[i]!), ip);
    }
    return { addresses: choices.map(({ ip }, i) => assign(this.#plans[i]!, ip)), tries: this.#tries };
  }

  /** Two nodes with different ranges for one network are most often a mistake in the roll-out. */
  #reportOtherRanges(network: Entry | undefined): void {
    if (network === undefined) return;
    const ours = JSON.stringify(describeRanges(this.#config));
    const { log } = this.#around;
    try {
      const { ranges, exclude, node, since } = JSON.parse(network.value);
      if (JSON.stringify({ ranges, exclude }) === ours) return;
      log.warn('ranges differ from those recorded', { recordedBy: String(node), recordedAt: String(since), ours });
    } catch {
      log.warn('the recorded ranges cannot be read', { key: network.key });
    }
  }

  #lostEveryTry(): FailureError {
    const { network, timeout } = this.#config;
    return new FailureError(
      code.tryAgain,
      `network ${network}: no address could be won within ${timeout / 1000} s, in ${this.#tries} tries against other nodes`,
    );
  }
}

/** What a workload keeps from now on. One that keeps nothing has no key: gc, which follows the records, would never find it. */
function keep(key: string, addresses: readonly Ip[], before: Entry | undefined): Write[] {
  if (addresses.length > 0) return [{ put: key, value: renderWorkload(addresses) }];
  return before === undefined ? [] : [{ delete: key }];
}
