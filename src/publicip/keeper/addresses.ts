// Our addresses on the interface: put with a lifetime, known by label or note, and read back after each write.
import { deadlineIn } from '../../base/clock.ts';
import { IpBatch, type LinkAddress, readLinks } from '../../host/ip.ts';
import { labelOn, proxyDevices } from '../../host/numbers.ts';
import { bits, formatIp, type Ip } from '../../net/ip.ts';
import { Notes } from './notes.ts';

/** Milliseconds for one program to end. */
const toolTime = 2000;

/** What is on the interfaces of this namespace, by canonical text. */
export interface Found {
  readonly ours: ReadonlyMap<string, LinkAddress>;
  /** Addresses of others, with the name of their interface. */
  readonly foreign: ReadonlyMap<string, string>;
}

export class Addresses implements AsyncDisposable {
  readonly #dev: string;
  readonly #notes: Notes;
  readonly #batch = IpBatch.open();

  /** @param notes path of the note of IPv6 addresses. */
  constructor(dev: string, notes: string) {
    this.#dev = dev;
    this.#notes = new Notes(notes, dev);
  }

  async look(): Promise<Found> {
    const ours = new Map<string, LinkAddress>();
    const foreign = new Map<string, string>();
    for (const { name, addresses } of await readLinks(deadlineIn(toolTime))) {
      // What a proxy has on every node is no sign that this one is meant.
      if (proxyDevices.includes(name)) continue;
      for (const address of addresses) {
        const text = formatIp(address.ip);
        if (this.#isOurs(name, address)) ours.set(text, address);
        else foreign.set(text, name);
      }
    }
    return { ours, foreign };
  }

  /**
   * Puts addresses that are not there, for so many seconds. One that somebody else puts at this very moment fails:
   * `replace` would make it ours, with an end. Gives what iproute2 said of those that failed.
   */
  put(addresses: readonly Ip[], seconds: number): Promise<readonly string[]> {
    this.#notes.add(addresses);
    return this.#run(addresses.map(ip => this.#line('add', ip, seconds)));
  }

  /** Gives addresses another lifetime, and puts those that somebody took away. */
  renew(addresses: readonly Ip[], seconds: number): Promise<readonly string[]> {
    this.#notes.add(addresses);
    return this.#run(addresses.map(ip => this.#line('replace', ip, seconds)));
  }

  remove(addresses: readonly Ip[]): Promise<readonly string[]> {
    return this.#run(addresses.map(ip => `address del ${this.#prefixed(ip)} dev ${this.#dev}`));
  }

  /** They are gone, so that their names mean nothing any more. */
  forget(addresses: readonly Ip[]): void {
    this.#notes.remove(addresses);
  }

  /** What was noted once, be it there or not. */
  get noted(): readonly string[] {
    return this.#notes.all;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#batch[Symbol.asyncDispose]();
  }

  #isOurs(dev: string, { ip, prefix, label }: LinkAddress): boolean {
    if (dev !== this.#dev || prefix !== bits(ip.family)) return false;
    return ip.family === 4 ? label === labelOn(this.#dev) : this.#notes.has(ip);
  }

  #line(verb: 'add' | 'replace', ip: Ip, seconds: number): string {
    // The preferred source of connections that this host opens must stay what it is: IPv6 chooses among preferred ones.
    const options =
      ip.family === 4
        ? `label ${labelOn(this.#dev)} valid_lft ${seconds} preferred_lft ${seconds}`
        : `valid_lft ${seconds} preferred_lft 0`;
    return `address ${verb} ${this.#prefixed(ip)} dev ${this.#dev} ${options}`;
  }

  #prefixed(ip: Ip): string {
    return `${formatIp(ip)}/${bits(ip.family)}`;
  }

  async #run(lines: readonly string[]): Promise<readonly string[]> {
    this.#batch.run(lines);
    return lines.length === 0 ? [] : this.#batch.settle(deadlineIn(toolTime));
  }
}
