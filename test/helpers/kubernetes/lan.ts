// The wire between the nodes of a test: one bridge in a network of its own, where each node has an interface and an address.
import { Machine, run } from '../machine.ts';

/** What is attached to it is found in 172.30.0.0/24. */
export class Lan implements AsyncDisposable {
  readonly #machine: Machine;
  readonly #names: string[] = [];

  private constructor(machine: Machine) {
    this.#machine = machine;
  }

  static async start(): Promise<Lan> {
    const machine = await Machine.start('lan');
    await machine.must(['ip', 'link', 'add', 'lan', 'type', 'bridge']);
    await machine.must(['ip', 'link', 'set', 'lan', 'up']);
    return new Lan(machine);
  }

  /**
   * Gives the machine an interface eth0 on the wire; its address, which is the same whenever that host comes back.
   * With a bridge, eth0 is a port of that, and what else is attached to it is on the wire too.
   */
  async attach(machine: Machine, bridge?: string): Promise<string> {
    if (!this.#names.includes(machine.hostname)) this.#names.push(machine.hostname);
    const number = 11 + this.#names.indexOf(machine.hostname);
    const address = `172.30.0.${number}`;
    const port = `port${number}`;
    await this.plug(machine, 'eth0', port);
    if (bridge !== undefined) {
      // With a fixed MAC address, or it would take over that of each new pod.
      const mac = `02:00:5e:00:53:${number}`;
      await machine.must(['ip', 'link', 'add', bridge, 'address', mac, 'up', 'type', 'bridge']);
      await machine.must(['ip', 'link', 'set', 'eth0', 'master', bridge]);
    }
    await machine.must(['ip', 'address', 'add', `${address}/24`, 'dev', bridge ?? 'eth0']);
    await machine.must(['ip', 'link', 'set', 'eth0', 'up']);
    return address;
  }

  /** Gives the machine an interface on the wire, down and without an address; `port` is the other end, on the bridge. */
  async plug(machine: Machine, name: string, port: string): Promise<void> {
    const near = [name, 'netns', String(machine.pid)];
    const far = [port, 'netns', String(this.#machine.pid)];
    const made = await run(['ip', 'link', 'add', ...near, 'type', 'veth', 'peer', 'name', ...far], {});
    if (made.code !== 0) throw new Error(`${machine.hostname} cannot be attached: ${made.stderr}`);
    await this.#machine.must(['ip', 'link', 'set', port, 'master', 'lan', 'up']);
  }

  /** Pulls a cable, or puts it in again: the interface at its other end loses its carrier. */
  async setPort(port: string, state: 'up' | 'down'): Promise<void> {
    await this.#machine.must(['ip', 'link', 'set', port, state]);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#machine[Symbol.asyncDispose]();
  }
}
