// Giving back and asking whether it is there, on both stores: the contract's sections 6 (DEL), 7 (CHECK) and 8 (GC).
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
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

  describe('6 DEL', () => {
    it('6.1 of what was never added, again and again', async () => {
      for (let n = 0; n < 3; n++) expect(await call('DEL', { conf })).toMatchObject({ exitCode: 0, stdout: '' });
      expect(await here.site.entries()).toEqual([]);
    });

    it('6.1 without the resolvConf file of the ADD', async () => {
      const resolvConf = join(here.ground.folder, `resolv-${here.site.kind}`);
      writeFileSync(resolvConf, 'nameserver 192.0.2.1\n');
      const withFile = confOf(here.site, { ...subnet, resolvConf });
      expect((await call('ADD', { conf: withFile })).result).toMatchObject({ dns: { nameservers: ['192.0.2.1'] } });
      rmSync(resolvConf);
      expect((await call('DEL', { conf: withFile })).exitCode).toBe(0);
      expect(await here.site.remains()).toEqual([]);
    });

    it.each([undefined, null, { cniVersion: '1.1.0', interfaces: [{ name: 'x' }], ips: 5 }])(
      '6.2 prevResult %j',
      async prevResult => {
        await call('ADD', { conf });
        expect((await call('DEL', { conf: { ...conf, prevResult } })).exitCode).toBe(0);
        expect(await here.site.remains()).toEqual([]);
      },
    );

    it('6.3 other arguments and another version than at ADD', async () => {
      await call('ADD', { conf });
      const args = 'FOO=1;not a pair;IP=nonsense';
      expect((await call('DEL', { conf: { ...conf, cniVersion: '0.3.1' }, args })).exitCode).toBe(0);
      expect(await here.site.remains()).toEqual([]);
    });

    it('6.5 again with an empty CNI_NETNS', async () => {
      await call('ADD', { conf });
      expect((await call('DEL', { conf })).exitCode).toBe(0);
      expect((await call('DEL', { conf, netns: '' })).exitCode).toBe(0);
      expect(await here.site.remains()).toEqual([]);
    });

    it('6.6 with a typo in every key that it does not need', async () => {
      await call('ADD', { conf });
      const typos = {
        ...{
          ranges: [[{ subnet: '10.1.0.0/33' }], 'x'],
          subnet: 5,
          routes: 5,
          resolvConf: 5,
          exclude: 'x',
          status: 'x',
        },
        ...{ cooldown: 'x', logLevel: 'x', cluster: '/', sticky: 'x', kubeConfig: 5, pods: 5, timeout: 'x' },
      };
      const broken: Json = { ...confOf(here.site, typos), args: 5, runtimeConfig: 'x' };
      // The budget is in the file too, and its default counts from the start of this test run: so it may be late.
      const done = await call('DEL', {
        conf: here.site.kind === 'etcd' ? { ...broken, ipam: { ...(broken.ipam as Json), timeout: '1h' } } : broken,
      });
      expect(done).toMatchObject({ exitCode: 0, stdout: '' });
      expect(await here.site.remains()).toEqual([]);
    });

    it('I4 a late DEL never frees an address that has a new owner', async () => {
      await call('ADD', { conf });
      const stolen = {
        kind: 'dynamic',
        node: 'other',
        network: 'net',
        containerID: 'new',
        ifname: 'eth0',
        cluster: 'default',
      };
      await here.site.put(address('10.1.0.2'), stolen);
      expect((await call('DEL', { conf })).exitCode).toBe(0);
      expect(await here.site.remains()).toEqual([address('10.1.0.2')]);
    });
  });

  describe('7 CHECK', () => {
    it('7.1 right after ADD; 7.3 not before, not after DEL, not for another interface', async () => {
      const codeOf = async (ifname = 'eth0') => (await call('CHECK', { conf, ifname })).error?.code;
      expect(await codeOf()).toBe(106);
      const { result } = await call('ADD', { conf });
      expect(await call('CHECK', { conf: { ...conf, prevResult: result } })).toMatchObject({ exitCode: 0, stdout: '' });
      expect(await codeOf('eth1')).toBe(106);
      await call('DEL', { conf });
      expect(await codeOf()).toBe(106);
    });

    it('7.1 below 0.4.0: error 1', async () => {
      expect((await call('CHECK', { conf: { ...conf, cniVersion: '0.3.1' } })).error?.code).toBe(1);
    });

    it('7.2 an address in prevResult that is not reserved for the pair; foreign details are fine', async () => {
      await call('ADD', { conf });
      await call('ADD', { conf, containerID: 'other' });
      const check = (...ips: string[]) =>
        call('CHECK', {
          conf: {
            ...conf,
            prevResult: { ips: ips.map(one => ({ address: one, interface: 2 })), routes: [{ dst: 'x' }] },
          },
        });
      expect((await check('10.1.0.2/24')).exitCode).toBe(0);
      expect((await check('10.1.0.2/24', '192.168.77.5/24', 'fd00::5/64')).exitCode).toBe(0);
      expect((await check('10.1.0.3/24')).error?.msg).toContain('10.1.0.3');
    });

    it('7.2 an owner record that is gone, or is another’s', async () => {
      await call('ADD', { conf });
      await here.site.put(address('10.1.0.2'), { kind: 'reserved', reason: 'router' });
      expect((await call('CHECK', { conf })).error?.msg).toContain('router');
      await here.site.remove(address('10.1.0.2'));
      expect((await call('CHECK', { conf })).error?.msg).toContain('10.1.0.2 has no owner');
    });
  });

  describe('8 GC', () => {
    const gc = (list: unknown, key = 'cni.dev/valid-attachments') => call('GC', { conf: { ...conf, [key]: list } });
    const addAll = async () => {
      for (const containerID of ['a', 'b', 'c']) {
        for (const ifname of ['eth0', 'eth1']) await call('ADD', { conf, containerID, ifname });
      }
    };
    const attached = async () =>
      (await here.site.remains())
        .filter(key => key.includes('/attachments/'))
        .map(key => key.split('/').slice(-2).join(' '));

    it('8.1 keeps the pairs in the list and frees the others of this network', async () => {
      await addAll();
      await call('ADD', { conf: { ...conf, name: 'net2' }, containerID: 'z' });
      const kept = [
        { containerID: 'a', ifname: 'eth1' },
        { containerID: 'c', ifname: 'eth0' },
        { containerID: 'x', ifname: 'y' },
      ];
      expect(await gc(kept)).toMatchObject({ exitCode: 0, stdout: '' });
      expect(await attached()).toEqual(['a eth1', 'c eth0', 'z eth0']);
      expect(await here.site.remains()).toHaveLength(6);
    });

    it('8.2, 8.3 the old key counts; null is the empty list', async () => {
      await addAll();
      await gc([{ containerID: 'a', ifname: 'eth0' }], 'cni.dev/attachments');
      expect(await attached()).toEqual(['a eth0']);
      await gc(null);
      expect(await here.site.remains()).toEqual([]);
    });

    it.each(['x', {}, [{}], [{ containerID: 'a' }]])('8.2 a malformed list %j frees nothing', async list => {
      await addAll();
      const before = await here.site.entries();
      expect((await gc(list)).error?.code).toBe(7);
      expect((await call('GC', { conf })).error?.code).toBe(7);
      expect(await here.site.entries()).toEqual(before);
    });

    it('8.4 below 1.1.0: error 1', async () => {
      expect(
        (await call('GC', { conf: { ...conf, cniVersion: '1.0.0', 'cni.dev/valid-attachments': [] } })).error?.code,
      ).toBe(1);
    });

    it('8.5 frees only what this node and machine hold', async () => {
      await addAll();
      const other = { ...conf, ipam: { ...(conf.ipam as Json), nodeName: 'node-b' } };
      if (here.site.kind === 'etcd') await call('ADD', { conf: other, containerID: 'a' });
      const foreign = (await here.site.entries()).find(({ key }) => key === address('10.1.0.3'))!;
      await here.site.put(foreign.key, { ...JSON.parse(foreign.value), machine: '0123456789abcdef' });
      expect((await gc([])).exitCode).toBe(0);
      expect(await attached()).toEqual(here.site.kind === 'etcd' ? ['a eth1', 'a eth0'] : []);
    });

    it('takes what is half there: an attachment without records, records of two kinds', async () => {
      await addAll();
      await here.site.remove(address('10.1.0.2'));
      await here.site.put(address('10.1.0.3'), { kind: 'reserved' });
      expect((await gc([])).exitCode).toBe(0);
      expect((await here.site.remains()).filter(key => key.includes('/addresses/'))).toEqual([address('10.1.0.3')]);
    });
  });
});
