// The keeper on a real network with a real etcd: it answers exactly as long as lease and claims are sure, whatever is killed or stopped.
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { deadlineIn } from '../../src/base/clock.ts';
import { converse } from '../../src/host/exec.ts';
import { KeeperRunningError } from '../../src/publicip/keeper/parent.ts';
import type { KeeperConfig, Report } from '../../src/publicip/keeper/protocol.ts';
import { type GrpcKv, openGrpc } from '../../src/store/etcd/grpc.ts';
import type { EtcdCluster, EtcdMember } from '../helpers/etcd.ts';
import { searchPath, whyNoMachine } from '../helpers/machine.ts';
import { monotonic } from '../helpers/public-ip/clock.ts';
import { KeeperWorld, Kept, keeperCommand, keeperConfig } from '../helpers/public-ip/keeper.ts';
import { SeenJudge } from '../helpers/public-ip/seen.ts';
import type { Station } from '../helpers/public-ip/segment.ts';
import { allStopped } from '../helpers/server-process.ts';

const why = await whyNoMachine();

describe.skipIf(why !== undefined)(`a keeper${why === undefined ? '' : ` (${why})`}`, () => {
  let world: KeeperWorld;
  let kv: GrpcKv;
  let judge: SeenJudge;
  let node: Station;
  let number = 0;

  // Each test has addresses of its own, which the judge asks for all the time.
  const pool = Array.from({ length: 30 }, (_, n) => [`192.168.1.${n + 1}`, `fd00:53::1:${n + 1}`]).flat();

  beforeAll(async () => {
    world = await KeeperWorld.start(['node-a']);
    kv = openGrpc(world.etcd.target());
    [node] = world.segment.nodes as [Station];
    await node.machine.must(['sysctl', '-q', '-w', 'net.ipv6.conf.eth0.accept_dad=0']);
    judge = await SeenJudge.start(world.segment.client.machine, pool);
  });
  afterAll(async () => {
    await judge?.[Symbol.asyncDispose]();
    await kv?.[Symbol.asyncDispose]();
    await world?.[Symbol.asyncDispose]();
  });

  const start = (changes: Partial<KeeperConfig> = {}) =>
    Kept.start(kv, node, keeperConfig(world.etcd, node, '/kiwi/', changes));
  /** One address of each family. */
  const pair = () => {
    number += 2;
    return pool.slice(number - 2, number) as [string, string];
  };
  const shown = async () => (await node.machine.must(['ip', '-oneline', 'address', 'show', 'dev', 'eth0'])).trim();
  const answers = (address: string) => judge.holder(address) === node.mac;
  const nft = (text: string) => node.machine.must(['nft', '-f', '-'], { input: text });

  async function eventually(check: () => unknown, within = 20_000): Promise<void> {
    for (const until = monotonic() + within; !(await check()); await sleep(20)) {
      if (monotonic() > until) throw new Error(`never: ${check}`);
    }
  }

  it('answers for what it is granted, with label and end, and for nothing once that is dropped', async () => {
    await using kept = await start();
    const [v4, v6] = pair();
    expect(await kept.own(v4, v6)).toEqual({});
    await eventually(() => answers(v4) && answers(v6));
    const lines = (await shown()).split('\n');
    const [line4, line6] = [v4, v6].map(address => lines.find(line => line.includes(` ${address}/`)));
    expect(line4).toMatch(/\/32 .*dynamic eth0:kube\\ +valid_lft [3-5]sec preferred_lft [3-5]sec/);
    expect(line6).toMatch(/\/128 .*dynamic.*\\ +valid_lft [3-5]sec preferred_lft 0sec/);
    // Longer than the lease, the lifetimes and the gate would last without renewal.
    const from = monotonic();
    await sleep(7000);
    for (const address of [v4, v6]) expect(judge.silence(address, from)).toBeLessThan(500);
    expect(kept.heard('renewed').length).toBeGreaterThanOrEqual(3);
    expect([...(await kept.keeper.drop([v4, v6]))]).toEqual([]);
    const dropped = monotonic();
    expect(await shown()).not.toMatch(/kube|fd00:53::1:/);
    await sleep(500);
    for (const address of [v4, v6]) expect(judge.answers(address, dropped)).toEqual([]);
    expect(await node.machine.must(['nft', 'list', 'ruleset'])).not.toContain(v4);
    expect([...(await kept.keeper.drop([v4, v6]))]).toEqual([]);
    expect(kept.heard('fenced')).toEqual([]);
  });

  it('grants nothing that was not permitted within a second before', async () => {
    await using kept = await start();
    const [early] = pair();
    const [late, v6] = pair();
    const [never] = pair();
    const lease = await kept.lease();
    await kept.keeper.permit([early]);
    await sleep(1100);
    await kept.keeper.permit([late, v6]);
    await kept.claim([early, late, v6, never], lease.id);
    const failures = await kept.keeper.grant([never, late, early, v6]);
    expect([...failures.keys()].sort()).toEqual([early, never].sort());
    await eventually(() => answers(late) && answers(v6));
    expect(judge.answers(early)).toEqual([]);
    expect(await shown()).not.toContain(`${early}/32`);
    // A permit is used up.
    expect([...(await kept.keeper.grant([late])).keys()]).toEqual([late]);
    expect(await shown()).not.toContain(`${late}/32`);
  });

  it('leaves hand-made addresses alone, wherever they are', async () => {
    await using kept = await start();
    const [here, there] = pair();
    await node.machine.must(['ip', 'address', 'add', `${here}/32`, 'dev', 'eth0']);
    await node.machine.must(['ip', 'address', 'add', `${there}/128`, 'dev', 'lo', 'nodad']);
    const before = await node.machine.must(['ip', '-oneline', 'address']);
    const failures = await kept.own(here, there);
    expect(failures[here]).toMatch(/eth0 already/);
    expect(failures[there]).toMatch(/lo already/);
    expect([...(await kept.keeper.drop([here, there]))]).toEqual([]);
    expect(await node.machine.must(['ip', '-oneline', 'address'])).toBe(before);
    await node.machine.must(['ip', 'address', 'del', `${here}/32`, 'dev', 'eth0']);
    await node.machine.must(['ip', 'address', 'del', `${there}/128`, 'dev', 'lo']);
  });

  it('minds no address that a proxy has on a device of its own', async () => {
    await using kept = await start();
    const [v4] = pair();
    await node.machine.must(['ip', 'link', 'add', 'kube-ipvs0', 'type', 'bridge']);
    await node.machine.must(['ip', 'address', 'add', `${v4}/32`, 'dev', 'kube-ipvs0']);
    expect(await kept.own(v4)).toEqual({});
    await eventually(() => answers(v4));
    expect(await shown()).toContain(`${v4}/32`);
    expect([...(await kept.keeper.drop([v4]))]).toEqual([]);
    expect(await shown()).not.toContain(`${v4}/32`);
    expect(await node.machine.must(['ip', 'address', 'show', 'dev', 'kube-ipvs0'])).toContain(`${v4}/32`);
    await node.machine.must(['ip', 'link', 'del', 'kube-ipvs0']);
  });

  it('that is killed leaves everything to run out before the lease does', async () => {
    const kept = await start();
    const [v4, v6] = pair();
    expect(await kept.own(v4, v6)).toEqual({});
    await eventually(() => answers(v4) && answers(v6));
    const { heldUntil } = kept.keeper.lease()!;
    const end = heldUntil - performance.now() + monotonic();
    process.kill(kept.keeper.pid!, 'SIGKILL');
    await eventually(() => kept.heard('failed').length === 1);
    await expect(kept.keeper.drop([v4])).rejects.toThrow('keeper');
    await sleep(Math.max(0, end - monotonic()) + 3000);
    for (const address of [v4, v6]) {
      const last = judge.answers(address).at(-1)!.at;
      // Renewed once more, perhaps, between the two looks at it.
      expect(last).toBeLessThan(end - 900 + 1700);
      expect(last).toBeGreaterThan(end - 2500);
    }
    expect(await shown()).not.toMatch(/kube|fd00:53::1:/);
    // The next one clears away what is left of the gate.
    await using next = await start();
    await next.lease();
    await eventually(async () => !(await node.machine.must(['nft', 'list', 'ruleset'])).includes(v4));
  });

  it('that is stopped answers no longer than its lease, and when it goes on says that all is lost', async () => {
    await using kept = await start();
    const [v4, v6] = pair();
    expect(await kept.own(v4, v6)).toEqual({});
    await eventually(() => answers(v4) && answers(v6));
    const { heldUntil, id } = kept.keeper.lease()!;
    process.kill(kept.keeper.pid!, 'SIGSTOP');
    while (!allStopped(kept.keeper.pid!)) await sleep(2);
    const end = heldUntil - performance.now() + monotonic();
    await sleep(12_000);
    process.kill(kept.keeper.pid!, 'SIGCONT');
    const woken = monotonic();
    await eventually(() => kept.heard('lost').length === 1);
    await eventually(() => kept.heard('leased').length === 2);
    expect(kept.keeper.lease()!.id).not.toBe(id);
    for (const address of [v4, v6]) {
      expect(judge.answers(address).at(-1)!.at).toBeLessThan(end - 900 + 1700);
      expect(judge.answers(address, woken)).toEqual([]);
    }
    expect(await shown()).not.toMatch(/kube|fd00:53::1:/);
    expect(await kept.own(v4, v6)).toEqual({});
    await eventually(() => answers(v4) && answers(v6));
  });

  /** A keeper whose main says only what the test says. */
  function silentMain() {
    const reports: Report[] = [];
    const ended = Promise.withResolvers<void>();
    const [file, ...args] = keeperCommand(node);
    const child = converse(
      file,
      args,
      { PATH: searchPath },
      {
        line: line => reports.push(JSON.parse(line)),
        complaint: () => {},
        ended: () => ended.resolve(),
      },
    );
    const say = (what: object) => child.say(`${JSON.stringify(what)}\n`);
    let asks = 0;
    const ask = async (verb: string, address: string): Promise<string | undefined> => {
      const number = ++asks;
      say({ ask: number, verb, addresses: [address] });
      const answer = () => reports.find(one => 'answer' in one && one.answer === number);
      await eventually(() => answer() !== undefined);
      return (answer() as { failures: Record<string, string> }).failures[address];
    };
    const leases = () => reports.flatMap(one => ('lease' in one ? [one.lease] : []));
    const claim = (address: string, lease = leases().at(-1)!.id) =>
      kv.commit({ conditions: [], writes: [{ put: `/kiwi/publicips/${address}`, value: 'me', lease }] }, soon());
    say({ configure: keeperConfig(world.etcd, node, '/kiwi/') });
    return {
      child,
      ended: ended.promise,
      reports,
      say,
      ask,
      leases,
      claim,
      [Symbol.dispose]: () => child[Symbol.dispose](),
    };
  }

  it('stops renewing while main is silent, and ends with main without touching anything', async () => {
    using main = silentMain();
    const [v4] = pair();
    const { reports, leases, ask } = main;
    await eventually(() => leases().length > 0);
    await ask('permit', v4);
    await main.claim(v4);
    expect(await ask('grant', v4)).toBeUndefined();
    const spoke = monotonic();
    await eventually(() => answers(v4));
    await eventually(() => reports.some(one => 'fenced' in one));
    const [last] = leases().slice(-1);
    // Renewed for as long as main was not silent for a whole TTL, and no longer.
    expect(last!.heldUntil).toBeGreaterThan(spoke + 5000);
    expect(last!.heldUntil).toBeLessThan(spoke + 10_500);
    await sleep(Math.max(0, last!.heldUntil - monotonic()) + 1500);
    const silent = monotonic();
    expect(leases().at(-1)).toEqual(last);
    expect(judge.answers(v4, last!.heldUntil)).toEqual([]);
    main.say({ alive: true });
    await eventually(() => reports.some(one => 'lost' in one) && leases().at(-1)!.id !== last!.id);
    expect(judge.answers(v4, silent)).toEqual([]);
    await ask('permit', v4);
    await main.claim(v4);
    expect(await ask('grant', v4)).toBeUndefined();
    await eventually(() => answers(v4));
    main.child.hangUp();
    await main.ended;
    const left = monotonic();
    expect(await shown()).toContain(`${v4}/32`);
    await sleep(1000);
    expect(judge.silence(v4, left)).toBeLessThan(500);
    await sleep(6000);
    expect(answers(v4)).toBe(false);
    expect(await shown()).not.toContain(`${v4}/32`);
  }, 90_000);

  it.each(['before it claims', 'after it has claimed', 'after it has dropped'])(
    'answers for nothing that main, stopped %s, asks for when it goes on',
    async when => {
      using main = silentMain();
      const [v4] = pair();
      const { ask, leases, reports } = main;
      await eventually(() => leases().length > 0);
      const lease = leases().at(-1)!.id;
      await ask('permit', v4);
      if (when !== 'before it claims') await main.claim(v4, lease);
      if (when === 'after it has dropped') {
        expect(await ask('grant', v4)).toBeUndefined();
        await eventually(() => answers(v4));
        expect(await ask('drop', v4)).toBeUndefined();
      }
      const stopped = monotonic();
      await sleep(15_000);
      main.say({ alive: true });
      await eventually(() => reports.some(one => 'lost' in one) && leases().at(-1)!.id !== lease);
      if (when === 'before it claims') await expect(main.claim(v4, lease)).rejects.toThrow('lease');
      expect(await ask('grant', v4)).toContain('not permitted');
      await sleep(500);
      expect(judge.answers(v4, stopped + 50)).toEqual([]);
      expect(await shown()).not.toContain(`${v4}/32`);
      main.child.hangUp();
      await main.ended;
    },
    60_000,
  );

  it('stops answering in time when etcd does not answer, and may have everything back on the same lease', async () => {
    await using kept = await start({ ttl: 8 });
    const [v4, v6] = pair();
    expect(await kept.own(v4, v6)).toEqual({});
    await eventually(() => answers(v4) && answers(v6));
    const [member] = world.etcd.members;
    await member!.stop();
    try {
      await eventually(() => kept.heard('fenced').length > 0);
      const { heldUntil, id } = kept.keeper.lease()!;
      expect(heldUntil - performance.now()).toBeGreaterThan(1000);
      expect(await shown()).not.toMatch(/kube|fd00:53::1:/);
      member!.cont();
      const renewals = kept.heard('renewed').length;
      await eventually(() => kept.heard('renewed').length > renewals);
      expect(kept.keeper.lease()!.id).toBe(id);
    } finally {
      member!.cont();
    }
    const back = monotonic();
    expect(await kept.own(v4, v6)).toEqual({});
    for (const address of [v4, v6]) await judge.firstAnswer(address, back, { within: 5000 });
    expect(kept.heard('lost')).toEqual([]);
  });

  it('lets go of a claim that somebody deleted, though main says nothing of it', async () => {
    await using kept = await start();
    const [v4, v6] = pair();
    expect(await kept.own(v4, v6)).toEqual({});
    await eventually(() => answers(v4) && answers(v6));
    const from = monotonic();
    await world.etcd.ctl('del', `/kiwi/publicips/${v4}`);
    await eventually(() => kept.heard('fenced').length > 0);
    expect(kept.heard('fenced')).toEqual([[v4]]);
    expect(judge.answers(v4).at(-1)!.at - from).toBeLessThan(5000);
    await eventually(() => answers(v6));
    expect(await shown()).not.toContain(`${v4}/`);
  });

  it('drops all of a lease that somebody revoked, and gets another', async () => {
    await using kept = await start();
    const [v4] = pair();
    expect(await kept.own(v4)).toEqual({});
    const { id } = kept.keeper.lease()!;
    await world.etcd.ctl('lease', 'revoke', BigInt(id).toString(16));
    await eventually(() => kept.heard('lost').length > 0);
    expect(kept.heard('lost')).toEqual([[v4]]);
    await eventually(() => kept.heard('leased').length === 2);
    expect(await shown()).not.toContain(`${v4}/`);
  });

  it('puts back what others flush, and its gate before anything else', async () => {
    await using kept = await start({ ttl: 30 });
    const [v4, v6] = pair();
    expect(await kept.own(v4, v6)).toEqual({});
    await eventually(() => answers(v4) && answers(v6));
    const from = monotonic();
    await nft('flush ruleset');
    await eventually(async () => (await node.machine.must(['nft', 'list', 'ruleset'])).includes(v6));
    // One rule alone, which opens the gate for ever.
    await nft('flush chain arp kube_ipam_public_ip output');
    await eventually(async () =>
      (await node.machine.must(['nft', 'list', 'ruleset'])).includes('arp saddr ip @owned4'),
    );
    await node.machine.must(['ip', 'address', 'flush', 'dev', 'eth0', 'label', 'eth0:kube']);
    await node.machine.must(['ip', 'address', 'del', `${v6}/128`, 'dev', 'eth0']);
    await eventually(async () => (await shown()).includes(`${v4}/32`) && (await shown()).includes(`${v6}/128`));
    await eventually(() => answers(v4) && answers(v6));
    for (const address of [v4, v6]) expect(judge.silence(address, from)).toBeLessThan(2000);
    expect(kept.heard('fenced')).toEqual([]);
    // Shut by somebody's hand: it had run out, as far as anybody can tell.
    await nft(`delete element arp kube_ipam_public_ip live4 { ${v4} }`);
    await eventually(() => kept.heard('fenced').length > 0);
    expect(kept.heard('fenced')).toEqual([[v4]]);
    await eventually(() => answers(v6));
  }, 60_000);

  it('hands everything on to the next process without a gap', async () => {
    const first = await start();
    const [v4, v6] = pair();
    expect(await first.own(v4, v6)).toEqual({});
    await eventually(() => answers(v4) && answers(v6));
    const from = monotonic();
    await first.keeper.leave();
    await using second = await start();
    await second.claim([v4, v6], (await second.lease()).id);
    expect([...(await second.keeper.adopt([v4, v6]))]).toEqual([]);
    await sleep(7000);
    for (const address of [v4, v6]) expect(judge.silence(address, from)).toBeLessThan(500);
    // What has run out is not taken over, nor is what was not there.
    await second.keeper.leave();
    await sleep(4500);
    const [other] = pair();
    await using third = await start();
    await third.claim([v4, v6, other], (await third.lease()).id);
    expect([...(await third.keeper.adopt([v4, v6, other])).keys()].sort()).toEqual([other, v4, v6].sort());
    expect(await shown()).not.toMatch(/kube|fd00:53::1:/);
  }, 60_000);

  it('drops everything before it ends its lease', async () => {
    const kept = await start();
    const [v4, v6] = pair();
    expect(await kept.own(v4, v6)).toEqual({});
    await eventually(() => answers(v4) && answers(v6));
    await kept.keeper[Symbol.asyncDispose]();
    const ended = monotonic();
    expect(await world.etcd.ctl('get', '--prefix', '/kiwi/publicips/')).not.toContain(v4);
    expect(await node.machine.must(['nft', 'list', 'tables'])).not.toContain('kube');
    expect(await shown()).not.toMatch(/kube|fd00:53::1:/);
    await sleep(300);
    for (const address of [v4, v6]) expect(judge.answers(address, ended)).toEqual([]);
  });

  it('trusts no program that does not answer: nothing comes later, and the next try is as good as the first', async () => {
    await using kept = await start({ ttl: 20 });
    const [v4, v6] = pair();
    await kept.lease();
    const batch = childrenOf(kept.keeper.pid!).find(pid =>
      readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes('-batch'),
    );
    signal(batch!, 'SIGSTOP');
    const failures = await kept.own(v4, v6);
    expect(Object.keys(failures).sort()).toEqual([v4, v6].sort());
    signal(batch!, 'SIGCONT');
    await sleep(1000);
    expect(await shown()).not.toMatch(/kube|fd00:53::1:/);
    for (const address of [v4, v6]) expect(judge.answers(address)).toEqual([]);
    expect(await kept.own(v4, v6)).toEqual({});
    await eventually(() => answers(v4) && answers(v6));
  });

  it('has its network to itself', async () => {
    await using kept = await start();
    await kept.lease();
    await expect(start()).rejects.toThrow(KeeperRunningError);
  });

  it('shuts the gate of a machine that slept until a renewal was acknowledged', async () => {
    const file = join(node.machine.folder, 'uptime');
    let slept = 0;
    const write = () => {
      writeFileSync(`${file}.new`, `${((monotonic() + slept) / 1000).toFixed(2)} 1.00\n`);
      renameSync(`${file}.new`, file);
    };
    write();
    const clock = setInterval(write, 20);
    try {
      await using kept = await start({ uptime: file, ttl: 15 });
      const [v4] = pair();
      expect(await kept.own(v4)).toEqual({});
      await eventually(() => answers(v4));
      const [member] = world.etcd.members;
      await member!.stop();
      slept = 60_000;
      await eventually(() => judge.answers(v4, monotonic() - 300).length === 0);
      expect(await shown()).toContain(`${v4}/32`);
      expect(JSON.stringify(kept.heard('trouble'))).toContain('slept');
      member!.cont();
      await eventually(() => answers(v4));
      expect(kept.heard('fenced')).toEqual([]);
    } finally {
      world.etcd.members[0]!.cont();
      clearInterval(clock);
    }
  });

  it('bounds addresses by their lifetimes alone where there is no nft', async () => {
    const hidden = 'busybox mount --bind /dev/null /usr/sbin/nft && exec "$@"';
    const hide = ['unshare', '--mount', 'busybox', 'sh', '-c', hidden, 'sh'];
    await using kept = await Kept.start(kv, node, keeperConfig(world.etcd, node, '/kiwi/', { ttl: 9 }), hide);
    expect(kept.keeper.isGated).toBe(false);
    const [v4, v6] = pair();
    expect(await kept.own(v4, v6)).toEqual({});
    await eventually(() => answers(v4) && answers(v6));
    const from = monotonic();
    await sleep(10_000);
    for (const address of [v4, v6]) expect(judge.silence(address, from)).toBeLessThan(500);
    process.kill(kept.keeper.pid!, 'SIGSTOP');
    while (!allStopped(kept.keeper.pid!)) await sleep(2);
    const { heldUntil } = kept.keeper.lease()!;
    const end = heldUntil - performance.now() + monotonic();
    await eventually(() => !answers(v4) && !answers(v6));
    // It was stopped after a renewal of which it could not tell any more, perhaps.
    for (const address of [v4, v6]) expect(judge.answers(address).at(-1)!.at).toBeLessThan(end + 3000);
    await sleep(Math.max(0, end - monotonic()));
    process.kill(kept.keeper.pid!, 'SIGCONT');
    const woken = monotonic();
    await eventually(() => kept.heard('lost').length + kept.heard('fenced').length > 0);
    for (const address of [v4, v6]) expect(judge.answers(address, woken)).toEqual([]);
  }, 90_000);

  it('renews a thousand addresses as one', async () => {
    await using kept = await start();
    const many = Array.from({ length: 1000 }, (_, n) => `10.${(n >> 8) + 1}.${n & 255}.1`);
    const lease = await kept.lease();
    await kept.keeper.permit(many);
    for (let n = 0; n < many.length; n += 100) await kept.claim(many.slice(n, n + 100), lease.id);
    expect([...(await kept.keeper.grant(many))]).toEqual([]);
    await sleep(6000);
    expect(kept.heard('fenced')).toEqual([]);
    expect((await shown()).split('\n').filter(line => line.includes('eth0:kube'))).toHaveLength(1000);
    expect([...(await kept.keeper.drop(many))]).toEqual([]);
    expect(await shown()).not.toContain('eth0:kube');
  }, 60_000);

  it('never answers when its claims are gone, wherever it and what it started are stopped', async () => {
    await using kept = await start();
    const [v4, v6] = pair();
    const gone: number[] = [];
    const over = new AbortController();
    const { revision } = await kv.read([{ key: '/kiwi/' }], soon());
    const watching = (async () => {
      for await (const { events } of kv.watch('/kiwi/publicips/', revision + 1, { signal: over.signal })) {
        if (events.some(event => event.type === 'delete' && event.key.endsWith(v4))) gone.push(monotonic());
      }
    })();
    const granted: number[] = [];
    const violations: unknown[] = [];
    // Short stops hit what is between two steps, long ones outlast the lease.
    for (const seconds of [0.3, 6, 0.6, 9, 1.2, 7, 2.5, 8]) {
      await eventually(async () => Object.keys(await kept.own(v4, v6)).length === 0);
      granted.push(monotonic());
      await eventually(() => answers(v4) && answers(v6));
      // A third of the TTL is the distance of two renewals: somewhere between them, or in the midst of one.
      await sleep(Math.random() * 1700);
      const group = [kept.keeper.pid!, ...childrenOf(kept.keeper.pid!)];
      for (const pid of group) signal(pid, 'SIGSTOP');
      await sleep(seconds * 1000);
      for (const pid of group.toReversed()) signal(pid, 'SIGCONT');
      await sleep(1500);
    }
    over.abort();
    await watching;
    for (const at of gone) {
      const again = granted.find(one => one > at) ?? Number.POSITIVE_INFINITY;
      for (const address of [v4, v6]) {
        const late = judge.answers(address, at, again - 500);
        if (late.length > 0) violations.push({ address, at, late });
      }
    }
    expect(violations).toEqual([]);
    // Every stop that was longer than the lease was one that could have gone wrong.
    expect(gone.length).toBeGreaterThanOrEqual(4);
  }, 170_000);
});

describe.skipIf(why !== undefined)(`a keeper with three members of etcd${why === undefined ? '' : ` (${why})`}`, () => {
  it.each(['stopped', 'killed'])(
    'drops nothing when the one that it uses is %s, nor when that is the leader',
    async how => {
      await using world = await KeeperWorld.start(['node-a'], { members: 3 });
      await using kv = openGrpc(world.etcd.target());
      const [node] = world.segment.nodes as [Station];
      const address = '192.168.1.1';
      await using judge = await SeenJudge.start(world.segment.client.machine, [address]);
      await using kept = await Kept.start(kv, node, keeperConfig(world.etcd, node, '/kiwi/', { ttl: 10 }));
      expect(await kept.own(address)).toEqual({});
      await judge.firstAnswer(address, 0);
      const from = monotonic();
      const [first] = world.etcd.members;
      const leader = await leaderOf(world.etcd);
      const victims = [first!, ...(leader === first ? [] : [leader])];
      for (const member of victims) {
        await (how === 'stopped' ? member.stop() : member.kill());
        await sleep(15_000);
        if (how === 'stopped') member.cont();
        else await member.restart();
        await sleep(2000);
      }
      expect(kept.heard('fenced')).toEqual([]);
      expect(kept.heard('lost')).toEqual([]);
      expect(judge.silence(address, from)).toBeLessThan(500);
    },
    120_000,
  );
});

async function leaderOf(etcd: EtcdCluster): Promise<EtcdMember> {
  const status = JSON.parse(await etcd.ctl('endpoint', 'status', '--write-out', 'json')) as {
    readonly Endpoint: string;
    readonly Status: { readonly leader: number; readonly header: { readonly member_id: number } };
  }[];
  const { Endpoint } = status.find(({ Status }) => Status.leader === Status.header.member_id)!;
  return etcd.members.find(({ endpoint }) => endpoint === Endpoint)!;
}

const soon = () => deadlineIn(20_000);

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // It has ended meanwhile.
  }
}

function childrenOf(pid: number): readonly number[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1').split(' ').filter(Boolean).map(Number);
}
