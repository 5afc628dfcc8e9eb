// This host as the feature sees it: its interfaces and gateways, whether it may own addresses, and who else has put them here.
import { matches, type Selector } from '../base/selector.ts';
import type { Link, LinkAddress } from '../host/ip.ts';
import { labelOn, proxyDevices } from '../host/numbers.ts';
import { formatIp, type Ip } from '../net/ip.ts';
import type { Host } from './apply.ts';
import { type Fitness, fitnessOf } from './fitness.ts';
import type { KeptNode } from './objects.ts';

/** Milliseconds between two looks, whatever others do to this host all the time. */
const lookInterval = 250;

export class Here {
  readonly #host: Pick<Host, 'look'>;
  readonly #dev: string;
  #links: readonly Link[] = [];
  #gateways: readonly Ip[] = [];
  #answersForOthers = false;
  #carrierSince: number | undefined;
  #lookedAt = Number.NEGATIVE_INFINITY;

  /** @param dev the interface that carries the addresses */
  constructor(host: Pick<Host, 'look'>, dev: string) {
    this.#host = host;
    this.#dev = dev;
  }

  /** Of all interfaces. */
  get addresses(): readonly LinkAddress[] {
    return this.#links.flatMap(({ addresses }) => addresses);
  }

  get gateways(): readonly Ip[] {
    return this.#gateways;
  }

  /**
   * Milliseconds until this host may be looked at again, where it was looked at just now: what changed since is seen then.
   * Rejects when the kernel cannot be read.
   */
  async look(): Promise<number | undefined> {
    const left = this.#lookedAt + lookInterval - performance.now();
    if (left > 0) return left;
    // What was there when this process began was there before: an earlier one's addresses must not move for a restart.
    const since = this.#lookedAt === Number.NEGATIVE_INFINITY ? Number.NEGATIVE_INFINITY : performance.now();
    this.#lookedAt = performance.now();
    const { links, gateways, answersForOthers } = await this.#host.look();
    this.#links = links;
    this.#gateways = gateways;
    this.#answersForOthers = answersForOthers;
    this.#carrierSince = this.#link?.carrier === true ? (this.#carrierSince ?? since) : undefined;
    return undefined;
  }

  /** @param node this host's Node object, as far as it is known */
  fitness(node: KeptNode | undefined, selector: Selector): Fitness {
    const { labels = {}, annotations = {} } = node?.metadata ?? {};
    return fitnessOf({
      dev: this.#dev,
      link: this.#link,
      carrierSince: this.#carrierSince,
      node: node && { labels, annotations },
      isSelected: matches(selector, labels),
      now: performance.now(),
    });
  }

  /** Where somebody else has put the address on this host, in words; IPv6 shows no label to tell. */
  stranger(address: string): string | undefined {
    const isForeign = ({ name, addresses }: Link) =>
      addresses.some(({ ip, label }) => {
        if (formatIp(ip) !== address) return false;
        // A proxy has it on every node; that says nothing, unless it is answered for on the network.
        if (proxyDevices.includes(name)) return ip.family === 4 && this.#answersForOthers;
        return name !== this.#dev || (ip.family === 4 && label !== labelOn(this.#dev));
      });
    const where = this.#links.find(isForeign)?.name;
    if (where === undefined) return undefined;
    // Every node would answer for it, whoever has claimed it.
    const cure = proxyDevices.includes(where) ? ', and arp_ignore is 0: set strictARP of kube-proxy to true' : '';
    return `somebody else has put it on interface ${where}${cure}`;
  }

  get #link(): Link | undefined {
    return this.#links.find(({ name }) => name === this.#dev);
  }
}
