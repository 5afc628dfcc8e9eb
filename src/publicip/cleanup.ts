// Finds and removes what public addresses left on a host: all of it is known by its name, without etcd and without the API.
import { existsSync, rmSync } from 'node:fs';
import { deadlineIn } from '../base/clock.ts';
import { code, FailureError } from '../base/errors.ts';
import { IpBatch, type Link, type LinkAddress, readLinks } from '../host/ip.ts';
import { installedBackends, MangleChain } from '../host/iptables.ts';
import { Ledger } from '../host/ledger.ts';
import { readNftTable, runNft } from '../host/nft.ts';
import { labelOn, publicIp } from '../host/numbers.ts';
import { readReturnAddresses, syncReturnPath } from '../host/return-path.ts';
import { releaseSysctls } from '../host/sysctl.ts';
import { bits, formatIp, type Ip, sameIp } from '../net/ip.ts';
import { type Noted, readNotes } from './keeper/notes.ts';
import { feature, type Places } from './places.ts';

/** Milliseconds for one of the system's programs. */
const toolTime = 10_000;

const soon = () => deadlineIn(toolTime);

export interface CleanupOptions {
  readonly places: Places;
  /** Chain of table mangle. */
  readonly chain: string;
  /** Of the machine. */
  readonly boot: string;
}

/** One thing of ours on this host. */
export interface Trace {
  /** For people. */
  readonly what: string;
  /** Throws FailureError: it is still there. */
  remove(): Promise<void>;
}

/**
 * All that is there, in the order in which it may be removed: an address goes before the gate that keeps it silent. Nobody
 * may carry addresses meanwhile: hold the lock. Throws FailureError where it cannot be known.
 */
export async function tracesOf({ places, chain, boot }: CleanupOptions): Promise<readonly Trace[]> {
  return [
    ...(await addressTraces(places.notes)),
    ...(await ruleTraces()),
    ...(await chainTraces(chain)),
    ...sysctlTraces(new Ledger(places.ledger, boot)),
    ...(await gateTraces(places.notes)),
    ...noteTraces(places.notes),
  ];
}

interface Placed {
  readonly dev: string;
  readonly ip: Ip;
}

/** IPv4 by its label, IPv6 by the note: both as those who put them know them. */
function oursOn({ name, addresses }: Link, noted: Noted | undefined): Placed[] {
  const isOurs = ({ ip, prefix, label }: LinkAddress): boolean => {
    if (prefix !== bits(ip.family)) return false;
    if (ip.family === 4) return label === labelOn(name);
    return noted?.dev === name && noted.addresses.some(one => sameIp(one, ip));
  };
  return addresses.filter(isOurs).map(({ ip }) => ({ dev: name, ip }));
}

async function placed(notes: string): Promise<Placed[]> {
  const noted = readNotes(notes);
  return (await readLinks(soon())).flatMap(link => oursOn(link, noted));
}

async function addressTraces(notes: string): Promise<Trace[]> {
  return (await placed(notes)).map(({ dev, ip }) => ({
    what: `address ${formatIp(ip)} on ${dev}`,
    async remove() {
      await using batch = IpBatch.open();
      batch.run([`address del ${formatIp(ip)}/${bits(ip.family)} dev ${dev}`]);
      const errors = await batch.settle(soon());
      const isThere = (await placed(notes)).some(one => one.dev === dev && sameIp(one.ip, ip));
      if (isThere) throw new FailureError(code.io, errors.join('; ') || 'it is there again');
    },
  }));
}

async function ruleTraces(): Promise<Trace[]> {
  const addresses = await readReturnAddresses(publicIp.returnPath, soon());
  if (addresses.length === 0) return [];
  return [
    {
      what: `the way by which replies from ${addresses.map(formatIp).join(', ')} leave`,
      async remove() {
        await syncReturnPath(publicIp.returnPath, { dev: '', gateways: [], addresses: [] }, soon());
      },
    },
  ];
}

/** Of every back end: an earlier process may have chosen another one. */
async function chainTraces(chain: string): Promise<Trace[]> {
  const backends = await installedBackends(soon());
  const found = backends.map(async backend => {
    const ours = new MangleChain(chain, publicIp.jumpComment, backend);
    const parts = await ours.traces(soon());
    return parts.length === 0 ? [] : [{ what: parts.join(', '), remove: () => ours.remove(soon()) }];
  });
  return (await Promise.all(found)).flat();
}

function sysctlTraces(ledger: Ledger): Trace[] {
  const held = Object.entries(ledger.sysctls()).filter(([, { users }]) => users.includes(feature));
  return held.map(([name, { old, users }]) => ({
    what: users.length === 1 ? `sysctl ${name}, back to ${old}` : `our part in sysctl ${name}, which others need too`,
    async remove() {
      await releaseSysctls(ledger, feature, soon(), [name]);
    },
  }));
}

async function gateTraces(notes: string): Promise<Trace[]> {
  const { table, families } = publicIp.gate;
  const there: Trace[] = [];
  for (const family of families) {
    if ((await nftTable(family)) === undefined) continue;
    there.push({
      what: `nft table ${family} ${table}`,
      async remove() {
        const left = await placed(notes);
        const names = left.map(({ ip }) => formatIp(ip)).join(', ');
        if (left.length > 0) throw new FailureError(code.io, `it keeps ${names} silent, which is still there`);
        const why = await runNft(`delete table ${family} ${table}`, soon());
        if (why !== undefined) throw new FailureError(code.io, why);
      },
    });
  }
  return there;
}

/** A host without nft has no tables. */
async function nftTable(family: string): Promise<string | undefined> {
  try {
    return await readNftTable(family, publicIp.gate.table, soon());
  } catch (error) {
    if (error instanceof FailureError && error.code === code.unavailable) return undefined;
    throw error;
  }
}

function noteTraces(notes: string): Trace[] {
  if (!existsSync(notes)) return [];
  return [
    {
      what: notes,
      async remove() {
        if ((await placed(notes)).length > 0)
          throw new FailureError(code.io, 'the addresses that it names are still there');
        rmSync(notes, { force: true });
      },
    },
  ];
}
