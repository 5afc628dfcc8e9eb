// ADD: gives an attachment one address of every set in one commit, whatever others do at the same time (docs/architecture.md).
import { backoff, pause } from '../../base/clock.ts';
import { code, FailureError } from '../../base/errors.ts';
import { formatIp, type Ip } from '../../net/ip.ts';
import { formatKey } from '../../store/keys.ts';
import { type Condition, type Entry, UnknownFateError, UnreachableError, type Write } from '../../store/kv.ts';
import type { NetworkConfig } from '../config.ts';
import { describeOwner } from '../describe.ts';
import { currentFormat, namesAttachment, type OwnerRecord, parseOwner, renderAttachment } from '../model.ts';
import type { Surroundings } from '../ports.ts';
import { describeRanges, holdIsFor, type Owner, renderDynamic, renderNetwork, renewOwner } from '../records.ts';
import { exhaustedError } from './exhausted.ts';
import { ipOfKey, Looker, type Seen, type SetLook } from './look.ts';
import { type Assigned, assign, fits, planSets, type SetPlan } from './plan.ts';
import { freeEarlierBoots } from './release.ts';
import { findFree } from './search.ts';
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
  /** The record that is there now: our own (renewed) or a hold for us (taken over). */
  readonly current?: Entry;
  readonly value: string;
  readonly movesCursor: boolean;
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
  const attempt = new Attempt(around, config, owner, planSets(config, requested));
  try {
    return await attempt.run();
  } catch (error) {
    if (attempt.fateUnknown) around.doubts.leave(owner.id);
    throw error;
  }
}

class Attempt {
  fateUnknown = false;
  readonly #around: Surroundings;
  readonly #config: NetworkConfig;
  readonly #owner: Owner;
  readonly #plans: readonly SetPlan[];
  readonly #looker: Looker;
  /** Revision of the fence when this ADD began (0: absent). Whoever moves it withdraws this ADD. */
  #fence: number | undefined;
  #tries = 0;
  #oldBootsFreed = false;

  constructor(around: Surroundings, config: NetworkConfig, owner: Owner, plans: readonly SetPlan[]) {
    this.#around = around;
    this.#config = config;
    this.#owner = owner;
    this.#plans = plans;
    this.#looker = new Looker(around.keys, owner.id, plans);
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
      let seen = await this.#looker.readSeen(kv, deadline);
      const held = this.#looker.held(seen);
      const windows = this.#looker.windows(seen, held.length);
      const lookQueries = this.#looker.lookQueries(windows);
      const heldQueries = held.map(ip => ({ key: this.#around.keys.address(ip) }));
      const { answers, revision } = await kv.read([...lookQueries, ...heldQueries], deadline);
      // Round robin while nobody else is there. Where the store moves between two reads, or a commit is lost, others
      // reach for the same next address, and chance keeps us apart.
      let crowded = this.#tries > 0 || revision !== seen.revision;
      let looks = this.#looker.look(windows, answers);
      const owned = answers.slice(lookQueries.length).flatMap(({ entries }) => entries);
      while (performance.now() - seen.at < cursorAge) {
        this.#refuseWithdrawn(seen);
        const choices = await this.#choose(looks, owned, crowded);
        if (choices === undefined) break;
        const seenQueries = this.#looker.seenQueries();
        const result = await kv.commit(
          { ...this.#commit(seen, choices, owned), otherwise: [...seenQueries, ...lookQueries] },
          deadline,
        );
        if (result.won) return this.#answer(seen, choices);
        const at = performance.now();
        const next = this.#looker.seen({ ...result, answers: result.answers.slice(0, seenQueries.length) }, at);
        // Somebody wrote our own attachment: its addresses must be read before anything is decided.
        if (next.attachment?.revision !== seen.attachment?.revision || held.length > 0) break;
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

  /** One choice for each set; undefined when something was freed on the way and all must be read again. */
  async #choose(looks: readonly SetLook[], owned: readonly Entry[], scatter: boolean): Promise<Choice[] | undefined> {
    const left = owned.map(entry => ({ entry, owner: parseOwner(entry.value) }));
    const mine = left.filter(({ owner }) => namesAttachment(owner, this.#owner.id));
    this.#tries++;
    const choices: Choice[] = [];
    for (const [i, plan] of this.#plans.entries()) {
      const at = mine.findIndex(({ entry }) => fits(plan, this.#config, ipOfKey(entry.key)!));
      const kept = at < 0 ? undefined : mine.splice(at, 1)[0];
      const choice = kept ? this.#keep(kept) : await this.#take(plan, looks[i]!, scatter);
      if (choice === undefined) return undefined;
      choices.push(choice);
    }
    return choices;
  }

  #keep({ entry, owner }: { entry: Entry; owner: OwnerRecord }): Choice {
    const ip = ipOfKey(entry.key)!;
    return { ip, current: entry, value: renewOwner(owner, this.#owner), movesCursor: false };
  }

  async #take(plan: SetPlan, look: SetLook, scatter: boolean): Promise<Choice | undefined> {
    const value = renderDynamic(this.#owner, this.#around.now());
    if (plan.requested !== undefined) {
      const current = look.record;
      if (current !== undefined && !(await this.#mayTakeOver(plan.requested, current))) return undefined;
      return { ip: plan.requested, ...(current && { current }), value, movesCursor: true };
    }
    const { free } = look;
    const next = free[scatter ? Math.floor(Math.random() * free.length) : 0];
    const ip = next ?? (await findFree(this.#around, plan.ring, scatter));
    if (ip !== undefined) return { ip, value, movesCursor: true };
    if (await this.#freeEarlierBoots()) return undefined;
    throw await exhaustedError(this.#around, this.#config.network, plan.ring);
  }

  /** Whether the requested address is held for us; false when its holder did not outlive a reboot and was freed. */
  async #mayTakeOver(ip: Ip, record: Entry): Promise<boolean> {
    const holder = parseOwner(record.value);
    if (holdIsFor(holder, this.#owner)) return true;
    if (await this.#freeEarlierBoots()) return false;
    throw new FailureError(
      code.tryAgain,
      `requested address ${formatIp(ip)} of network ${this.#config.network} is held by ${describeOwner(holder)}; see "kube-ipam show ${formatIp(ip)}"`,
    );
  }

  /** Once an ADD; true when something was freed. */
  async #freeEarlierBoots(): Promise<boolean> {
    if (this.#oldBootsFreed) return false;
    this.#oldBootsFreed = true;
    return (await freeEarlierBoots(this.#around, this.#owner.id.node, this.#owner.cluster)) > 0;
  }

  #commit(seen: Seen, choices: readonly Choice[], owned: readonly Entry[]) {
    const { keys } = this.#around;
    const { id } = this.#owner;
    const conditions: Condition[] = [asRead(keys.attachment(id), seen.attachment), asRead(keys.fence(id), seen.fence)];
    const writes: Write[] = [
      {
        put: keys.attachment(id),
        value: renderAttachment(
          choices.map(({ ip }) => ip),
          seen.attachment?.value,
        ),
      },
    ];
    for (const [i, { ip, current, value, movesCursor }] of choices.entries()) {
      conditions.push(asRead(keys.address(ip), current));
      writes.push({ put: keys.address(ip), value });
      if (movesCursor) writes.push({ put: this.#looker.cursorKey(this.#plans[i]!), value: formatIp(ip) });
    }
    for (const entry of owned) {
      if (choices.some(({ current }) => current?.key === entry.key)) continue;
      if (!namesAttachment(parseOwner(entry.value), id)) continue;
      conditions.push(asRead(entry.key, entry));
      writes.push({ delete: entry.key });
    }
    const once = (key: string, entry: Entry | undefined, value: () => string) => {
      if (entry !== undefined) return;
      conditions.push({ absent: key });
      writes.push({ put: key, value: value() });
    };
    once(formatKey, seen.format, () => JSON.stringify(currentFormat));
    once(keys.network(id.network), seen.network, () => renderNetwork(this.#config, id.node, this.#around.now()));
    if (this.fateUnknown) writes.push(fence(keys.fence(id), this.#around.now()));
    return { conditions, writes };
  }

  #answer(seen: Seen, choices: readonly Choice[]): Allocation {
    this.#reportOtherRanges(seen.network);
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
