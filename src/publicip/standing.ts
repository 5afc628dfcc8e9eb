// How each public address stands, in words for people: who carries it, since when, why, and what waits for what. Pure.
import type { OwnerRecord } from '../ipam/model.ts';
import { isOfFeature } from '../ipam/records.ts';
import { describeRecord } from './describe.ts';
import type { Port, Refusal, ServiceRef, Want } from './model.ts';
import { objection, type PlanAgent } from './plan.ts';
import type { Survey } from './survey.ts';

export const states = [
  /** Somebody carries it, and is to go on. */
  'held',
  /** It is to go to another node for balance. */
  'moving',
  /** Its owner may not carry it any more. */
  'leaving',
  /** Nobody carries it yet. */
  'waiting',
  /** No node may carry it. */
  'stuck',
  /** It belongs to something else than a Service of this cluster. */
  'taken',
  /** Claimed, and no Service wants it. */
  'unwanted',
  /** Asked for, and not given. */
  'refused',
] as const;

export interface Standing {
  readonly address: string;
  readonly state: (typeof states)[number];
  /** Who has claimed it. */
  readonly owner?: { readonly id: string /** Absent when its agent is gone. */; readonly node?: string };
  /** Those whose address it is, the holder first; of a refused one, those that asked for it. */
  readonly services: readonly ServiceRef[];
  readonly ports: readonly Port[];
  /** Since when it is the Services', for people. */
  readonly since?: string;
  /** Why it is so, and what waits for what. */
  readonly remarks: readonly string[];
  /** Who may carry it: the planned agent first, then those that step in, in turn. */
  readonly line: readonly { readonly id: string; readonly node: string }[];
  /** The other agents, and why they may not. */
  readonly others: readonly { readonly id: string; readonly node: string; readonly why: string }[];
}

/** In the order of the addresses that are wanted; then those that are only claimed, then those that are refused. */
export function standingsOf(survey: Survey): Standing[] {
  const wanted = new Set(survey.wants.map(({ address }) => address));
  const unwanted = [...survey.claims.owners.keys()].filter(address => !wanted.has(address));
  const known = new Set([...wanted, ...unwanted]);
  const refused = Map.groupBy(survey.refusals, ({ address }) => address);
  return [
    ...survey.wants.map(want => wantedOne(survey, want, refused.get(want.address) ?? [])),
    ...unwanted.map(address => unwantedOne(survey, address, refused.get(address) ?? [])),
    ...[...refused].filter(([address]) => !known.has(address)).map(([address, all]) => refusedOne(address, all)),
  ];
}

function wantedOne(survey: Survey, want: Want, refusals: readonly Refusal[]): Standing {
  const { address, services, ports } = want;
  const record = survey.records.get(address);
  const { state, why } = stateOf(survey, want, record);
  const byId = new Map(survey.members.map(agent => [agent.id, agent]));
  const line = (survey.plan.lines.get(address) ?? []).map(id => ({ id, node: byId.get(id)!.node }));
  const others = survey.members.flatMap(agent => {
    const reason = objection(agent, asPlanned(want));
    return reason === undefined ? [] : [{ id: agent.id, node: agent.node, why: reason }];
  });
  return {
    address,
    state,
    ...ownerOf(survey, address),
    services,
    ports,
    ...(record && isOurs(survey, record) && { since: record.since }),
    remarks: [...why, ...refusals.map(saidOf)],
    line,
    others,
  };
}

interface State {
  readonly state: Standing['state'];
  readonly why: readonly string[];
}

function stateOf(survey: Survey, want: Want, record: OwnerRecord | undefined): State {
  const { owners, agents } = survey.claims;
  const owner = owners.get(want.address);
  if (owner === undefined) return unownedState(survey, want, record);
  const agent = agents.get(owner.id);
  if (agent === undefined) {
    return { state: 'leaving', why: [`agent ${owner.id} is gone: its claim ends with its lease`] };
  }
  if (agent.cluster !== survey.cluster) {
    return { state: 'taken', why: [`node ${agent.node} of cluster ${agent.cluster} carries it`] };
  }
  const member = survey.members.find(({ id }) => id === owner.id)!;
  const reason = objection(member, asPlanned(want));
  if (reason !== undefined) return { state: 'leaving', why: [`${member.node}: ${reason}`, ...nextOf(survey, want)] };
  const move = survey.plan.moves.find(({ address }) => address === want.address);
  if (move === undefined) return { state: 'held', why: [] };
  return { state: 'moving', why: [`to ${nodeOf(survey, move.to)}, for balance`] };
}

function unownedState(survey: Survey, want: Want, record: OwnerRecord | undefined): State {
  const { address } = want;
  if (record !== undefined && !isOurs(survey, record)) {
    return { state: 'taken', why: [`it belongs to ${describeRecord(record)}`] };
  }
  const nobody = survey.plan.nobody.get(address);
  if (nobody !== undefined) return { state: 'stuck', why: [`no node may carry it: ${nobody}`] };
  const released = survey.claims.released.get(address);
  const from = released === undefined ? [] : [`${nodeOf(survey, released.id)} let it go`];
  return { state: 'waiting', why: [...from, ...nextOf(survey, want)] };
}

function nextOf({ plan, members }: Survey, { address }: Want): string[] {
  const [next] = plan.lines.get(address) ?? [];
  return next === undefined ? [] : [`${members.find(({ id }) => id === next)!.node} is next`];
}

function unwantedOne(survey: Survey, address: string, refusals: readonly Refusal[]): Standing {
  const { owners, agents } = survey.claims;
  const agent = agents.get(owners.get(address)!.id);
  const isTheirs = agent !== undefined && agent.cluster !== survey.cluster;
  const why = isTheirs ? `of cluster ${agent.cluster}` : 'no Service wants it: its owner is to let it go';
  return {
    address,
    state: isTheirs ? 'held' : 'unwanted',
    ...ownerOf(survey, address),
    services: refusals.map(({ service }) => service),
    ports: [],
    remarks: [why, ...refusals.map(saidOf)],
    line: [],
    others: [],
  };
}

function refusedOne(address: string, refusals: readonly Refusal[]): Standing {
  return {
    address,
    state: 'refused',
    services: refusals.map(({ service }) => service),
    ports: [],
    remarks: [...new Set(refusals.map(saidOf))],
    line: [],
    others: [],
  };
}

function ownerOf({ claims: { owners, agents } }: Survey, address: string): Pick<Standing, 'owner'> {
  const owner = owners.get(address);
  if (owner === undefined) return {};
  const node = agents.get(owner.id)?.node;
  return { owner: { id: owner.id, ...(node !== undefined && { node }) } };
}

function isOurs({ cluster }: Survey, record: OwnerRecord): boolean {
  return isOfFeature(record, 'public-ip', cluster);
}

function asPlanned({ address, nodesReady }: Want): Parameters<typeof objection>[1] {
  return { address, nodes: nodesReady };
}

function nodeOf({ members }: Survey, id: string): PlanAgent['node'] {
  return members.find(agent => agent.id === id)?.node ?? id;
}

function saidOf({ reason, message }: Refusal): string {
  return `${reason}: ${message}`;
}
