// What public addresses left on a host goes without etcd and without the API, and nothing that somebody else put there.
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { readMachine } from '../../src/base/node.ts';
import { publicIp, publicIpSysctls } from '../../src/host/numbers.ts';
import { parseIp } from '../../src/net/ip.ts';
import { Inside } from '../helpers/inside.ts';
import { whyNoMachine } from '../helpers/machine.ts';
import { project } from '../helpers/project.ts';

const obstacle = await whyNoMachine();
const longName = 'enp175s0f0np0';

let inside: Inside;
let folder: string;
beforeEach(async context => {
  if (obstacle !== undefined) context.skip(obstacle);
  folder = mkdtempSync(join(tmpdir(), 'kube-ipam-cleanup-'));
  inside = await Inside.start();
  await inside.cable('eth0', 'far0', 'peer');
  await inside.cable(longName, 'far1', 'other');
});
afterEach(async () => {
  await inside?.[Symbol.asyncDispose]();
  if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
});

const cleanup = (...flags: string[]) =>
  inside.run([process.execPath, join(project, 'src/main.ts'), 'public-ip', 'cleanup', '--state-dir', folder, ...flags]);

const ruleset = async (): Promise<string> => {
  const texts = [
    await inside.must(['iptables-nft-save']),
    await inside.must(['iptables-legacy-save']),
    await inside.must(['nft', 'list', 'tables']),
    await inside.must(['ip', 'rule']),
  ];
  // Tables that stay behind, empty, are iptables' own.
  return texts.join('').replaceAll(/^(#|:[A-Z]+ ACCEPT|\*|COMMIT|table ip6? (mangle|filter)).*\n/gm, '');
};

const addresses = async (): Promise<string[]> => {
  const links = JSON.parse(await inside.must(['ip', '-json', 'address'])) as { addr_info: { local: string }[] }[];
  return links
    .flatMap(({ addr_info: all }) => all.map(({ local }) => local))
    .filter(text => !/^(fe80|127|::1)/.test(text));
};

/** Somebody else's: the labels of two interfaces, an IPv6 address that no note names, and a chain's own jump. */
async function addForeign(): Promise<void> {
  for (const one of [
    ['10.53.0.7/24', 'dev', 'eth0'],
    ['192.0.2.7/32', 'dev', longName, 'label', 'mine'],
    ['192.0.2.8/24', 'dev', 'eth0', 'label', 'eth0:kube'],
    ['2001:db8::7/128', 'dev', 'eth0', 'nodad'],
  ]) {
    await inside.must(['ip', 'address', 'add', ...one]);
  }
  await inside.must(['iptables-nft', '-t', 'mangle', '-A', 'PREROUTING', '-p', 'udp', '-j', 'MARK', '--set-mark', '9']);
}

/** All that an agent has set up when it is killed. */
async function addOurs(): Promise<void> {
  await inside.must([
    'ip',
    'address',
    'add',
    '192.0.2.1/32',
    'dev',
    'eth0',
    'label',
    'eth0:kube',
    'valid_lft',
    '600',
    'preferred_lft',
    '600',
  ]);
  await inside.must(['ip', 'address', 'add', '192.0.2.2/32', 'dev', longName, 'label', 'kube']);
  await inside.must([
    'ip',
    'address',
    'add',
    '2001:db8::1/128',
    'dev',
    'eth0',
    'valid_lft',
    '600',
    'preferred_lft',
    '0',
    'nodad',
  ]);
  mkdirSync(join(folder, 'public-ip'));
  writeFileSync(
    join(folder, 'public-ip', 'addresses.json'),
    JSON.stringify({ dev: 'eth0', addresses: ['2001:db8::1', '2001:db8::2'] }),
  );
  const { table, families, owned4 } = publicIp.gate;
  for (const family of families) {
    await inside.must([
      'nft',
      `table ${family} ${table} { set ${owned4} { type ipv4_addr; elements = { 192.0.2.1 }; }; }`,
    ]);
  }
  await inside.call(
    async (rooms, { chain, jumpComment, returnPath }, destination, sysctls, ledger, boot) => {
      const soon = () => rooms.deadlineIn(20_000);
      const rule = {
        destination,
        protocol: 'tcp',
        port: 80,
        comment: 'default/web',
        mark: { value: 1, mask: undefined },
      } as const;
      // An earlier process chose the other one.
      for (const backend of ['nft', 'legacy'] as const) {
        await new rooms.MangleChain(chain, jumpComment, backend).sync([rule], soon());
      }
      const wanted = { dev: 'eth0', gateways: [rooms.parseIp('10.53.0.254')!], addresses: [destination] };
      await rooms.syncReturnPath(returnPath, wanted, soon());
      for (const [name, value] of Object.entries(sysctls)) {
        await rooms.holdSysctl(new rooms.Ledger(ledger, boot), 'public-ip', name, value, soon());
      }
      await rooms.holdSysctl(new rooms.Ledger(ledger, boot), 'router', Object.keys(sysctls)[0]!, '1', soon());
    },
    publicIp,
    parseIp('192.0.2.1')!,
    publicIpSysctls('eth0').ipv4,
    join(folder, 'ledger.json'),
    readMachine().boot,
  );
}

const sysctl = async (name: string): Promise<string> =>
  (await inside.must(['cat', `/proc/sys/net/ipv4/conf/eth0/${name}`])).trim();

it('says what would go, then removes exactly that, and finds nothing the second time', async () => {
  await addForeign();
  const before = { rules: await ruleset(), addresses: await addresses() };
  await addOurs();
  const after = { rules: await ruleset(), addresses: await addresses() };
  expect(after.addresses).toHaveLength(before.addresses.length + 3);

  const wouldGo = await cleanup('--dry-run');
  expect(wouldGo).toMatchObject({ code: 0, stderr: '' });
  expect({ rules: await ruleset(), addresses: await addresses() }).toEqual(after);

  const gone = await cleanup();
  expect(gone).toMatchObject({ code: 0, stderr: '' });
  expect(gone.stdout).toBe(wouldGo.stdout.replaceAll('would remove', 'removed'));
  expect(gone.stdout.split('\n').filter(Boolean)).toEqual([
    'removed address 192.0.2.1 on eth0',
    'removed address 2001:db8::1 on eth0',
    `removed address 192.0.2.2 on ${longName}`,
    'removed the way by which replies from 192.0.2.1 leave',
    expect.stringMatching(/^removed iptables-nft: the jump .*, iptables-nft: chain KUBE-PUBLIC with 1 rule$/),
    expect.stringMatching(/^removed iptables-legacy: the jump .*, iptables-legacy: chain KUBE-PUBLIC with 1 rule$/),
    'removed our part in sysctl net/ipv4/conf/eth0/arp_ignore, which others need too',
    'removed sysctl net/ipv4/conf/eth0/arp_announce, back to 0',
    'removed nft table arp kube_ipam_public_ip',
    'removed nft table inet kube_ipam_public_ip',
    `removed ${join(folder, 'public-ip', 'addresses.json')}`,
  ]);
  expect({ rules: await ruleset(), addresses: await addresses() }).toEqual(before);
  expect([await sysctl('arp_ignore'), await sysctl('arp_announce')]).toEqual(['1', '0']);
  expect(Object.keys(JSON.parse(readFileSync(join(folder, 'ledger.json'), 'utf8')).sysctls)).toHaveLength(1);
  expect(await cleanup()).toMatchObject({ code: 0, stdout: 'nothing to remove\n' });
});

it('leaves all as it is while somebody carries addresses here', async () => {
  await addForeign();
  await addOurs();
  const before = { rules: await ruleset(), addresses: await addresses() };
  await inside.call(async ({ takeLock, kept }, file) => void kept.set('lock', takeLock(file)), await lockFile());
  expect(await cleanup()).toMatchObject({ code: 4, stdout: '', stderr: expect.stringContaining('end that first') });
  expect({ rules: await ruleset(), addresses: await addresses() }).toEqual(before);
  expect((await cleanup('--dry-run')).stdout).toContain('would remove address 192.0.2.1 on eth0');
});

const lockFile = async (): Promise<string> => {
  const inode = (await inside.must(['stat', '-L', '-c', '%i', '/proc/self/ns/net'])).trim();
  return `/run/kube-ipam/public-ip.${inode}.lock`;
};
