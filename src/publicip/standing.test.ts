// How an address stands: each state, and the words that say what it waits for.
import { expect, it } from 'vitest';
import { parseOwner } from '../ipam/model.ts';
import { renderService } from '../ipam/records.ts';
import { parseIp } from '../net/ip.ts';
import type { AgentInfo, ClaimsView } from './claims.ts';
import type { Refusal, ServiceRef, Want } from './model.ts';
import { membersOf, plan } from './plan.ts';
import { standingsOf } from './standing.ts';

const address = '192.168.1.41';
const web: ServiceRef = { namespace: 'default', name: 'web', uid: 'uid-web', created: '2026-01-01T00:00:00Z' };
const holder = {
  feature: 'public-ip',
  group: '',
  kind: 'Service',
  namespace: 'default',
  name: 'web',
  uid: 'uid-web',
} as const;

const want = (changes: Partial<Want> = {}): Want => ({
  ip: parseIp(address)!,
  address,
  services: [web],
  ports: [{ protocol: 'tcp', port: 80, comment: 'default/web' }],
  local: false,
  ...changes,
});

const agent = (node: string, changes: Partial<AgentInfo> = {}): AgentInfo => ({
  node,
  cluster: 'default',
  machine: 'm',
  boot: 'b',
  netns: '4:1',
  version: '1',
  ttl: 10,
  fit: true,
  ...changes,
});

interface Given {
  readonly wants?: readonly Want[];
  readonly refusals?: readonly Refusal[];
  readonly agents?: readonly AgentInfo[];
  readonly owner?: string;
  readonly released?: string;
  readonly record?: string;
}

/** How the address stands where this is so; agents are called as their nodes. */
function standing({
  wants = [want()],
  refusals = [],
  agents = [agent('a'), agent('b')],
  owner,
  released,
  record,
}: Given) {
  const claims: ClaimsView = {
    revision: 7,
    agents: new Map(agents.map(one => [one.node, { ...one, lease: `lease-${one.node}`, revision: 1 }])),
    owners: new Map(owner === undefined ? [] : [[address, { id: owner, lease: `lease-${owner}`, revision: 2 }]]),
    released: new Map(released === undefined ? [] : [[address, { id: released, at: 0, revision: 3 }]]),
    freeFrom: new Map(),
    moves: new Map(),
  };
  const members = membersOf(claims.agents, 'default');
  const owners = new Map([...claims.owners].map(([key, { id }]) => [key, id]));
  const asked = wants.map(one => ({ address: one.address, nodes: one.nodesReady }));
  const [one, ...more] = standingsOf({
    wants,
    refusals,
    cluster: 'default',
    claims,
    members,
    plan: plan({ agents: members, wants: asked, owners, rebalance: true }),
    records: new Map(record === undefined ? [] : [[address, parseOwner(record)]]),
  });
  expect(more).toEqual([]);
  return one!;
}

it('held: who carries it, since when it is the Service’s, and who would step in', () => {
  const record = renderService(holder, { cluster: 'default' }, Date.parse('2026-01-02T03:04:05Z'));
  const { line, ...rest } = standing({ owner: 'a', record });
  expect(rest).toEqual({
    address,
    state: 'held',
    owner: { id: 'a', node: 'a' },
    services: [web],
    ports: [{ protocol: 'tcp', port: 80, comment: 'default/web' }],
    since: parseOwner(record).since,
    remarks: [],
    others: [],
  });
  expect(line.map(({ node }) => node)).toEqual(['a', 'b']);
});

it('leaving: its owner may not carry it, or is gone', () => {
  const drained = agent('a', { fit: false, why: 'the node is drained' });
  expect(standing({ owner: 'a', agents: [drained, agent('b')] })).toMatchObject({
    state: 'leaving',
    remarks: ['a: the node is drained', 'b is next'],
    others: [{ id: 'a', node: 'a', why: 'the node is drained' }],
  });
  expect(standing({ owner: 'z' })).toMatchObject({
    state: 'leaving',
    owner: { id: 'z' },
    remarks: ['agent z is gone: its claim ends with its lease'],
  });
});

it('waiting: for whom, and who let it go', () => {
  const agents = [agent('a', { refuses: [address], reasons: { [address]: 'ForeignAddress: on eth1' } }), agent('b')];
  expect(standing({ agents, released: 'a' })).toMatchObject({
    state: 'waiting',
    remarks: ['a let it go', 'b is next'],
    others: [{ node: 'a', why: 'ForeignAddress: on eth1' }],
  });
});

it('stuck: why no node may', () => {
  const wants = [want({ local: true, nodesReady: new Set() })];
  expect(standing({ wants })).toMatchObject({
    state: 'stuck',
    remarks: ['no node may carry it: no endpoint there is ready (a, b)'],
  });
  expect(standing({ agents: [] }).remarks).toEqual(['no node may carry it: no agent is alive']);
});

it('taken: by another owner of the address, or by another cluster', () => {
  const record = JSON.stringify({ kind: 'reserved', cluster: 'default', since: 'x', reason: 'printer' });
  expect(standing({ record })).toMatchObject({
    state: 'taken',
    remarks: [expect.stringMatching(/^it belongs to .*reserved.*printer/)],
  });
  expect(standing({ owner: 'w', agents: [agent('a'), agent('w', { cluster: 'west' })] })).toMatchObject({
    state: 'taken',
    remarks: ['node w of cluster west carries it'],
  });
});

it('unwanted: claimed, though no Service wants it; of another cluster that is its own business', () => {
  expect(standing({ wants: [], owner: 'a' })).toMatchObject({ state: 'unwanted', services: [], line: [] });
  expect(standing({ wants: [], owner: 'w', agents: [agent('w', { cluster: 'west' })] })).toMatchObject({
    state: 'held',
    remarks: ['of cluster west'],
  });
});

it('refused: by whom it was asked for, and why it is not given', () => {
  const refusal: Refusal = { service: web, address, reason: 'OutsideRanges', message: 'no' };
  expect(standing({ wants: [], refusals: [refusal] })).toMatchObject({
    state: 'refused',
    services: [web],
    remarks: ['OutsideRanges: no'],
  });
  const taken: Refusal = { service: web, address, reason: 'PortTaken', message: 'port 80/tcp is older' };
  expect(standing({ owner: 'a', refusals: [taken] })).toMatchObject({
    state: 'held',
    remarks: ['PortTaken: port 80/tcp is older'],
  });
});

it('moving: where to', () => {
  const agents = [agent('a'), agent('b')];
  const members = membersOf(new Map(agents.map(one => [one.node, one])), 'default');
  const wants = ['192.168.1.41', '192.168.1.42'].map(text => want({ ip: parseIp(text)!, address: text }));
  const owners = new Map(wants.map(one => [one.address, 'a']));
  const made = plan({ agents: members, wants: wants.map(one => ({ address: one.address })), owners, rebalance: true });
  const claims: ClaimsView = {
    revision: 7,
    agents: new Map(agents.map(one => [one.node, { ...one, lease: `lease-${one.node}`, revision: 1 }])),
    owners: new Map(wants.map(one => [one.address, { id: 'a', lease: 'lease-a', revision: 2 }])),
    released: new Map(),
    freeFrom: new Map(),
    moves: new Map(),
  };
  const all = standingsOf({ wants, refusals: [], cluster: 'default', claims, members, plan: made, records: new Map() });
  expect(all.map(({ state }) => state).sort()).toEqual(['held', 'moving']);
  expect(all.find(({ state }) => state === 'moving')?.remarks).toEqual(['to b, for balance']);
});
