// The gate: nft sets that decide, exactly to the moment, for which public addresses this host answers (contract N1).
import { randomBytes } from 'node:crypto';
import { deadlineIn } from '../../base/clock.ts';
import { code, FailureError } from '../../base/errors.ts';
import { readNftSet, readNftTable, runNft } from '../../host/nft.ts';
import { publicIp } from '../../host/numbers.ts';
import { type Family, formatIp, type Ip } from '../../net/ip.ts';

const { table, owned4, owned6, live4, live6, permit } = publicIp.gate;

/** Milliseconds for one call of nft. */
const nftTime = 2000;

/** Seconds for which a permit stands: the most by which what it permits can come late. */
const permitTime = 1;

/** Before anything else looks at a packet, be it whole or a fragment (-400 puts those together). */
const first = -450;

/**
 * What is owned and not live is neither answered for nor taken in. `owned` has no timeout, so that an address which
 * outlives its keeper stays shut; `live` has, so that it runs out by itself. Restores what somebody removed, and keeps
 * what the sets have. A second interface on the same network would answer too, with its own MAC address.
 */
const structure = (dev: string) => `
table arp ${table} {
  set ${owned4} { type ipv4_addr; }
  set ${live4} { type ipv4_addr; flags timeout; }
  chain output { type filter hook output priority 0; }
}
table inet ${table} {
  set ${owned4} { type ipv4_addr; }
  set ${live4} { type ipv4_addr; flags timeout; }
  set ${owned6} { type ipv6_addr; }
  set ${live6} { type ipv6_addr; flags timeout; }
  set ${permit} { type ipv6_addr; flags timeout; }
  chain prerouting { type filter hook prerouting priority ${first}; }
  chain output { type filter hook output priority ${first}; }
}
flush chain arp ${table} output
flush chain inet ${table} prerouting
flush chain inet ${table} output
add rule arp ${table} output arp saddr ip @${owned4} arp saddr ip != @${live4} drop
add rule arp ${table} output arp saddr ip @${owned4} oifname != "${dev}" drop
add rule inet ${table} prerouting ip daddr @${owned4} ip daddr != @${live4} drop
add rule inet ${table} prerouting ip6 daddr @${owned6} ip6 daddr != @${live6} drop
add rule inet ${table} output icmpv6 type nd-neighbor-advert ip6 saddr @${owned6} ip6 saddr != @${live6} drop
`;

/** One use of it is allowed, within a second of its making: then the kernel knows it no more. */
export type Permit = string;

export interface Opening {
  /** All of them must still stand; they are used up. */
  readonly permits: readonly Permit[];
  /** Milliseconds of performance.now() at which the gate shuts by itself. */
  readonly until: number;
  /** Whether the gate must be open for each of them now, or else opens for none. */
  readonly stillOpen: boolean;
}

export class Gate {
  readonly #dev: string;
  /** What nft prints of the tables as they should be. */
  #standing: string | undefined;

  /** @param dev the interface that answers. */
  constructor(dev: string) {
    this.#dev = dev;
  }

  /** Makes or mends tables, chains and rules, and shuts what is owned and was not open. */
  async build(owned: readonly Ip[]): Promise<void> {
    await must([structure(this.#dev), ...elements('add', 'owned', owned)], 'the gate cannot be made');
    this.#standing = await list();
  }

  /** Whether nobody has changed tables, chains and rules since they were made. */
  async stands(): Promise<boolean> {
    return this.#standing !== undefined && (await list()) === this.#standing;
  }

  /** A permit for each purpose; the kernel has them when this resolves. */
  async permit(count: number): Promise<readonly Permit[]> {
    const permits = Array.from({ length: count }, newPermit);
    const timed = permits.map(one => `${one} timeout ${permitTime}s`).join(', ');
    if (count > 0) await must([`add element inet ${table} ${permit} { ${timed} }`], 'no permit can be made');
    return permits;
  }

  /**
   * Opens the gate for all of them, or says why for none. The time that is left is counted here, after the permit was
   * made, and the kernel takes it only while the permit stands: however late that is, the gate shuts at most a second
   * (the permit's) after `until`, which is why the caller keeps two seconds from the end of the lease.
   */
  async open(addresses: readonly Ip[], { permits, until, stillOpen }: Opening): Promise<string | undefined> {
    const left = Math.floor(until - performance.now());
    if (left <= 0) return 'no renewal was acknowledged in time';
    return runNft(
      [
        ...(permits.length === 0 ? [] : [`delete element inet ${table} ${permit} { ${permits.join(', ')} }`]),
        ...elements('add', 'owned', addresses),
        ...(stillOpen ? elements('delete', 'live', addresses) : shut(addresses)),
        ...elements('add', 'live', addresses, `timeout ${left}ms`),
      ].join('\n'),
      deadlineIn(nftTime),
    );
  }

  async shut(addresses: readonly Ip[]): Promise<void> {
    if (addresses.length > 0)
      await must([...elements('add', 'owned', addresses), ...shut(addresses)], 'the gate cannot be shut');
  }

  /** They are not on this host any more: whatever comes for them is somebody else's. */
  async disown(addresses: readonly Ip[]): Promise<void> {
    if (addresses.length === 0) return;
    const gone = [...elements('add', 'owned', addresses), ...elements('delete', 'owned', addresses)];
    await must([...shut(addresses), ...gone], 'the gate cannot be cleared');
  }

  /** Takes all of it away: for when nothing is owned any more. */
  async remove(): Promise<void> {
    const tables = publicIp.gate.families.map(family => `${family} ${table}`);
    await must(
      tables.flatMap(one => [`add table ${one}`, `delete table ${one}`]),
      'the gate cannot be removed',
    );
  }

  /** Canonical texts. A set that is not there is empty. */
  async read(): Promise<{ readonly owned: ReadonlySet<string>; readonly live: ReadonlySet<string> }> {
    // IPv4 counts as live only where both tables agree.
    const [arpLive, ...sets] = await Promise.all([
      readSet('arp', live4),
      readSet('inet', live4),
      readSet('inet', live6),
      readSet('inet', owned4),
      readSet('inet', owned6),
    ]);
    const [inetLive, live, ...owned] = sets as [string[], string[], string[], string[]];
    return { live: new Set([...inetLive.filter(one => arpLive.includes(one)), ...live]), owned: new Set(owned.flat()) };
  }
}

/** Elements of both families in the tables that have them: IPv4 stands in two. */
function elements(verb: 'add' | 'delete', set: 'owned' | 'live', addresses: readonly Ip[], option = ''): string[] {
  return ([4, 6] as const).flatMap(family => {
    const texts = addresses.filter(ip => ip.family === family).map(ip => `${formatIp(ip)} ${option}`);
    if (texts.length === 0) return [];
    return tablesOf(family).map(one => `${verb} element ${one} ${table} ${set}${family} { ${texts.join(', ')} }`);
  });
}

function tablesOf(family: Family): readonly string[] {
  return family === 4 ? ['arp', 'inet'] : ['inet'];
}

/** A delete fails where there is nothing to delete, and with it the whole file. */
function shut(addresses: readonly Ip[]): string[] {
  return [...elements('add', 'live', addresses, 'timeout 1s'), ...elements('delete', 'live', addresses)];
}

/** Never used before nor again: what an earlier process left half done finds no permit that it could use. */
function newPermit(): Permit {
  const groups = randomBytes(14).toString('hex').match(/.{4}/g)!;
  return ['fd00', ...groups].join(':');
}

async function readSet(family: string, set: string): Promise<string[]> {
  return (await readNftSet(family, table, set, deadlineIn(nftTime)))?.map(({ value }) => value) ?? [];
}

async function list(): Promise<string> {
  const tables = publicIp.gate.families.map(family => readNftTable(family, table, deadlineIn(nftTime)));
  return (await Promise.all(tables)).join('\n');
}

async function must(lines: readonly string[], what: string): Promise<void> {
  const why = await runNft(lines.join('\n'), deadlineIn(nftTime));
  if (why !== undefined) throw new FailureError(code.io, `${what}: nft: ${why}`);
}
