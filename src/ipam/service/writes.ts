// The fence and the conditions that several commands put into their commits.
import type { Condition, Entry, Write } from '../../store/kv.ts';

/** Seconds for which a fence keeps a late commit out: longer than any network or member sleeps on a request. */
const fenceTtl = 3600;

/** The write that turns away every commit of an ADD whose fate is unknown. */
export function fence(key: string, now: number): Write {
  return { put: key, value: JSON.stringify({ since: new Date(now).toISOString() }), ttl: fenceTtl };
}

/** That the key is as it was read. */
export function asRead(key: string, entry: Entry | undefined): Condition {
  return entry === undefined ? { absent: key } : { unchanged: key, revision: entry.revision };
}
