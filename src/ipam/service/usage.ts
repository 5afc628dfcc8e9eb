// Counts how full the recorded ranges of an address space are.
import { type Span, spanContains, spansOverlap, subtractSpans, totalSize } from '../../net/span.ts';
import { parseKey } from '../../store/keys.ts';
import { afterPrefix } from '../../store/kv.ts';
import { ringOf } from '../candidates.ts';
import type { OwnerRecord } from '../model.ts';
import type { Range } from '../range.ts';
import { parseRecordedNetwork, type RecordedNetwork } from '../recorded.ts';
import { recordOf } from './holdings.ts';
import { type PatientSurroundings, type Step, scanAll } from './patience.ts';

export interface RangeUsage {
  readonly network: string;
  readonly range: Range;
  /** Addresses that may be given out, at random or by name. */
  readonly size: bigint;
  readonly used: number;
  readonly fixed: number;
  /** Kept for workloads, whether or not a pod uses them now. */
  readonly sticky: number;
  readonly reserved: number;
  readonly held: number;
  readonly free: bigint;
}

/** The networks recorded in the space, in the order of their names; `unreadable` holds the names of the others. */
export async function recordedNetworks(around: PatientSurroundings) {
  const prefix = around.keys.networks();
  const networks: RecordedNetwork[] = [];
  const unreadable: string[] = [];
  for await (const entries of scanAll(around, prefix, afterPrefix(prefix))) {
    for (const { key, value } of entries) {
      const parsed = parseKey(key);
      if (parsed?.type !== 'network') continue;
      const network = parseRecordedNetwork(parsed.network, value);
      if (network === undefined) unreadable.push(parsed.network);
      else networks.push(network);
    }
  }
  return { networks, unreadable };
}

/** One line for each range of the network, in the order recorded. */
export async function usageOf(
  around: PatientSurroundings,
  network: RecordedNetwork,
  step: Step,
): Promise<RangeUsage[]> {
  const usages: RangeUsage[] = [];
  for (const set of network.sets) {
    const ring = ringOf(set, network.sets, network.exclude);
    for (const range of set) {
      const random = ring.spans.filter(span => spansOverlap(span, range));
      const named = range.fixed === undefined ? [] : subtractSpans(range.fixed, network.exclude);
      usages.push(await countRange(around, network.name, range, [...random, ...named], step));
    }
  }
  return usages;
}

const shares = ['used', 'fixed', 'sticky', 'reserved', 'held'] as const;

/** Whose share of the bar an owner's address belongs to. */
function shareOf({ kind }: OwnerRecord): (typeof shares)[number] {
  return shares.find(share => share === kind) ?? 'used';
}

async function countRange(
  around: PatientSurroundings,
  network: string,
  range: Range,
  spans: readonly Span[],
  step: Step,
): Promise<RangeUsage> {
  const counts = { used: 0, fixed: 0, sticky: 0, reserved: 0, held: 0 };
  let taken = 0;
  for (const span of spans) {
    const { from, to } = around.keys.addressSpan(span);
    for await (const entries of scanAll(around, from, to)) {
      for (const { ip, owner } of entries.flatMap(recordOf)) {
        if (!spanContains(span, ip)) continue;
        counts[shareOf(owner)]++;
        taken++;
      }
      step(taken);
    }
  }
  const size = totalSize(spans);
  return { network, range, size, ...counts, free: size - BigInt(taken) };
}
