// One network segment: a bridge, nodes that are machines of their own, and a client who is their gateway and sees all of them.
import { Lan } from '../kubernetes/lan.ts';
import { Machine } from '../machine.ts';

/** A machine on the segment, by its interface eth0. */
export interface Station {
  readonly machine: Machine;
  /** From 10 on; the last number of its addresses. */
  readonly number: number;
  /** In 192.168.0.0/16, so 192.168.1.0/24 and more is left for public addresses. */
  readonly address: string;
  /** In fd00:53::/64. */
  readonly address6: string;
  readonly mac: string;
}

/** Of the client, and the nodes' default route. */
export const gateway = '192.168.0.1';

export class Segment implements AsyncDisposable {
  readonly lan: Lan;
  readonly client: Station;
  readonly nodes: readonly Station[];
  readonly #parts: AsyncDisposableStack;

  private constructor(lan: Lan, client: Station, nodes: readonly Station[], parts: AsyncDisposableStack) {
    this.lan = lan;
    this.client = client;
    this.nodes = nodes;
    this.#parts = parts;
  }

  static async start(names: readonly string[]): Promise<Segment> {
    await using parts = new AsyncDisposableStack();
    const lan = parts.use(await Lan.start());
    const stations: Station[] = [];
    for (const [place, name] of ['client', ...names].entries()) {
      stations.push(await attach(lan, parts.use(await Machine.start(name)), 10 + place));
    }
    const [client, ...nodes] = stations as [Station, ...Station[]];
    await client.machine.must(['ip', 'address', 'add', `${gateway}/16`, 'dev', 'eth0']);
    for (const { machine } of nodes) await machine.must(['ip', 'route', 'add', 'default', 'via', gateway]);
    return new Segment(lan, client, nodes, parts.move());
  }

  /** One more interface of a node on the same bridge, up and without an address. */
  async addInterface(node: Station, name: string): Promise<void> {
    await this.lan.plug(node.machine, name, `port${node.number}-${name}`);
    await node.machine.must(['ip', 'link', 'set', name, 'up']);
  }

  /** Pulls the cable of its eth0, or puts it in again. */
  async setCable(node: Station, state: 'up' | 'down'): Promise<void> {
    await this.lan.setPort(portOf(node.number), state);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#parts.disposeAsync();
  }
}

async function attach(lan: Lan, machine: Machine, number: number): Promise<Station> {
  const mac = `02:00:5e:00:53:${number}`;
  const [address, address6] = [`192.168.0.${number}`, `fd00:53::${number}`];
  await lan.plug(machine, 'eth0', portOf(number));
  await machine.must(['ip', 'link', 'set', 'eth0', 'address', mac, 'up']);
  await machine.must(['ip', 'address', 'add', `${address}/16`, 'dev', 'eth0']);
  await machine.must(['ip', 'address', 'add', `${address6}/64`, 'dev', 'eth0', 'nodad']);
  return { machine, number, address, address6, mac };
}

function portOf(number: number): string {
  return `port${number}`;
}
