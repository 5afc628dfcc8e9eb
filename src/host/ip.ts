// Interfaces and addresses, by iproute2: reads them, writes them through one kept-open batch, and hears of changes.
import { type Deadline, rest } from '../base/clock.ts';
import { code, FailureError } from '../base/errors.ts';
import { formatIp, type Ip, parseIp } from '../net/ip.ts';
import type { Conversation } from './exec.ts';
import { complaintOf, converseWith, followTool, runTool } from './tool.ts';

export interface Link {
  readonly index: number;
  readonly name: string;
  /** Set up by somebody. */
  readonly up: boolean;
  /** Something is at the other end. */
  readonly carrier: boolean;
  readonly addresses: readonly LinkAddress[];
}

export interface LinkAddress {
  readonly ip: Ip;
  readonly prefix: number;
  /** Empty for IPv6, which has none. */
  readonly label: string;
  /** Seconds, rounded down. */
  readonly validFor: number | 'forever';
  /** As iproute2 calls them: dynamic, deprecated, tentative, dadfailed, secondary, noprefixroute, ... */
  readonly flags: readonly string[];
}

/** How iproute2 writes a lifetime without end. */
const forever = 0xffff_ffff;

/** All interfaces of this network namespace, with their addresses. Throws FailureError. */
export async function readLinks(deadline: Deadline): Promise<Link[]> {
  const finished = await runTool('ip', ['-json', 'address', 'show'], '', deadline);
  if (finished.code !== 0) {
    throw new FailureError(code.io, `the addresses of this host cannot be read: ip address: ${complaintOf(finished)}`);
  }
  return (JSON.parse(finished.stdout) as readonly RawLink[]).flatMap(linkOf);
}

interface RawLink {
  readonly ifindex?: number;
  readonly ifname?: string;
  readonly flags?: readonly string[];
  readonly addr_info?: readonly Readonly<Record<string, unknown>>[];
}

function linkOf({ ifindex, ifname, flags = [], addr_info: addresses = [] }: RawLink): Link[] {
  if (ifindex === undefined || ifname === undefined) return [];
  const up = flags.includes('UP');
  const carrier = up && flags.includes('LOWER_UP');
  return [{ index: ifindex, name: ifname, up, carrier, addresses: addresses.flatMap(addressOf) }];
}

function addressOf(raw: Readonly<Record<string, unknown>>): LinkAddress[] {
  const ip = parseIp(String(raw.local));
  if (ip === undefined) return [];
  const seconds = Number(raw.valid_life_time ?? forever);
  return [
    {
      ip,
      prefix: Number(raw.prefixlen),
      label: typeof raw.label === 'string' ? raw.label : '',
      validFor: seconds === forever ? 'forever' : seconds,
      flags: Object.keys(raw).filter(name => raw[name] === true),
    },
  ];
}

/** Milliseconds for a killed process to end. */
const killTime = 1000;

const stuck = 'ip neither answers nor ends: what it was told may take effect later';

/**
 * `ip -force -batch -`, kept open: a line takes effect some tenths of a millisecond after it was written, and one that
 * fails stops no other. A batch that was killed is opened again with the next lines.
 */
export class IpBatch implements AsyncDisposable {
  #ip: Conversation | undefined;
  /** Lines that this process was given, as iproute2 counts them. */
  #given = 0;
  /** Of those lines, what may not have taken effect yet. */
  readonly #pending = new Map<number, string>();
  /** What iproute2 said since it last named a line. */
  #said: string[] = [];
  #errors: string[] = [];
  #idle = Promise.withResolvers<void>();

  static open(): IpBatch {
    const batch = new IpBatch();
    batch.#ip = batch.#start();
    batch.#idle.resolve();
    return batch;
  }

  /** Commands without the word `ip`. Throws FailureError for a line that iproute2 would not read as it stands. */
  run(lines: readonly string[]): void {
    if (lines.length === 0) return;
    for (const line of lines) refuseAmbiguous(line);
    if (this.#pending.size === 0) this.#idle = Promise.withResolvers();
    this.#ip ??= this.#start();
    for (const line of [...lines, barrier]) this.#pending.set(++this.#given, line);
    this.#ip.say(`${[...lines, barrier].join('\n')}\n`);
  }

  /**
   * Waits until every line given so far has taken effect or failed; gives what `takeErrors` gives. An iproute2 that is not
   * done by then is killed, so that nothing takes effect behind the caller's back. Throws FailureError where it does not
   * even end, as when the kernel holds it.
   */
  async settle(deadline: Deadline): Promise<string[]> {
    if (!(await this.#isIdleWithin(deadline.left()))) {
      this.#errors.push('ip did not answer in time');
      this.#ip?.[Symbol.dispose]();
      if (!(await this.#isIdleWithin(killTime))) throw new FailureError(code.io, stuck);
    }
    return this.takeErrors();
  }

  /** The lines that failed since the last call, each with iproute2's words. */
  takeErrors(): string[] {
    const errors = this.#errors;
    this.#errors = [];
    return errors;
  }

  /** What was given still takes effect. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#idle.promise;
    this.#ip?.hangUp();
  }

  async #isIdleWithin(ms: number): Promise<boolean> {
    const over = new AbortController();
    const late = rest(ms, over.signal).then(() => false);
    const isIdle = await Promise.race([this.#idle.promise.then(() => true), late]);
    over.abort();
    return isIdle;
  }

  #start(): Conversation {
    this.#given = 0;
    this.#said = [];
    return converseWith('ip', ['-force', '-batch', '-'], {
      line: () => {},
      complaint: text => this.#hear(text),
      ended: why => {
        this.#ip = undefined;
        const lost = [...this.#pending.values()].filter(line => line !== barrier);
        if (lost.length > 0) this.#errors.push(`ip ended (${why}); perhaps not done: ${lost.join('; ')}`);
        this.#settle(Number.POSITIVE_INFINITY);
      },
    });
  }

  #hear(text: string): void {
    const failed = /^Command failed -:(\d+)$/.exec(text);
    if (failed === null) {
      this.#said.push(text.replace(/^Error: /, ''));
      return;
    }
    const number = Number(failed[1]);
    const line = this.#pending.get(number);
    if (line === barrier) this.#settle(number);
    else this.#errors.push(`ip ${line}: ${this.#said.join(' ')}`);
    this.#said = [];
  }

  /** Lines take effect in the order in which they were given. */
  #settle(last: number): void {
    for (const number of this.#pending.keys()) if (number <= last) this.#pending.delete(number);
    if (this.#pending.size === 0) this.#idle.resolve();
  }
}

/**
 * A command that iproute2 does not know: it says so at once, with the number of the line, while what it has to say of
 * commands that succeed stays in its buffer.
 */
const barrier = 'barrier';

/** Quotes, comments and continued lines have a meaning of their own in a batch. */
function refuseAmbiguous(line: string): void {
  if (!/^[^\p{Cc}"'#\\]+$/u.test(line)) throw new FailureError(code.bug, `no line for ip: ${JSON.stringify(line)}`);
}

/**
 * Every change of an interface or address of this namespace, as a line of `ip -oneline monitor link address`, until the
 * signal comes. 'resync' stands for changes that nobody heard: said as soon as it listens, at first and after a restart.
 */
export function monitor(onLine: (line: string) => void, signal: AbortSignal): void {
  followTool('ip', ['-oneline', 'monitor', 'link', 'address'], onLine, signal);
}

interface RawRoute {
  readonly gateway?: string;
  readonly via?: { readonly host?: string };
  readonly nexthops?: readonly RawRoute[];
}

/** The gateways of all routes of this namespace, in canonical text, each once. Throws FailureError. */
export async function readGateways(deadline: Deadline): Promise<string[]> {
  const read = ['-4', '-6'].map(async family => {
    const finished = await runTool('ip', [family, '-json', 'route', 'show', 'table', 'all'], '', deadline);
    // A kernel without IPv6 says so.
    if (finished.code !== 0 && family === '-6') return [];
    if (finished.code !== 0) {
      throw new FailureError(code.io, `the routes of this host cannot be read: ip route: ${complaintOf(finished)}`);
    }
    return JSON.parse(finished.stdout || '[]') as readonly RawRoute[];
  });
  const routes = (await Promise.all(read)).flat().flatMap(route => [route, ...(route.nexthops ?? [])]);
  const gateways = routes.flatMap(({ gateway, via }) => parseIp(gateway ?? via?.host ?? '') ?? []);
  return [...new Set(gateways.map(formatIp))];
}

/** Far away from any network: RFC 5737 and RFC 3849. */
const farAway = { 4: '192.0.2.1', 6: '2001:db8::1' } as const;

/** The interface by which replies from this address of ours leave; undefined: there is no way. Throws FailureError. */
export async function returnDevice(ip: Ip, deadline: Deadline): Promise<string | undefined> {
  const args = ['-json', 'route', 'get', farAway[ip.family], 'from', formatIp(ip)];
  const finished = await runTool('ip', args, '', deadline);
  if (finished.code !== 0) return undefined;
  const [route] = JSON.parse(finished.stdout) as readonly { readonly dev?: string }[];
  return route?.dev;
}
