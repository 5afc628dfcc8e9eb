// How owners are told to people: each kind names whom to ask, and until when.
import { expect, it } from 'vitest';
import { describeOwner } from './describe.ts';
import { parseOwner } from './model.ts';

const place = { node: 'a', network: 'pods', containerID: '0123456789abcdef', ifname: 'eth0', netns: '' };
const since = '2026-11-21T12:00:00Z';
const pod = (name: string) => ({ namespace: 'shop', name, uid: `uid-of-${name}` });
const service = (name: string) => ({ feature: 'public-ip', group: '', kind: 'Service', namespace: 'shop', name });
const told = (record: object) => describeOwner(parseOwner(JSON.stringify({ since, ...record })));

const attached = 'container 0123456789abc eth0 of network pods on node a';

it.each([
  [{ kind: 'dynamic', ...place }, `${attached} since ${since}`],
  [{ kind: 'fixed', ...place, pod: pod('web') }, `pod shop/web, ${attached} since ${since}`],
  [{ kind: 'reserved', reason: 'printer' }, `a reservation (printer) since ${since}`],
  [
    { kind: 'held', ...place, pod: pod('web'), until: '2026-11-21T13:00:00Z' },
    `a hold until 2026-11-21T13:00:00Z for its former owner, pod shop/web, ${attached}`,
  ],
  [
    { kind: 'held', ...place, byName: true, until: '2026-11-21T13:00:00Z' },
    `a hold until 2026-11-21T13:00:00Z for whoever asks for it by name, formerly ${attached}`,
  ],
  [{ kind: 'service', holder: service('web') }, `Service shop/web since ${since}`],
  [
    { kind: 'service', holder: service('web'), sharers: [service('api')], pool: 'public' },
    `Service shop/web and Service shop/api (pool public) since ${since}`,
  ],
  [{ kind: 'service', holder: { feature: 'newer' } }, `a feature that this version does not know since ${since}`],
  [{ kind: 'from-the-future' }, `an owner of a kind that this version does not know since ${since}`],
])('%j', (record, text) => {
  expect(told(record)).toBe(text);
});

it('a sticky address belongs to its workload, and tells every pod that uses it', () => {
  const vm = { namespace: 'shop', kind: 'VirtualMachine', name: 'db' };
  const sticky = { kind: 'sticky', network: 'pods', ifname: 'eth0', workload: vm };
  const holder = (node: string, name: string) => ({ ...place, node, pod: pod(name) });
  expect(told({ ...sticky, holders: [] })).toBe(`VirtualMachine shop/db (no pod uses it now) since ${since}`);
  expect(told({ ...sticky, holders: [holder('a', 'source'), holder('b', 'target')] })).toBe(
    `VirtualMachine shop/db (pod shop/source, ${attached} and pod shop/target, ${attached.replace('node a', 'node b')}) since ${since}`,
  );
  expect(told({ ...sticky, workload: { kind: 'Galaxy' }, holders: [] })).toContain('workload of a kind');
});
