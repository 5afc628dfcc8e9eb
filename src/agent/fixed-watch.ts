// Tells of fixed addresses that a pod asks for and no interface of it has: most often a slip in the annotation.
import { deadlineIn } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { AccessConfig } from '../ipam/config.ts';
import { isPod } from '../ipam/gc.ts';
import { parseOwner } from '../ipam/model.ts';
import { annotations, fixedItems } from '../ipam/wishes.ts';
import type { Pod as KubePod } from '../kube/objects.ts';
import { formatIp, type Ip } from '../net/ip.ts';
import { Keys } from '../store/keys.ts';
import type { Kv } from '../store/kv.ts';
import type { StoreTarget } from '../store/target.ts';

export interface FixedWatchOptions {
  /** The networks of this node, as they are now. */
  networks(): readonly AccessConfig[];
  /** The caller disposes of it. */
  open(target: StoreTarget): Promise<Kv>;
  tell(pod: KubePod, reason: string, message: string): void;
  readonly log: Log;
}

const timeout = 10_000;

export class FixedWatch {
  readonly #options: FixedWatchOptions;

  constructor(options: FixedWatchOptions) {
    this.#options = options;
  }

  /** To be told of each change of a pod. Every ADD of a pod has ended when it is Running. */
  readonly onChange = (old: KubePod | undefined, now: KubePod | undefined): void => {
    if (now === undefined || now.status?.phase !== 'Running' || old?.status?.phase === 'Running') return;
    if (now.spec?.hostNetwork === true || now.metadata.deletionTimestamp !== undefined) return;
    void this.#examine(now);
  };

  async #examine(pod: KubePod): Promise<void> {
    const { name, namespace } = pod.metadata;
    try {
      const unused = await this.#unused(pod);
      if (unused.length === 0) return;
      this.#options.tell(
        pod,
        'FixedAddressUnused',
        `annotation ${annotations.ip}: no interface of this pod has ${unused.join(', ')}: none of its networks has the address in its subnets and asks for annotations (kubeConfig), or the named interface does not exist`,
      );
    } catch (error) {
      // The next agent, or the next start of this one, looks again: nothing but a hint is late.
      this.#options.log.warn('fixed addresses not compared', { pod: `${namespace}/${name}`, cause: messageOf(error) });
    }
  }

  /** The items of the annotation that no record gives to this pod, as written. */
  async #unused(pod: KubePod): Promise<string[]> {
    const items = fixedItems(pod);
    const networks = this.#options.networks();
    if (items.length === 0 || networks.length === 0) return [];
    const spaces = new Map(networks.map(({ store, space }) => [JSON.stringify([store, space]), { store, space }]));
    const missing = new Set(items.keys());
    for (const { store, space } of spaces.values()) {
      const ips = items.map(({ ip }) => ip);
      for (const at of await this.#held(pod, ips, store, new Keys(space))) missing.delete(at);
    }
    return [...missing].map(at => {
      const { ip, ifname } = items[at]!;
      return ifname === undefined ? formatIp(ip) : `${ifname}=${formatIp(ip)}`;
    });
  }

  /** Which of the addresses, by their place, the pod holds in one address space. */
  async #held(pod: KubePod, ips: readonly Ip[], store: StoreTarget, keys: Keys): Promise<number[]> {
    await using kv = await this.#options.open(store);
    const queries = ips.map(ip => ({ key: keys.address(ip) }));
    const { answers } = await kv.read(queries, deadlineIn(timeout));
    return answers.flatMap(({ entries }, at) => {
      const holders = entries.flatMap(({ value }) => parseOwner(value).holders);
      return holders.some(holder => holder.pod?.uid !== undefined && isPod(pod, holder.pod.uid)) ? [at] : [];
    });
  }
}
