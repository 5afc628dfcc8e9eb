// What is said when a set has no free address: which ranges, how large, who holds it, and what can be done.
import { code, FailureError } from '../../base/errors.ts';
import type { Ring } from '../candidates.ts';
import { describeSet } from '../describe.ts';
import { parseOwner } from '../model.ts';
import type { Surroundings } from '../ports.ts';

/** Beyond so many addresses the holders are not read one by one for a message. */
const mostRead = 4096n;

export async function exhaustedError(around: Surroundings, network: string, ring: Ring): Promise<FailureError> {
  const holders =
    ring.size === 0n ? 'nothing is left besides gateway, excluded and fixed addresses' : await holdersOf(around, ring);
  return new FailureError(
    code.exhausted,
    `network ${network}: no free address in ${describeSet(ring.ranges)}: ${holders}. See them with "kube-ipam ls --network ${network}"; widen the range or release what is not used`,
  );
}

async function holdersOf(around: Surroundings, ring: Ring): Promise<string> {
  const all = `all ${ring.size} addresses are taken`;
  if (ring.size > mostRead) return all;
  const queries = ring.spans.map(span => around.keys.addressSpan(span));
  const { answers } = await around.kv.read(queries, around.deadline);
  const owners = answers.flatMap(({ entries }) => entries.map(({ value }) => parseOwner(value)));
  const reserved = owners.filter(({ kind }) => kind === 'reserved').length;
  const held = owners.filter(({ kind }) => kind === 'held');
  const first = held.map(({ until }) => until ?? '').sort()[0];
  const parts = [`${owners.length - reserved - held.length} by pods and containers`];
  if (reserved > 0) parts.push(`${reserved} reserved`);
  if (held.length > 0) parts.push(`${held.length} held after release (cooldown), the first until ${first}`);
  return `${all}: ${parts.join(', ')}`;
}
