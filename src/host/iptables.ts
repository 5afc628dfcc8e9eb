// A chain of ours in iptables' table mangle, for both families: written whole, in one step, and only where it differs.
import { readFileSync } from 'node:fs';
import type { Deadline } from '../base/clock.ts';
import { code, FailureError, systemCode } from '../base/errors.ts';
import { type Family, formatIp, type Ip } from '../net/ip.ts';
import { execute, type Finished } from './exec.ts';
import { absence, complaintOf, toolEnv } from './tool.ts';

/** What iptables writes to: nftables, the kernel's older tables, or whatever the plain `iptables` of this host does. */
export type Backend = 'nft' | 'legacy' | 'plain';

export interface Mark {
  readonly value: number;
  /** The bits that are set; undefined: all 32. */
  readonly mask: number | undefined;
}

/** Marks packets to one port of an address. */
export interface ChainRule {
  readonly destination: Ip;
  readonly protocol: 'tcp' | 'udp' | 'sctp';
  readonly port: number;
  readonly comment: string;
  readonly mark: Mark;
}

const families: readonly Family[] = [4, 6];

/**
 * The back end that this host already uses: the one whose table mangle has a chain of the kubelet, else the one with more
 * rules, else nft. Throws FailureError where there is no iptables.
 */
export async function chooseBackend(deadline: Deadline): Promise<Backend> {
  const [nft, legacy] = await Promise.all([survey('nft', deadline), survey('legacy', deadline)]);
  if (nft !== undefined && legacy !== undefined) {
    if (nft.kubelet !== legacy.kubelet) return nft.kubelet ? 'nft' : 'legacy';
    return legacy.rules > nft.rules ? 'legacy' : 'nft';
  }
  if (nft !== undefined) return 'nft';
  if (legacy !== undefined) return 'legacy';
  if ((await survey('plain', deadline)) !== undefined) return 'plain';
  throw new FailureError(code.unavailable, absence('iptables', 'iptables'));
}

/** The back ends that this host has programs for. */
export async function installedBackends(deadline: Deadline): Promise<readonly Backend[]> {
  const known: readonly Backend[] = ['nft', 'legacy'];
  const found = await Promise.all(known.map(backend => survey(backend, deadline)));
  const installed = known.filter((_, index) => found[index] !== undefined);
  return installed.length > 0 || (await survey('plain', deadline)) === undefined ? installed : ['plain'];
}

/** Undefined where the back end is not installed, or not in this kernel. Throws FailureError where that stays open. */
async function survey(backend: Backend, deadline: Deadline): Promise<{ kubelet: boolean; rules: number } | undefined> {
  const saved = await Promise.all(families.map(family => iptables(family, backend, 'save', [], '', deadline)));
  for (const finished of saved) {
    if (finished.code !== undefined || finished.failure === 'ENOENT') continue;
    const why = `${programOf(4, backend, 'save')}: ${complaintOf(finished)}`;
    throw new FailureError(code.io, `which iptables this host uses cannot be known: ${why}`);
  }
  const texts = saved.filter(finished => finished.code === 0).map(finished => finished.stdout);
  if (texts.length === 0) return undefined;
  const text = texts.join('');
  const [, ...mangle] = text.split('*mangle\n');
  return {
    kubelet: mangle.some(table => /^:KUBE-(IPTABLES-HINT|KUBELET-CANARY) /m.test(table.split('\nCOMMIT')[0]!)),
    rules: text.match(/^-A /gm)?.length ?? 0,
  };
}

function iptables(
  family: Family,
  backend: Backend,
  verb: 'save' | 'restore',
  args: readonly string[],
  input: string,
  deadline: Deadline,
): Promise<Finished> {
  return execute(programOf(family, backend, verb), args, toolEnv, input, deadline);
}

function programOf(family: Family, backend: Backend, verb: 'save' | 'restore'): string {
  return `${family === 4 ? 'iptables' : 'ip6tables'}${backend === 'plain' ? '' : `-${backend}`}-${verb}`;
}

/** A chain and the jump to it from PREROUTING, which is known by its comment: a jump of somebody else is left alone. */
export class MangleChain {
  readonly #chain: string;
  readonly #jumpComment: string;
  readonly #backend: Backend;

  constructor(chain: string, jumpComment: string, backend: Backend) {
    this.#chain = chain;
    this.#jumpComment = jumpComment;
    this.#backend = backend;
  }

  /**
   * Makes the chain hold these rules and nothing else, with one jump to it. The chain of IPv6 is made once it has a rule.
   * Throws FailureError; each family is one step of its own.
   */
  async sync(rules: readonly ChainRule[], deadline: Deadline): Promise<'same' | 'changed'> {
    const changes = await Promise.allSettled(
      families.map(family =>
        this.#syncFamily(
          family,
          rules.filter(rule => rule.destination.family === family),
          deadline,
        ),
      ),
    );
    return changes.map(fulfilled).includes('changed') ? 'changed' : 'same';
  }

  /** Removes all of it, and leaves the empty chain only where a rule of somebody else leads to it. Throws FailureError. */
  async remove(deadline: Deadline): Promise<void> {
    const removals = families.map(async family => {
      const there = this.#partsIn((await this.#read(family, deadline)) ?? '');
      const steps = [
        ...there.jumps.map(jump => jump.replace('-A', '-D')),
        ...(there.rules === undefined ? [] : [`-F ${this.#chain}`]),
        ...(there.rules === undefined || there.isShared ? [] : [`-X ${this.#chain}`]),
      ];
      // A chain that only somebody else uses, and that is empty, was left by an earlier removal.
      const isLeft = there.isShared && there.jumps.length === 0 && there.rules?.length === 0;
      if (steps.length > 0 && !isLeft) await this.#restore(family, steps, deadline);
    });
    for (const removal of await Promise.allSettled(removals)) fulfilled(removal);
  }

  /** What `remove` would remove, for people. Throws FailureError. */
  async traces(deadline: Deadline): Promise<readonly string[]> {
    const found = families.map(async family => {
      const { rules, jumps, isShared } = this.#partsIn((await this.#read(family, deadline)) ?? '');
      const kind = programOf(family, this.#backend, 'save').replace(/-save$/, '');
      return [
        ...jumps.map(() => `${kind}: the jump from PREROUTING to chain ${this.#chain}`),
        ...(rules === undefined || (isShared && rules.length === 0)
          ? []
          : [`${kind}: chain ${this.#chain} with ${rules.length} ${rules.length === 1 ? 'rule' : 'rules'}`]),
      ];
    });
    return (await Promise.all(found)).flat();
  }

  async #syncFamily(family: Family, rules: readonly ChainRule[], deadline: Deadline): Promise<'same' | 'changed'> {
    const saved = await this.#read(family, deadline);
    const there = this.#partsIn(saved ?? '');
    const isUnused = family === 6 && rules.length === 0 && there.rules === undefined && there.jumps.length === 0;
    if (isUnused) return 'same';
    const wanted = rules.map(rule => this.#render(rule));
    const steps = [
      ...(there.rules !== undefined && sameRules(there.rules, wanted) ? [] : [`:${this.#chain} - [0:0]`, ...wanted]),
      ...there.jumps.slice(1).map(jump => jump.replace('-A', '-D')),
      ...(there.jumps.length > 0
        ? []
        : [`-A PREROUTING -m comment --comment ${quoted(this.#jumpComment)} -j ${this.#chain}`]),
    ];
    if (steps.length === 0) return 'same';
    await this.#restore(family, steps, deadline);
    return 'changed';
  }

  #render({ destination, protocol, port, comment, mark }: ChainRule): string {
    const address = `${formatIp(destination)}/${destination.family === 4 ? 32 : 128}`;
    const match = `-d ${address} -p ${protocol} -m ${protocol} --dport ${port} -m comment --comment ${quoted(comment)}`;
    // As it reads back. By iptables(8), --set-mark V/M is --set-xmark V/(V|M).
    const mask = mark.mask === undefined ? 0xffff_ffff : (mark.value | mark.mask) >>> 0;
    return `-A ${this.#chain} ${match} -j MARK --set-xmark 0x${mark.value.toString(16)}/0x${mask.toString(16)}`;
  }

  /** What of a saved table is ours; `rules` is undefined where there is no such chain. */
  #partsIn(saved: string): { rules: readonly string[] | undefined; jumps: readonly string[]; isShared: boolean } {
    const lines = saved.split('\n');
    const leading = lines.filter(line => ['-j', '-g'].some(option => optionsOf(line).get(option) === this.#chain));
    const jumps = leading.filter(
      line => line.startsWith('-A PREROUTING ') && optionsOf(line).get('--comment') === this.#jumpComment,
    );
    const exists = lines.some(line => line.startsWith(`:${this.#chain} `));
    const rules = exists ? lines.filter(line => line.startsWith(`-A ${this.#chain} `)) : undefined;
    return { rules, jumps, isShared: leading.length > jumps.length };
  }

  /** The saved table; undefined where this family cannot be had on this host. */
  async #read(family: Family, deadline: Deadline): Promise<string | undefined> {
    // Asked for by name, a table of the older kind is made, module and all.
    if (this.#backend === 'legacy' && !hasLegacyMangle(family)) return '';
    const finished = await iptables(family, this.#backend, 'save', ['-t', 'mangle'], '', deadline);
    if (finished.code === 0) return finished.stdout;
    if (family === 6) return undefined;
    throw this.#failure(family, 'save', finished);
  }

  async #restore(family: Family, steps: readonly string[], deadline: Deadline): Promise<void> {
    const text = ['*mangle', ...steps, 'COMMIT', ''].join('\n');
    const seconds = Math.max(1, Math.floor(deadline.left() / 1000) - 1);
    const args = ['--noflush', `--wait=${seconds}`];
    const finished = await iptables(family, this.#backend, 'restore', args, text, deadline);
    if (finished.code !== 0) throw this.#failure(family, 'restore', finished);
  }

  #failure(family: Family, verb: 'save' | 'restore', finished: Finished): FailureError {
    const program = programOf(family, this.#backend, verb);
    if (finished.failure === 'ENOENT') return new FailureError(code.unavailable, absence(program, 'iptables'));
    return new FailureError(code.io, `chain ${this.#chain}: ${program}: ${complaintOf(finished)}`);
  }
}

/** Which tables of the older kind this network namespace has. */
function hasLegacyMangle(family: Family): boolean {
  try {
    const names = readFileSync(`/proc/self/net/${family === 4 ? 'ip' : 'ip6'}_tables_names`, 'utf8');
    return names.split('\n').includes('mangle');
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return false;
    throw error;
  }
}

function fulfilled<T>(result: PromiseSettledResult<T>): T {
  if (result.status === 'rejected') throw result.reason;
  return result.value;
}

/** Whatever their order: no two of our rules contradict each other. */
function sameRules(some: readonly string[], others: readonly string[]): boolean {
  const known = (rules: readonly string[]): string => rules.map(keyOf).sort().join('\n');
  return some.length === others.length && known(some) === known(others);
}

function keyOf(rule: string): string {
  return JSON.stringify([...optionsOf(rule)].sort());
}

/** Options of a saved rule with their words. Its `-m` only say which options follow. */
function optionsOf(rule: string): ReadonlyMap<string, string> {
  const options = new Map<string, string>();
  let option = '';
  for (const [token, quotedText] of rule.matchAll(/"((?:[^"\\]|\\.)*)"|\S+/g)) {
    const isOption = quotedText === undefined && token.startsWith('-');
    if (isOption) option = token;
    const word = quotedText === undefined ? token : quotedText.replaceAll(/\\(.)/g, '$1');
    options.set(option, isOption ? '' : [options.get(option), word].filter(Boolean).join(' '));
  }
  options.delete('-m');
  return options;
}

/** The kernel keeps 255 bytes of a comment; a control character would end the line. */
function quoted(comment: string): string {
  const text = comment.replaceAll(/\p{Cc}/gu, '?').slice(0, 255);
  return `"${text.replaceAll(/["\\]/g, '\\$&')}"`;
}
