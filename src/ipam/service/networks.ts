// Records the ranges of a network in the store, for people and tools.
import type { Allotment } from '../config.ts';
import { parseRecordedNetwork } from '../recorded.ts';
import { describeRanges, renderNetwork } from '../records.ts';
import { type PatientSurroundings, prepareStore, untilDone } from './patience.ts';
import { asRead } from './writes.ts';

type RecordedRanges = Pick<Allotment, 'network' | 'sets' | 'exclude'>;

export type Recording = 'written' | 'same' | 'replaced';

/** Writes the network's ranges where they are absent or differ. */
export async function recordNetwork(
  around: PatientSurroundings,
  config: RecordedRanges,
  node: string,
): Promise<Recording> {
  await prepareStore(around);
  const key = around.keys.network(config.network);
  return untilDone(around, async () => {
    const { kv, deadline } = around;
    const current = (await kv.read([{ key }], deadline)).answers[0]!.entries[0];
    if (current !== undefined && sameRanges(config, current.value)) return 'same';
    const writes = [{ put: key, value: renderNetwork(config, node, around.now()) }];
    const { won } = await kv.commit({ conditions: [asRead(key, current)], writes }, deadline);
    if (!won) return undefined;
    return current === undefined ? 'written' : 'replaced';
  });
}

/** Whether a recorded network has the ranges of the configuration. */
export function sameRanges(config: RecordedRanges, value: string): boolean {
  const recorded = parseRecordedNetwork(config.network, value);
  return recorded !== undefined && JSON.stringify(describeRanges(recorded)) === JSON.stringify(describeRanges(config));
}
