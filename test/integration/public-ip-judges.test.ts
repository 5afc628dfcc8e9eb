// The judges of the public IP tests are judged themselves: they must convict two nodes that answer for one address, and nobody else.
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { publicIp } from '../../src/host/numbers.ts';
import { monotonic } from '../helpers/public-ip/clock.ts';
import { AnswerTimes, ExactJudge } from '../helpers/public-ip/exact.ts';
import { AddressNoise } from '../helpers/public-ip/noise.ts';
import { SeenJudge } from '../helpers/public-ip/seen.ts';
import { Segment, type Station } from '../helpers/public-ip/segment.ts';

let segment: Segment;
let first: Station;
let second: Station;
let seen: SeenJudge;
let exact: ExactJudge;

beforeAll(async () => {
  segment = await Segment.start(['node-a', 'node-b']);
  [first, second] = segment.nodes as [Station, Station];
});
beforeEach(async () => {
  seen = await SeenJudge.start(segment.client.machine, ['192.168.1.41', 'fd00:53::1:41']);
  exact = await ExactJudge.start(segment.nodes.map(({ machine }) => machine));
});
afterEach(async () => {
  for (const { machine } of segment.nodes) {
    await machine.must(['ip', 'address', 'flush', 'dev', 'eth0', 'to', '192.168.1.0/24']);
    await machine.must(['ip', '-6', 'address', 'flush', 'dev', 'eth0', 'to', 'fd00:53::1:0/112']);
    await machine.must(['nft', 'flush ruleset']);
  }
  await exact[Symbol.asyncDispose]();
  await seen[Symbol.asyncDispose]();
});
afterAll(() => segment[Symbol.asyncDispose]());

const addresses = [
  ['192.168.1.41', '192.168.1.41/32'],
  ['fd00:53::1:41', 'fd00:53::1:41/128'],
] as const;

async function put(node: Station, address: string, ...more: string[]): Promise<void> {
  const dad = address.includes(':') ? ['nodad'] : [];
  await node.machine.must(['ip', 'address', 'add', address, 'dev', 'eth0', ...dad, ...more]);
}

function take(node: Station, address: string): Promise<string> {
  return node.machine.must(['ip', 'address', 'del', address, 'dev', 'eth0']);
}

/** The gate as the contract has it, made by hand. */
async function makeGate(node: Station): Promise<void> {
  const { table, owned4, owned6, live4, live6 } = publicIp.gate;
  await node.machine.must(['nft', '-f', '-'], {
    input: `
table arp ${table} {
  set ${owned4} { type ipv4_addr; }
  set ${live4} { type ipv4_addr; flags timeout; }
  chain out {
    type filter hook output priority 0
    arp saddr ip @${owned4} arp saddr ip != @${live4} drop
  }
}
table inet ${table} {
  set ${owned6} { type ipv6_addr; }
  set ${live6} { type ipv6_addr; flags timeout; }
  chain out {
    type filter hook output priority 0
    icmpv6 type nd-neighbor-advert ip6 saddr @${owned6} ip6 saddr != @${live6} drop
  }
}
add element arp ${table} ${owned4} { 192.168.1.41 }
add element inet ${table} ${owned6} { fd00:53::1:41 }
`,
  });
}

function open(node: Station, address: string, timeout: string): Promise<string> {
  const { table, live4, live6 } = publicIp.gate;
  const set = address.includes(':') ? `inet ${table} ${live6}` : `arp ${table} ${live4}`;
  return node.machine.must(['nft', `add element ${set} { ${address} timeout ${timeout} }`]);
}

describe.each(addresses)('%s', (address, prefixed) => {
  it('on two nodes for a moment: both judges convict', async () => {
    await put(first, prefixed);
    await sleep(300);
    expect([seen.doubles(), exact.overlaps()]).toEqual([[], []]);
    await put(second, prefixed);
    await sleep(100);
    await take(first, prefixed);
    await sleep(100);
    expect(seen.doubles()[0]).toMatchObject({ address });
    expect(seen.doubles()[0]!.macs.toSorted()).toEqual([first.mac, second.mac]);
    expect(exact.overlaps()).toMatchObject([{ address, nodes: ['node-a', 'node-b'] }]);
    const [overlap] = exact.overlaps();
    expect(overlap!.to - overlap!.from).toBeGreaterThan(90);
  });

  it('handed from one to the other: both judges acquit, and tell who answered when', async () => {
    const begun = monotonic();
    await put(first, prefixed);
    const one = await seen.firstAnswer(address, begun);
    expect(one.mac).toBe(first.mac);
    await take(first, prefixed);
    const taken = monotonic();
    await sleep(200);
    await put(second, prefixed);
    expect((await seen.firstAnswer(address, taken)).mac).toBe(second.mac);
    expect(seen.silence(address, begun)).toBeGreaterThan(150);
    expect([seen.doubles(), exact.overlaps()]).toEqual([[], []]);
    const [held] = exact.intervals('node-a', address);
    expect(held!.from).toBeGreaterThan(begun);
    expect(held!.to).toBeLessThan(taken + 50);
    expect(exact.intervals('node-b', address)).toHaveLength(1);
  });

  it('on two nodes, one behind its gate: both judges acquit until it opens', async () => {
    await makeGate(first);
    await put(first, prefixed);
    await put(second, prefixed);
    await sleep(300);
    expect([seen.doubles(), exact.overlaps()]).toEqual([[], []]);
    expect(seen.answers(address).every(({ mac }) => mac === second.mac)).toBe(true);
    expect(seen.answers(address).length).toBeGreaterThan(10);
    const opened = monotonic();
    await open(first, address, '200ms');
    await sleep(600);
    const late = seen.doubles().at(-1)!;
    expect(late.at).toBeGreaterThan(opened);
    const [overlap] = exact.overlaps();
    expect(overlap!.to - overlap!.from).toBeGreaterThan(190);
    expect(overlap!.to - overlap!.from).toBeLessThan(215);
    // The kernel closes it in the very moment that the exact judge reckons with.
    expect(late.at).toBeLessThan(overlap!.to + 5);
  });

  it('on two nodes, the gate of one flushed by somebody: both judges convict', async () => {
    await makeGate(first);
    await put(first, prefixed);
    await put(second, prefixed);
    await sleep(200);
    expect([seen.doubles(), exact.overlaps()]).toEqual([[], []]);
    await first.machine.must(['nft', 'flush ruleset']);
    await sleep(200);
    expect(seen.doubles().length).toBeGreaterThan(5);
    expect(exact.overlaps()).toHaveLength(1);
  });

  it('that runs out: the exact judge reckons with the kernel', async () => {
    await put(first, prefixed, 'valid_lft', '2', 'preferred_lft', '0');
    await sleep(4500);
    const [held, ...more] = exact.intervals('node-a', address);
    expect(more).toEqual([]);
    expect(held!.to - held!.from).toBeGreaterThan(1900);
    expect(held!.to - held!.from).toBeLessThan(4100);
  });
});

it('foreign noise is no business of the judges, and does not make them late', async () => {
  await using _first = new AddressNoise(first.machine, first.number);
  await using _second = new AddressNoise(second.machine, second.number);
  const begun = monotonic();
  await put(first, '192.168.1.41/32');
  await sleep(1000);
  expect(seen.silence('192.168.1.41', begun + 100)).toBeLessThan(100);
  expect([seen.doubles(), exact.overlaps()]).toEqual([[], []]);
  expect(exact.intervals('node-a', `198.51.100.${first.number}`).length).toBeGreaterThan(5);
});

describe('the exact judge', () => {
  const heard = (...lines: string[]) => {
    const times = new AnswerTimes('eth0');
    for (const line of lines) times.hear(line);
    return times;
  };
  const { table, live4, owned4 } = publicIp.gate;
  const added = '2: eth0    inet 10.0.0.1/32 scope global dynamic eth0:kube\\ valid_lft 10sec preferred_lft 10sec';

  it('takes a renewal, which closes and opens in one breath, for what it is', () => {
    const times = heard(
      `1000 add rule arp ${table} out arp saddr ip @owned4 drop`,
      `1000 add element arp ${table} ${owned4} { 10.0.0.1 }`,
      `1000 add element arp ${table} ${live4} { 10.0.0.1 timeout 1s expires 1s }`,
      `2000 ${added}`,
      `500000 delete element arp ${table} ${live4} { 10.0.0.1 timeout 1s expires 500ms }`,
      `500000 add element arp ${table} ${live4} { 10.0.0.1 timeout 1s500ms expires 1s500ms }`,
    );
    expect(times.intervals('10.0.0.1', 10_000)).toEqual([
      { from: 2, to: 500 },
      { from: 500, to: 2000 },
    ]);
  });

  it('knows neither other interfaces nor addresses that are still being tried', () => {
    const times = heard(
      `1000 3: eth1    inet 10.0.0.1/32 scope global eth1\\ valid_lft forever preferred_lft forever`,
      `1000 2: eth0    inet6 fd00::1/128 scope global tentative dynamic \\ valid_lft 10sec preferred_lft 0sec`,
    );
    expect([times.intervals('10.0.0.1', 9), times.intervals('fd00::1', 9)]).toEqual([[], []]);
  });
});
