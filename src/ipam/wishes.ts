// What a pod wishes by its annotations: fixed addresses, ranges, and whether its workload keeps them. Pure.
import { code, FailureError } from '../base/errors.ts';
import { Problems } from '../base/section.ts';
import { bits, type Family, type Ip, parseIp } from '../net/ip.ts';

/** Every annotation that is read. */
export const annotations = {
  ip: 'kube-ipam.ip',
  netmask: 'kube-ipam.netmask',
  gateway: 'kube-ipam.gateway',
  range: 'kube-ipam.range',
  sticky: 'kube-ipam.sticky',
  /** Of Multus and its like: not empty means that the pod has other networks beside this one. */
  networks: 'k8s.v1.cni.cncf.io/networks',
} as const;

export type ByFamily<T> = { readonly [family in Family]?: T };

/** What one interface of a pod is to have. Wishes for its other interfaces are left out. */
export interface Wishes {
  /** `own`: written for this interface by name. Others are for whichever network of the pod has their subnet. */
  readonly fixed: readonly { readonly ip: Ip; readonly own: boolean }[];
  /** Prefix length of the fixed addresses of a family, instead of their subnet's. */
  readonly prefixes: ByFamily<number>;
  /** Gateway of the fixed addresses of a family, instead of their range's. */
  readonly gateways: ByFamily<Ip>;
  readonly rangeNames: readonly { readonly name: string; readonly own: boolean }[];
  /** Undefined: as the configuration has it. */
  readonly sticky: boolean | undefined;
  readonly otherNetworks: boolean;
}

/** As much of a pod as is read here. */
export interface Annotated {
  readonly metadata: { readonly annotations?: Readonly<Record<string, string>> };
}

/** Bounds of what users of the cluster may write: characters and items of one annotation, problems in one message. */
const longest = 4096;
const mostItems = 64;
const mostProblems = 8;

/**
 * Reads a pod's annotations for one of its interfaces. Throws one FailureError (code 7) that names each problem with
 * annotation, value and rule.
 */
export function readWishes(pod: Annotated, ifname: string): Wishes {
  const reader = new Reader(pod, ifname);
  const fixed = reader.list(annotations.ip, asIp, 'must be an IP address, without prefix length');
  const families = new Set(fixed.map(({ value }) => value.family));
  const netmasks = reader.list(annotations.netmask, text => asNetmask(text, families), netmaskRule);
  const gateways = reader.list(annotations.gateway, asIp, 'must be an IP address');
  const names = reader.list(annotations.range, asRangeName, 'must be the name of a range');
  const wishes = {
    fixed: fixed.map(({ value, own }) => ({ ip: value, own })),
    prefixes: reader.byFamily(annotations.netmask, netmasks, families, ({ prefix }) => prefix),
    gateways: reader.byFamily(annotations.gateway, gateways, families, ip => ip),
    rangeNames: names.map(({ value, own }) => ({ name: value, own })),
    sticky: reader.flag(annotations.sticky),
    otherNetworks: reader.otherNetworks,
  };
  reader.throwProblems();
  return wishes;
}

/** All addresses that a pod names, each with the interface it names; what cannot be read is left out. */
export function fixedItems(pod: Annotated): { readonly ip: Ip; readonly ifname?: string }[] {
  return itemsOf(textOf(pod, annotations.ip)).flatMap(({ ifname, text }) => {
    const ip = parseIp(text);
    return ip === undefined ? [] : [{ ip, ...(ifname !== undefined && { ifname }) }];
  });
}

/** An item of a list, as read. */
interface Item<T> {
  readonly value: T;
  readonly own: boolean;
  readonly text: string;
}

class Reader {
  readonly otherNetworks: boolean;
  readonly #pod: Annotated;
  readonly #ifname: string;
  readonly #problems = new Problems();

  constructor(pod: Annotated, ifname: string) {
    this.#pod = pod;
    this.#ifname = ifname;
    this.otherNetworks = !/^(\[\s*\])?$/.test(textOf(pod, annotations.networks));
  }

  /** The items for this interface and those for any. */
  list<T>(annotation: string, read: (text: string) => T | undefined, rule: string): Item<T>[] {
    const written = textOf(this.#pod, annotation);
    if (written === '') return [];
    if (written.length > longest) return this.#wrong(annotation, written, `is longer than ${longest} characters`);
    const items = itemsOf(written);
    if (items.length === 0) return this.#wrong(annotation, written, 'names nothing');
    if (items.length > mostItems) return this.#wrong(annotation, written, `has more than ${mostItems} items`);
    return items.flatMap(({ ifname, text }) => {
      if (ifname !== undefined && ifname !== this.#ifname) return [];
      const value = read(text);
      if (value === undefined) return this.#wrong(annotation, text, rule);
      return [{ value, own: ifname !== undefined, text }];
    });
  }

  /** One item for each family of which there are fixed addresses; one for this interface by name wins. */
  byFamily<V extends { readonly family: Family }, T>(
    annotation: string,
    items: readonly Item<V>[],
    families: ReadonlySet<Family>,
    pick: (value: V) => T,
  ): ByFamily<T> {
    const found: { [family in Family]?: Item<V> } = {};
    for (const item of [...items.filter(({ own }) => own), ...items.filter(({ own }) => !own)]) {
      const { family } = item.value;
      const other = found[family];
      if (!families.has(family)) {
        if (!item.own && this.otherNetworks) continue;
        this.#wrong(annotation, item.text, `there is no fixed IPv${family} address that it could go with`);
      } else if (other?.own === item.own) this.#wrong(annotation, item.text, `is the second one for IPv${family}`);
      else if (other === undefined) found[family] = item;
    }
    return { ...(found[4] && { 4: pick(found[4].value) }), ...(found[6] && { 6: pick(found[6].value) }) };
  }

  flag(annotation: string): boolean | undefined {
    const text = textOf(this.#pod, annotation);
    if (text === '') return undefined;
    if (text !== 'true' && text !== 'false') this.#wrong(annotation, text, 'must be "true" or "false"');
    return text === 'true';
  }

  throwProblems(): void {
    const { lines } = this.#problems;
    if (lines.length === 0) return;
    const more = lines.length > mostProblems ? ` (and ${lines.length - mostProblems} more problems)` : '';
    throw new FailureError(code.config, `${lines.slice(0, mostProblems).join('; ')}${more}`);
  }

  #wrong(annotation: string, value: string, rule: string): [] {
    this.#problems.add(`annotation ${annotation}`, value, rule);
    return [];
  }
}

/** Without the blanks around it; absent counts as empty. */
function textOf({ metadata }: Annotated, annotation: string): string {
  const { annotations: all = {} } = metadata;
  return Object.hasOwn(all, annotation) ? all[annotation]!.trim() : '';
}

/** `10.1.0.5, net1=fd00::5`: items divided by commas, each with or without an interface. */
function itemsOf(list: string): { readonly ifname?: string; readonly text: string }[] {
  const parts = list.split(',').map(part => part.trim());
  return parts
    .filter(part => part !== '')
    .map(part => {
      const equals = part.indexOf('=');
      if (equals < 1) return { text: part };
      return { ifname: part.slice(0, equals).trim(), text: part.slice(equals + 1).trim() };
    });
}

function asIp(text: string): Ip | undefined {
  return parseIp(text);
}

function asRangeName(text: string): string | undefined {
  return text === '' ? undefined : text;
}

const netmaskRule =
  'must be a mask like 255.255.0.0, whose ones stand before its zeros, or a prefix length from 1 to 32 (IPv6: 128)';

interface Netmask {
  readonly family: Family;
  readonly prefix: number;
}

/** A number means the family that it fits: IPv4 up to 32, unless all the fixed addresses are IPv6. */
function asNetmask(text: string, families: ReadonlySet<Family>): Netmask | undefined {
  if (/^[1-9]\d{0,2}$/.test(text)) {
    const prefix = Number(text);
    const family = prefix > bits(4) || (families.has(6) && !families.has(4)) ? 6 : 4;
    return prefix <= bits(family) ? { family, prefix } : undefined;
  }
  const mask = text.includes(':') ? undefined : parseIp(text);
  const ones = /^(1+)0*$/.exec(mask?.value.toString(2).padStart(bits(4), '0') ?? '')?.[1];
  return ones === undefined ? undefined : { family: 4, prefix: ones.length };
}
