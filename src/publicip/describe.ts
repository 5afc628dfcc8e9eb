// How owner records are told to people, by a feature that only knows that they are in its way. Pure.
import type { OwnerRecord } from '../ipam/model.ts';

/** Whose an address is. */
export function describeRecord({ kind, cluster, pod, holder, reason }: OwnerRecord): string {
  const of = pod ?? holder;
  const who = of === undefined ? '' : ` of ${of.namespace}/${of.name}`;
  return `a record of kind ${kind}${who} in cluster ${JSON.stringify(cluster)}${reason ? ` (${reason})` : ''}`;
}
