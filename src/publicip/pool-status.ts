// The status of AddressPools: how many of their addresses somebody has, and whether they can be used.
import { FailureError } from '../base/errors.ts';
import { isObject } from '../base/section.ts';
import { type Pool, readPool, setOf, spansOf } from '../ipam/pool.ts';
import type { PatientSurroundings } from '../ipam/service/patience.ts';
import type { KubeObject } from '../kube/objects.ts';
import { totalSize } from '../net/span.ts';
import { fieldsOf, listOf } from './fields.ts';
import type { Pools } from './wishes.ts';

/** An AddressPool object, as it is remembered. */
export interface PoolObject extends KubeObject {
  readonly spec?: unknown;
  readonly status?: unknown;
}

/** Counts are exact as far as JSON's numbers are: a /64 has more addresses than they can tell. */
interface Counts {
  readonly total: number;
  readonly used: number;
  readonly free: number;
}

export interface PoolCounts {
  readonly ipv4?: Counts;
  readonly ipv6?: Counts;
}

/** All pools; what cannot be used is told by its name. */
export function readPools(objects: readonly PoolObject[], space: string): Pools {
  const faults = new Map<string, string>();
  const pools = objects.flatMap((object): Pool[] => {
    try {
      return [readPool(object)];
    } catch (error) {
      if (!(error instanceof FailureError)) throw error;
      faults.set(object.metadata.name, error.message);
      return [];
    }
  });
  return { space, pools, faults };
}

/** How many addresses the pool may give, and how many of them have an owner of any kind. One read of the store. */
export async function countPool({ kv, keys, deadline }: PatientSurroundings, pool: Pool): Promise<PoolCounts> {
  const count = async (family: 4 | 6): Promise<Counts | undefined> => {
    if (setOf(pool, family) === undefined) return undefined;
    const spans = spansOf(pool, family);
    const queries = spans.map(span => ({ ...keys.addressSpan(span), count: true as const }));
    const { answers } = await kv.read(queries, deadline);
    const used = answers.reduce((sum, answer) => sum + answer.count, 0);
    const total = totalSize(spans);
    return { total: asNumber(total), used, free: asNumber(total - BigInt(used)) };
  };
  const [ipv4, ipv6] = [await count(4), await count(6)];
  return { ...(ipv4 && { ipv4 }), ...(ipv6 && { ipv6 }) };
}

function asNumber(value: bigint): number {
  return value > BigInt(Number.MAX_SAFE_INTEGER) ? Number.MAX_SAFE_INTEGER : Number(value);
}

/**
 * The status to write; undefined where the object says the same already. `fault`: why the pool cannot be used; `now`: wall
 * clock in milliseconds.
 */
export function statusOf(
  object: PoolObject,
  counts: PoolCounts,
  fault: { readonly reason: string; readonly message: string } | undefined,
  now: number,
): object | undefined {
  const { generation } = object.metadata as { readonly generation?: number };
  const ready = {
    type: 'Ready',
    status: fault === undefined ? 'True' : 'False',
    reason: fault?.reason ?? 'InUse',
    message: fault?.message ?? 'Services are given its addresses',
    ...(generation !== undefined && { observedGeneration: generation }),
  };
  const before = fieldsOf(object.status);
  const condition = listOf(before.conditions)
    .map(fieldsOf)
    .find(({ type }) => type === 'Ready');
  const stays = condition?.status === ready.status && typeof condition.lastTransitionTime === 'string';
  const lastTransitionTime = stays ? condition.lastTransitionTime : `${new Date(now).toISOString().slice(0, 19)}Z`;
  const status = {
    ...(generation !== undefined && { observedGeneration: generation }),
    // A merge patch forgets only what is null.
    ipv4: counts.ipv4 ?? null,
    ipv6: counts.ipv6 ?? null,
    conditions: [{ ...ready, lastTransitionTime }],
  };
  const same = canonical({ ...status, ipv4: counts.ipv4, ipv6: counts.ipv6 }) === canonical(before);
  return same ? undefined : status;
}

/** JSON with the keys of every object in order. */
function canonical(value: unknown): string {
  return JSON.stringify(value, (_, part: unknown) =>
    isObject(part) ? Object.fromEntries(Object.entries(part).sort(([a], [b]) => (a < b ? -1 : 1))) : part,
  );
}
