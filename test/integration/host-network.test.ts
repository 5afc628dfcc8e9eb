// Interfaces, addresses, nft's files and what neighbours are told, in a network of its own with the real programs.
import { readFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Ip } from '../../src/net/ip.ts';
import { parseIp } from '../../src/net/ip.ts';
import { Inside } from '../helpers/inside.ts';
import { whyNoMachine } from '../helpers/machine.ts';

const obstacle = await whyNoMachine();
const ip = (text: string): Ip => parseIp(text)!;

let inside: Inside;
beforeEach(async context => {
  if (obstacle !== undefined) context.skip(obstacle);
  inside = await Inside.start();
  await inside.cable('up0', 'far0', 'peer');
});
afterEach(async () => inside?.[Symbol.asyncDispose]());

describe('addresses', () => {
  it('are read with label, prefix, lifetime and flags, beside the state of their interface', async () => {
    await inside.must([
      'ip',
      'address',
      'add',
      '192.0.2.1/32',
      'dev',
      'up0',
      'label',
      'up0:kube',
      'valid_lft',
      '90',
      'preferred_lft',
      '90',
    ]);
    await inside.must(['ip', 'address', 'add', '192.0.2.7/24', 'dev', 'up0']);
    await inside.must([
      'ip',
      'address',
      'add',
      '2001:db8::1/128',
      'dev',
      'up0',
      'valid_lft',
      '90',
      'preferred_lft',
      '0',
      'nodad',
    ]);
    await inside.must(['ip', 'link', 'add', 'idle0', 'type', 'veth', 'peer', 'name', 'idle1']);
    await inside.must(['ip', 'link', 'set', 'idle0', 'up']);
    const links = await inside.call(({ readLinks, deadlineIn }) => readLinks(deadlineIn(10_000)));
    const up0 = links.find(({ name }) => name === 'up0')!;
    expect(up0).toMatchObject({ up: true, carrier: true });
    const [first, second, third] = up0.addresses;
    expect(first).toMatchObject({ ip: ip('192.0.2.1'), prefix: 32, label: 'up0:kube', flags: ['dynamic'] });
    expect(first!.validFor).toBeGreaterThan(60);
    expect(first!.validFor).toBeLessThanOrEqual(90);
    expect(second).toEqual({ ip: ip('192.0.2.7'), prefix: 24, label: 'up0', validFor: 'forever', flags: [] });
    expect(third).toMatchObject({ ip: ip('2001:db8::1'), prefix: 128, label: '' });
    expect(third!.flags).toEqual(expect.arrayContaining(['dynamic', 'deprecated']));
    expect(links.find(({ name }) => name === 'idle0')).toMatchObject({ up: true, carrier: false });
    expect(links.find(({ name }) => name === 'idle1')).toMatchObject({ up: false, carrier: false });
  });

  it('are written in order by one process, which tells of each line that fails and goes on', async () => {
    const { errors, again, addresses } = await inside.call(async ({ IpBatch, readLinks, deadlineIn, formatIp }) => {
      const batch = IpBatch.open();
      batch.run(['address add 192.0.2.1/32 dev up0', 'address add 192.0.2.2/32 dev nowhere']);
      batch.run(['address add 192.0.2.1/32 dev up0', 'address add 192.0.2.3/32 dev up0']);
      const errors = await batch.settle(deadlineIn(10_000));
      const links = await readLinks(deadlineIn(10_000));
      batch.run(['address del 192.0.2.3/32 dev up0']);
      const again = await batch.settle(deadlineIn(10_000));
      await batch[Symbol.asyncDispose]();
      const up0 = links.find(({ name }) => name === 'up0')!;
      return {
        errors,
        again,
        addresses: up0.addresses.map(({ ip }) => formatIp(ip)).filter(text => text.includes('.')),
      };
    });
    expect(errors).toEqual([
      'ip address add 192.0.2.2/32 dev nowhere: Cannot find device "nowhere"',
      expect.stringMatching(/^ip address add 192\.0\.2\.1\/32 dev up0: .*(exists|assigned)/),
    ]);
    expect(again).toEqual([]);
    expect(addresses).toEqual(['192.0.2.1', '192.0.2.3']);
    expect(await inside.must(['ip', 'address', 'show', 'dev', 'up0'])).not.toContain('192.0.2.3');
  });

  it('are written by another process when somebody has killed the first', async () => {
    await inside.call(async ({ IpBatch, kept, deadlineIn }) => {
      const batch = IpBatch.open();
      kept.set('batch', batch);
      batch.run(['link show dev lo']);
      await batch.settle(deadlineIn(10_000));
    });
    const children = readFileSync(`/proc/${inside.pid}/task/${inside.pid}/children`, 'utf8').trim().split(' ');
    expect(children).toHaveLength(1);
    process.kill(Number(children[0]), 'SIGKILL');
    // Given to the dead one or to the next: the caller hears of it, or it holds.
    await inside.call(async ({ kept, deadlineIn }) => {
      const batch = kept.get('batch') as InstanceType<typeof import('../../src/host/ip.ts').IpBatch>;
      for (const deadline = deadlineIn(20_000); !deadline.passed; ) {
        batch.run(['address replace 192.0.2.1/32 dev up0']);
        if ((await batch.settle(deadline)).length === 0) return;
      }
      throw new Error('it never came back');
    });
    expect(await inside.must(['ip', 'address', 'show', 'dev', 'up0'])).toContain('192.0.2.1/32');
  });

  it('are never given to a batch in a line that it would read as something else', async () => {
    for (const line of [
      'link show\nlink del up0',
      'address add 192.0.2.1/32 dev up0 # x',
      'link show "a b"',
      'link show \\',
      '',
    ]) {
      const refused = inside.call(async ({ IpBatch }, line) => {
        const batch = IpBatch.open();
        batch.run([line]);
      }, line);
      await expect(refused, line).rejects.toThrow('no line for ip');
    }
  });
});

describe('changes', () => {
  it('of interfaces and addresses are heard, and that some were not', async () => {
    await inside.call(async ({ monitor, kept }) => {
      const lines: string[] = [];
      const stop = new AbortController();
      monitor(line => lines.push(line), stop.signal);
      kept.set('lines', lines).set('stop', stop);
    });
    const heard = (what: string) =>
      expect
        .poll(() => inside.call(async ({ kept }) => kept.get('lines') as string[]), { timeout: 20_000 })
        .toContainEqual(expect.stringMatching(what));
    await heard('^resync$');
    await inside.must(['ip', 'address', 'add', '192.0.2.1/32', 'dev', 'up0', 'valid_lft', '1', 'preferred_lft', '1']);
    await heard('^\\d+: up0 +inet 192\\.0\\.2\\.1/32');
    await heard('^Deleted \\d+: up0 +inet 192\\.0\\.2\\.1/32');
    await inside.call(async ({ kept }) => void (kept.get('lines') as string[]).splice(0));
    const children = readFileSync(`/proc/${inside.pid}/task/${inside.pid}/children`, 'utf8').trim().split(' ');
    process.kill(Number(children[0]), 'SIGKILL');
    await heard('^resync$');
    await inside.must(['ip', 'link', 'set', 'up0', 'down']);
    await heard('up0@.* state DOWN');
    await inside.call(async ({ kept }) => (kept.get('stop') as AbortController).abort());
    await expect
      .poll(() => readFileSync(`/proc/${inside.pid}/task/${inside.pid}/children`, 'utf8').trim(), { timeout: 20_000 })
      .toBe('');
  });

  it('of rules that somebody removed are heard, those of iptables too, and no renewal of elements', async () => {
    await inside.call(async ({ monitorNft, kept }) => {
      const lines: string[] = [];
      monitorNft(line => lines.push(line), new AbortController().signal);
      kept.set('lines', lines);
    });
    const lines = () => inside.call(async ({ kept }) => kept.get('lines') as string[]);
    await expect.poll(lines, { timeout: 20_000 }).toEqual(['resync']);
    await inside.must(['nft', '-f', '-'], gate);
    await inside.must(['nft', 'add element arp gate live { 192.0.2.1 timeout 10s }']);
    await inside.must(['nft', 'delete element arp gate live { 192.0.2.1 }']);
    await inside.must(['nft', 'flush', 'ruleset']);
    await expect
      .poll(lines, { timeout: 20_000 })
      .toEqual(['resync', expect.stringMatching(/^delete rule arp gate out/)]);
    await inside.must(['iptables-nft', '-t', 'mangle', '-A', 'PREROUTING', '-j', 'MARK', '--set-mark', '1']);
    await inside.must(['iptables-nft', '-t', 'mangle', '-F']);
    await expect.poll(lines, { timeout: 20_000 }).toHaveLength(3);
  });
});

const gate = `table arp gate {
  set live { type ipv4_addr; flags timeout; }
  chain out { type filter hook output priority 0; arp saddr ip 192.0.2.1 arp saddr ip != @live drop; }
}`;

describe('nft', () => {
  it('takes a file whole or not at all, and says on one line why not', async () => {
    const load = (text: string) =>
      inside.call(({ runNft, deadlineIn }, text) => runNft(text, deadlineIn(10_000)), text);
    expect(await load(gate)).toBeUndefined();
    expect(
      await load('add element arp gate live { 192.0.2.1 timeout 90s }\ndelete element arp gate live { 192.0.2.9 }'),
    ).toBe('line 2:32-40: Error: Could not process rule: No such file or directory');
    expect(await load('no such words')).toMatch(/^line 1:\d+-\d+: Error: syntax error/);
    const set = (name: string) =>
      inside.call(({ readNftSet, deadlineIn }, name) => readNftSet('arp', 'gate', name, deadlineIn(10_000)), name);
    expect(await set('live')).toEqual([]);
    expect(await load('add element arp gate live { 192.0.2.1 timeout 90s500ms, 192.0.2.2 }')).toBeUndefined();
    const [first, second] = (await set('live'))!;
    expect(first!.value).toBe('192.0.2.1');
    expect(first!.expires).toBeGreaterThan(60);
    expect(first!.expires).toBeLessThan(90.5);
    expect(second).toEqual({ value: '192.0.2.2' });
    expect(await set('dead')).toBeUndefined();
  });

  it('is known to be there, and trying leaves nothing', async () => {
    expect(await inside.call(({ hasNft, deadlineIn }) => hasNft(deadlineIn(10_000)))).toBe(true);
    expect(await inside.must(['nft', 'list', 'ruleset'])).toBe('');
  });
});

describe('neighbours', () => {
  const probe = (address: string, dev = 'up0') =>
    inside.call(({ probe, deadlineIn }, dev, ip) => probe(dev, ip, deadlineIn(20_000)), dev, ip(address));

  beforeEach(async () => {
    await inside.must(['ip', 'netns', 'exec', 'peer', 'sysctl', '-qw', 'net.ipv6.conf.far0.accept_dad=0']);
    for (const address of ['10.53.0.1/24', 'fd00:53::1/64']) {
      await inside.must(['ip', 'address', 'add', address, 'dev', 'up0', ...nodad(address)]);
    }
    for (const address of ['10.53.0.2/24', 'fd00:53::2/64']) {
      await inside.must(['ip', '-n', 'peer', 'address', 'add', address, 'dev', 'far0', ...nodad(address)]);
    }
  });

  const nodad = (address: string): readonly string[] => (address.includes(':') ? ['nodad'] : []);
  const macOf = async (argv: readonly string[]): Promise<string> =>
    JSON.parse(await inside.must(['ip', '-json', ...argv]))[0].address;

  it.each(['10.53.0.', 'fd00:53::'])('say who answers for an address below %s', async start => {
    const far = await macOf(['-n', 'peer', 'link', 'show', 'far0']);
    // A link-local source comes some tenths of a second after the interface.
    await expect.poll(() => probe(`${start}2`), { timeout: 20_000 }).toBe(far);
    expect(await probe(`${start}9`)).toBeUndefined();
    await expect(probe(`${start}9`, 'nowhere')).rejects.toThrow(
      /^nobody on nowhere can be asked for .*: (arping|ndisc6): /,
    );
  });

  it.each(['10.53.0.1', 'fd00:53::1'])('learn at once where %s is now', async address => {
    await inside.must([
      'ip',
      '-n',
      'peer',
      'neigh',
      'replace',
      address,
      'lladdr',
      '02:00:5e:00:53:99',
      'dev',
      'far0',
      'nud',
      'stale',
    ]);
    const near = await macOf(['link', 'show', 'up0']);
    const known = async () =>
      JSON.parse(await inside.must(['ip', '-n', 'peer', '-json', 'neigh', 'show', address]))[0]?.lladdr;
    expect(await known()).toBe('02:00:5e:00:53:99');
    const told = inside.call(({ announce }, ip) => announce('up0', ip, new AbortController().signal), ip(address));
    await expect.poll(known, { timeout: 20_000 }).toBe(near);
    await told;
  });

  it('are told nothing more from the moment that the address is given up', async () => {
    await inside.call(async ({ announce, kept }, ip) => {
      const stop = new AbortController();
      kept.set('stop', stop).set('told', announce('up0', ip, stop.signal));
    }, ip('10.53.0.1'));
    await inside.call(async ({ kept }) => {
      (kept.get('stop') as AbortController).abort();
      await kept.get('told');
    });
    // Killed, and perhaps not quite gone yet; by itself each would stay for a second.
    await expect
      .poll(() => readFileSync(`/proc/${inside.pid}/task/${inside.pid}/children`, 'utf8').trim(), { timeout: 20_000 })
      .toBe('');
  });

  it('of the next hop are listed, and the way by which replies leave', async () => {
    await inside.must(['ip', 'route', 'add', 'default', 'via', '10.53.0.254', 'table', '900']);
    await inside.must([
      'ip',
      'route',
      'add',
      '198.51.100.0/24',
      'nexthop',
      'via',
      '10.53.0.2',
      'nexthop',
      'via',
      '10.53.0.3',
    ]);
    await inside.must(['ip', 'route', 'add', '203.0.113.0/24', 'via', 'inet6', 'fd00:53::fe', 'dev', 'up0']);
    await inside.must(['ip', '-6', 'route', 'add', 'default', 'via', 'fd00:53::ff']);
    const gateways = await inside.call(({ readGateways, deadlineIn }) => readGateways(deadlineIn(10_000)));
    expect([...gateways].sort()).toEqual(['10.53.0.2', '10.53.0.254', '10.53.0.3', 'fd00:53::fe', 'fd00:53::ff']);
    const leaves = (address: string) =>
      inside.call(({ returnDevice, deadlineIn }, ip) => returnDevice(ip, deadlineIn(10_000)), ip(address));
    expect(await leaves('10.53.0.1')).toBeUndefined();
    await inside.must(['ip', 'route', 'add', 'default', 'via', '10.53.0.254']);
    expect(await leaves('10.53.0.1')).toBe('up0');
    expect(await leaves('fd00:53::1')).toBe('up0');
  });

  it('flows of an address are forgotten, and none is no failure', async () => {
    const forget = () =>
      inside.call(({ forgetFlows, deadlineIn }, ip) => forgetFlows(ip, deadlineIn(10_000)), ip('10.53.0.1'));
    await forget();
    await inside.must([
      'conntrack',
      '-I',
      '-p',
      'udp',
      '-s',
      '10.53.0.2',
      '-d',
      '10.53.0.1',
      '--sport',
      '53',
      '--dport',
      '54',
      '-t',
      '90',
    ]);
    await inside.must([
      'conntrack',
      '-I',
      '-p',
      'udp',
      '-s',
      '10.53.0.2',
      '-d',
      '10.53.0.3',
      '--sport',
      '53',
      '--dport',
      '54',
      '-t',
      '90',
    ]);
    await forget();
    const left = await inside.must(['conntrack', '-L']);
    expect(left).toContain('dst=10.53.0.3');
    expect(left).not.toContain('dst=10.53.0.1 ');
  });
});

describe('replies', () => {
  const numbers = { table: 80, mainPriority: 32_761, priority: 32_762 };
  const sync = (gateways: readonly string[], addresses: readonly string[]) =>
    inside.call(
      ({ syncReturnPath, deadlineIn }, numbers, wanted) => syncReturnPath(numbers, wanted, deadlineIn(20_000)),
      numbers,
      { dev: 'up0', gateways: gateways.map(ip), addresses: addresses.map(ip) },
    );
  const known = async () =>
    (
      await inside.call(
        ({ readReturnAddresses, deadlineIn, formatIp }, numbers) =>
          readReturnAddresses(numbers, deadlineIn(20_000)).then(all => all.map(formatIp)),
        numbers,
      )
    ).sort();
  const wayFrom = async (source: string, to: string): Promise<string> => {
    const [route] = JSON.parse(await inside.must(['ip', '-json', 'route', 'get', to, 'from', source]));
    return `${route.gateway ?? 'direct'} ${route.dev}`;
  };

  beforeEach(async () => {
    await inside.cable('up1', 'far1', 'other');
    const addresses = {
      up0: ['10.53.0.1/24', '10.53.9.1/32', 'fd00:53::1/64', 'fd00:53:9::1/128'],
      up1: ['10.54.0.1/24', 'fd00:54::1/64'],
    };
    for (const [dev, list] of Object.entries(addresses)) {
      for (const address of list) {
        await inside.must(['ip', 'address', 'add', address, 'dev', dev, ...(address.includes(':') ? ['nodad'] : [])]);
      }
    }
    await inside.must(['ip', 'route', 'add', 'default', 'via', '10.54.0.254']);
    await inside.must(['ip', 'route', 'add', 'default', 'via', 'fd00:54::fe']);
  });

  it('of our addresses leave by their own gateway, but for what is nearer', async () => {
    expect(await wayFrom('10.53.9.1', '198.51.100.1')).toBe('10.54.0.254 up1');
    const gateways = ['10.53.0.254', 'fd00:53::fe'];
    const addresses = ['10.53.9.1', 'fd00:53:9::1'];
    expect(await sync(gateways, addresses)).toBe('changed');
    expect(await sync(gateways, addresses)).toBe('same');
    expect(await known()).toEqual(addresses);
    expect(await wayFrom('10.53.9.1', '198.51.100.1')).toBe('10.53.0.254 up0');
    expect(await wayFrom('fd00:53:9::1', '2001:db8::1')).toBe('fd00:53::fe up0');
    expect(await wayFrom('10.53.9.1', '10.54.0.7')).toBe('direct up1');
    expect(await wayFrom('10.53.0.1', '198.51.100.1')).toBe('10.54.0.254 up1');
    // A link that goes down takes the route with it.
    await inside.must(['ip', 'link', 'set', 'up0', 'down']);
    await inside.must(['ip', 'link', 'set', 'up0', 'up']);
    await inside.must(['ip', 'address', 'replace', 'fd00:53::1/64', 'dev', 'up0', 'nodad']);
    expect(await sync(gateways, addresses)).toBe('changed');
    expect(await wayFrom('10.53.9.1', '198.51.100.1')).toBe('10.53.0.254 up0');
  });

  it('of addresses that we no longer have leave as all others do', async () => {
    await sync(['10.53.0.254'], ['10.53.9.1', 'fd00:53:9::1']);
    expect(await known()).toEqual(['10.53.9.1']);
    await inside.must(['ip', 'rule', 'add', 'from', '10.53.0.0/24', 'lookup', 'main', 'priority', '32762']);
    expect(await sync(['10.53.0.253'], ['10.53.9.2'])).toBe('changed');
    expect(await known()).toEqual(['10.53.9.2']);
    expect(await sync([], ['10.53.9.2'])).toBe('changed');
    expect(await sync([], [])).toBe('same');
    expect(await wayFrom('10.53.9.1', '198.51.100.1')).toBe('10.54.0.254 up1');
    expect(await inside.must(['ip', 'route', 'show', 'table', '80'])).toBe('');
    expect((await inside.must(['ip', 'rule'])).match(/^3276[12]:.*/gm)).toEqual([
      expect.stringContaining('from 10.53.0.0/24 lookup main'),
    ]);
    await expect(sync(['203.0.113.1'], ['10.53.9.1'])).rejects.toThrow(
      /^the way by which replies leave cannot be set: ip: /,
    );
  });
});
