// Public IPs as their users know them: kiwi's own flow, and what Services may do with their addresses, against a real API server.
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { kubernetesProgram } from '../helpers/kubernetes/tools.ts';
import { monotonic } from '../helpers/public-ip/clock.ts';
import type { PublicIpNode } from '../helpers/public-ip/node.ts';
import { eventually, World } from '../helpers/public-ip/world.ts';

let world: World;
let first: PublicIpNode;
let second: PublicIpNode;

beforeAll(async () => {
  world = await World.start({ nodes: ['node-a', 'node-b'], flags: ['--ttl', '5'] });
  [first, second] = world.nodes as [PublicIpNode, PublicIpNode];
});
afterEach(() => world.clear());
afterAll(() => world?.[Symbol.asyncDispose]());

const rule = (address: string, port: number, service = 'web', protocol = 'tcp') =>
  `-A KUBE-PUBLIC -d ${address}/32 -p ${protocol} -m ${protocol} --dport ${port} -m comment --comment "default/${service}" -j MARK --set-xmark 0x1/0xffffffff`;

/** What the node has of ours in its kernel, settings and folders; empty where it has nothing. */
async function traces(node: PublicIpNode): Promise<unknown> {
  const rules = [await node.must('iptables-save', '-t', 'mangle'), await node.must('ip6tables-save', '-t', 'mangle')];
  return {
    addresses: await node.addresses(),
    rules: rules.flatMap(text => text.split('\n')).filter(line => /^-A|^:.* - \[/.test(line)),
    nft: (await node.must('nft', 'list', 'tables')).split('\n').filter(line => /kube/.test(line)),
    settings: await node.must('sysctl', '-n', ...settings),
  };
}

const settings = ['arp_ignore', 'arp_announce']
  .map(name => `net.ipv4.conf.eth0.${name}`)
  .concat(['accept_dad', 'ndisc_notify'].map(name => `net.ipv6.conf.eth0.${name}`));

/** The addresses on the nodes, by node. */
async function placed(): Promise<Record<string, string[]>> {
  const all = world.nodes.map(async node => [node.name, (await node.addresses()).map(({ address }) => address).sort()]);
  return Object.fromEntries(await Promise.all(all));
}

async function expectPlaced(wanted: Record<string, string[]>, within?: number): Promise<void> {
  await eventually(async () => expect(await placed()).toEqual(wanted), within);
}

/** What an HTTP server there says to the client. */
async function fetched(address: string): Promise<string> {
  // Debian's busybox is linked in a way in which its wget finds no host.
  const get = 'exec 3<>"/dev/tcp/$0/80" && printf "GET / HTTP/1.0\\r\\n\\r\\n" >&3 && cat <&3';
  return world.segment.client.machine.must(['bash', '-c', get, address], { timeout: 2000 });
}

/** Resolves when one of the nodes carries it. */
async function carrier(address: string): Promise<PublicIpNode> {
  let found: PublicIpNode | undefined;
  await eventually(async () => {
    const where = await placed();
    found = world.nodes.find(({ name }) => where[name]!.includes(address));
    expect(found, `who carries ${address}`).toBeDefined();
  });
  return found!;
}

describe('kiwi', () => {
  it('runs with the flags of its README through kubectl proxy, and leaves nothing behind', async () => {
    const before = await traces(first);
    const proxy = await first.machine.spawn([kubernetesProgram('kubectl')!, 'proxy', '--port=8080'], {
      KUBECONFIG: world.kubeconfig,
    });
    const kiwi = await first.startKiwi(
      ...['--interface', 'eth0', '--cidr-range', '192.168.0.0/16', '--kube-endpoint', 'http://localhost:8080'],
      ...['--etcd-endpoint', world.etcd.endpoints.join(','), '--verbose'],
    );
    await world.createService({ name: 'web', addresses: ['192.168.1.41', '172.16.1.41'] });
    await eventually(async () => {
      expect(await first.addresses()).toMatchObject([{ address: '192.168.1.41', prefix: 32, label: 'eth0:kube' }]);
      expect(await first.rules()).toEqual([rule('192.168.1.41', 80)]);
    });
    const [shown] = await first.addresses();
    expect(shown!.validFor).toBeGreaterThan(0);
    expect(shown!.validFor).toBeLessThanOrEqual(10);
    expect(await first.rules('PREROUTING')).toEqual([expect.stringMatching(/ -j KUBE-PUBLIC$/)]);
    expect(await world.claims()).toEqual(new Map([['192.168.1.41', 'node-a']]));
    const log = () => readFileSync(first.machine.path('/var/log/kiwi/kiwi.log'), 'utf8');
    expect(log().match(/.*172\.16\.1\.41.*/g)).toHaveLength(1);
    await eventually(async () => expect(await world.events('OutsideRanges')).toHaveLength(1));

    await world.deleteService('web');
    await eventually(async () => {
      expect([await first.addresses(), await first.rules()]).toEqual([[], []]);
      expect(await world.claims()).toEqual(new Map());
    });

    await world.createService({ name: 'web', addresses: ['192.168.1.41'] });
    await carrier('192.168.1.41');
    await kiwi.stop();
    expect(await traces(first)).toEqual(before);
    expect(await world.claims()).toEqual(new Map());
    expect(await world.keys('/kiwi/agents/')).toEqual(new Map());
    await proxy.end('SIGKILL');
  });

  it('changes nothing on the host without its driver, not even what bears the name of its own', async () => {
    await first.must('iptables', '-t', 'mangle', '-N', 'KUBE-PUBLIC');
    await first.must('iptables', '-t', 'mangle', '-A', 'KUBE-PUBLIC', '-p', 'udp', '-j', 'ACCEPT');
    try {
      const before = await traces(first);
      const runner = await first.start('--no-driver');
      await world.createService({ name: 'web', addresses: ['192.168.1.41'] });
      await eventually(async () => expect(await world.claims()).toEqual(new Map([['192.168.1.41', 'node-a']])));
      expect(await traces(first)).toEqual(before);
      await runner.stop();
      expect(await world.claims()).toEqual(new Map());
      expect(await traces(first)).toEqual(before);
    } finally {
      await first.must('iptables', '-t', 'mangle', '-F', 'KUBE-PUBLIC');
      await first.must('iptables', '-t', 'mangle', '-X', 'KUBE-PUBLIC');
    }
  });

  it('carries packets to whom the address answers for, over IPv4 and IPv6', async () => {
    const servers = await Promise.all(
      world.nodes.map(async node => {
        const folder = `${node.machine.folder}/www`;
        await node.must('mkdir', '-p', folder);
        await node.must('cp', '/proc/sys/kernel/hostname', `${folder}/index.html`);
        return node.machine.spawn(['busybox', 'httpd', '-f', '-p', '80', '-h', folder]);
      }),
    );
    await world.startAll();
    const addresses = ['192.168.1.41', 'fd00:53::1:41'];
    await world.createService({ name: 'web', addresses, spec: { ipFamilyPolicy: 'SingleStack' } });
    for (const address of addresses) {
      const node = await carrier(address);
      await eventually(async () => expect(await fetched(address)).toContain(`\n${node.name}\n`));
    }
    for (const server of servers) await server.end('SIGKILL');
  });
});

describe('rules', () => {
  it('stand on every node, and follow each edit of a Service', async () => {
    await world.startAll();
    const ports = [{ port: 80 }, { port: 53, protocol: 'UDP' as const }];
    await world.createService({ name: 'web', addresses: ['192.168.1.41'], ports });
    const both = [rule('192.168.1.41', 80), rule('192.168.1.41', 53, 'web', 'udp')];
    const expectRules = (rules: readonly string[]) =>
      eventually(async () => {
        for (const node of world.nodes) expect((await node.rules()).sort()).toEqual(rules);
      });
    await expectRules(both);
    for (const port of [8080, 8081, 8082]) {
      const edited = [
        { name: 'a', port },
        { name: 'b', port: 53, protocol: 'UDP' },
      ];
      await world.patchService('web', { spec: { ports: edited } });
      await expectRules([rule('192.168.1.41', 53, 'web', 'udp'), rule('192.168.1.41', port)].sort());
    }
    await world.deleteService('web');
    await expectRules([]);
  });

  it('are put back when somebody removes them', async () => {
    await first.start();
    await world.createService({ name: 'web', addresses: ['192.168.1.41'] });
    await eventually(async () => expect(await first.rules()).toHaveLength(1));
    await first.must('iptables', '-w', '-t', 'mangle', '-F');
    await eventually(async () => {
      expect(await first.rules()).toEqual([rule('192.168.1.41', 80)]);
      expect(await first.rules('PREROUTING')).toHaveLength(1);
    }, 6000);
  });

  it('of an operator are left alone', async () => {
    await first.must('iptables', '-w', '-t', 'mangle', '-N', 'KUBE-PUBLIC');
    await first.must('iptables', '-w', '-t', 'mangle', '-A', 'PREROUTING', '-i', 'eth0', '-j', 'KUBE-PUBLIC');
    await first.must('iptables', '-w', '-t', 'mangle', '-A', 'PREROUTING', '-j', 'MARK', '--set-mark', '7');
    const before = await first.rules('PREROUTING');
    const runner = await first.start();
    await world.createService({ name: 'web', addresses: ['192.168.1.41'] });
    await eventually(async () => expect(await first.rules()).toHaveLength(1));
    expect(await first.rules('PREROUTING')).toEqual(expect.arrayContaining(before));
    await runner.stop();
    expect(await first.rules('PREROUTING')).toEqual(before);
  });
});

describe('Services', () => {
  it('that share an address share its ports: the older one wins a port, the address goes with the last of them', async () => {
    await world.startAll();
    await world.createService({ name: 'web', addresses: ['192.168.1.41'], ports: [{ port: 80 }] });
    const node = await carrier('192.168.1.41');
    // A creation time has no fractions.
    await sleep(1100);
    const ports = [{ port: 80 }, { port: 443 }];
    await world.createService({ name: 'shop', addresses: ['192.168.1.41'], ports });
    const rules = [rule('192.168.1.41', 443, 'shop'), rule('192.168.1.41', 80)];
    await eventually(async () => expect((await node.rules()).sort()).toEqual(rules));
    await eventually(async () => expect(await world.events('PortTaken')).toHaveLength(1));
    await world.deleteService('web');
    await eventually(async () =>
      expect((await node.rules()).sort()).toEqual([443, 80].map(port => rule('192.168.1.41', port, 'shop'))),
    );
    expect((await placed())[node.name]).toEqual(['192.168.1.41']);
    await world.deleteService('shop');
    await expectPlaced({ 'node-a': [], 'node-b': [] });
  });

  it('may not ask for what would cut somebody off', async () => {
    await first.start();
    const forbidden = ['192.168.0.1', second.station.address, '10.96.0.1', '192.168.0.0', '192.168.255.255'];
    await world.createService({ name: 'evil', addresses: forbidden });
    await world.createService({ name: 'web', addresses: ['192.168.1.41'] });
    await carrier('192.168.1.41');
    expect(await placed()).toEqual({ 'node-a': ['192.168.1.41'], 'node-b': [] });
    expect([...(await world.claims()).keys()]).toEqual(['192.168.1.41']);
    await eventually(async () => {
      const told = (await world.events('AddressForbidden')).join('\n');
      for (const address of forbidden) expect(told).toContain(address);
    });
  });

  it('deleted and changed while nobody ran are found so at the start', async () => {
    const runner = await first.start('--on-exit', 'keep');
    for (const [name, last] of [
      ['web', 41],
      ['shop', 42],
    ] as const) {
      await world.createService({ name, addresses: [`192.168.1.${last}`] });
    }
    await expectPlaced({ 'node-a': ['192.168.1.41', '192.168.1.42'], 'node-b': [] });
    await runner.stop();
    await world.deleteService('web');
    await world.patchService('shop', { spec: { externalIPs: ['192.168.1.43'] } });
    await first.start();
    await expectPlaced({ 'node-a': ['192.168.1.43'], 'node-b': [] });
    await eventually(async () => expect(await first.rules()).toEqual([rule('192.168.1.43', 80, 'shop')]));
    await eventually(async () => expect([...(await world.claims()).keys()]).toEqual(['192.168.1.43']));
  });

  it('are spread over the nodes, and spread again when one joins', async () => {
    await first.start();
    const addresses = Array.from({ length: 6 }, (_, n) => `192.168.1.${41 + n}`);
    await world.createService({ name: 'web', addresses });
    await expectPlaced({ 'node-a': addresses, 'node-b': [] });
    await second.start();
    await eventually(async () => {
      const where = await placed();
      expect([where['node-a']!.length, where['node-b']!.length]).toEqual([3, 3]);
    }, 120_000);
  }, 180_000);

  it('get their address soon', async () => {
    await world.startAll();
    await using judges = await world.judge(['192.168.1.41']);
    await eventually(async () => expect((await world.keys('/kiwi/agents/')).size).toBe(2));
    await sleep(1500);
    const asked = monotonic();
    await world.createService({ name: 'web', addresses: ['192.168.1.41'] });
    const answered = await judges.seen.firstAnswer('192.168.1.41', asked);
    expect(answered.at - asked).toBeLessThan(3 * 1600);
    expect(judges.verdict()).toEqual([]);
  });
});
