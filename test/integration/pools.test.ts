// Addresses of pools, lent to Services by the pods' own allocator: one owner each, whatever others do, until nobody answers.
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { deadlineIn, renewableDeadline } from '../../src/base/clock.ts';
import { readMachine } from '../../src/base/node.ts';
import { parseOwner, type ServiceHolder } from '../../src/ipam/model.ts';
import { type Pool, readPool } from '../../src/ipam/pool.ts';
import type { Surroundings } from '../../src/ipam/ports.ts';
import { inspect } from '../../src/ipam/service/inspect.ts';
import { type LendOptions, lend, reclaim, type Unclaimed } from '../../src/ipam/service/lend.ts';
import { formatIp, parseIp } from '../../src/net/ip.ts';
import { clusterKey } from '../../src/store/keys.ts';
import { Desk, runProcess, sources } from '../helpers/command-line.ts';
import { onEachStore } from '../helpers/each-store.ts';
import { surroundings } from '../helpers/kubernetes/scanner.ts';
import { call, confOf } from '../helpers/plugin.ts';

const range = { subnet: '192.0.2.0/24', rangeStart: '192.0.2.10', rangeEnd: '192.0.2.14' };
const poolOf = (spec: object, name = 'public'): Pool => readPool({ metadata: { name }, spec });
const small = poolOf({ ranges: [range, { subnet: '2001:db8::/64' }] });
const service = (name: string): ServiceHolder => ({
  ...{ feature: 'public-ip', group: '', kind: 'Service', namespace: 'shop', name },
  uid: `uid-of-${name}`,
});
const nobodyAnswers: Unclaimed = () => [];

onEachStore(here => {
  const around = (): Surroundings => ({ ...surroundings(here.site), deadline: deadlineIn(30_000) });
  const borrow = async (name: string, more: Partial<LendOptions> = {}) => {
    const ip = await lend(around(), {
      object: service(name),
      pool: small,
      family: 4,
      cluster: 'default',
      clusterUid: 'uid-1',
      keptClear: [],
      whyNotShared: () => 'it is not to be shared',
      ...more,
    });
    return formatIp(ip);
  };
  const idOf = (name: string, ifname = 'lb4', pool = 'public') => ({
    ...{ node: 'kube-ipam.public-ip', network: `pool.${pool}`, containerID: `uid-of-${name}`, ifname },
  });
  const back = async (name: string, keep: readonly string[] = [], unclaimed = nobodyAnswers) => {
    const { freed, waiting } = await reclaim(
      around(),
      idOf(name),
      keep.map(text => parseIp(text)!),
      unclaimed,
    );
    return { freed: freed.map(formatIp), waiting: waiting.map(formatIp) };
  };
  const ownerOf = async (text: string) => {
    const { answers } = await here.site.kv.read([{ key: here.site.keys.address(parseIp(text)!) }], deadlineIn(20_000));
    const entry = answers[0]!.entries[0];
    return entry && parseOwner(entry.value);
  };
  const listed = async (name: string) => {
    const { answers } = await here.site.kv.read([{ key: here.site.keys.attachment(idOf(name)) }], deadlineIn(20_000));
    const value = answers[0]!.entries[0]?.value;
    return value && (JSON.parse(value) as unknown);
  };
  const inOrder = async () => {
    const patient = { ...surroundings(here.site), deadline: renewableDeadline(20_000) };
    expect((await inspect(patient, () => {})).findings).toEqual([]);
  };
  // Each space has the clusters of the whole store beside it.
  afterEach(() => here.site.remove(clusterKey('default')));

  it('an object is given one address of each family, the same as often as it asks', async () => {
    expect(await borrow('web')).toBe('192.0.2.10');
    expect(await borrow('web', { family: 6 })).toBe('2001:db8::2');
    expect(await borrow('web')).toBe('192.0.2.10');
    expect(await borrow('api')).toBe('192.0.2.11');
    expect(await ownerOf('192.0.2.10')).toMatchObject({ kind: 'service', holder: service('web'), pool: 'public' });
    // What is not plain is looked at before it is deleted, by every version.
    expect(await listed('web')).toEqual({ addresses: ['192.0.2.10'], kept: true });
    expect(await back('web')).toEqual({ freed: ['192.0.2.10'], waiting: [] });
    expect(await back('web')).toEqual({ freed: [], waiting: [] });
    expect(await ownerOf('192.0.2.10')).toBeUndefined();
    expect(await ownerOf('2001:db8::2')).toBeDefined();
    await inOrder();
  });

  it('many who ask at once are given different ones, pods of the same addresses too', async () => {
    const wide = poolOf({ ranges: [{ subnet: '192.0.2.0/26' }] });
    const conf = confOf(here.site, { ranges: [[{ subnet: '192.0.2.0/26' }]] });
    const answers = await Promise.all(
      Array.from({ length: 60 }, async (_, i) => {
        if (i % 2 === 0) return borrow(`s${i}`, { pool: wide });
        return (await call('ADD', { conf, containerID: `pod-${i}` })).addresses[0];
      }),
    );
    expect(new Set(answers).size).toBe(60);
    await expect(borrow('late', { pool: wide }).then(() => borrow('later', { pool: wide }))).rejects.toMatchObject({
      code: 100,
      message: expect.stringMatching(
        /network pool\.public: no free address in .*: 30 by pods and containers, 31 by Ser/,
      ),
    });
    await inOrder();
  });

  it('the wanted one, or none; the former one stays lent until it is taken back', async () => {
    expect(await borrow('web', { wanted: parseIp('192.0.2.13')! })).toBe('192.0.2.13');
    await expect(borrow('api', { wanted: parseIp('192.0.2.13')! })).rejects.toMatchObject({
      code: 11,
      message: expect.stringContaining('is held by Service shop/web (pool public)'),
    });
    for (const wanted of ['192.0.2.1', '192.0.2.9', '198.51.100.1'])
      await expect(borrow('api', { wanted: parseIp(wanted)! }), wanted).rejects.toMatchObject({ code: 7 });
    expect(await listed('api')).toBeUndefined();
    expect(await borrow('web', { wanted: parseIp('192.0.2.14')! })).toBe('192.0.2.14');
    expect(await listed('web')).toEqual({ addresses: ['192.0.2.14', '192.0.2.13'], kept: true });
    await inOrder();
    expect(await back('web', ['192.0.2.14'])).toEqual({ freed: ['192.0.2.13'], waiting: [] });
    expect(await ownerOf('192.0.2.13')).toBeUndefined();
    expect(await listed('web')).toEqual({ addresses: ['192.0.2.14'], kept: true });
    // Without a wish it keeps what it has.
    expect(await borrow('web')).toBe('192.0.2.14');
    await inOrder();
  });

  it('wishes that change back find the address there', async () => {
    const [a, b] = [parseIp('192.0.2.13')!, parseIp('192.0.2.14')!];
    for (const wanted of [a, b, a]) await borrow('web', { wanted });
    expect(await listed('web')).toEqual({ addresses: ['192.0.2.13', '192.0.2.14'], kept: true });
    expect(await back('web', ['192.0.2.13'])).toEqual({ freed: ['192.0.2.14'], waiting: [] });
    await inOrder();
  });

  it('an address that is shared belongs to those who use it, the first of them first, and is free after the last', async () => {
    const wanted = parseIp('192.0.2.12')!;
    await borrow('web', { wanted });
    const asked: (readonly ServiceHolder[])[] = [];
    const whyNotShared = (others: readonly ServiceHolder[]) => {
      asked.push(others);
      return undefined;
    };
    expect(await borrow('api', { wanted, whyNotShared })).toBe('192.0.2.12');
    expect(await borrow('dns', { wanted, whyNotShared })).toBe('192.0.2.12');
    expect(asked).toEqual([[service('web')], [service('web'), service('api')]]);
    const shared = await ownerOf('192.0.2.12');
    expect(shared).toMatchObject({ holder: service('web'), sharers: [service('api'), service('dns')] });
    await inOrder();
    const refuse: Unclaimed = () => undefined;
    expect(await back('web', [], refuse)).toEqual({ freed: ['192.0.2.12'], waiting: [] });
    expect(await ownerOf('192.0.2.12')).toMatchObject({ holder: service('api'), sharers: [service('dns')] });
    expect(await back('dns', [], refuse)).toEqual({ freed: ['192.0.2.12'], waiting: [] });
    expect(await ownerOf('192.0.2.12')).not.toHaveProperty('sharers');
    await inOrder();
    expect(await back('api', [], refuse)).toEqual({ freed: [], waiting: ['192.0.2.12'] });
    expect(await back('api')).toEqual({ freed: ['192.0.2.12'], waiting: [] });
    expect(await here.site.remains()).toEqual([]);
  });

  it('what somebody may answer for stays lent, also when he claims it at the last moment', async () => {
    await borrow('web');
    const claim = `/kiwi-of-${here.site.keys.space}/publicips/192.0.2.10`;
    await here.site.put(claim, 'node-a');
    expect(await back('web', [], () => [{ absent: claim }])).toEqual({ freed: [], waiting: ['192.0.2.10'] });
    expect(await listed('web')).toEqual({ addresses: ['192.0.2.10'], kept: true });
    await here.site.remove(claim);
    expect(await back('web', [], () => [{ absent: claim }])).toEqual({ freed: ['192.0.2.10'], waiting: [] });
  });

  it('what others have is not taken: reservations, pods, other features and clusters, other pools', async () => {
    const records: readonly (readonly [string, object])[] = [
      ['192.0.2.10', { kind: 'reserved', cluster: 'default' }],
      ['192.0.2.11', { kind: 'service', cluster: 'default', holder: { ...service('web'), feature: 'eip' } }],
      ['192.0.2.12', { kind: 'service', cluster: 'west', holder: service('web'), pool: 'public' }],
      ['192.0.2.13', { kind: 'service', cluster: 'default', holder: service('db'), pool: 'other' }],
    ];
    for (const [text, record] of records) await here.site.put(here.site.keys.address(parseIp(text)!), record);
    const before = await here.site.entries();
    for (const [text] of records) {
      const options = { wanted: parseIp(text)!, whyNotShared: () => undefined };
      await expect(borrow('web', options), text).rejects.toMatchObject({ code: 11 });
    }
    expect(await here.site.entries()).toEqual(before);
    expect(await borrow('web')).toBe('192.0.2.14');
    await expect(borrow('api')).rejects.toMatchObject({ code: 100 });
  });

  it('what is to be kept clear is given to nobody', async () => {
    const keptClear = ['192.0.2.10', '192.0.2.12'].map(text => ({ family: 4 as const, value: parseIp(text)!.value }));
    const spans = keptClear.map(({ family, value }) => ({ family, first: value, last: value }));
    expect(await borrow('a', { keptClear: spans })).toBe('192.0.2.11');
    expect(await borrow('b', { keptClear: spans })).toBe('192.0.2.13');
    await expect(borrow('c', { keptClear: spans, wanted: parseIp('192.0.2.12')! })).rejects.toMatchObject({
      code: 7,
      message: expect.stringContaining('address of a node'),
    });
  });

  it('a name of clusters that is another’s is refused, and a family that the pool does not have', async () => {
    await borrow('web');
    await expect(borrow('api', { clusterUid: 'uid-2' })).rejects.toMatchObject({ code: 7 });
    const v4 = poolOf({ ranges: [range] });
    await expect(borrow('api', { pool: v4, family: 6 })).rejects.toMatchObject({ code: 103 });
  });

  describe('what is lent is touched by nobody else', () => {
    let desk: Desk;
    beforeEach(() => {
      desk = new Desk();
      desk.network('net', { ...here.site.access, subnet: '192.0.2.0/24', logFile: `${desk.folder}/log` });
    });
    afterEach(() => desk[Symbol.dispose]());
    const run = (...argv: readonly string[]) =>
      runProcess(sources[0], [sources[1], ...argv, '--conf-dir', desk.confDir, '--timeout', '20']);

    it('no plugin, no gc, no command', async () => {
      const conf = confOf(here.site, { subnet: '192.0.2.0/24' });
      await borrow('web');
      const lent = await here.site.entries();
      expect((await call('DEL', { conf, containerID: 'uid-of-web', ifname: 'lb4' })).exitCode).toBe(0);
      const gc = { ...conf, cniVersion: '1.1.0', 'cni.dev/valid-attachments': [] };
      expect((await call('GC', { conf: gc })).error).toBeUndefined();
      for (const more of [
        { ...conf, name: 'pool.public' },
        { ...conf, ipam: { ...(conf.ipam as object), nodeName: 'kube-ipam.public-ip' } },
      ]) {
        expect((await call('ADD', { conf: more })).error?.code).toBe(7);
      }
      const name = { ...conf, ipam: { ...(conf.ipam as object), nodeName: 'kube-ipam.public-ip' } };
      const del = await call('DEL', {
        conf: { ...name, name: 'pool.public' },
        containerID: 'uid-of-web',
        ifname: 'lb4',
      });
      expect(del.error?.code).toBe(7);
      for (const what of ['192.0.2.10', 'uid-of-web', 'shop/web']) {
        const { code, stdout } = await run('release', what, '--yes', '--force');
        expect(code, what).toBe(1);
        expect(stdout, what).toContain('not released');
      }
      expect((await run('unreserve', '192.0.2.0/24')).stdout).toContain('192.0.2.10');
      expect((await run('reserve', '192.0.2.10', '--reason', 'printer')).code).toBe(1);
      expect((await run('gc', '--local')).code).toBe(0);
      expect((await here.site.entries()).filter(({ key }) => !key.includes('/networks/net'))).toEqual(lent);
      expect(await run('check')).toMatchObject({ code: 0 });
      const { stdout: table } = await run('ls');
      expect(table).toMatch(/^192\.0\.2\.10 +service +pool\.public .*for Service shop\/web/m);
      expect((await run('show', 'shop/web')).stdout).toMatch(/lent to +Service shop\/web\n +network +pool\.public/);
    });

    it('an import knows one Service from another', async () => {
      await borrow('web');
      const { stdout: file } = await run('export');
      expect(await run('import', '--dry-run', desk.write('a', file))).toMatchObject({ code: 0 });
      const other = await run('import', '--dry-run', desk.write('b', file.replaceAll('uid-of-web', 'uid-of-api')));
      expect(other.code).toBe(1);
      expect(`${other.stdout}${other.stderr}`).toContain('192.0.2.10 belongs to Service shop/web');
    });
  });

  it('machines mean nothing to it: a Service has none', async () => {
    await borrow('web');
    expect(readMachine().machine).not.toBe('');
    expect(await ownerOf('192.0.2.10')).toMatchObject({ machine: '', boot: '', node: '' });
  });
});
