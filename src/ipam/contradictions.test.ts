// The rules of `check` for addresses that outlive their attachments: each broken alone is told, and nothing else is.
import { describe, expect, it } from 'vitest';
import { parseIp } from '../net/ip.ts';
import { clusterKey, Keys } from '../store/keys.ts';
import { Examination } from './contradictions.ts';

const keys = new Keys('default');
const ip = '10.1.0.5';
const address = keys.address(parseIp(ip)!);
const workload = { namespace: 'shop', kind: 'StatefulSet', name: 'web-0' };
const kept = keys.workload('default', 'net', workload, 'eth0');
const attachment = (containerID: string) => keys.attachment({ node: 'a', network: 'net', containerID, ifname: 'eth0' });
const holder = (containerID: string) => ({ node: 'a', machine: 'm', boot: 'b', containerID, netns: '/run/netns/x' });
const base = { cluster: 'default', since: '', network: 'net', ifname: 'eth0' };
const sticky = { ...base, kind: 'sticky', workload, holders: [holder('c1')] };
const fixed = { ...base, kind: 'fixed', ...holder('c1'), hold: 3600 };

type Store = Record<string, object | string>;

const soundSticky: Store = {
  [address]: sticky,
  [attachment('c1')]: { addresses: [ip], kept: true },
  [kept]: { addresses: [ip] },
};
const object = { feature: 'public-ip', group: '', kind: 'Service', namespace: 'shop', name: 'web', uid: 'u1' };
const lent = { cluster: 'default', kind: 'service', since: '', holder: object, pool: 'public' };
const sharer = { namespace: 'shop', name: 'api', uid: 'u2' };
const loan = (containerID: string, network = 'pool.public') =>
  keys.attachment({ node: 'kube-ipam.public-ip', network, containerID, ifname: 'lb4' });
const soundLoan: Store = { [address]: lent, [loan('u1')]: { addresses: [ip], kept: true } };
const soundFixed: Store = { [address]: fixed, [attachment('c1')]: { addresses: [ip], kept: true } };

function findings(store: Store): string[] {
  const examination = new Examination(keys);
  for (const [key, value] of Object.entries(store)) {
    const text = typeof value === 'string' ? value : JSON.stringify(value);
    examination.add({ key, value: text, revision: 1, created: 1 });
  }
  return examination.findings().map(({ level, rule, subject }) => `${level} ${rule} ${subject}`);
}

function without(store: Store, key: string): Store {
  return Object.fromEntries(Object.entries(store).filter(([name]) => name !== key));
}

const ofWorkload = 'default/net/shop/StatefulSet/web-0/eth0';

describe('a store in order', () => {
  const vm = { namespace: 'shop', kind: 'VirtualMachine', name: 'db' };
  const cases: Readonly<Record<string, Store>> = {
    'a sticky address in use': soundSticky,
    'a sticky address that no pod uses': { [address]: { ...sticky, holders: [] }, [kept]: { addresses: [ip] } },
    'a VM in migration': {
      [address]: { ...sticky, workload: vm, holders: [holder('c1'), holder('c2')] },
      [attachment('c1')]: { addresses: [ip], kept: true },
      [attachment('c2')]: { addresses: [ip], kept: true },
      [keys.workload('default', 'net', vm, 'eth0')]: { addresses: [ip] },
    },
    'a workload all of whose addresses are fixed now': { [kept]: { addresses: [] } },
    'a fixed address with a hold': soundFixed,
    'a hold by name': { [address]: { ...base, kind: 'held', byName: true, until: '' } },
    'an address of a pool that a Service has': soundLoan,
    'one that two Services share': {
      ...soundLoan,
      [address]: { ...lent, sharers: [sharer] },
      [loan('u2')]: { addresses: [ip], kept: true },
    },
    'an address that a Service names itself': { [address]: { ...lent, pool: undefined } },
    'the identity of a cluster': { [clusterKey('default')]: { uid: '0a9b' } },
  };
  it.each(Object.entries(cases))('%s', (_, store) => {
    expect(findings(store)).toEqual([]);
  });
});

describe('told', () => {
  const cases: Readonly<Record<string, readonly [Store, ...string[]]>> = {
    'the attachment of a holder is gone': [without(soundSticky, attachment('c1')), `note no-attachment ${ip}`],
    'the attachment of a fixed address is gone': [without(soundFixed, attachment('c1')), `trouble no-attachment ${ip}`],
    'no workload keeps it': [without(soundSticky, kept), `trouble no-workload ${ip}`],
    'its workload keeps others': [{ ...soundSticky, [kept]: { addresses: [] } }, `trouble no-workload ${ip}`],
    'the workload of another cluster keeps it': [
      { ...soundSticky, [address]: { ...sticky, cluster: 'blue' } },
      `trouble other-owner ${ofWorkload}`,
      `trouble no-workload ${ip}`,
    ],
    'the attachment of a Service is gone': [without(soundLoan, loan('u1')), `trouble not-listed ${ip}`],
    'one of two Services lists it': [
      { ...soundLoan, [address]: { ...lent, sharers: [sharer] } },
      `trouble not-listed ${ip}`,
    ],
    'another Service lists it': [
      { [address]: lent, [loan('u2')]: { addresses: [ip] } },
      'trouble other-owner kube-ipam.public-ip/pool.public/u2/lb4',
    ],
    'a Service lists it as of another pool': [
      { [address]: lent, [loan('u1', 'pool.other')]: { addresses: [ip] } },
      'trouble other-owner kube-ipam.public-ip/pool.other/u1/lb4',
    ],
    'a workload keeps what nobody owns': [{ [kept]: { addresses: [ip] } }, `trouble no-record ${ofWorkload}`],
    'a workload keeps what a pod owns': [
      { ...soundFixed, [kept]: { addresses: [ip] } },
      `trouble other-owner ${ofWorkload}`,
    ],
    'what a workload keeps cannot be read': [{ [kept]: 'not json' }, `trouble unreadable-value ${ofWorkload}`],
    'a kind of workload from the future': [
      { ...without(soundSticky, kept), [address]: { ...sticky, workload: { ...workload, kind: 'Galaxy' } } },
      `note unknown-kind ${ip}`,
    ],
    'the attachment of a holder lists others': [
      { ...soundSticky, [attachment('c1')]: { addresses: ['10.1.0.6'], kept: true } },
      'trouble no-record a/net/c1/eth0',
      `trouble not-listed ${ip}`,
    ],
    'an attachment lists it that is no holder': [
      { ...soundSticky, [attachment('c2')]: { addresses: [ip], kept: true } },
      'trouble other-owner a/net/c2/eth0',
      `trouble two-holders ${ip}`,
    ],
    'two pods of a StatefulSet have it': [
      {
        ...soundSticky,
        [address]: { ...sticky, holders: [holder('c1'), holder('c2')] },
        [attachment('c2')]: { addresses: [ip], kept: true },
      },
      `trouble two-holders ${ip}`,
    ],
    'DEL would free what a workload keeps': [
      { ...soundSticky, [attachment('c1')]: { addresses: [ip] } },
      'trouble not-kept a/net/c1/eth0',
    ],
    'DEL would free what is to be held': [
      { ...soundFixed, [attachment('c1')]: { addresses: [ip] } },
      'trouble not-kept a/net/c1/eth0',
    ],
    'the identity of a cluster cannot be read': [
      { [clusterKey('default')]: '{}' },
      `trouble unreadable-value ${clusterKey('default')}`,
    ],
  };
  it.each(Object.entries(cases))('%s', (_, [store, ...told]) => {
    expect(findings(store).sort()).toEqual([...told].sort());
  });
});
