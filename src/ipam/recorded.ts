// Reads the ranges of a network back from its record in the store. Pure.
import { FailureError } from '../base/errors.ts';
import { isObject } from '../base/section.ts';
import { type NetworkConfig, readNetworkConfig } from './config.ts';

export interface RecordedNetwork {
  readonly name: string;
  readonly sets: NetworkConfig['sets'];
  readonly exclude: NetworkConfig['exclude'];
  /** Who wrote the record, and when; for people. */
  readonly node: string;
  readonly since: string;
}

/** Undefined for a value that this version cannot read. */
export function parseRecordedNetwork(name: string, value: string): RecordedNetwork | undefined {
  try {
    const raw: unknown = JSON.parse(value);
    if (!isObject(raw)) return undefined;
    const { ranges, exclude, node, since } = raw;
    // By another name, as that of a pool is no network's.
    const { sets, exclude: excluded } = readNetworkConfig({ name: 'recorded', ipam: { ranges, exclude } }, '1.0.0');
    return { name, sets, exclude: excluded, node: String(node ?? ''), since: String(since ?? '') };
  } catch (error) {
    if (error instanceof FailureError || error instanceof SyntaxError) return undefined;
    throw error;
  }
}
