// All that can be seen of public addresses from outside, read once: what Services want, who has claimed what, and the plan of it.
import type { Deadline } from '../base/clock.ts';
import { type OwnerRecord, parseOwner } from '../ipam/model.ts';
import { type Client, openClient } from '../kube/client.ts';
import type { KubeObject } from '../kube/objects.ts';
import { endpointSlices, nodes, pathOf, type Resource, services } from '../kube/resources.ts';
import { parseIp } from '../net/ip.ts';
import { type GrpcKv, openGrpc } from '../store/etcd/grpc.ts';
import { Keys } from '../store/keys.ts';
import { Claims, type ClaimsView } from './claims.ts';
import type { Config } from './config.ts';
import { readWants, type Wants } from './model.ts';
import { membersOf, type Plan, type PlanAgent, plan } from './plan.ts';

export interface Survey extends Wants {
  readonly cluster: string;
  readonly claims: ClaimsView;
  /** The agents of this cluster, by their ids. */
  readonly members: readonly PlanAgent[];
  readonly plan: Plan;
  /** By address, of those that are wanted or claimed; none where they are kept in another etcd. */
  readonly records: ReadonlyMap<string, OwnerRecord>;
}

/**
 * What only a node knows is missing: the addresses of its interfaces, and its gateways. Throws what the API and the store
 * throw.
 */
export async function survey(config: Config, deadline: Deadline): Promise<Survey> {
  await using client = await openClient(config.kubernetes);
  await using kv = openGrpc(config.etcd);
  const { prefix, ttl, cluster, rebalance } = config;
  const [wants, claims] = await Promise.all([
    wantsNow(client, config, deadline),
    Claims.open(kv, { prefix, id: '', ttl }, deadline),
  ]);
  await using _ = claims;
  const view = claims.view();
  const members = membersOf(view.agents, cluster);
  const owners = new Map([...view.owners].map(([address, { id }]) => [address, id]));
  const asked = wants.wants.map(({ address, nodesReady }) => ({ address, nodes: nodesReady }));
  const addresses = new Set([...owners.keys(), ...asked.map(({ address }) => address)]);
  return {
    ...wants,
    cluster,
    claims: view,
    members,
    plan: plan({ agents: members, wants: asked, owners, rebalance }),
    records: config.store === undefined ? await recordsOf(kv, config.space, [...addresses], deadline) : new Map(),
  };
}

async function wantsNow(client: Client, config: Config, deadline: Deadline): Promise<Wants> {
  const all = async (resource: Resource) =>
    (await client.list<KubeObject>(pathOf(resource), {}, deadline)).items as readonly unknown[];
  const [allServices, slices, allNodes] = await Promise.all([all(services), all(endpointSlices), all(nodes)]);
  const { ranges, namespaces, clusterRanges } = config;
  const around = { ranges, namespaces, clusterRanges, nodes: allNodes, addresses: [], gateways: [] };
  return readWants(allServices, slices, around);
}

async function recordsOf(
  kv: GrpcKv,
  space: string,
  addresses: readonly string[],
  deadline: Deadline,
): Promise<ReadonlyMap<string, OwnerRecord>> {
  const keys = new Keys(space);
  const asked = addresses.flatMap(address => {
    const ip = parseIp(address);
    return ip === undefined ? [] : [{ address, key: keys.address(ip) }];
  });
  if (asked.length === 0) return new Map();
  const { answers } = await kv.read(
    asked.map(({ key }) => ({ key })),
    deadline,
  );
  return new Map(
    asked.flatMap(({ address }, i) => answers[i]!.entries.map(({ value }) => [address, parseOwner(value)] as const)),
  );
}
