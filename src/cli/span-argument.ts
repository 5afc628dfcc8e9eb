// The addresses that `reserve` and `unreserve` are told to work on.
import { mostReserved } from '../ipam/service/reserve.ts';
import { cidrOf, formatCidr, parseIpWithPrefix } from '../net/cidr.ts';
import { formatSpan, parseSpan, type Span, spanSize } from '../net/span.ts';
import { UsageError } from './command.ts';

/** Reads an address, `first-last` or a CIDR. Throws a UsageError for anything else, and for too many addresses. */
export function spanArgument(text: string): Span {
  const span = parseSpan(text);
  if (span === undefined) {
    const turned = parseSpan(text.split('-').reverse().join('-'));
    if (turned !== undefined)
      throw new UsageError(
        `${JSON.stringify(text)} is reversed, its end before its start: write ${formatSpan(turned)}`,
      );
    throw new UsageError(`${JSON.stringify(text)} is no address, first-last or CIDR${hostBits(text)}`);
  }
  const size = spanSize(span);
  if (size <= mostReserved) return span;
  throw new UsageError(
    `${text} has ${size} addresses, and at most ${mostReserved} can be reserved: name it under "exclude" in the network configuration instead, which costs no record for each address`,
  );
}

function hostBits(text: string): string {
  const parsed = parseIpWithPrefix(text);
  return parsed === undefined ? '' : `; its subnet is ${formatCidr(cidrOf(parsed.ip, parsed.prefix))}`;
}
