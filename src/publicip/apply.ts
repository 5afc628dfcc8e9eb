// What public addresses need of this host beside gate and addresses: rules that mark packets, announcements, settings.
import { deadlineIn } from '../base/clock.ts';
import { code, FailureError } from '../base/errors.ts';
import { announce, probe } from '../host/arping.ts';
import { forgetFlows } from '../host/conntrack.ts';
import { type Link, readGateways, readLinks } from '../host/ip.ts';
import { type ChainRule, chooseBackend, MangleChain } from '../host/iptables.ts';
import { publicIp } from '../host/numbers.ts';
import { syncReturnPath } from '../host/return-path.ts';
import { readSysctl } from '../host/sysctl.ts';
import { type Ip, parseIp } from '../net/ip.ts';
import type { Config } from './config.ts';
import type { Want } from './model.ts';

/** Milliseconds for one of the system's programs. */
const toolTime = 5000;

const soon = () => deadlineIn(toolTime);

/** What is done to this host beside gate and addresses, which are the keeper's. */
export interface Host {
  /** Rejects when the kernel cannot be read. */
  look(): Promise<{
    readonly links: readonly Link[];
    readonly gateways: readonly Ip[];
    /** Whether the interface answers for IPv4 addresses of other devices, as without arp_ignore. */
    readonly answersForOthers: boolean;
  }>;
  /** Packets to the wanted addresses are marked, on every node, owner or not. */
  syncRules(wants: readonly Want[]): Promise<void>;
  /** Replies from these leave by the gateway that was asked for. */
  syncReturns(addresses: readonly string[]): Promise<void>;
  /** MAC of another machine that answers for the address; undefined: nobody does. */
  probe(address: string): Promise<string | undefined>;
  /** Never rejects. */
  announce(address: string, signal: AbortSignal): Promise<void>;
  /** Flows that came to the address before lead elsewhere. */
  forgetFlows(address: string): Promise<void>;
  /** Takes back all of it: rules, chain, gate, settings. */
  clean(): Promise<void>;
}

/** This host as it is. `undo` takes back what was set up for the feature's whole life. */
export function hostOf(config: Config, undo: () => Promise<void>): Host {
  const dev = config.interface;
  let chain: MangleChain | undefined;
  const openChain = async () => {
    chain ??= new MangleChain(config.chain, publicIp.jumpComment, await chooseBackend(soon()));
    return chain;
  };
  return {
    async look() {
      const [links, gateways] = await Promise.all([readLinks(soon()), readGateways(soon())]);
      // The kernel goes by the greater one.
      const ignores = ['all', dev].some(one => Number(readSysctl(`net/ipv4/conf/${one}/arp_ignore`) ?? 0) > 0);
      return { links, gateways: gateways.map(ipOf), answersForOthers: !ignores };
    },
    async syncRules(wants) {
      await (await openChain()).sync(rulesOf(wants, config.mark), soon());
    },
    probe: address => ask(dev, ipOf(address)),
    announce: (address, signal) => announce(dev, ipOf(address), signal),
    forgetFlows: address => forgetFlows(ipOf(address), soon()),
    async syncReturns(addresses) {
      const wanted = { dev, gateways: config.gateways, addresses: addresses.map(ipOf) };
      await syncReturnPath(publicIp.returnPath, wanted, soon());
    },
    async clean() {
      const steps = [openChain().then(own => own.remove(soon())), this.syncReturns([]), undo()];
      // One that fails keeps no other from being taken back.
      await Promise.allSettled(steps);
      await Promise.all(steps);
    },
  };
}

/** Without a tool for IPv6 the kernel asks by itself: its setting was left on then. */
async function ask(dev: string, ip: Ip): Promise<string | undefined> {
  try {
    return await probe(dev, ip, soon());
  } catch (error) {
    if (ip.family === 6 && error instanceof FailureError && error.code === code.unavailable) return undefined;
    throw error;
  }
}

function rulesOf(wants: readonly Want[], mark: ChainRule['mark']): ChainRule[] {
  return wants.flatMap(({ ip, ports }) =>
    ports.map(({ protocol, port, comment }) => ({ destination: ip, protocol, port, comment, mark })),
  );
}

function ipOf(address: string): Ip {
  const ip = parseIp(address);
  if (ip === undefined) throw new FailureError(code.bug, `no address: ${JSON.stringify(address)}`);
  return ip;
}
