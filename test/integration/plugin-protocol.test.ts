// What ADD and VERSION answer, on both stores: the contract's sections 2, 4, 5 and 10.
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { versions } from '../../src/cni/netconf.ts';
import { parseIp } from '../../src/net/ip.ts';
import { onEachStore } from '../helpers/each-store.ts';
import { call, callWith, confOf, environment, type Json } from '../helpers/plugin.ts';

const subnet = { subnet: '10.1.0.0/24' };

onEachStore(here => {
  let conf: Json;
  beforeEach(() => {
    conf = confOf(here.site, subnet, { cniVersion: '1.1.0' });
  });
  const address = (text: string) => here.site.keys.address(parseIp(text)!);
  const attachment = () =>
    here.site.keys.attachment({ node: here.site.node, network: 'net', containerID: 'pod-1', ifname: 'eth0' });

  describe('2 judgement', () => {
    it('2.4 environment, then JSON, then name, then version, then the work; nothing is stored', async () => {
      const bad = { name: '', cniVersion: '9.9.9', ipam: 5 };
      const codes: (number | undefined)[] = [];
      const env = environment('ADD', {});
      codes.push((await callWith({ ...env, CNI_IFNAME: 'a/b' }, Buffer.from('{'))).error?.code);
      codes.push((await callWith(env, Buffer.from('{'))).error?.code);
      codes.push((await call('ADD', { conf: bad })).error?.code);
      codes.push((await call('ADD', { conf: { ...bad, name: 'net' } })).error?.code);
      codes.push((await call('ADD', { conf: { ...bad, name: 'net', cniVersion: '1.0.0' } })).error?.code);
      expect(codes).toEqual([4, 6, 7, 1, 7]);
      expect(await here.site.entries()).toEqual([]);
    });

    it('10.2 an error speaks the version of the configuration, or the newest where that is not spoken', async () => {
      const versionOf = async (cniVersion: unknown) =>
        (await call('ADD', { conf: { ...conf, cniVersion, ipam: 5 } })).error?.cniVersion;
      expect(await versionOf('0.3.1')).toBe('0.3.1');
      expect(await versionOf(undefined)).toBe('0.1.0');
      expect(await versionOf('9.9.9')).toBe('1.1.0');
    });
  });

  describe('4 VERSION', () => {
    it.each(['', '{"cniVersion":"1.1.0"}', '{"cniVersion":"0.2.0","name":"x"}', '{}'])(
      '4.1, 4.2 stdin %j',
      async text => {
        const { exitCode, result } = await callWith({ CNI_COMMAND: 'VERSION' }, Buffer.from(text));
        expect(exitCode).toBe(0);
        expect(result?.supportedVersions).toEqual(versions);
        expect(versions).toContain(result?.cniVersion);
        expect(await here.site.entries()).toEqual([]);
      },
    );

    it('4.3 as libcni probes', async () => {
      const env = { ...environment('VERSION', {}), CNI_NETNS: 'dummy', CNI_IFNAME: 'dummy', CNI_CONTAINERID: '' };
      const { result } = await callWith({ ...env, CNI_PATH: 'dummy' }, Buffer.from('{"cniVersion":"1.1.0"}'));
      expect(result).toEqual({ cniVersion: '1.1.0', supportedVersions: versions });
    });
  });

  describe('5 ADD', () => {
    it.each(versions)('5.1 to 5.4 a result of version %s', async cniVersion => {
      const { result } = await call('ADD', { conf: { ...conf, cniVersion } });
      const old = { ip4: { ip: '10.1.0.2/24', gateway: '10.1.0.1' } };
      const item = { address: '10.1.0.2/24', gateway: '10.1.0.1' };
      const named = { ips: [{ version: '4', ...item }] };
      const shape = cniVersion < '0.3.0' ? old : cniVersion < '1.0.0' ? named : { ips: [item] };
      expect(result).toEqual({ cniVersion, ...shape });
    });

    it('5.9 one address of each set, in the order of the sets, in one commit', async () => {
      const ranges = [[{ subnet: 'fd00::/64' }], [{ subnet: '10.2.0.0/24' }], [{ subnet: '10.3.0.0/24' }]];
      const { addresses } = await call('ADD', { conf: confOf(here.site, { ranges }) });
      expect(addresses).toEqual(['fd00::2', '10.2.0.2', '10.3.0.2']);
      const written = new Set((await here.site.entries()).map(({ revision }) => revision));
      expect(written.size).toBe(1);
    });

    it('5.11 a resolvConf that cannot be read: error 5, no address taken', async () => {
      const resolvConf = join(here.site.folder, 'absent');
      expect((await call('ADD', { conf: confOf(here.site, { ...subnet, resolvConf }) })).error?.code).toBe(5);
      expect(await here.site.entries()).toEqual([]);
    });

    it('5.12, I3 ADD twice: the same addresses, none more', async () => {
      const first = await call('ADD', { conf });
      const before = await here.site.remains();
      expect((await call('ADD', { conf })).result).toEqual(first.result);
      expect(await here.site.remains()).toEqual(before);
      expect((await call('DEL', { conf })).exitCode).toBe(0);
      expect(await here.site.remains()).toEqual([]);
    });

    it('5.12 ADD again with another wish swaps old and new in one commit', async () => {
      await call('ADD', { conf });
      expect((await call('ADD', { conf, args: 'IP=10.1.0.77' })).addresses).toEqual(['10.1.0.77']);
      expect(await here.site.remains()).toEqual([address('10.1.0.77'), attachment()].sort());
    });

    it('ADD again after the ranges have changed: the address that no longer fits is given back', async () => {
      await call('ADD', { conf });
      const other = confOf(here.site, { ranges: [[{ subnet: '10.9.0.0/24' }], [{ subnet: 'fd00::/64' }]] });
      expect((await call('ADD', { conf: other })).addresses).toEqual(['10.9.0.2', 'fd00::2']);
      expect(await here.site.remains()).toEqual([address('10.9.0.2'), address('fd00::2'), attachment()].sort());
      expect((await call('ADD', { conf: confOf(here.site, { subnet: '10.9.0.0/24' }) })).addresses).toEqual([
        '10.9.0.2',
      ]);
      expect(await here.site.remains()).toEqual([address('10.9.0.2'), attachment()].sort());
    });

    it('5.13 an ADD that fails in its second set holds nothing of the first', async () => {
      const tiny = { subnet: '10.2.0.0/24', rangeStart: '10.2.0.1', rangeEnd: '10.2.0.1' };
      const { error } = await call('ADD', { conf: confOf(here.site, { ...subnet, ranges: [[tiny]] }) });
      expect(error?.code).toBe(100);
      expect(await here.site.entries()).toEqual([]);
    });

    it('5.14 container, interface and network count, whole and case-sensitive', async () => {
      const other = { ...conf, name: 'net2' };
      const calls = [
        { conf },
        { conf, ifname: 'eth00' },
        { conf, ifname: 'ETH0' },
        { conf, containerID: 'pod-11' },
        { conf, containerID: 'POD-1' },
        { conf: other },
      ];
      const given: string[] = [];
      for (const one of calls) given.push(...(await call('ADD', one)).addresses);
      expect(new Set(given).size).toBe(calls.length);
      await call('DEL', { conf });
      const gone = given[0]!;
      const left = (await here.site.remains()).filter(key => key.includes('/addresses/'));
      expect(left.sort()).toEqual(
        given
          .filter(ip => ip !== gone)
          .map(address)
          .sort(),
      );
    });

    it('two networks over one subnet never collide', async () => {
      const given: string[] = [];
      for (let n = 0; n < 6; n++) {
        given.push(...(await call('ADD', { conf: { ...conf, name: `net-${n % 2}` }, containerID: `c${n}` })).addresses);
      }
      expect(new Set(given).size).toBe(6);
    });

    it('a record tells whose it is, and a pod takes less than 1 KiB in all, so that a million fit into 2 GiB', async () => {
      const args =
        'IgnoreUnknown=1;K8S_POD_NAMESPACE=a-namespace;K8S_POD_NAME=a-deployment-7c9f8b6d5-x2x4z;K8S_POD_UID=0b1c9e0e-8c9b-4d0e-9b0a-1f2e3d4c5b6a';
      await call('ADD', {
        conf,
        containerID: 'f'.repeat(64),
        netns: '/var/run/netns/cni-0b1c9e0e-8c9b-4d0e-9b0a-1f2e3d4c5b6a',
        args,
      });
      const own = (await here.site.entries()).filter(({ key }) => /\/(addresses|attachments)\//.test(key));
      const bytes = own.reduce((sum, { key, value }) => sum + key.length + Buffer.byteLength(value), 0);
      expect(bytes).toBeLessThan(1024);
      const record = (await here.site.entries()).find(({ key }) => key.includes('/addresses/'))!;
      expect(JSON.parse(record.value)).toMatchObject({
        kind: 'dynamic',
        cluster: 'default',
        node: here.site.node,
        network: 'net',
        containerID: 'f'.repeat(64),
        ifname: 'eth0',
        pod: { namespace: 'a-namespace', name: 'a-deployment-7c9f8b6d5-x2x4z' },
      });
      expect(Object.keys(JSON.parse(record.value))).toEqual(
        expect.arrayContaining(['since', 'machine', 'boot', 'netns']),
      );
    });

    it('the log answers who had an address', async () => {
      await call('ADD', { conf, args: 'IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=p' });
      await call('DEL', { conf });
      expect(here.site.events()).toMatchObject([
        {
          event: 'add',
          network: 'net',
          containerID: 'pod-1',
          ifname: 'eth0',
          pod: 'ns/p',
          address: '10.1.0.2',
          tries: 1,
        },
        { event: 'del', network: 'net', containerID: 'pod-1', ifname: 'eth0', address: '10.1.0.2' },
      ]);
    });
  });
});
