// Which addresses are given, on both stores: the contract's sections 11 (requests) and 12 (order and ranges).
import { beforeEach, describe, expect, it } from 'vitest';
import { deadlineIn } from '../../src/base/clock.ts';
import { parseIp } from '../../src/net/ip.ts';
import { Desk } from '../helpers/command-line.ts';
import { onEachStore } from '../helpers/each-store.ts';
import { call, confOf, type Json } from '../helpers/plugin.ts';

const subnet = { subnet: '10.1.0.0/24' };

onEachStore(here => {
  let conf: Json;
  beforeEach(() => {
    conf = confOf(here.site, subnet, { cniVersion: '1.1.0' });
  });
  const address = (text: string) => here.site.keys.address(parseIp(text)!);

  describe('11 arguments', () => {
    const add = (args: string, more: Json = {}) => call('ADD', { conf: { ...conf, ...more }, args });

    it('11.1 IP=, args.cni.ips and runtimeConfig.ips, with and without prefix length', async () => {
      expect((await add('IP=10.1.0.50')).addresses).toEqual(['10.1.0.50']);
      const ask = (n: number, more: Json) => call('ADD', { conf: { ...conf, ...more }, containerID: `c${n}` });
      expect((await ask(1, { args: { cni: { ips: ['10.1.0.51/24'] } } })).addresses).toEqual(['10.1.0.51']);
      expect((await ask(2, { runtimeConfig: { ips: ['10.1.0.52'] } })).addresses).toEqual(['10.1.0.52']);
      expect((await call('ADD', { conf, containerID: 'c3', args: 'IP=10.1.0.53/24' })).addresses).toEqual([
        '10.1.0.53',
      ]);
    });

    it('11.2 args.cni.ips win over IP=', async () => {
      expect((await add('IP=10.1.0.60', { args: { cni: { ips: ['10.1.0.61'] } } })).addresses).toEqual(['10.1.0.61']);
    });

    it.each([
      ['in no set', 'IP=10.2.0.5'],
      ['the gateway', 'IP=10.1.0.1'],
      ['the network', 'IP=10.1.0.0'],
      ['the broadcast', 'IP=10.1.0.255'],
      ['malformed', 'IP=10.1.0.256'],
      ['excluded', 'IP=10.1.0.99'],
      ['of the other family', 'IP=fd00::5'],
    ])('11.3 %s: error, nothing taken', async (_, args) => {
      const { error } = await call('ADD', { conf: confOf(here.site, { ...subnet, exclude: ['10.1.0.99'] }), args });
      expect(error?.code).toSatisfy((code: number) => [4, 7].includes(code));
      expect(await here.site.entries()).toEqual([]);
    });

    it('11.3 one in use: code 11 names the holder, who stays', async () => {
      await call('ADD', { conf, containerID: 'holder', args: 'IP=10.1.0.50' });
      const before = await here.site.entries();
      const { error } = await add('IP=10.1.0.50');
      expect(error).toMatchObject({ code: 11, msg: expect.stringMatching(/10\.1\.0\.50.*holder.*eth0.*net.*since/) });
      expect(await here.site.entries()).toEqual(before);
    });

    it('11.3 two for one set: error 7, nothing taken', async () => {
      expect((await add('', { runtimeConfig: { ips: ['10.1.0.50', '10.1.0.51'] } })).error?.code).toBe(7);
      expect(await here.site.entries()).toEqual([]);
    });

    it('11.3 each goes to the set that contains it; a set without one gets a random address', async () => {
      const three = confOf(here.site, { ...subnet, ranges: [[{ subnet: 'fd00::/64' }], [{ subnet: '10.2.0.0/24' }]] });
      const { addresses } = await call('ADD', { conf: { ...three, runtimeConfig: { ips: ['10.2.0.9', 'fd00::9'] } } });
      expect(addresses).toEqual(['10.1.0.2', 'fd00::9', '10.2.0.9']);
    });

    it('a fixed span is for those who ask, and neither network nor broadcast address is in it', async () => {
      const fixed = confOf(here.site, {
        ...subnet,
        rangeEnd: '10.1.0.4',
        fixedStart: '10.1.0.0',
        fixedEnd: '10.1.0.255',
      });
      expect((await call('ADD', { conf: fixed })).error?.code).toBe(100);
      expect((await call('ADD', { conf: fixed, args: 'IP=10.1.0.200' })).addresses).toEqual(['10.1.0.200']);
      for (const ip of ['10.1.0.0', '10.1.0.255', '10.1.0.1']) {
        expect((await call('ADD', { conf: fixed, containerID: 'c', args: `IP=${ip}` })).error?.code).toBe(7);
      }
    });

    it('11.5 a name without a namespace starts no look-up; a pod whose wishes cannot be read gets no random address', async () => {
      using desk = new Desk();
      // Nobody listens on port 1.
      const cluster = { server: 'https://127.0.0.1:1', 'insecure-skip-tls-verify': true };
      const file = {
        clusters: [{ name: 'c', cluster }],
        users: [{ name: 'u', user: { token: 't' } }],
        contexts: [{ name: 'x', context: { cluster: 'c', user: 'u' } }],
        'current-context': 'x',
      };
      const kubeConfig = desk.write('kubeconfig', file);
      const kube = confOf(here.site, { ...subnet, kubeConfig });
      const podman = await call('ADD', { conf: kube, args: 'IgnoreUnknown=1;K8S_POD_NAME=db' });
      expect(podman.addresses).toEqual(['10.1.0.2']);
      const pod = 'K8S_POD_NAMESPACE=ns;K8S_POD_NAME=p;IgnoreUnknown=1';
      const { error } = await call('ADD', { conf: kube, containerID: 'c', args: pod });
      expect(error).toMatchObject({ code: 11, msg: expect.stringContaining('127.0.0.1:1') });
      const absent = confOf(here.site, { ...subnet, kubeConfig: `${kubeConfig}.absent` });
      const without = await call('ADD', { conf: absent, containerID: 'c', args: pod });
      expect(without.error).toMatchObject({ code: 11, msg: expect.stringContaining(`${kubeConfig}.absent`) });
      for (const one of [kube, absent]) expect((await call('DEL', { conf: one, args: pod })).exitCode).toBe(0);
      expect(await here.site.remains()).toEqual([]);
    });

    it('103 a range with selectors serves no container that is no pod of Kubernetes, by name neither', async () => {
      const pods = { matchLabels: { app: 'db' } };
      const ranges = [
        [{ subnet: '10.2.0.0/24', pods }, { subnet: '10.1.0.0/24' }],
        [{ subnet: 'fd00::/64', pods: {} }],
      ];
      const only = (some: unknown) => confOf(here.site, { kubeConfig: '/absent', ranges: some });
      const { error } = await call('ADD', { conf: only(ranges) });
      expect(error).toMatchObject({ code: 103, msg: expect.stringContaining('range fd00::/64: it is for pods') });
      expect((await call('ADD', { conf: only(ranges.slice(0, 1)) })).addresses).toEqual(['10.1.0.2']);
      const named = await call('ADD', { conf: only(ranges.slice(0, 1)), containerID: 'c', args: 'IP=10.2.0.5' });
      expect(named.error).toMatchObject({ code: 103, msg: expect.stringContaining('does not accept this pod') });
      expect((await call('DEL', { conf: only(ranges) })).exitCode).toBe(0);
    });

    it('11.7 runtimeConfig.ipRanges come first', async () => {
      const runtimeConfig = { ipRanges: [[{ subnet: '10.7.0.0/24' }]] };
      expect((await add('', { runtimeConfig })).addresses).toEqual(['10.7.0.2', '10.1.0.2']);
    });
  });

  describe('12 addressing', () => {
    it('12.6 round robin: a freed address comes again only after a lap', async () => {
      const small = confOf(here.site, { subnet: '10.1.0.0/29' });
      const given: string[] = [];
      for (let n = 0; n < 8; n++) {
        given.push(...(await call('ADD', { conf: small, containerID: `c${n}` })).addresses);
        await call('DEL', { conf: small, containerID: `c${n}` });
      }
      expect(given.map(ip => ip.slice(-1)).join('')).toBe('23456234');
    });

    it('I5 gateway, excluded, fixed and reserved addresses are never given out, until the range is full', async () => {
      const tight = confOf(here.site, {
        ...{ subnet: '10.1.0.0/28', gateway: '10.1.0.7', exclude: ['10.1.0.2', '10.1.0.12/30'] },
        ...{ fixedStart: '10.1.0.4', fixedEnd: '10.1.0.5' },
      });
      await here.site.put(address('10.1.0.9'), { kind: 'reserved', reason: 'a printer', cluster: 'default' });
      await here.site.put(address('10.1.0.10'), { kind: 'something newer', field: 1 });
      const given: string[] = [];
      for (let n = 0; n < 20; n++) given.push(...(await call('ADD', { conf: tight, containerID: `c${n}` })).addresses);
      expect(given).toEqual(['1', '3', '6', '8', '11'].map(last => `10.1.0.${last}`));
      const { error } = await call('ADD', { conf: tight, containerID: 'last' });
      expect(error).toMatchObject({
        code: 100,
        msg: expect.stringMatching(/10\.1\.0\.0\/28.*all 7 addresses.*1 reserved/),
      });
    });

    it('12.5 the last free address is found wherever it is: a /20 with one hole', async () => {
      const wide = confOf(here.site, { subnet: '10.4.0.0/20' });
      const hole = 0x0a040b37n;
      const writes = [];
      for (let value = 0x0a040002n; value < 0x0a040fffn; value++) {
        if (value !== hole)
          writes.push({ put: here.site.keys.address({ family: 4, value }), value: '{"kind":"reserved"}' });
      }
      for (let n = 0; n < writes.length; n += 100) {
        await here.site.kv.commit({ conditions: [], writes: writes.slice(n, n + 100) }, deadlineIn(20_000));
      }
      expect((await call('ADD', { conf: wide })).addresses).toEqual(['10.4.11.55']);
      const { error } = await call('ADD', { conf: wide, containerID: 'c' });
      expect(error).toMatchObject({ code: 100, msg: expect.stringContaining('all 4093 addresses are taken') });
    });
  });
});
