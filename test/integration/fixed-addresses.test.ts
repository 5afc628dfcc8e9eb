// Fixed addresses by annotation, through the plugin's front door, with pods of a real API server: what is given, to which
// interface, with which mask and gateway, and what is recorded (design section 7).
import { describe, expect, it } from 'vitest';
import { onCluster } from '../helpers/kubernetes/on-cluster.ts';
import type { Answer, Json } from '../helpers/plugin.ts';

/** As in the guide: fixed addresses lie inside the random range, in the fixed span, or in the subnet alone. */
const four = {
  subnet: '10.188.0.0/16',
  rangeStart: '10.188.0.10',
  rangeEnd: '10.188.0.200',
  fixedStart: '10.188.0.210',
  fixedEnd: '10.188.0.230',
  gateway: '10.188.0.1',
};
const six = { subnet: 'fd00:188::/64', rangeEnd: 'fd00:188::ff' };
const ipam = { ranges: [[four], [six]], exclude: ['10.188.0.100/30'] };
const networks = { 'k8s.v1.cni.cncf.io/networks': '[{"name": "other"}]' };

const ips = ({ result, stdout }: Answer) => {
  expect(result, stdout).toBeDefined();
  return (result!.ips as { address: string; gateway: string }[]).map(({ address, gateway }) => `${address} ${gateway}`);
};

onCluster(ipam, here => {
  const podWith = (ip: string, more: Readonly<Record<string, string>> = {}) =>
    here.cluster.pod({ annotations: { 'kube-ipam.ip': ip, ...more } });
  const addressesOf = async (ip: string, more = {}, sandbox = {}) => here.add(await podWith(ip, more), sandbox);

  describe('what is given', () => {
    it.each([
      ['10.188.0.216', /^10\.188\.0\.216 fd00:188::[0-9a-f]{1,2}$/],
      ['10.188.0.50', /^10\.188\.0\.50 fd00/],
      ['10.188.77.3', /^10\.188\.77\.3 fd00/],
      ['fd00:188::abcd', /^10\.188\.0\.\d+ fd00:188::abcd$/],
      [' 10.188.0.217 ,\tFD00:188:0::0217 ', /^10\.188\.0\.217 fd00:188::217$/],
      ['fd00:188::218,10.188.0.218', /^10\.188\.0\.218 fd00:188::218$/],
    ])('%j: the address of its family, and a random one of the other', async (ip, expected) => {
      const { addresses } = await addressesOf(ip);
      expect(addresses.join(' ')).toMatch(expected);
    });

    it('the guide: address, mask and gateway by annotation, and their defaults', async () => {
      const withMask = { 'kube-ipam.netmask': '255.255.0.0', 'kube-ipam.gateway': '10.188.0.254' };
      const [first] = ips(await addressesOf('10.188.0.216', withMask));
      expect(first).toBe('10.188.0.216/16 10.188.0.254');
      const [second] = ips(await addressesOf('10.188.0.219', { 'kube-ipam.netmask': '255.255.255.0' }));
      expect(second).toBe('10.188.0.219/24 10.188.0.1');
      const both = { 'kube-ipam.netmask': '24,112', 'kube-ipam.gateway': 'fe80::1, 10.188.0.253' };
      expect(ips(await addressesOf('10.188.0.220,fd00:188::220', both))).toEqual([
        '10.188.0.220/24 10.188.0.253',
        'fd00:188::220/112 fe80::1',
      ]);
      expect(ips(await addressesOf('10.188.0.221,fd00:188::221'))).toEqual([
        '10.188.0.221/16 10.188.0.1',
        'fd00:188::221/64 fd00:188::1',
      ]);
    });

    it('annotations win over ips, args and IP= of the same set, which still give the others', async () => {
      const asked = { more: { runtimeConfig: { ips: ['10.188.0.60', 'fd00:188::60'] } } };
      expect((await addressesOf('10.188.0.61', {}, asked)).addresses).toEqual(['10.188.0.61', 'fd00:188::60']);
      const args = { more: { args: { cni: { ips: ['10.188.0.62'] } } } };
      expect((await addressesOf('10.188.0.63', {}, args)).addresses[0]).toBe('10.188.0.63');
      expect((await addressesOf('10.188.0.64', {}, { args: ';IP=10.188.0.65' })).addresses[0]).toBe('10.188.0.64');
    });

    it('without kubeConfig annotations do not count; with an empty one the pod is like any other', async () => {
      const { addresses } = await addressesOf('10.188.0.222', {}, { ipam: { kubeConfig: '' } });
      expect(addresses).toEqual(['10.188.0.10', 'fd00:188::2']);
      expect((await addressesOf(' ')).addresses).toEqual(['10.188.0.11', 'fd00:188::3']);
    });

    it('a fixed address moves no cursor', async () => {
      await addressesOf('10.188.0.99');
      expect((await addressesOf('')).addresses[0]).toBe('10.188.0.10');
    });

    it('asked again: the same; changed annotations swap what does not fit them, and what was there is free', async () => {
      const pod = await podWith('10.188.0.223,fd00:188::23');
      const first = await here.add(pod);
      expect((await here.add(pod)).stdout).toBe(first.stdout);
      // Nothing fixes the second address any more, but it is as good as any other of its set.
      await here.cluster.annotate(pod, { 'kube-ipam.ip': '10.188.0.224' });
      expect((await here.add(pod)).addresses).toEqual(['10.188.0.224', 'fd00:188::23']);
      await here.cluster.annotate(pod, { 'kube-ipam.ip': 'fd00:188::abcd' });
      const { addresses } = await here.add(pod);
      expect(addresses).toEqual(['10.188.0.224', 'fd00:188::abcd']);
      // Only a fixed one may lie outside of the ranges.
      await here.cluster.annotate(pod, { 'kube-ipam.ip': null });
      expect((await here.add(pod)).addresses).toEqual(['10.188.0.224', expect.stringMatching(/^fd00:188::..?$/)]);
      expect((await here.holdings()).owners.size).toBe(2);
    });
  });

  describe('what is refused, with nothing taken', () => {
    it.each([
      ['10.188.0.1', {}, 'gateway'],
      ['fd00:188::1', {}, 'gateway'],
      ['10.188.0.0', {}, 'network or broadcast'],
      ['10.188.255.255', {}, 'network or broadcast'],
      ['fd00:188::', {}, 'network or broadcast'],
      ['10.188.0.101', {}, 'excluded'],
      ['10.189.0.5', {}, 'none of the subnets'],
      ['fd00:189::5', {}, 'none of the subnets'],
      ['10.188.0.40,10.188.0.41', {}, 'gives one address'],
      ['10.188.0.300', {}, 'must be an IP address'],
      ['10.188.0.40/16', {}, 'without prefix length'],
      ['10.188.0.040', {}, 'must be an IP address'],
      [',', {}, 'names nothing'],
      ['10.188.0.40', { 'kube-ipam.netmask': '255.0.255.0' }, 'ones stand before its zeros'],
      ['10.188.0.40', { 'kube-ipam.netmask': '0.0.0.0' }, 'kube-ipam.netmask'],
      ['10.188.0.40', { 'kube-ipam.netmask': '33' }, 'kube-ipam.netmask'],
      ['10.188.0.40', { 'kube-ipam.gateway': '10.188.0.40' }, 'its own gateway'],
      ['10.188.0.40', { 'kube-ipam.gateway': 'router' }, 'kube-ipam.gateway'],
      ['10.188.0.255', { 'kube-ipam.netmask': '24' }, 'network or broadcast'],
      ['fd00:188::40', { 'kube-ipam.netmask': '255.255.0.0' }, 'no fixed IPv4 address'],
    ])('%s %j: code 7, "%s"', async (ip, more, words) => {
      const { error } = await addressesOf(ip, more);
      expect(error).toMatchObject({ code: 7, msg: expect.stringContaining(words) });
      expect(await here.site.remains()).toEqual([]);
    });

    it('names every mistake of the annotations at once', async () => {
      const { error } = await addressesOf('10.1', { 'kube-ipam.netmask': '255.0.255.0', 'kube-ipam.sticky': 'yes' });
      expect(error).toMatchObject({
        code: 7,
        msg: expect.stringMatching(/kube-ipam\.ip.*kube-ipam\.netmask.*kube-ipam\.sticky/),
      });
    });
  });

  describe('a pod with several networks', () => {
    const other = { ranges: [[{ subnet: '10.189.0.0/24' }]] };
    const onOther = { ifname: 'net1', ipam: { ...other, exclude: [] }, more: { name: 'other' } };

    it('items that name an interface are for that one only', async () => {
      const pod = await podWith('eth0=10.188.0.225, net1=10.189.0.5,net2=10.190.0.1', {
        'kube-ipam.netmask': 'eth0=24,net1=25',
        'kube-ipam.gateway': 'net1=10.189.0.9',
      });
      expect(ips(await here.add(pod))[0]).toBe('10.188.0.225/24 10.188.0.1');
      expect(ips(await here.add(pod, onOther))).toEqual(['10.189.0.5/25 10.189.0.9']);
      const { attachments } = await here.holdings();
      expect([...attachments.keys()]).toEqual([`sandbox-${pod.uid}/eth0`, `sandbox-${pod.uid}/net1`]);
    });

    it('bare items go to the network with their subnet if the pod has others; without that annotation: code 7', async () => {
      const ip = '10.188.0.226, 10.189.0.6, 10.190.0.7';
      const pod = await podWith(ip, networks);
      expect((await here.add(pod)).addresses[0]).toBe('10.188.0.226');
      expect((await here.add(pod, onOther)).addresses).toEqual(['10.189.0.6']);
      for (const empty of [{}, { 'k8s.v1.cni.cncf.io/networks': '' }, { 'k8s.v1.cni.cncf.io/networks': '[]' }]) {
        const { error } = await addressesOf(ip, empty);
        expect(error).toMatchObject({ code: 7, msg: expect.stringContaining('10.189.0.6') });
      }
    });

    it('two networks over one subnet: a bare item that one interface has is done for the other', async () => {
      const second = { ifname: 'net1', more: { name: 'second' } };
      const pod = await podWith('10.188.0.227', networks);
      expect((await here.add(pod)).addresses[0]).toBe('10.188.0.227');
      const { addresses } = await here.add(pod, second);
      expect(addresses[0]).toMatch(/^10\.188\.0\.1?\d\d$/);
      expect((await here.add(pod, second)).addresses).toEqual(addresses);
      expect((await here.add(pod)).addresses[0]).toBe('10.188.0.227');
      const { owners } = await here.holdings();
      expect(owners.get('10.188.0.227')).toMatchObject({ kind: 'fixed', ifname: 'eth0' });

      const named = await podWith('10.188.0.228,net1=10.188.0.229', networks);
      expect((await here.add(named)).addresses[0]).toBe('10.188.0.228');
      expect((await here.add(named, second)).addresses[0]).toBe('10.188.0.229');
    });

    it('an item written for an interface is never done by another one', async () => {
      const pod = await podWith('eth0=10.188.0.230', networks);
      expect((await here.add(pod)).addresses[0]).toBe('10.188.0.230');
      await here.cluster.annotate(pod, { 'kube-ipam.ip': 'net1=10.188.0.230' });
      const { error } = await here.add(pod, { ifname: 'net1', more: { name: 'second' } });
      expect(error).toMatchObject({ code: 11, msg: expect.stringContaining(`pod default/${pod.name}`) });
    });
  });

  describe('what is recorded', () => {
    it('kind, pod and place; CHECK verifies it', async () => {
      const pod = await podWith('10.188.0.216');
      const { result, addresses } = await here.add(pod);
      const { owners } = await here.holdings();
      expect(owners.get('10.188.0.216')?.raw).toEqual({
        cluster: 'default',
        kind: 'fixed',
        since: expect.stringMatching(/^20\d\d-.*Z$/),
        node: here.site.node,
        machine: expect.any(String),
        boot: expect.any(String),
        network: 'net',
        containerID: `sandbox-${pod.uid}`,
        ifname: 'eth0',
        netns: '/run/netns/pod-1',
        pod,
      });
      expect(owners.get(addresses[1]!)?.kind).toBe('dynamic');
      const prevResult = { more: { prevResult: result as Json } };
      expect((await here.check(pod, prevResult)).exitCode).toBe(0);
      const entry = (await here.site.entries()).find(({ key }) => key.includes('188.000.216'))!;
      await here.site.put(entry.key, entry.value.replace(`sandbox-${pod.uid}`, 'thief'));
      expect((await here.check(pod, prevResult)).error).toMatchObject({
        code: 106,
        msg: expect.stringMatching(/10\.188\.0\.216 belongs to pod .*thief/),
      });
    });

    it('DEL goes by the record: no API, no annotation and no range is needed, and nothing is left', async () => {
      const pod = await podWith('10.188.0.216,fd00:188::abcd');
      await here.add(pod);
      await here.cluster.remove(pod);
      const bare = { ipam: { ranges: [], exclude: 'x', kubeConfig: '/nowhere', fixedHold: 'x', sticky: 'x' } };
      expect(await here.del(pod, bare)).toMatchObject({ exitCode: 0, stdout: '' });
      expect(await here.site.remains()).toEqual([]);
    });
  });
});
