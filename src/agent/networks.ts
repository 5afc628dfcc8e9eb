// The networks of kube-ipam on this node: those that runtimes have configured, and those whose plugins have asked.
import { readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { messageOf, systemCode } from '../base/errors.ts';
import { makeFolder } from '../base/folder.ts';
import type { Log } from '../base/log.ts';
import { isObject } from '../base/section.ts';
import { writeAtomically } from '../host/atomic-file.ts';
import { type AccessConfig, readAccessConfig } from '../ipam/config.ts';

export type Conf = Readonly<Record<string, unknown>>;

/** More networks than this were never on one node. */
const mostServed = 256;

/** Days after which a network that no plugin asks for is forgotten. */
const forgottenAfter = 30;
const day = 86_400_000;

/** What leads to a network's records: names and paths, no secret. */
const keptKeys = ['etcdConfig', 'dataDir', 'addressSpace', 'nodeName', 'cluster', 'timeout', 'cooldown'];

interface Served {
  readonly conf: Conf;
  /** Day since 1970 on which it was last asked for. */
  readonly day: number;
}

export interface NetworksOptions {
  /** The configurations in the runtime's folder, as they are now. */
  readonly configured: () => readonly Conf[];
  /** Where those that were served are remembered, because Multus has some that lie in no folder. */
  readonly file: string;
  readonly log: Log;
}

export class Networks {
  readonly #options: NetworksOptions;
  readonly #served = new Map<string, Served>();
  /** Why the configurations could not be read when they were last asked for. */
  #trouble = '';

  constructor(options: NetworksOptions) {
    this.#options = options;
    for (const served of read(options)) this.#served.set(JSON.stringify(served.conf), served);
  }

  /** Each network once; those that cannot be read are left out, because no plugin could serve them either. */
  all(): AccessConfig[] {
    // The last one counts: a runtime repeats old configurations in its DELs, and they are served like any other.
    const confs = [...[...this.#served.values()].map(({ conf }) => conf), ...this.#configured()];
    const found = confs.flatMap(conf => accessOf(conf) ?? []);
    const identity = ({ network, space, store }: AccessConfig) => JSON.stringify([network, space, store]);
    return [...new Map(found.map(access => [identity(access), access])).values()];
  }

  /** Remembers a network that a plugin asked for. */
  served(conf: Conf): void {
    const kept = { name: conf.name, ipam: pick(isObject(conf.ipam) ? conf.ipam : {}) };
    const key = JSON.stringify(kept);
    const today = Math.floor(Date.now() / day);
    if (this.#served.get(key)?.day === today) return;
    this.#served.delete(key);
    this.#served.set(key, { conf: kept, day: today });
    this.#write(today);
  }

  #configured(): readonly Conf[] {
    try {
      const found = this.#options.configured();
      this.#trouble = '';
      return found;
    } catch (error) {
      const cause = messageOf(error);
      // It is asked for every few seconds.
      if (cause !== this.#trouble) this.#options.log.warn('the network configurations cannot be read', { cause });
      this.#trouble = cause;
      return [];
    }
  }

  #write(today: number): void {
    const { file, log } = this.#options;
    const fresh = [...this.#served].filter(([, served]) => today - served.day <= forgottenAfter).slice(-mostServed);
    this.#served.clear();
    for (const [key, served] of fresh) this.#served.set(key, served);
    try {
      makeFolder(dirname(file), 0o700);
      writeAtomically(file, `${JSON.stringify(fresh.map(([, served]) => served))}\n`, 0o600);
    } catch (error) {
      log.warn('the networks that were served cannot be remembered', { cause: messageOf(error) });
    }
  }
}

function read({ file, log }: NetworksOptions): Served[] {
  try {
    const list: unknown = JSON.parse(readFileSync(file, 'utf8'));
    return (Array.isArray(list) ? list : []).filter(
      (one): one is Served => isObject(one) && isObject(one.conf) && typeof one.day === 'number',
    );
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') log.warn('the networks of earlier are unknown', { cause: messageOf(error) });
    return [];
  }
}

function pick(ipam: Conf): Conf {
  return Object.fromEntries(keptKeys.flatMap(key => (ipam[key] === undefined ? [] : [[key, ipam[key]]])));
}

function accessOf(conf: Conf): AccessConfig | undefined {
  try {
    return readAccessConfig(conf);
  } catch {
    return undefined;
  }
}
