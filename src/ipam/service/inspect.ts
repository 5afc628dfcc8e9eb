// Reads a whole address space at one revision and examines it for contradictions.
import { clustersPrefix, formatKey } from '../../store/keys.ts';
import { afterPrefix } from '../../store/kv.ts';
import { Examination, type Finding } from '../contradictions.ts';
import { type PatientSurroundings, type Step, scanAll } from './patience.ts';

export interface Inspection {
  readonly keys: number;
  readonly findings: readonly Finding[];
}

export async function inspect(around: PatientSurroundings, step: Step): Promise<Inspection> {
  const { kv, keys, deadline } = around;
  const examination = new Examination(keys);
  let count = 0;
  for await (const entries of scanAll(around, keys.prefix, afterPrefix(keys.prefix))) {
    for (const entry of entries) examination.add(entry);
    count += entries.length;
    step(count);
  }
  const beside = [{ key: formatKey }, { from: clustersPrefix, to: afterPrefix(clustersPrefix) }];
  for (const { entries } of (await kv.read(beside, deadline)).answers)
    for (const entry of entries) examination.add(entry);
  return { keys: count, findings: examination.findings() };
}
