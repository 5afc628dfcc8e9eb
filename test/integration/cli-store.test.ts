// The commands that look at a store and change it, on both stores, with records as ADD writes them.
import { existsSync, mkdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { deadlineIn } from '../../src/base/clock.ts';
import { readMachine } from '../../src/base/node.ts';
import { parseIp } from '../../src/net/ip.ts';
import { Desk, kubeIpam, type Said } from '../helpers/command-line.ts';
import { onEachStore } from '../helpers/each-store.ts';
import { call, confOf, type Json } from '../helpers/plugin.ts';

const ranges = { subnet: '10.1.0.0/27', rangeStart: '10.1.0.2', rangeEnd: '10.1.0.20' };

onEachStore(here => {
  let desk: Desk;
  beforeEach(() => {
    desk = new Desk();
    desk.network('net', { ...here.site.access, ...ranges, logFile: join(desk.folder, 'log') });
  });
  afterEach(() => desk[Symbol.dispose]());

  const run = (...argv: readonly string[]): Promise<Said> => desk.run([...argv, '--timeout', '20']);
  const add = async (containerID: string, more: Json = {}, pod?: string) => {
    const args = pod === undefined ? '' : `IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=${pod}`;
    const { addresses, error } = await call('ADD', {
      conf: confOf(here.site, { ...ranges, ...more }),
      containerID,
      args,
    });
    expect(error).toBeUndefined();
    return addresses;
  };
  const address = (text: string) => here.site.keys.address(parseIp(text)!);
  const record = (more: Json = {}): Json => ({
    cluster: 'default',
    kind: 'dynamic',
    since: '2026-01-02T03:04:05Z',
    ...{ node: here.site.node, machine: readMachine().machine, boot: readMachine().boot },
    ...{ network: 'net', containerID: 'c1', ifname: 'eth0', netns: '/run/netns/c1' },
    ...more,
  });
  const set = { namespace: 'shop', kind: 'StatefulSet', name: 'db-0' };
  const vm = { namespace: 'shop', kind: 'VirtualMachine', name: 'desk' };
  const sticky = (holders: readonly Json[], workload = set): Json => ({
    ...{ cluster: 'default', kind: 'sticky', since: '2026-01-02T03:04:05Z', network: 'net', ifname: 'eth0', workload },
    holders,
  });
  const holder = (containerID: string, pod?: string, more: Json = {}): Json => ({
    ...{ node: here.site.node, machine: readMachine().machine, boot: readMachine().boot, containerID },
    netns: `/run/netns/${containerID}`,
    ...(pod && { pod: { namespace: 'shop', name: pod, uid: `uid-of-${pod}` } }),
    ...more,
  });
  /** Puts an address that a workload keeps, with all that belongs to it. */
  const keep = async (ip: string, holders: readonly Json[], workload = set) => {
    await here.site.put(address(ip), sticky(holders, workload));
    await here.site.put(here.site.keys.workload('default', 'net', workload, 'eth0'), { addresses: [ip] });
    for (const { node, containerID } of holders) {
      const id = { node: String(node), network: 'net', containerID: String(containerID), ifname: 'eth0' };
      await here.site.put(here.site.keys.attachment(id), { addresses: [ip], kept: true });
    }
  };
  const attachment = (containerID: string) =>
    here.site.keys.attachment({ node: here.site.node, network: 'net', containerID, ifname: 'eth0' });

  it('ls lists, filters, and prints for people and programs', async () => {
    await add('container-a', {}, 'web-0');
    await add('container-b', {}, 'web-1');
    await run('reserve', '10.1.0.9', '--reason', 'printer');
    const { code, stdout } = await run('ls');
    expect(code).toBe(0);
    const [head, ...rows] = stdout.trimEnd().split('\n');
    expect(head).toMatch(/^ADDRESS +KIND +NETWORK +NODE +POD +CONTAINER +IF +SINCE +REMARK$/);
    expect(rows).toHaveLength(3);
    expect(rows[0]).toMatch(/^10\.1\.0\.2 +dynamic +net +\S+ +shop\/web-0 +container-a +eth0 /);
    expect(rows[2]).toMatch(/^10\.1\.0\.9 +reserved .* printer$/);
    const listed = async (...filter: readonly string[]) =>
      (await desk.json<{ address: string }[]>(['ls', ...filter])).map(one => one.address);
    expect(await listed()).toEqual(['10.1.0.2', '10.1.0.3', '10.1.0.9']);
    expect(await listed('--pod', 'web-1')).toEqual(['10.1.0.3']);
    expect(await listed('--pod', 'shop/web-1')).toEqual(['10.1.0.3']);
    expect(await listed('--pod', 'other/web-1')).toEqual([]);
    expect(await listed('--namespace', 'shop', '--node', here.site.node)).toEqual(['10.1.0.2', '10.1.0.3']);
    expect(await listed('--kind', 'reserved')).toEqual(['10.1.0.9']);
    expect(await listed('--family', '6')).toEqual([]);
    expect(await listed('--network', 'another')).toEqual([]);
    expect(await listed('--all-spaces')).toContain('10.1.0.9');
    const elsewhere = { ...here.site.access, addressSpace: 'lab', logFile: join(desk.folder, 'log') };
    await call('ADD', { conf: confOf(here.site, { ...ranges, ...elsewhere }), containerID: 'container-c' });
    expect((await run('ls', '--all-spaces')).stdout).toMatch(/^SPACE +ADDRESS .*\n(.*\n)*lab +10\.1\.0\.2 /);
    expect((await run('ls', '-o', 'yaml')).stdout).toMatch(/^- address: "10\.1\.0\.2"\n {2}space: /);
    expect((await run('ls', '-o', 'wide')).stdout).toContain('/run/netns/pod-1');
    expect(stdout).not.toContain('\u001b');
  });

  it('ls and show tell of a workload with all its pods, of what is kept for one, and for whom a hold is', async () => {
    await add('container-a', {}, 'web-0');
    await keep('10.1.0.5', [holder('source', 'launcher-1'), holder('target', 'launcher-2', { node: 'far' })], vm);
    await keep('10.1.0.6', []);
    await here.site.put(address('10.1.0.7'), record({ kind: 'held', byName: true, until: '2099-01-01T00:00:00Z' }));
    await here.site.put(address('10.1.0.8'), record({ cluster: 'blue', pod: { namespace: 'shop', name: 'web-0' } }));
    const { stdout } = await run('ls');
    const [, , ...rows] = stdout.trimEnd().split('\n');
    const { node } = here.site;
    expect(rows[0]).toMatch(
      new RegExp(`^10\\.1\\.0\\.5 +sticky +net +${node},far +shop/launcher-1,shop/launcher-2 +source,target +eth0 `),
    );
    expect(rows[0]).toContain('kept for VirtualMachine shop/desk');
    expect(rows[1]).toMatch(/^10\.1\.0\.6 +sticky +net +- +- +- +eth0 .* kept for StatefulSet shop\/db-0$/);
    expect(rows[2]).toMatch(/ until 2099-01-01T00:00:00Z, for whoever asks for it by name$/);
    const listed = async (...filter: readonly string[]) =>
      (await desk.json<{ address: string }[]>(['ls', ...filter])).map(one => one.address);
    expect(await listed('--node', 'far')).toEqual(['10.1.0.5']);
    expect(await listed('--pod', 'launcher-2')).toEqual(['10.1.0.5']);
    expect(await listed('--pod', 'desk')).toEqual(['10.1.0.5']);
    expect(await listed('--pod', 'shop/db-0')).toEqual(['10.1.0.6']);
    expect(await listed('--namespace', 'shop')).toEqual(['10.1.0.2', '10.1.0.5', '10.1.0.6', '10.1.0.8']);
    expect(await listed('--namespace', 'shop', '--kind', 'sticky', '--node', node)).toEqual(['10.1.0.5']);
    expect(await listed('--cluster', 'blue')).toEqual(['10.1.0.8']);

    const pods = (await run('ls', '--by-pod')).stdout.trimEnd().split('\n');
    expect(pods[0]).toMatch(/^NAMESPACE +POD +NODE +IF +ADDRESS +KIND +NETWORK +SINCE +REMARK$/);
    expect(pods.slice(1).map(line => line.split(/ +/).slice(0, 5).join(' '))).toEqual([
      'shop db-0 - eth0 10.1.0.6',
      `shop launcher-1 ${node} eth0 10.1.0.5`,
      'shop launcher-2 far eth0 10.1.0.5',
      `shop web-0 ${node} eth0 10.1.0.2`,
      `- - ${node} eth0 10.1.0.7`,
    ]);
    expect(await listed('--by-pod', '--namespace', 'shop')).toEqual(['10.1.0.6', '10.1.0.5', '10.1.0.2']);
    expect((await run('ls', '--by-pod', '--node', 'far')).stdout).not.toContain('launcher-1');

    const shown = await run('show', '10.1.0.5');
    for (const part of ['kept for +VirtualMachine shop/desk', 'pod +shop/launcher-1', 'pod +shop/launcher-2'])
      expect(shown.stdout).toMatch(new RegExp(part));
    for (const [what, containers] of [
      ['desk', ['source', 'target']],
      ['launcher-2', ['target']],
      ['target', ['target']],
      ['db-0', [undefined]],
    ] as const) {
      const { holdings } = await desk.json<{ holdings: { attachment?: { containerID: string } }[] }>(['show', what]);
      expect(holdings.map(one => one.attachment?.containerID)).toEqual(containers);
    }
    expect((await run('show', '10.1.0.7')).stdout).toMatch(/for +whoever asks for it by name/);
    expect((await run('show', '10.1.0.30')).stderr).toContain('address outside the range of 10.1.0.0/27, network net');
  });

  it('ls prints lists that are longer than a page, whole and in order', async () => {
    const count = 2500;
    const all = Array.from({ length: count }, (_, i) => `10.2.${i >> 8}.${i & 255}`);
    for (let start = 0; start < count; start += 100) {
      const writes = all.slice(start, start + 100).map(one => ({ put: address(one), value: JSON.stringify(record()) }));
      await here.site.kv.commit({ conditions: [], writes }, deadlineIn(20_000));
    }
    const listed = await desk.json<{ address: string }[]>(['ls']);
    expect(listed.map(one => one.address)).toEqual(all);
    expect((await run('ls')).stdout.trimEnd().split('\n')).toHaveLength(count + 1);
  });

  it('show finds an address, a pod and a container, and says where a free address lies', async () => {
    await add('0123456789abcdef', {}, 'web-0');
    for (const what of ['10.1.0.2', 'web-0', 'shop/web-0', '0123456789abcdef', '012345']) {
      const { code, stdout } = await run('show', what);
      expect(code, what).toBe(0);
      for (const part of ['10.1.0.2', 'shop/web-0', '0123456789abcdef', 'network net']) expect(stdout).toContain(part);
      const { holdings } = await desk.json<{ holdings: { addresses: Json[] }[] }>(['show', what]);
      expect(holdings, what).toHaveLength(1);
      expect(holdings[0]!.addresses).toMatchObject([{ address: '10.1.0.2', kind: 'dynamic' }]);
    }
    for (const [what, where] of [
      ['10.1.0.7', 'address of 10.1.0.0/27, network net'],
      ['10.1.0.1', 'gateway of 10.1.0.0/27, network net'],
      ['192.0.2.1', 'nobody holds it'],
      ['01234', 'nobody holds it'],
    ]) {
      const { code, stdout, stderr } = await run('show', what!);
      expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
      expect(stderr).toContain(where);
    }
  });

  it('usage counts each kind, for every range', async () => {
    await add('a', { exclude: ['10.1.0.20'] });
    await add('b');
    await run('reserve', '10.1.0.10-10.1.0.12', '--reason', 'x');
    await here.site.put(address('10.1.0.15'), record({ kind: 'held', until: '2099-01-01T00:00:00Z' }));
    await here.site.put(address('10.1.0.16'), record({ kind: 'fixed' }));
    await here.site.put(address('10.1.0.17'), sticky([]));
    const [line] = await desk.json<Json[]>(['usage']);
    expect(line).toMatchObject({
      ...{ network: 'net', subnet: '10.1.0.0/27', first: '10.1.0.2', last: '10.1.0.20' },
      ...{ size: 18, used: 2, fixed: 1, sticky: 1, reserved: 3, held: 1, free: 10 },
    });
    const { stdout } = await run('usage');
    expect(stdout).toMatch(/net +10\.1\.0\.0\/27 +18 +2 +1 +1 +3 +1 +10 +44 % {2}\[\S+\.+\]/);
    expect(stdout.replace(/(.)\1+/g, '$1')).toContain('[#fsrh.]');
    expect(await run('usage', '--network', 'absent')).toMatchObject({ code: 1, stdout: '' });
  });

  it('reserve keeps addresses from ADD, tells whom it could not take them from, and may be repeated', async () => {
    const [taken] = await add('holder', {}, 'web-0');
    const first = await run('reserve', '10.1.0.0/27', '--reason', 'moving out');
    expect(first.code).toBe(1);
    expect(first.stdout).toContain('31 addresses reserved');
    expect(first.stdout).toContain(`${taken} is held by pod shop/web-0`);
    expect(first.stderr).toContain('note: 10.1.0.1 is the gateway of 10.1.0.0/27, network net: ');
    expect(first.stderr).toContain('note: 12 addresses lie in no range that is recorded in space ');
    const again = await run('reserve', '10.1.0.3-10.1.0.5', '--reason', 'other words');
    expect(again).toMatchObject({ code: 0, stderr: '' });
    expect(again.stdout).toMatch(/^0 addresses reserved.*\n3 reserved before: 10\.1\.0\.3 \(moving out\)/);
    const full = await call('ADD', { conf: confOf(here.site, ranges), containerID: 'late' });
    expect(full.error).toMatchObject({ code: 100 });
    expect(full.error?.msg).toContain('18 reserved');
    expect(await run('unreserve', '10.1.0.0/27')).toMatchObject({ code: 0 });
    expect(await run('unreserve', '10.1.0.0/27')).toMatchObject({ code: 0 });
    expect((await desk.json<Json[]>(['ls'])).map(({ address: one }) => one)).toEqual([taken]);
    expect(await add('late')).toEqual(['10.1.0.3']);
  });

  it('two reservations and many ADDs at once: each address has one owner, and everybody is told the truth', async () => {
    const containers = Array.from({ length: 8 }, (_, i) => `container-${i}`);
    const [first, second, ...added] = await Promise.all([
      run('reserve', '10.1.0.2-10.1.0.20', '--reason', 'first', '-o', 'json'),
      run('reserve', '10.1.0.2-10.1.0.20', '--reason', 'second', '-o', 'json'),
      ...containers.map(containerID => call('ADD', { conf: confOf(here.site, ranges), containerID })),
    ]);
    const reserved = [first, second].flatMap(({ stdout }) => (JSON.parse(stdout) as { reserved: string[] }).reserved);
    const given = added.flatMap(({ addresses }) => addresses);
    const all = [...reserved, ...given];
    expect(new Set(all).size).toBe(all.length);
    expect(all).toHaveLength(19);
    const kinds = (await desk.json<{ address: string; kind: string }[]>(['ls'])).map(
      one => `${one.kind} ${one.address}`,
    );
    expect(kinds.sort()).toEqual(
      [...reserved.map(one => `reserved ${one}`), ...given.map(one => `dynamic ${one}`)].sort(),
    );
    expect(await run('check')).toMatchObject({ code: 0 });
  });

  it('reserve takes 4096 addresses', async () => {
    const { code, stdout } = await run('reserve', '10.4.0.0/20', '--reason', 'racks');
    expect({ code, stdout: stdout.split(' ')[0] }).toEqual({ code: 0, stdout: '4096' });
    expect(await here.site.remains()).toHaveLength(4096);
    expect((await run('unreserve', '10.4.0.0/20')).stdout).toContain('4096 addresses no longer reserved');
    expect(await here.site.remains()).toEqual([]);
  });

  describe('release', () => {
    it('frees the whole attachment of a container whose namespace is gone, and nothing else', async ({ skip }) => {
      // The number that the kernel gives to the first PID namespace of all.
      const onHost = readlinkSync('/proc/self/ns/pid') === 'pid:[4026531836]';
      skip(!onHost, "outside the host's own namespaces nothing proves that a namespace is gone");
      const sets = { ranges: [[{ subnet: 'fd00:1::/64' }]] };
      const freed = await add('gone', sets);
      expect(freed).toHaveLength(2);
      await add('stays');
      const { code, stdout } = await run('release', freed[1]!, '--yes');
      expect(code).toBe(0);
      expect(stdout).toMatch(/released: its network namespace \/run\/netns\/pod-1 is gone/);
      expect((await here.site.remains()).filter(key => /gone|0002$|fd00/.test(key))).toEqual([]);
      expect(await here.site.remains()).toHaveLength(2);
      expect(await run('release', freed[1]!, '--yes')).toMatchObject({ code: 1, stdout: '' });
      expect(readFileSync(join(desk.folder, 'log'), 'utf8')).toContain('"event":"released by hand"');
    });

    it('frees what an earlier boot wrote', async () => {
      await here.site.put(
        address('10.1.0.5'),
        record({ containerID: 'old', boot: 'another', netns: '/proc/self/ns/net' }),
      );
      await here.site.put(attachment('old'), { addresses: ['10.1.0.5'] });
      const { code, stdout } = await run('release', '10.1.0.5', '--yes');
      expect({ code, stdout }).toMatchObject({
        code: 0,
        stdout: expect.stringContaining('before this machine was started'),
      });
      expect(await here.site.remains()).toEqual([]);
    });

    it('leaves a workload what it keeps, unless it is to be taken from it', async () => {
      const old = { boot: 'another', netns: '/proc/self/ns/net' };
      await keep('10.1.0.5', [holder('old', 'db-0', old)]);
      const dry = await run('release', 'shop/db-0', '--dry-run', '--workload');
      expect(dry.stdout).toContain('10.1.0.5: not released: dry run; it would be, as it was written before');
      expect(dry.stdout).toContain('it would be taken from StatefulSet shop/db-0 once no pod uses it');
      const first = await run('release', 'db-0', '--yes');
      expect(first).toMatchObject({ code: 0, stdout: expect.stringContaining('stays kept for StatefulSet shop/db-0') });
      expect(await run('check')).toMatchObject({ code: 0, stdout: '2 records examined: no trouble\n' });
      const second = await run('release', '10.1.0.5', '--yes');
      expect(second).toMatchObject({ code: 1, stdout: expect.stringContaining('--workload takes it away') });
      expect(await run('release', '10.1.0.5', '--workload')).toMatchObject({ code: 2 });
      const third = await run('release', '10.1.0.5', '--yes', '--workload');
      expect(third).toMatchObject({ code: 0, stdout: '10.1.0.5: taken from StatefulSet shop/db-0\n' });
      expect(await here.site.remains()).toEqual([]);

      // Both at once; what else the workload keeps stays with it.
      await keep('10.1.0.5', [holder('old', 'db-0', old)]);
      const ofWorkload = here.site.keys.workload('default', 'net', set, 'eth0');
      await here.site.put(ofWorkload, { addresses: ['10.1.0.5', '10.1.0.6'] });
      await here.site.put(address('10.1.0.6'), sticky([]));
      expect(await run('release', '10.1.0.5', '--yes', '--workload')).toMatchObject({ code: 0 });
      expect(await here.site.remains()).toEqual([address('10.1.0.6'), ofWorkload]);
      expect(await run('check')).toMatchObject({ code: 0 });
    });

    it('takes nothing from a workload that a pod may use, and one pod of a migrating VM at a time', async () => {
      const here5 = holder('source', 'launcher-1', { boot: 'another' });
      await keep('10.1.0.5', [here5, holder('target', 'launcher-2', { node: 'far' })], vm);
      const before = await here.site.remains();
      const refused = await run('release', 'launcher-2', '--yes', '--workload');
      expect(refused.code).toBe(1);
      expect(refused.stdout).toContain('10.1.0.5: not released: it belongs to node far');
      expect(refused.stdout).toContain('10.1.0.5: not released: it is in use by VirtualMachine shop/desk (pod shop/l');
      expect(await here.site.remains()).toEqual(before);
      const half = await run('release', '10.1.0.5', '--yes', '--workload');
      expect(half.code).toBe(1);
      expect(half.stdout).toContain('10.1.0.5: released: it was written before this machine was started again');
      expect(await run('check')).toMatchObject({ code: 0, stdout: '3 records examined: no trouble\n' });
      expect((await run('release', 'desk', '--yes', '--force', '--workload')).code).toBe(0);
      expect(await here.site.remains()).toEqual([]);
    });

    it('refuses what lives, what another node or machine holds, and what it may not touch', async () => {
      // Of the process that looks: a namespace that is there for certain.
      const namespace = '/proc/self/ns/net';
      const service = { feature: 'public-ip', kind: 'Service', namespace: 'shop', name: 'web' };
      await here.site.put(address('10.1.0.5'), record({ netns: namespace }));
      await here.site.put(attachment('c1'), { addresses: ['10.1.0.5'] });
      await here.site.put(address('10.1.0.6'), record({ node: 'elsewhere' }));
      await here.site.put(address('10.1.0.7'), record({ machine: '0123456789abcdef' }));
      await here.site.put(address('10.1.0.8'), record({ netns: '' }));
      await here.site.put(address('10.1.0.9'), { kind: 'service', since: '', holder: service });
      await here.site.put(address('10.1.0.10'), { kind: 'from-the-future' });
      await here.site.put(address('10.1.0.11'), record({ kind: 'reserved' }));
      const before = await here.site.remains();
      for (const [what, why] of [
        ['10.1.0.5', `its network namespace ${namespace} is there`],
        ['10.1.0.6', 'it belongs to node elsewhere'],
        ['10.1.0.7', 'another machine'],
        ['10.1.0.8', 'names no network namespace'],
        ['10.1.0.9', 'belongs to Service shop/web: remove that'],
        ['10.1.0.10', 'of a kind that this version does not know'],
        ['10.1.0.11', 'kube-ipam unreserve 10.1.0.11'],
      ]) {
        const { code, stdout } = await run('release', what!, '--yes');
        expect(code, what).toBe(1);
        expect(stdout, what).toContain(why);
      }
      for (const never of ['10.1.0.9', '10.1.0.10', '10.1.0.11']) {
        expect((await run('release', never, '--yes', '--force')).code).toBe(1);
      }
      expect(await here.site.remains()).toEqual(before);
      expect(await run('release', '10.1.0.5', '--force', '--dry-run')).toMatchObject({ code: 0 });
      expect(await here.site.remains()).toEqual(before);
      expect(await run('release', '10.1.0.6', '--force')).toMatchObject({ code: 2 });
      expect(await run('release', '10.1.0.6', '--force', '--yes')).toMatchObject({ code: 0 });
      expect(await run('release', 'c1', '--force', '--yes')).toMatchObject({ code: 0 });
      expect(await run('release', '10.1.0.5', '--force', '--yes')).toMatchObject({ code: 1 });
      expect((await here.site.remains()).length).toBe(before.length - 3);
    });
  });

  it('check finds each planted contradiction, and only those', async () => {
    await add('good');
    const { site } = here;
    // A fixed address may lie anywhere in its subnet; where selectors leave a part of a set, that part has a cursor.
    await site.put(address('10.1.0.30'), record({ kind: 'fixed', containerID: 'fixed' }));
    await site.put(attachment('fixed'), { addresses: ['10.1.0.30'] });
    await site.put(site.keys.network('two'), { ranges: [[{ subnet: '10.5.0.0/24' }, { subnet: '10.6.0.0/24' }]] });
    await site.put(`${site.keys.cursors()}two/010.006.000.001-010.006.000.254`, '10.6.0.7');
    expect(await run('check')).toMatchObject({ code: 0, stdout: expect.stringContaining('no trouble') });
    await site.put(`${site.keys.cursors()}two/010.006.000.001-010.005.000.254`, '10.6.0.7');
    await site.put(address('10.1.0.10'), record({ containerID: 'lost' }));
    await site.put(address('10.1.0.11'), record({ containerID: 'other' }));
    await site.put(attachment('other'), { addresses: ['10.1.0.12'] });
    await site.put(attachment('thief'), { addresses: ['10.1.0.2'] });
    await site.put(attachment('void'), { addresses: [] });
    await site.put(attachment('broken'), 'not json');
    await site.put(address('10.1.0.13'), 'not json');
    await site.put(address('10.1.0.14'), { kind: 'from-the-future' });
    await site.put(address('10.9.0.1'), record({ containerID: 'far' }));
    await site.put(attachment('far'), { addresses: ['10.9.0.1'] });
    await site.put(`${site.keys.prefix}addresses/4/10.1.0.99`, record());
    await site.put(`${site.keys.prefix}workloads/x`, {});
    await site.put(`${site.keys.prefix}from-the-future/x`, {});
    await site.put(`${site.keys.cursors()}net/010.001.000.002-010.001.000.003`, '10.1.0.2');
    await site.put(site.keys.network('unreadable'), 'not json');
    const { code, stdout } = await run('check', '-o', 'json');
    expect(code).toBe(1);
    const { findings } = JSON.parse(stdout) as { findings: { level: string; rule: string; subject: string }[] };
    const id = (name: string) => `${site.node}/net/${name}/eth0`;
    const found = findings.map(({ level, rule, subject }) => `${level} ${rule} ${subject}`).sort();
    expect(found).toEqual(
      [
        'trouble no-attachment 10.1.0.10',
        'trouble not-listed 10.1.0.11',
        `trouble no-record ${id('other')}`,
        `trouble other-owner ${id('thief')}`,
        'trouble two-holders 10.1.0.2',
        `trouble no-addresses ${id('void')}`,
        `trouble unreadable-value ${id('broken')}`,
        'trouble unreadable-value 10.1.0.13',
        'note unknown-kind 10.1.0.14',
        'trouble outside-ranges 10.9.0.1',
        `trouble unknown-key ${site.keys.prefix}addresses/4/10.1.0.99`,
        `trouble unknown-key ${site.keys.prefix}workloads/x`,
        `note unknown-key ${site.keys.prefix}from-the-future/x`,
        `note unknown-set ${site.keys.cursors()}two/010.006.000.001-010.005.000.254`,
        `note unknown-set ${site.keys.cursors()}net/010.001.000.002-010.001.000.003`,
        'trouble unreadable-value network unreadable',
      ].sort(),
    );
    const table = await run('check');
    expect(table.stdout).toMatch(/^LEVEL +RULE +SUBJECT +WHAT\ntrouble /);
    expect(table.stdout).toContain('12 in trouble, 4 notes');
  });

  it('writes nothing into a store that only newer programs may write', async () => {
    const format = '/kube-ipam/v1/format';
    await add('a');
    await here.site.put(format, { format: 2, minReader: 2 });
    try {
      for (const argv of [
        ['reserve', '10.1.0.9', '--reason', 'x'],
        ['release', '10.1.0.2', '--yes', '--force'],
      ]) {
        const { code, stderr } = await run(...argv);
        expect(code).toBe(1);
        expect(stderr).toContain('install the newer release');
      }
    } finally {
      await here.site.put(format, { format: 1, minReader: 1 });
    }
    expect(await here.site.remains()).toHaveLength(2);
  });

  it('export and import: round trip through a file, a dry run, a repetition, and conflicts', async () => {
    await add('a', { ranges: [[{ subnet: 'fd00:1::/64' }]] }, 'web-0');
    await run('reserve', '10.1.0.9', '--reason', 'printer');
    await here.site.put(address('10.1.0.15'), record({ kind: 'held', until: '2099-01-01T00:00:00Z' }));
    await here.site.put(address('10.1.0.16'), record({ kind: 'held', until: '2020-01-01T00:00:00Z' }));
    await here.site.put(here.site.keys.fence({ node: 'n', network: 'net', containerID: 'c', ifname: 'e' }), {});
    const file = join(desk.folder, 'backup');
    const node = ['--node-name', 'node-a'];
    expect(await run('export', '--file', file, ...node)).toMatchObject({ code: 0, stdout: '' });
    const [head, ...lines] = readFileSync(file, 'utf8').trimEnd().split('\n');
    expect(JSON.parse(head!)).toMatchObject({
      format: 'kube-ipam-export',
      version: 1,
      store: here.kind,
      node: 'node-a',
    });
    expect(lines.join('\n')).not.toContain('/fences/');

    // Into the embedded store whatever the source: all but the hold whose time is over arrives.
    const other = ['--data-dir', join(desk.folder, 'other'), ...node];
    const count = lines.length;
    const dry = await kubeIpam(['import', file, '--dry-run', ...other]);
    expect(dry).toMatchObject({ code: 0, stdout: expect.stringContaining(`${count - 1} records would be written`) });
    expect(existsSync(join(desk.folder, 'other'))).toBe(false);
    const done = await kubeIpam(['import', ...other], { input: readFileSync(file, 'utf8') });
    expect(done).toMatchObject({ code: 0, stdout: expect.stringContaining(`${count - 1} records written`) });
    const again = await kubeIpam(['import', file, ...other]);
    expect(again.stdout).toMatch(new RegExp(`^0 records written, ${count - 1} there already`));
    expect((await kubeIpam(['check', '--space', here.site.keys.space, ...other])).code).toBe(0);

    // And back, into the same store: everything is there already, whichever name the node had on the way.
    const back = await kubeIpam(['export', '--space', here.site.keys.space, ...other]);
    expect(back.stdout.replaceAll('"node":"local"', '"node":"node-a"').replaceAll('/local/', '/node-a/')).not.toBe('');
    const returned = await desk.run(['import', ...node], { input: back.stdout });
    expect(returned).toMatchObject({ code: 0, stdout: expect.stringMatching(/^0 records written/) });

    // Another owner is never replaced, and half an attachment never comes.
    await here.site.put(address('10.1.0.2'), record({ containerID: 'newer' }));
    const missing = `${here.site.keys.addresses(6)}fd00:0001:0000:0000:0000:0000:0000:0002`;
    await here.site.remove(missing);
    const refused = await desk.run(['import', file, ...node]);
    expect(refused.code).toBe(1);
    expect(refused.stdout).toContain('conflict: 10.1.0.2 belongs to container newer');
    const keys = (await here.site.entries()).map(({ key }) => key);
    expect(keys).not.toContain(missing);
  });

  it('what a workload keeps travels with its key and its pods, under the names that nodes have there', async () => {
    const workload = { namespace: 'shop', kind: 'VirtualMachine', name: 'db' };
    const kept = here.site.keys.workload('default', 'net', workload, 'eth0');
    const holder = (node: string, containerID: string) => ({ node, machine: 'm', boot: 'b', containerID, netns: '' });
    const sticky = { cluster: 'default', kind: 'sticky', since: '', network: 'net', ifname: 'eth0', workload };
    const { node } = here.site;
    await here.site.put(address('10.1.0.5'), { ...sticky, holders: [holder(node, 'source'), holder('far', 'target')] });
    await here.site.put(attachment('source'), { addresses: ['10.1.0.5'], kept: true });
    const far = here.site.keys.attachment({ node: 'far', network: 'net', containerID: 'target', ifname: 'eth0' });
    await here.site.put(far, { addresses: ['10.1.0.5'], kept: true });
    await here.site.put(kept, { addresses: ['10.1.0.5'] });
    const { stdout: file } = await run('export');
    const other = ['--data-dir', join(desk.folder, 'other'), '--space', here.site.keys.space];
    const rename = ['--rename-node', `${node}=near`, '--rename-node', 'far=farther'];
    const done = await kubeIpam(['import', ...other, ...rename], { input: file });
    expect(done).toMatchObject({ code: 0, stdout: '4 records written, 0 there already, 0 conflicts\n' });
    expect(await kubeIpam(['check', ...other])).toMatchObject({ code: 0, stdout: '4 records examined: no trouble\n' });
    const { stdout } = await kubeIpam(['export', ...other]);
    expect(stdout).toContain('"holders":[{"node":"near",');
    expect(stdout).toContain(`/attachments/farther/net/target/eth0`);

    // Back, where a third pod is the only one by now: the workload is the same, the former pods' attachments do not come.
    await here.site.put(address('10.1.0.5'), { ...sticky, holders: [holder(node, 'third')] });
    await here.site.put(attachment('third'), { addresses: ['10.1.0.5'], kept: true });
    await here.site.remove(attachment('source'), far);
    const back = await desk.run(['import'], { input: file });
    expect(back).toMatchObject({
      code: 1,
      stdout: expect.stringContaining('0 records written, 2 there already, 2 conf'),
    });
    expect(back.stdout).toContain(
      'container source eth0 does not come: 10.1.0.5 belongs to VirtualMachine shop/db (cont',
    );
    // A key that keeps another's address is left out, with all that belongs to it.
    await here.site.remove(address('10.1.0.5'), attachment('third'), kept);
    const wrong = await desk.run(['import'], { input: file.replaceAll('"name":"db"', '"name":"other"') });
    expect(wrong).toMatchObject({ code: 1, stdout: expect.stringContaining('VirtualMachine shop/db (line') });
    expect((await here.site.remains()).filter(key => key.includes('/workloads/'))).toEqual([]);
  });

  it('import refuses what is no export, what is cut short, and what says one thing twice', async () => {
    const head = JSON.stringify({ format: 'kube-ipam-export', version: 1, store: 'etcd', revision: 1, node: 'n' });
    const line = JSON.stringify({ key: address('10.1.0.2'), value: record() });
    for (const [input, why] of [
      ['', 'empty'],
      ['{"a":1}\n', 'line 1 is not the head of an export'],
      [`${head.replace('"version":1', '"version":9')}\n`, 'newer release'],
      [`${head}\n${line.slice(0, -9)}`, 'line 2 is no JSON object'],
      [`${head}\n${line}\n\n${line}\n`, 'lines 2 and 4 have the same key'],
      [`${head}\n{"key":"/etc/passwd","value":""}\n`, 'no key of an address space'],
      [`${head}\n{"key":"/kube-ipam/v1/format","value":"{}"}\n`, 'no key of an address space'],
      [`${head}\n{"key":"/kube-ipam/v1/clusters/a","value":"{}"}\n`, 'no key of an address space'],
    ]) {
      const { code, stdout, stderr } = await desk.run(['import'], { input: input! });
      expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
      expect(stderr).toContain(why);
    }
    expect(await here.site.remains()).toEqual([]);
  });

  it('export into a file that cannot be written leaves the old one as it was', async () => {
    mkdirSync(join(desk.folder, 'taken'));
    writeFileSync(join(desk.folder, 'taken', 'x'), 'x');
    const { code, stderr } = await run('export', '--file', join(desk.folder, 'taken'));
    expect(code).toBe(1);
    expect(stderr).toContain('cannot be written');
    expect(readFileSync(join(desk.folder, 'taken', 'x'), 'utf8')).toBe('x');
  });
});
