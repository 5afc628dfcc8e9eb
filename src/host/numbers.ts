// Every mark, chain, table, set and label that a feature puts into a host's kernel: chosen here, and nowhere else.

/**
 * Not ours, and never to be chosen: mark bits 0x4000 and 0x8000 (kube-proxy), 0x10000 and 0x20000 (kube-router). Kept for
 * elastic IPs: mark 0x40, nft table kube_ipam_eip, chains KUBE-EIP-*, route table and rule priority 1001. Kept for the
 * router: marks 0x2D000000 with 14 bits, route tables 77 to 79, rule priorities 32763 to 32765.
 */
export const publicIp = {
  /** Of our addresses: `<interface>:kube`, or this alone where that is longer than the kernel allows. */
  label: 'kube',
  /** In table mangle of iptables; the name of the ancestor, which runbooks read. */
  chain: 'KUBE-PUBLIC',
  /** By which our own jump from PREROUTING is told from an operator's. */
  jumpComment: 'kube-ipam public-ip',
  /** Mark of packets to a public address, all 32 bits, unless the user says otherwise. */
  mark: 1,
  /** The gate: one table a family, each with the sets that its own chain asks. */
  gate: {
    table: 'kube_ipam_public_ip',
    families: ['arp', 'inet'],
    owned4: 'owned4',
    owned6: 'owned6',
    live4: 'live4',
    live6: 'live6',
    permit: 'permit',
  },
  /** Where replies must leave by the interface's own gateway: its default route, and the two rules of each address. */
  returnPath: { table: 80, mainPriority: 32_761, priority: 32_762 },
} as const;

/**
 * Devices on which proxies put the address of every Service, on every node: kube-proxy's in IPVS mode, and the router's.
 * Whether they answer for it on the network is a matter of arp_ignore.
 */
export const proxyDevices: readonly string[] = ['kube-ipvs0', 'kube-dummy-if'];

/** The longest label and interface name of Linux, in bytes (IFNAMSIZ less the end mark). */
const longestName = 15;

/** The label of our IPv4 addresses on an interface; IPv6 addresses have none. */
export function labelOn(dev: string): string {
  const label = `${dev}:${publicIp.label}`;
  return Buffer.byteLength(label) <= longestName ? label : publicIp.label;
}

/** Sysctls that an interface needs while it holds public addresses, by their path below /proc/sys. */
export function publicIpSysctls(dev: string): Readonly<Record<'ipv4' | 'ipv6', Readonly<Record<string, string>>>> {
  return {
    ipv4: { [`net/ipv4/conf/${dev}/arp_ignore`]: '1', [`net/ipv4/conf/${dev}/arp_announce`]: '2' },
    ipv6: { [`net/ipv6/conf/${dev}/accept_dad`]: '0', [`net/ipv6/conf/${dev}/ndisc_notify`]: '1' },
  };
}
