// A chain of ours in the real iptables of both kinds, and settings of the kernel with the values that they had before.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Backend, ChainRule, MangleChain } from '../../src/host/iptables.ts';
import { parseIp } from '../../src/net/ip.ts';
import { Inside } from '../helpers/inside.ts';
import { whyNoMachine } from '../helpers/machine.ts';

const obstacle = await whyNoMachine();

let inside: Inside;
beforeEach(async context => {
  if (obstacle !== undefined) context.skip(obstacle);
  inside = await Inside.start();
});
afterEach(async () => inside?.[Symbol.asyncDispose]());

const rule = (address: string, port: number, more: Partial<ChainRule> = {}): ChainRule => ({
  destination: parseIp(address)!,
  protocol: 'tcp',
  port,
  comment: 'default/web',
  mark: { value: 1, mask: undefined },
  ...more,
});

describe.each(['nft', 'legacy'] as const)('chain in iptables-%s', backend => {
  beforeEach(() =>
    inside.call(async ({ MangleChain, kept }, backend) => {
      kept.set('chain', new MangleChain('KUBE-PUBLIC', 'kube-ipam public-ip', backend as Backend));
    }, backend),
  );
  const sync = (...rules: ChainRule[]) =>
    inside.call(
      async ({ kept, deadlineIn }, rules) => (kept.get('chain') as MangleChain).sync(rules, deadlineIn(20_000)),
      rules,
    );
  const remove = () =>
    inside.call(({ kept, deadlineIn }) => (kept.get('chain') as MangleChain).remove(deadlineIn(20_000)));
  const traces = () =>
    inside.call(({ kept, deadlineIn }) => (kept.get('chain') as MangleChain).traces(deadlineIn(20_000)));
  const must = (...args: string[]) => inside.must([`iptables-${backend}`, ...args]);
  const table = async (family: 4 | 6 = 4): Promise<string[]> => {
    const text = await inside.must([`${family === 4 ? 'iptables' : 'ip6tables'}-${backend}-save`]);
    return text.split('\n').filter(line => /^-A|^:KUBE/.test(line));
  };

  const jump = '-A PREROUTING -m comment --comment "kube-ipam public-ip" -j KUBE-PUBLIC';

  it('is made with one jump to it, and reads as the ancestor’s rules did', async () => {
    expect(await sync(rule('192.0.2.1', 80))).toBe('changed');
    expect(await table()).toEqual([
      ':KUBE-PUBLIC - [0:0]',
      jump,
      '-A KUBE-PUBLIC -d 192.0.2.1/32 -p tcp -m tcp --dport 80 -m comment --comment "default/web" -j MARK --set-xmark 0x1/0xffffffff',
    ]);
    expect(await table(6)).toEqual([]);
    expect(await sync(rule('192.0.2.1', 80))).toBe('same');
  });

  it('holds what is wanted and nothing else, in both families, and is not touched when it does', async () => {
    const mark = { value: 0x10, mask: 0xf0 };
    const all = [
      rule('192.0.2.1', 80),
      rule('192.0.2.1', 53, { protocol: 'udp', comment: 'default/say "hi" \\ \'now\'', mark }),
      rule('192.0.2.2', 443, { protocol: 'sctp', mark: { value: 5, mask: 2 } }),
      rule('2001:db8::1', 80, { comment: 'a' }),
    ];
    expect(await sync(...all)).toBe('changed');
    expect(await sync(...all.toReversed())).toBe('same');
    expect(await table()).toHaveLength(5);
    expect((await table()).join()).toContain('--set-xmark 0x10/0xf0');
    // As iptables itself reads `--set-mark 5/2`.
    expect((await table()).join()).toContain('--set-xmark 0x5/0x7');
    expect((await table(6)).join()).toContain('-d 2001:db8::1/128 -p tcp');
    expect(await sync(all[1]!)).toBe('changed');
    expect(await table()).toHaveLength(3);
    expect(await table(6)).toEqual([':KUBE-PUBLIC - [0:0]', jump]);
    expect(await sync(all[1]!)).toBe('same');
    expect(await sync()).toBe('changed');
    expect(await table()).toEqual([':KUBE-PUBLIC - [0:0]', jump]);
  });

  it('comes back after somebody changed or flushed it, beside what is not ours', async () => {
    const wanted = [rule('192.0.2.1', 80), rule('192.0.2.2', 80)];
    await sync(...wanted);
    await must('-t', 'mangle', '-A', 'PREROUTING', '-p', 'udp', '-j', 'KUBE-PUBLIC');
    await must('-t', 'mangle', '-A', 'OUTPUT', '-p', 'udp', '-j', 'MARK', '--set-mark', '7');
    expect(await sync(...wanted)).toBe('same');
    const before = await table();
    const harms: readonly (readonly string[])[] = [
      ['-R', 'KUBE-PUBLIC', '1', '-d', '192.0.2.1', '-p', 'tcp', '--dport', '80', '-j', 'MARK', '--set-mark', '9'],
      ['-I', 'KUBE-PUBLIC', '-j', 'RETURN'],
      ['-D', 'KUBE-PUBLIC', '2'],
      ['-F', 'KUBE-PUBLIC'],
    ];
    for (const harm of harms) {
      await must('-t', 'mangle', ...harm);
      expect(await sync(...wanted), harm.join(' ')).toBe('changed');
      expect(await table()).toEqual(before);
    }
    await must(
      '-t',
      'mangle',
      '-A',
      ...['PREROUTING', '-m', 'comment', '--comment', 'kube-ipam public-ip', '-j', 'KUBE-PUBLIC'],
    );
    expect(await sync(...wanted)).toBe('changed');
    expect((await table()).sort()).toEqual(before.toSorted());
    await must('-t', 'mangle', '-F');
    await must('-t', 'mangle', '-X');
    expect(await sync(...wanted)).toBe('changed');
    expect(await table()).toEqual([before[0], jump, ...before.slice(-2)]);
  });

  it('goes without a trace, but for what somebody else’s own jump leads to', async () => {
    expect(await traces()).toEqual([]);
    await remove();
    await sync(rule('192.0.2.1', 80), rule('2001:db8::1', 80));
    expect(await traces()).toEqual(
      ['iptables', 'ip6tables'].flatMap(program => [
        `${program}-${backend}: the jump from PREROUTING to chain KUBE-PUBLIC`,
        `${program}-${backend}: chain KUBE-PUBLIC with 1 rule`,
      ]),
    );
    await remove();
    expect([...(await table()), ...(await table(6)), ...(await traces())]).toEqual([]);
    await sync(rule('192.0.2.1', 80));
    await must('-t', 'mangle', '-A', 'PREROUTING', '-p', 'tcp', '-j', 'KUBE-PUBLIC');
    await remove();
    expect(await table()).toEqual([':KUBE-PUBLIC - [0:0]', '-A PREROUTING -p tcp -j KUBE-PUBLIC']);
    expect(await traces()).toEqual([]);
    await remove();
  });
});

describe('back end of iptables', () => {
  const choose = () => inside.call(({ chooseBackend, deadlineIn }) => chooseBackend(deadlineIn(20_000)));
  const append = (backend: string, ...rule: string[]) => inside.must([`iptables-${backend}`, '-A', ...rule]);

  it('is nft on a host without rules, and asking makes no tables', async () => {
    expect(await choose()).toBe('nft');
    expect(await inside.call(({ installedBackends, deadlineIn }) => installedBackends(deadlineIn(20_000)))).toEqual([
      'nft',
      'legacy',
    ]);
    expect(await inside.must(['nft', 'list', 'tables'])).toBe('');
    expect(await inside.must(['cat', '/proc/self/net/ip_tables_names'])).toBe('');
  });

  it('is the one with more rules', async () => {
    await append('legacy', 'INPUT', '-j', 'ACCEPT');
    expect(await choose()).toBe('legacy');
    await append('nft', 'INPUT', '-j', 'ACCEPT');
    expect(await choose()).toBe('nft');
  });

  it('is the one that the kubelet has chosen, whoever has more rules', async () => {
    await append('nft', 'INPUT', '-j', 'ACCEPT');
    await inside.must(['iptables-legacy', '-t', 'mangle', '-N', 'KUBE-KUBELET-CANARY']);
    expect(await choose()).toBe('legacy');
  });
});

describe('settings', () => {
  let folder = '';
  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'kube-ipam-ledger-'));
    // A dot in the name is no step of the path.
    await inside.must(['ip', 'link', 'add', 'up0.7', 'type', 'veth', 'peer', 'name', 'far0']);
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  const ignore = 'net/ipv4/conf/up0.7/arp_ignore';
  const file = () => join(folder, 'state', 'ledger.json');
  const read = (name = ignore) => inside.must(['cat', `/proc/sys/${name}`]).then(text => text.trim());
  const write = (value: string) => inside.must(['tee', `/proc/sys/${ignore}`], value);
  const ledger = () => JSON.parse(readFileSync(file(), 'utf8')).sysctls;
  const hold = (feature: string, value: string, boot = 'one', name = ignore) =>
    inside.call(
      ({ holdSysctl, Ledger, deadlineIn }, path, feature, value, boot, name) =>
        holdSysctl(new Ledger(path, boot), feature, name, value, deadlineIn(20_000)),
      file(),
      feature,
      value,
      boot,
      name,
    );
  const release = (feature: string, boot = 'one') =>
    inside.call(
      ({ releaseSysctls, Ledger, deadlineIn }, path, feature, boot) =>
        releaseSysctls(new Ledger(path, boot), feature, deadlineIn(20_000)),
      file(),
      feature,
      boot,
    );

  it('get their old value back from the last feature that needs them', async () => {
    expect(await hold('public-ip', '1')).toBe('set');
    expect(await hold('public-ip', '1')).toBe('same');
    expect(await hold('router', '1')).toBe('same');
    expect(ledger()).toEqual({ [ignore]: { old: '0', set: '1', boot: 'one', users: ['public-ip', 'router'] } });
    await write('0');
    expect(await hold('public-ip', '1')).toBe('set');
    expect(await release('public-ip')).toEqual([]);
    expect(await read()).toBe('1');
    expect(await release('router')).toEqual([ignore]);
    expect(await read()).toBe('0');
    expect(ledger()).toEqual({});
    expect(await release('router')).toEqual([]);
  });

  it('that are right by themselves are nobody’s, and what somebody else sets stays', async () => {
    await write('1');
    expect(await hold('public-ip', '1')).toBe('same');
    expect(await release('public-ip')).toEqual([]);
    expect(await read()).toBe('1');
    expect(await hold('public-ip', '2')).toBe('set');
    await write('8');
    expect(await release('public-ip')).toEqual([]);
    expect(await read()).toBe('8');
    expect(ledger()).toEqual({});
  });

  it('of an earlier boot are not put back, and are noted afresh', async () => {
    await hold('public-ip', '1', 'one');
    await write('2');
    expect(await hold('public-ip', '1', 'two')).toBe('set');
    expect(ledger()).toMatchObject({ [ignore]: { old: '2', boot: 'two' } });
    expect(await release('public-ip', 'three')).toEqual([]);
    expect(await read()).toBe('1');
  });

  it('that are not there are told apart from those that cannot be set', async () => {
    expect(await hold('public-ip', '1', 'one', 'net/ipv4/conf/nowhere/arp_ignore')).toBe('absent');
    await hold('public-ip', '1');
    await inside.must(['ip', 'link', 'del', 'up0.7']);
    expect(await release('public-ip')).toEqual([]);
    await expect(hold('public-ip', '1', 'one', 'net/../../../tmp/x')).rejects.toThrow('no sysctl');
    await expect(hold('public-ip', 'x', 'one', 'net/ipv4/conf/lo/arp_ignore')).rejects.toThrow(
      /^sysctl net\/ipv4\/conf\/lo\/arp_ignore cannot be set to x: /,
    );
  });

  it('are noted by many at once, and what a later version notes stays', async () => {
    await hold('zero', '1');
    writeFileSync(file(), JSON.stringify({ ...JSON.parse(readFileSync(file(), 'utf8')), later: { a: 1 } }));
    const features = ['one', 'two', 'three', 'four', 'five'];
    await Promise.all(features.map(feature => hold(feature, '1')));
    expect(ledger()[ignore].users).toEqual([...features, 'zero'].sort());
    expect(JSON.parse(readFileSync(file(), 'utf8')).later).toEqual({ a: 1 });
    writeFileSync(file(), '{');
    await expect(hold('six', '1')).rejects.toThrow(`${file()} cannot be read`);
  });
});
