// What is said when a set has no free address: which ranges, how large, who holds it, and what can be done.
import { code, FailureError } from '../../base/errors.ts';
import type { Ring } from '../candidates.ts';
import { describeSet } from '../describe.ts';
import { type OwnerRecord, parseOwner } from '../model.ts';
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
  const shares = Map.groupBy(owners, shareOf);
  const told = (['services', 'reserved', 'unused', 'cooldown', 'named'] as const).flatMap(share => {
    const some = shares.get(share);
    return some === undefined ? [] : [`${some.length} ${meaning[share](firstEnd(some))}`];
  });
  return `${all}: ${[`${shares.get('used')?.length ?? 0} by pods and containers`, ...told].join(', ')}`;
}

const meaning = {
  services: () => 'by Services and elastic IPs',
  reserved: () => 'reserved',
  unused: () => 'kept for workloads that have no pod now',
  cooldown: (end: string) => `held after release (cooldown), the first until ${end}`,
  named: (end: string) => `held for whoever asks for them by name (fixedHold), the first until ${end}`,
};

function shareOf({ kind, holders, byName }: OwnerRecord): keyof typeof meaning | 'used' {
  if (kind === 'reserved') return 'reserved';
  if (kind === 'service') return 'services';
  if (kind === 'held') return byName === true ? 'named' : 'cooldown';
  return kind === 'sticky' && holders.length === 0 ? 'unused' : 'used';
}

function firstEnd(owners: readonly OwnerRecord[]): string {
  return owners.map(({ until }) => until ?? '').sort()[0]!;
}
