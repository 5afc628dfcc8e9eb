// Answers for addresses, or does not: the gate decides, the addresses themselves follow (contract N1, N6-N8).
import { deadlineIn } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import { hasNft } from '../../host/nft.ts';
import { type Ip, parseIp } from '../../net/ip.ts';
import { Addresses, type Found } from './addresses.ts';
import { Gate, type Permit } from './gate.ts';

/** Milliseconds before the end of the lease at which a host with a gate stops answering: a permit's age, and a margin. */
const gateMargin = 2000;

/** The same without a gate, where the kernel removes an address up to two seconds after its time. */
const lifetimeMargin = 3000;

/** Tries to open the gate anew, each after finding what was in the way. */
const mostTries = 4;

/** How long this host may answer. */
export interface Term {
  /** Until when etcd cannot have let the lease expire, in milliseconds of performance.now(). */
  readonly heldUntil: number;
  /** Of the lease, in seconds. */
  readonly ttl: number;
}

/** Addresses that failed, each with the reason for people. */
export type Failed = Map<string, string>;

export class Kernel implements AsyncDisposable {
  readonly #gate: Gate | undefined;
  readonly #addresses: Addresses;
  readonly #permits = new Map<string, Permit>();

  /** Finds what an earlier process left, and shuts the gate for what of it has run out. */
  static async open(dev: string, notes: string): Promise<Kernel> {
    const gate = (await hasNft(deadlineIn(5000))) ? new Gate(dev) : undefined;
    const kernel = new Kernel(gate, new Addresses(dev, notes));
    await gate?.build(ipsOf([...(await kernel.#addresses.look()).ours.keys(), ...kernel.#addresses.noted]));
    return kernel;
  }

  private constructor(gate: Gate | undefined, addresses: Addresses) {
    this.#gate = gate;
    this.#addresses = addresses;
  }

  get isGated(): boolean {
    return this.#gate !== undefined;
  }

  /** Milliseconds of performance.now() from which on nothing may be answered. */
  fence({ heldUntil }: Term): number {
    return heldUntil - (this.#gate === undefined ? lifetimeMargin : gateMargin);
  }

  /** What the addresses' claims won within a second of this may be granted. */
  async permit(addresses: readonly string[]): Promise<void> {
    const permits = (await this.#gate?.permit(addresses.length)) ?? addresses.map(() => '');
    for (const [place, address] of addresses.entries()) this.#permits.set(address, permits[place]!);
  }

  /** What was permitted for another lease must not be granted on this one. */
  revokePermits(): void {
    this.#permits.clear();
  }

  grant(addresses: readonly string[], term: Term): Promise<Failed> {
    return this.#orShut(addresses, () => this.#grant(addresses, term));
  }

  async #grant(addresses: readonly string[], term: Term): Promise<Failed> {
    const failed: Failed = new Map();
    const { ours, foreign } = await this.#addresses.look();
    const permitted = addresses.filter(address => {
      const elsewhere = foreign.get(address);
      // Nobody's but ours may be touched: a hand-made address would get an end, and the kernel would remove it.
      if (elsewhere !== undefined) failed.set(address, `it is on ${elsewhere} already, put there by somebody else`);
      else if (!this.#permits.has(address))
        failed.set(address, 'it was not permitted, or permitted on an earlier lease');
      else return true;
      return false;
    });
    const open = await this.#openEach(permitted, term, failed);
    const seconds = this.#lifetime(term);
    if (seconds < 1) for (const address of open) failed.set(address, 'the lease ends too soon');
    const there = open.filter(address => ours.has(address));
    const errors = [
      ...(await this.#addresses.renew(ipsOf(seconds < 1 ? [] : there), seconds)),
      ...(await this.#addresses.put(ipsOf(seconds < 1 ? [] : open.filter(address => !ours.has(address))), seconds)),
    ];
    await this.#verify(open, term, seconds, errors, failed);
    await this.#undo([...failed.keys()].filter(address => !foreign.has(address)));
    return failed;
  }

  /** Another term for what is answered for. What had run out, or is not as it should be, fails and was removed. */
  async renew(addresses: readonly string[], term: Term): Promise<Failed> {
    return this.#prolong(addresses, term, true);
  }

  /** As `renew`, where the gate was shut, or was lost, while the term went on. */
  async reopen(addresses: readonly string[], term: Term): Promise<Failed> {
    return this.#prolong(addresses, term, false);
  }

  /** As `renew`, for what an earlier process of this host left: it must still be answered for. */
  adopt(addresses: readonly string[], term: Term): Promise<Failed> {
    return this.#orShut(addresses, () => this.#adopt(addresses, term));
  }

  async #adopt(addresses: readonly string[], term: Term): Promise<Failed> {
    const { ours } = await this.#addresses.look();
    const gone = addresses.filter(address => !ours.has(address));
    const failed = await this.#prolong(
      addresses.filter(address => ours.has(address)),
      term,
      true,
    );
    await this.#undo(gone);
    for (const address of gone) failed.set(address, 'it is not on the interface any more');
    return failed;
  }

  /** Stops answering at once; the addresses stay. */
  async shut(addresses: readonly string[]): Promise<void> {
    await this.#gate?.shut(ipsOf(addresses));
  }

  /** Stops answering, removes, reads back. What fails may still be there, behind the shut gate. */
  async drop(addresses: readonly string[]): Promise<Failed> {
    for (const address of addresses) this.#permits.delete(address);
    // Where the gate cannot be shut, the addresses must go all the more.
    const obstacle = await this.shut(addresses).then(
      () => [],
      error => [messageOf(error)],
    );
    const before = (await this.#addresses.look()).ours;
    const errors = await this.#addresses.remove(ipsOf(addresses.filter(address => before.has(address))));
    const { ours } = await this.#addresses.look();
    const gone = ipsOf(addresses.filter(address => !ours.has(address)));
    this.#addresses.forget(gone);
    await this.#gate?.disown(gone);
    const why = [...obstacle, ...errors].join('; ') || 'it is there again';
    return new Map(addresses.filter(address => ours.has(address)).map(address => [address, why]));
  }

  /** Puts back what somebody took away; the gate is as it was. What fails was removed. */
  async mend(addresses: readonly string[], term: Term): Promise<Failed> {
    const { ours } = await this.#addresses.look();
    const gone = addresses.filter(address => !ours.has(address));
    // Without a gate, what is put too late must go again.
    if (this.#gate === undefined) return this.#lengthen(gone, term, new Map());
    // Not read back: whoever removes them may be at it still, and each removal is heard of.
    await this.#addresses.renew(ipsOf(gone), this.#lifetime(term));
    return new Map();
  }

  /** Makes the gate anew where somebody has removed any of it. True: it had to, and everything is shut now. */
  async restoreGate(): Promise<boolean> {
    if (this.#gate === undefined || (await this.#gate.stands())) return false;
    await this.#gate.build(ipsOf([...(await this.#addresses.look()).ours.keys()]));
    return true;
  }

  /** Removes what an earlier process left and nobody answers for any more. */
  async sweep(known: { has(address: string): boolean }): Promise<void> {
    const { ours } = await this.#addresses.look();
    const { owned, live } = (await this.#gate?.read()) ?? { owned: new Set<string>(), live: new Set(ours.keys()) };
    const left = new Set([...ours.keys(), ...owned, ...this.#addresses.noted]);
    const dead = [...left].filter(address => !known.has(address) && !live.has(address));
    if (dead.length > 0) await this.drop(dead);
  }

  /** Removes all addresses that are ours, whoever put them, and the gate. What fails may still be there, and keeps the gate. */
  async clear(): Promise<Failed> {
    const { ours } = await this.#addresses.look();
    const { owned } = (await this.#gate?.read()) ?? { owned: new Set<string>() };
    const failed = await this.drop([...new Set([...ours.keys(), ...owned, ...this.#addresses.noted])]);
    if (failed.size === 0) await this.#gate?.remove();
    return failed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#addresses[Symbol.asyncDispose]();
  }

  /** Opens the gate for as many as it can be opened for; those are returned. */
  async #openEach(addresses: readonly string[], term: Term, failed: Failed): Promise<readonly string[]> {
    if (addresses.length === 0 || this.#gate === undefined) return addresses;
    const permits = addresses.map(address => this.#permits.get(address)!);
    const opening = { permits, until: this.fence(term), stillOpen: false };
    const why = await this.#gate.open(ipsOf(addresses), opening);
    if (why === undefined) {
      for (const address of addresses) this.#permits.delete(address);
      return addresses;
    }
    if (addresses.length === 1) {
      failed.set(
        addresses[0]!,
        `its gate cannot be opened, as when more than a second passed since it was claimed: ${why}`,
      );
      return [];
    }
    // Nothing of the file holds: it is split to find the one that was too late.
    const middle = addresses.length >> 1;
    const opened = await this.#openEach(addresses.slice(0, middle), term, failed);
    return [...opened, ...(await this.#openEach(addresses.slice(middle), term, failed))];
  }

  async #prolong(addresses: readonly string[], term: Term, stillOpen: boolean): Promise<Failed> {
    const failed: Failed = new Map();
    if (addresses.length === 0) return failed;
    return this.#lengthen(await this.#keepOpen(addresses, term, stillOpen, failed), term, failed);
  }

  /** Another lifetime for the addresses, and an end to those that have failed. */
  async #lengthen(addresses: readonly string[], term: Term, failed: Failed): Promise<Failed> {
    const seconds = this.#lifetime(term);
    if (seconds < 1) for (const address of addresses) failed.set(address, 'no renewal was acknowledged in time');
    const errors = seconds < 1 ? [] : await this.#addresses.renew(ipsOf(addresses), seconds);
    await this.#verify(addresses, term, seconds, errors, failed);
    await this.#undo([...failed.keys()]);
    return failed;
  }

  /** Where it is not known what the kernel did, at least nothing is answered. */
  async #orShut<T>(addresses: readonly string[], work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      await this.shut(addresses);
      throw error;
    }
  }

  /** One file for all of them; where it fails, whatever was in the way is found and left out, or mended. */
  async #keepOpen(
    addresses: readonly string[],
    term: Term,
    stillOpen: boolean,
    failed: Failed,
  ): Promise<readonly string[]> {
    if (this.#gate === undefined) return addresses;
    let wanted = addresses;
    let conditional = stillOpen;
    let why: string | undefined;
    for (let tries = 1; tries <= mostTries && wanted.length > 0; tries++) {
      why = await this.#tryOpen(this.#gate, wanted, term, conditional);
      if (why === undefined) return wanted;
      if (!(await this.#gate.stands())) {
        // Somebody flushed it: that nothing is open any more says nothing about the term.
        await this.#gate.build(ipsOf(addresses));
        conditional = false;
      } else if (conditional) wanted = await this.#thoseOpen(this.#gate, wanted, failed);
    }
    for (const address of wanted) failed.set(address, why ?? 'its gate had shut');
    return [];
  }

  async #tryOpen(
    gate: Gate,
    addresses: readonly string[],
    term: Term,
    stillOpen: boolean,
  ): Promise<string | undefined> {
    try {
      const permits = await gate.permit(1);
      return await gate.open(ipsOf(addresses), { permits, until: this.fence(term), stillOpen });
    } catch (error) {
      return messageOf(error);
    }
  }

  async #thoseOpen(gate: Gate, addresses: readonly string[], failed: Failed): Promise<readonly string[]> {
    const { live } = await gate.read();
    for (const address of addresses)
      if (!live.has(address)) failed.set(address, 'it had run out before it was renewed');
    return addresses.filter(address => live.has(address));
  }

  /** Adds those to `failed` that are not there as they should be. */
  async #verify(addresses: readonly string[], term: Term, seconds: number, errors: readonly string[], failed: Failed) {
    const found: Found =
      addresses.length === 0 ? { ours: new Map(), foreign: new Map() } : await this.#addresses.look();
    // Without a gate the lifetime is the fence, and it counts from whenever the kernel came to read it.
    const late = this.#gate === undefined && performance.now() + seconds * 1000 + 2000 > term.heldUntil;
    for (const address of addresses) {
      const flags = found.ours.get(address)?.flags;
      if (failed.has(address)) continue;
      if (flags === undefined) failed.set(address, errors.join('; ') || 'it is not there although it was put');
      else if (flags.includes('dadfailed')) failed.set(address, 'another host has it: duplicate address detection');
      else if (late) failed.set(address, 'it was put too late');
    }
  }

  /** What failed half-way is not left half done; why it failed is what people want to hear. */
  async #undo(addresses: readonly string[]): Promise<void> {
    if (addresses.length > 0) await this.drop(addresses);
  }

  /** Seconds for which an address may be there. With a gate it only tidies up after a keeper that was killed. */
  #lifetime({ heldUntil, ttl }: Term): number {
    if (this.#gate !== undefined) return ttl;
    return Math.floor((heldUntil - performance.now() - lifetimeMargin) / 1000);
  }
}

function ipsOf(addresses: readonly string[]): Ip[] {
  return addresses.flatMap(address => parseIp(address) ?? []);
}
