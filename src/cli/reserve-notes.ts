// Says of a reservation what it will not do: keep a gateway, or addresses that no recorded range gives out.
import type { RecordedNetwork } from '../ipam/recorded.ts';
import { formatCidr } from '../net/cidr.ts';
import { formatIp } from '../net/ip.ts';
import { formatSpan, type Span, spanContains, spanOf, subtractSpans, totalSize } from '../net/span.ts';
import { counted } from './output.ts';

/** At most so many spans are named. */
const most = 4;

/** Lines for people; empty where every address of the span lies in a recorded range and is no gateway. */
export function notesOn(span: Span, networks: readonly RecordedNetwork[], space: string): string[] {
  const ranges = networks.flatMap(({ name, sets }) => sets.flat().map(range => ({ name, range })));
  const served = ranges.filter(({ range }) => spanContains(span, range.gateway));
  const gateways = served.map(
    ({ name, range }) =>
      `${formatIp(range.gateway)} is the gateway of ${formatCidr(range.subnet)}, network ${name}: that network never gives it out`,
  );
  const known = [...ranges.map(({ range }) => range), ...served.map(({ range }) => spanOf(range.gateway))];
  const outside = subtractSpans(span, known);
  if (outside.length === 0) return [...new Set(gateways)];
  const named = outside.slice(0, most).map(formatSpan).join(', ');
  const more = outside.length > most ? `, and ${outside.length - most} more` : '';
  const count = counted(totalSize(outside), 'address lies', 'addresses lie');
  return [
    ...new Set(gateways),
    `${count} in no range that is recorded in space ${space} (${named}${more}): is the address space the right one?`,
  ];
}
