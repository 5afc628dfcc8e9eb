// Public IPs on bad days: processes killed and stopped, nodes cut off, strangers at work. Never do two nodes answer, and the address comes back.
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { monotonic } from '../helpers/public-ip/clock.ts';
import type { PublicIpNode, Runner } from '../helpers/public-ip/node.ts';
import { eventually, type Judges, World } from '../helpers/public-ip/world.ts';

const ttl = 5;
/** Milliseconds that a crash may cost, and three times that: an owner's lease, etcd up to 0.5 s late, the probe. */
const crash = 3 * (ttl + 2) * 1000;
const handover = 3 * 500;

const addresses = ['192.168.1.41', 'fd00:53::1:41'] as const;

let world: World;
let judges: Judges;
const runners = new Map<PublicIpNode, Runner>();

beforeAll(async () => {
  world = await World.start({ etcd: { members: 3 }, flags: ['--ttl', String(ttl), '--rebalance', 'off'] });
});
beforeEach(async () => {
  judges = await world.judge(addresses);
});
afterEach(async () => {
  const verdict = judges.verdict();
  await judges[Symbol.asyncDispose]();
  const logs = [...runners].map(([{ name }, { log }]) => `--- ${name}\n${log}`).join('\n');
  await world.clear();
  runners.clear();
  expect(verdict, logs).toEqual([]);
});
afterAll(() => world?.[Symbol.asyncDispose]());

/** Starts all nodes and waits until every address is answered for. */
async function carried(): Promise<void> {
  for (const node of world.nodes) runners.set(node, await node.start());
  await eventually(async () => expect((await world.keys('/kiwi/agents/')).size).toBe(world.nodes.length));
  await world.createService({ name: 'web', addresses });
  await eventually(() => {
    for (const address of addresses) expect(judges.seen.holder(address), address).toBeDefined();
  });
  // Renewed at least once, so that what follows meets the usual state.
  await sleep(2000);
}

function ownerOf(address: string): PublicIpNode {
  const mac = judges.seen.holder(address);
  if (mac === undefined) throw new Error(`nobody answers for ${address}`);
  return world.nodeOf(mac);
}

/** Until another node answers, in milliseconds since `from`. */
async function takenOver(address: string, owner: PublicIpNode, from: number, within: number): Promise<number> {
  await eventually(() => {
    const other = judges.seen.answers(address, from).find(({ mac }) => mac !== owner.mac);
    expect(other, `another than ${owner.name} answers for ${address}`).toBeDefined();
  }, within);
  return judges.seen.answers(address, from).find(({ mac }) => mac !== owner.mac)!.at - from;
}

async function expectSilenceBelow(limit: number, from: number, to?: number): Promise<void> {
  for (const address of addresses) expect(judges.seen.silence(address, from, to), address).toBeLessThan(limit);
}

describe.each(addresses)('the owner of %s', address => {
  it('is killed: another takes over after its lease', async () => {
    await carried();
    const owner = ownerOf(address);
    const from = monotonic();
    await runners.get(owner)!.kill();
    const took = await takenOver(address, owner, from, crash);
    expect(took).toBeGreaterThan((ttl - 2 - ttl / 3) * 1000);
    expect(took).toBeLessThan(crash);
  });

  it('ends in order: another takes over at once', async () => {
    await carried();
    const owner = ownerOf(address);
    const from = monotonic();
    await runners.get(owner)!.stop();
    expect(await takenOver(address, owner, from, crash)).toBeLessThan(handover + 1000);
    await sleep(500);
    expect(judges.seen.silence(address, from)).toBeLessThan(handover);
    expect(await owner.addresses()).toEqual([]);
  });

  it('is cut from etcd, and comes back', async () => {
    await carried();
    const owner = ownerOf(address);
    const from = monotonic();
    {
      await using _ = await owner.cutFromEtcd();
      await takenOver(address, owner, from, crash);
      expect((await owner.addresses()).map(each => each.address)).not.toContain(address);
    }
    await sleep(2 * ttl * 1000);
    expect(judges.seen.silence(address, monotonic() - ttl * 1000)).toBeLessThan(1000);
    expect(runners.get(owner)!.running).toBe(true);
  });
});

describe('the owner', () => {
  const [address] = addresses;

  it.each(['main process', 'keeper', 'both'] as const)('has its %s stopped for three TTLs', async what => {
    await carried();
    const owner = ownerOf(address);
    const runner = runners.get(owner)!;
    const keeper = await runner.keeper();
    const pids = what === 'both' ? [runner.pid, keeper] : what === 'keeper' ? [keeper] : [runner.pid];
    const from = monotonic();
    await runner.freeze(...pids);
    const took = await takenOver(address, owner, from, crash + ttl * 1000);
    expect(took).toBeGreaterThan(1000);
    await sleep(Math.max(0, from + 3 * ttl * 1000 - monotonic()));
    runner.thaw(...pids);
    const thawed = monotonic();
    await sleep(3000);
    // Who was asleep has nothing to say.
    expect(judges.seen.silence(address, thawed)).toBeLessThan(1000);
    expect(ownerOf(address).name).not.toBe(owner.name);
    expect((await owner.addresses()).map(each => each.address)).not.toContain(address);
  });

  it('has its cable pulled, and put in again', async () => {
    await carried();
    const owner = ownerOf(address);
    const from = monotonic();
    await world.segment.setCable(owner.station, 'down');
    await takenOver(address, owner, from, crash);
    await world.segment.setCable(owner.station, 'up');
    await sleep(3000);
    expect(ownerOf(address).name).not.toBe(owner.name);
  });

  it('loses its claim by hand: deleted', async () => {
    await carried();
    const from = monotonic();
    await world.etcd.ctl('del', `/kiwi/publicips/${address}`);
    await sleep(ttl * 1000 + 1000);
    await judges.seen.firstAnswer(address, monotonic(), { within: crash });
    expect(judges.seen.silence(address, from)).toBeLessThan(crash);
    expect(await world.claims()).toHaveProperty('size', addresses.length);
  });

  it('loses its claim by hand: given to another', async () => {
    await carried();
    const owner = ownerOf(address);
    await world.etcd.ctl('put', `/kiwi/publicips/${address}`, 'somebody-else');
    await eventually(async () => expect((await owner.addresses()).map(each => each.address)).not.toContain(address));
    const gone = monotonic();
    await sleep(1000);
    expect(judges.seen.answers(address, gone + 100)).toEqual([]);
    await world.etcd.ctl('del', `/kiwi/publicips/${address}`);
    await judges.seen.firstAnswer(address, gone, { within: crash });
  });

  it('has its lease revoked', async () => {
    await carried();
    const owner = ownerOf(address);
    const { kvs } = JSON.parse(await world.etcd.ctl('get', `/kiwi/publicips/${address}`, '--write-out', 'json')) as {
      readonly kvs: readonly { readonly lease: number }[];
    };
    const text = await world.etcd.ctl('get', `/kiwi/publicips/${address}`, '--write-out', 'fields');
    const lease = BigInt(/"Lease" : (\d+)/.exec(text)![1]!).toString(16);
    expect(kvs[0]!.lease).toBeGreaterThan(0);
    const from = monotonic();
    await world.etcd.ctl('lease', 'revoke', lease);
    await sleep(1000);
    await judges.seen.firstAnswer(address, monotonic(), { within: crash });
    expect(judges.seen.silence(address, from)).toBeLessThan(crash);
    await eventually(() => expect(runners.get(owner)!.running).toBe(true));
    await eventually(async () => expect((await world.keys('/kiwi/agents/')).size).toBe(world.nodes.length));
  });
});

describe('a stranger', () => {
  it('flushes the addresses of the owner: they come back', async () => {
    await carried();
    const owner = ownerOf(addresses[0]);
    const from = monotonic();
    await owner.must('ip', 'address', 'flush', 'dev', 'eth0', 'to', '192.168.1.0/24');
    await sleep(1000);
    await judges.seen.firstAnswer(addresses[0], monotonic(), { within: crash });
    expect(judges.seen.silence(addresses[0], from)).toBeLessThan(crash);
  });

  it('flushes the nftables of every node: the gate comes back, and nobody else answers', async () => {
    await carried();
    for (let round = 0; round < 5; round++) {
      for (const node of world.nodes) await node.must('nft', 'flush', 'ruleset');
      await sleep(700);
    }
    await eventually(async () => {
      for (const node of world.nodes)
        expect(await node.must('nft', 'list', 'tables')).toMatch(/arp kube_ipam_public_ip/);
    });
    await sleep(1000);
    for (const address of addresses) expect(judges.seen.holder(address)).toBeDefined();
  });

  it('flushes the nftables of an owner that is then killed', async () => {
    await carried();
    const owner = ownerOf(addresses[0]);
    const from = monotonic();
    await owner.must('nft', 'flush', 'ruleset');
    await runners.get(owner)!.kill();
    await takenOver(addresses[0], owner, from, crash);
  });

  it('has the address already, on a machine that is no node: nobody takes it', async () => {
    const { machine, mac } = world.segment.client;
    await machine.must(['ip', 'address', 'add', '192.168.1.41/32', 'dev', 'eth0']);
    try {
      for (const node of world.nodes) runners.set(node, await node.start());
      await world.createService({ name: 'web', addresses });
      await judges.seen.firstAnswer(addresses[1], 0);
      await eventually(async () => {
        const told = await world.events('AddressAnsweredElsewhere');
        expect(told.join('\n')).toContain(mac);
      });
      expect(judges.seen.answers(addresses[0])).toEqual([]);
    } finally {
      await machine.must(['ip', 'address', 'del', '192.168.1.41/32', 'dev', 'eth0']);
    }
    await judges.seen.firstAnswer(addresses[0], 0, { within: 90_000 });
  });

  it('has put the address on a node by hand: it stays as it is, and no node of ours answers beside it', async () => {
    const [node] = world.nodes as [PublicIpNode];
    await node.must('ip', 'address', 'add', '192.168.1.41/32', 'dev', 'eth0');
    for (const each of world.nodes) runners.set(each, await each.start());
    await world.createService({ name: 'web', addresses });
    await judges.seen.firstAnswer(addresses[1], 0);
    await sleep(2 * ttl * 1000);
    expect((await node.addresses()).filter(({ address }) => address === addresses[0])).toMatchObject([
      { label: 'eth0', validFor: undefined },
    ]);
    expect(new Set(judges.seen.answers(addresses[0]).map(({ mac }) => mac))).toEqual(new Set([node.mac]));
  });
});

describe('a node', () => {
  it('has the address on a device of its proxy, as all others do: one node answers', async () => {
    // A dummy device is not in every kernel; a bridge without ports is as quiet. The setting is that of strictARP.
    for (const node of world.nodes) {
      await node.must('sysctl', '-qw', 'net.ipv4.conf.all.arp_ignore=1');
      await node.must('ip', 'link', 'add', 'kube-ipvs0', 'type', 'bridge');
      await node.must('ip', 'address', 'add', '192.168.1.41/32', 'dev', 'kube-ipvs0');
    }
    try {
      await carried();
      // Without strictARP only our own settings keep a node quiet, and must do so when it has handed over.
      for (const node of world.nodes) await node.must('sysctl', '-qw', 'net.ipv4.conf.all.arp_ignore=0');
      const owner = ownerOf(addresses[0]);
      const from = monotonic();
      await runners.get(owner)!.stop();
      await takenOver(addresses[0], owner, from, crash);
      await sleep(1000);
    } finally {
      for (const node of world.nodes) {
        await node.must('ip', 'link', 'del', 'kube-ipvs0');
        await node.must('sysctl', '-qw', 'net.ipv4.conf.all.arp_ignore=0');
      }
    }
  });

  it('has two interfaces on the same wire: only one of them answers', async () => {
    for (const { station, machine } of world.nodes) {
      await world.segment.addInterface(station, 'eth1');
      await machine.must(['ip', 'address', 'add', `192.168.2.${station.number}/16`, 'dev', 'eth1']);
    }
    try {
      await carried();
      for (const address of addresses) {
        const macs = new Set(judges.seen.answers(address).map(({ mac }) => mac));
        expect(macs).toEqual(new Set([ownerOf(address).mac]));
      }
    } finally {
      for (const { machine } of world.nodes) await machine.must(['ip', 'link', 'del', 'eth1']);
    }
  });
});

describe('the id of an agent', () => {
  it('cannot be had twice: the second waits until the first is gone', async () => {
    await carried();
    const owner = ownerOf(addresses[0]);
    const other = world.nodes.find(node => node !== owner)!;
    await runners.get(other)!.stop();
    const from = monotonic();
    const twin = await other.start('--agent-id', owner.name);
    await sleep(2 * ttl * 1000);
    expect(twin.running).toBe(true);
    expect(twin.log).toMatch(/in use/);
    expect(judges.seen.silence(addresses[0], from)).toBeLessThan(500);
    expect(await other.addresses()).toEqual([]);
  });

  it('nor can a network namespace: the second process ends with exit code 4', async () => {
    await carried();
    const [node] = world.nodes as [PublicIpNode];
    const second = await node.command('run', '--agent-id', 'another', ...world.flags);
    expect([second.code, second.stderr]).toEqual([4, expect.stringMatching(/already/)]);
  });
});

describe('a restart', () => {
  it('with --on-exit keep loses no answer', async () => {
    for (const node of world.nodes) runners.set(node, await node.start('--on-exit', 'keep'));
    await eventually(async () => expect((await world.keys('/kiwi/agents/')).size).toBe(world.nodes.length));
    await world.createService({ name: 'web', addresses });
    await eventually(() => {
      for (const address of addresses) expect(judges.seen.holder(address)).toBeDefined();
    });
    await sleep(2000);
    const owner = ownerOf(addresses[0]);
    const from = monotonic();
    for (let round = 0; round < 3; round++) {
      await runners.get(owner)!.stop();
      runners.set(owner, await owner.start('--on-exit', 'keep'));
      await sleep(ttl * 1000);
    }
    await sleep(ttl * 1000);
    await expectSilenceBelow(300, from);
    expect(ownerOf(addresses[0]).name).toBe(owner.name);
  });

  it('after a crash takes its addresses back, or another has them', async () => {
    await carried();
    const owner = ownerOf(addresses[0]);
    const from = monotonic();
    await runners.get(owner)!.kill();
    runners.set(owner, await owner.start());
    await sleep(2 * ttl * 1000);
    await judges.seen.firstAnswer(addresses[0], monotonic());
    expect(judges.seen.silence(addresses[0], from)).toBeLessThan(crash);
    await eventually(async () => expect((await world.keys('/kiwi/agents/')).size).toBe(world.nodes.length));
  });

  it('of the whole node finds files of the past, and nothing in the kernel', async () => {
    await carried();
    const owner = ownerOf(addresses[1]);
    const from = monotonic();
    await runners.get(owner)!.kill();
    await owner.must('nft', 'flush', 'ruleset');
    await owner.must('ip', 'address', 'flush', 'dev', 'eth0', 'to', '192.168.1.0/24');
    await owner.must('ip', '-6', 'address', 'flush', 'dev', 'eth0', 'to', 'fd00:53::1:0/112');
    await takenOver(addresses[1], owner, from, crash);
    runners.set(owner, await owner.start());
    await sleep(2 * ttl * 1000);
    await judges.seen.firstAnswer(addresses[1], monotonic());
  });
});

describe('the servers', () => {
  it('lose one member of etcd, then its leader: no address is dropped', async () => {
    await carried();
    for (const which of ['follower', 'leader'] as const) {
      const member = await memberThatIs(which);
      const from = monotonic();
      await member.kill();
      await sleep(2 * ttl * 1000);
      await expectSilenceBelow(500, from);
      await member.restart();
      await sleep(2000);
    }
  });

  it('lose their quorum for long: everything is dropped, and taken back by its owner', async () => {
    await carried();
    const owners = addresses.map(address => ownerOf(address).name);
    const [one, two] = world.etcd.members;
    await Promise.all([one!.kill(), two!.kill()]);
    await sleep((ttl + 1) * 1000);
    const silent = monotonic();
    await sleep(1000);
    for (const address of addresses) expect(judges.seen.answers(address, silent), address).toEqual([]);
    for (const node of world.nodes) expect(await node.addresses()).toEqual([]);
    await Promise.all([one!.restart(), two!.restart()]);
    const back = monotonic();
    for (const address of addresses) await judges.seen.firstAnswer(address, back, { within: crash });
    await sleep(1000);
    expect(addresses.map(address => ownerOf(address).name)).toEqual(owners);
  });

  it('lose the API: addresses stay, and move when their owner dies', async () => {
    await carried();
    const from = monotonic();
    await world.plane.apiServer.stop();
    try {
      await sleep(2 * ttl * 1000);
      await expectSilenceBelow(500, from);
      const owner = ownerOf(addresses[0]);
      const killed = monotonic();
      await runners.get(owner)!.kill();
      await takenOver(addresses[0], owner, killed, crash);
    } finally {
      world.plane.apiServer.cont();
    }
  });
});

async function memberThatIs(role: 'leader' | 'follower') {
  const status = JSON.parse(await world.etcd.ctl('endpoint', 'status', '--write-out', 'json')) as {
    readonly Endpoint: string;
    readonly Status: { readonly leader: number; readonly header: { readonly member_id: number } };
  }[];
  const found = status.find(({ Status }) => (Status.leader === Status.header.member_id) === (role === 'leader'))!;
  return world.etcd.members.find(({ endpoint }) => endpoint === found.Endpoint)!;
}
