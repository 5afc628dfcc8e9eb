// What stands in the store over time, on both stores: other versions, holds after release, records of an earlier boot.
import { beforeEach, describe, expect, it } from 'vitest';
import { deadlineIn } from '../../src/base/clock.ts';
import { parseIp } from '../../src/net/ip.ts';
import { onEachStore } from '../helpers/each-store.ts';
import { call, confOf, type Json } from '../helpers/plugin.ts';

const subnet = { subnet: '10.1.0.0/24' };

onEachStore(here => {
  let conf: Json;
  beforeEach(() => {
    conf = confOf(here.site, subnet, { cniVersion: '1.1.0' });
  });
  const address = (text: string) => here.site.keys.address(parseIp(text)!);

  describe('versions side by side', () => {
    it('a newer format: code 101, before anything is written; DEL too changes nothing', async () => {
      await call('ADD', { conf });
      const formatKey = '/kube-ipam/v1/format';
      const [old] = (await here.site.kv.read([{ key: formatKey }], deadlineIn(9000))).answers[0]!.entries;
      expect(JSON.parse(old!.value)).toEqual({ format: 1, minReader: 1 });
      try {
        for (const format of ['{"format":9,"minReader":2}', 'unreadable', '{"format":9}']) {
          await here.site.put(formatKey, format);
          const before = await here.site.entries();
          expect((await call('ADD', { conf, containerID: 'new' })).error).toMatchObject({ code: 101 });
          expect((await call('ADD', { conf })).error).toMatchObject({ code: 101 });
          expect(await here.site.entries()).toEqual(before);
        }
        await here.site.put(formatKey, '{"format":9,"minReader":1,"more":true}');
        expect((await call('ADD', { conf, containerID: 'new' })).exitCode).toBe(0);
      } finally {
        await here.site.put(formatKey, old!.value);
      }
    });

    it('fields of a later version stay when a record is written again', async () => {
      await call('ADD', { conf });
      for (const entry of await here.site.entries()) {
        if (!/\/(addresses|attachments)\//.test(entry.key)) continue;
        await here.site.put(entry.key, { ...JSON.parse(entry.value), later: { deep: [1] } });
      }
      expect((await call('ADD', { conf, netns: '/run/netns/new' })).addresses).toEqual(['10.1.0.2']);
      const kept = (await here.site.entries()).filter(({ key }) => /\/(addresses|attachments)\//.test(key));
      expect(kept.map(({ value }) => JSON.parse(value).later)).toEqual([{ deep: [1] }, { deep: [1] }]);
      expect(JSON.parse(kept[0]!.value).netns).toBe('/run/netns/new');
      expect((await call('DEL', { conf })).exitCode).toBe(0);
      expect(await here.site.remains()).toEqual([]);
    });

    it('a cursor that cannot be read counts as none', async () => {
      await call('ADD', { conf });
      const cursor = (await here.site.entries()).find(({ key }) => key.includes('/cursors/'))!;
      for (const value of ['rubbish', '', '10.200.0.1', 'fd00::1']) {
        await here.site.put(cursor.key, value);
        const { addresses } = await call('ADD', { conf, containerID: 'c' });
        expect(addresses).toEqual(['10.1.0.3']);
        await call('DEL', { conf, containerID: 'c' });
      }
    });
  });

  it('a full range says who has its addresses, and which of them come free by themselves', async () => {
    const common = { cluster: 'default', since: '', network: 'net', ifname: 'eth0' };
    const workload = { namespace: 'shop', kind: 'StatefulSet', name: 'db-0' };
    const owners = [
      { kind: 'dynamic', node: 'n', containerID: 'c' },
      { kind: 'sticky', workload, holders: [{ node: 'n', containerID: 'd' }] },
      { kind: 'sticky', workload, holders: [] },
      { kind: 'reserved', reason: 'x' },
      { kind: 'held', until: '2099-01-02T00:00:00Z' },
      { kind: 'held', byName: true, until: '2099-01-04T00:00:00Z' },
      { kind: 'held', byName: true, until: '2099-01-03T00:00:00Z' },
    ];
    for (const [i, owner] of owners.entries()) await here.site.put(address(`10.1.0.${i + 2}`), { ...common, ...owner });
    const seven = confOf(here.site, { ...subnet, rangeStart: '10.1.0.2', rangeEnd: '10.1.0.8' });
    const { error } = await call('ADD', { conf: seven });
    expect(error?.code).toBe(100);
    expect(error?.msg).toContain(
      'all 7 addresses are taken: 2 by pods and containers, 1 reserved, 1 kept for workloads that have no pod now, ' +
        '1 held after release (cooldown), the first until 2099-01-02T00:00:00Z, ' +
        '2 held for whoever asks for them by name (fixedHold), the first until 2099-01-03T00:00:00Z',
    );
  });

  describe('cooldown', () => {
    const held = (more: Json = {}) =>
      confOf(here.site, { ...subnet, rangeStart: '10.1.0.2', rangeEnd: '10.1.0.3', cooldown: 1, ...more });

    it('a released address goes to nobody else until the time is over, and then to anybody', async () => {
      await call('ADD', { conf: held({ cooldown: 2 }), containerID: 'a' });
      await call('DEL', { conf: held({ cooldown: 2 }), containerID: 'a' });
      const [hold] = (await here.site.entries()).filter(({ key }) => key.includes('/addresses/'));
      expect(JSON.parse(hold!.value)).toMatchObject({ kind: 'held', containerID: 'a', until: expect.any(String) });
      expect((await call('ADD', { conf: held(), containerID: 'b' })).addresses).toEqual(['10.1.0.3']);
      const { error } = await call('ADD', { conf: held(), containerID: 'c' });
      expect(error).toMatchObject({
        code: 100,
        msg: expect.stringMatching(/1 held after release \(cooldown\), the first until 20/),
      });
      expect((await call('ADD', { conf: held(), containerID: 'c', args: 'IP=10.1.0.2' })).error).toMatchObject({
        code: 11,
      });
      const begun = performance.now();
      let given: readonly string[] = [];
      while (given.length === 0 && performance.now() - begun < 15_000) {
        await new Promise(resolve => setTimeout(resolve, 200));
        given = (await call('ADD', { conf: held(), containerID: 'c' })).addresses;
      }
      expect(given).toEqual(['10.1.0.2']);
    }, 60_000);

    it('its former owner may ask for it, and then holds it without end', async () => {
      const args = 'IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=p;K8S_POD_UID=u1';
      const long = held({ cooldown: 3600 });
      await call('ADD', { conf: long, containerID: 'a', args });
      await call('DEL', { conf: long, containerID: 'a', args });
      const other = args.replace('u1', 'u2');
      expect((await call('ADD', { conf: long, containerID: 'a', args: `${other};IP=10.1.0.2` })).error?.code).toBe(11);
      const back = await call('ADD', { conf: long, containerID: 'new-sandbox', args: `${args};IP=10.1.0.2` });
      expect(back.addresses).toEqual(['10.1.0.2']);
      const [record] = (await here.site.entries()).filter(({ key }) => key.includes('/addresses/'));
      expect(JSON.parse(record!.value)).toMatchObject({ kind: 'dynamic', containerID: 'new-sandbox' });
    });

    it('DEL again does not make the hold longer, and a DEL without cooldown leaves none', async () => {
      const long = held({ cooldown: 3600 });
      await call('ADD', { conf: long, containerID: 'a' });
      await call('DEL', { conf: long, containerID: 'a' });
      const before = await here.site.entries();
      await call('DEL', { conf: long, containerID: 'a' });
      expect(await here.site.entries()).toEqual(before);
      await call('ADD', { conf: long, containerID: 'b' });
      await call('DEL', { conf: held({ cooldown: 0 }), containerID: 'b' });
      expect(await here.site.remains()).toEqual([address('10.1.0.2')]);
    });
  });

  describe('a reboot', () => {
    const tiny = () =>
      confOf(here.site, { ...subnet, rangeStart: '10.1.0.2', rangeEnd: '10.1.0.4' }, { cniVersion: '1.1.0' });
    const rewrite = async (changes: Json) => {
      for (const entry of await here.site.entries()) {
        if (entry.key.includes('/addresses/'))
          await here.site.put(entry.key, { ...JSON.parse(entry.value), ...changes });
      }
    };
    const fill = async () => {
      for (const containerID of ['a', 'b', 'c']) await call('ADD', { conf: tiny(), containerID });
    };

    it('rule (e): a full set frees what this machine wrote in an earlier boot', async () => {
      await fill();
      expect((await call('ADD', { conf: tiny(), containerID: 'new' })).error?.code).toBe(100);
      await rewrite({ boot: 'an-earlier-boot' });
      expect((await call('ADD', { conf: tiny(), containerID: 'new' })).addresses).toHaveLength(1);
      expect(await here.site.remains()).toHaveLength(2);
    });

    it.each([
      { machine: '0123456789abcdef', boot: 'an-earlier-boot' },
      { machine: '', boot: 'an-earlier-boot' },
      { boot: '' },
      { kind: 'reserved', boot: 'an-earlier-boot' },
      { kind: 'newer than this', boot: 'an-earlier-boot' },
      { cluster: 'another', boot: 'an-earlier-boot' },
    ])('rule (e) frees no record with %j', async changes => {
      await fill();
      await rewrite(changes);
      const before = await here.site.entries();
      expect((await call('ADD', { conf: tiny(), containerID: 'new' })).error?.code).toBe(100);
      expect(await here.site.entries()).toEqual(before);
    });
  });
});
