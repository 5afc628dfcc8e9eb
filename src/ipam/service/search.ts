// Finds a free address anywhere in a set once the window behind the cursor showed none, or proves that there is none.
import type { Ip } from '../../net/ip.ts';
import { type Span, spanSize, totalSize } from '../../net/span.ts';
import { freeIn, type Ring, slice } from '../candidates.ts';
import type { Surroundings } from '../ports.ts';
import { takenOf } from './look.ts';

/**
 * So many slices are counted in one transaction, and so few addresses are read at once: one more round of counts costs
 * less than the keys of a thousand addresses through etcd's JSON gateway (a /16: two rounds of counts and a read).
 */
const mostSlices = 64;
const mostRead = 128n;

/**
 * A free address of the ring, or undefined when one revision of the store showed every slice of it full.
 * `scatter`: others look at the same time, so the hole is picked at random and not the first.
 */
export async function findFree(around: Surroundings, ring: Ring, scatter: boolean): Promise<Ip | undefined> {
  for (let spans = ring.spans; ; ) {
    const whole = spans === ring.spans;
    if (totalSize(spans) <= mostRead) {
      const free = await readFree(around, spans);
      if (free.length > 0) return free[scatter ? Math.floor(Math.random() * free.length) : 0];
      if (whole) return undefined;
      spans = ring.spans; // The hole was filled while we came nearer: begin again.
      continue;
    }
    const hole = await sliceWithHole(around, spans, scatter);
    if (hole === undefined && whole) return undefined;
    spans = hole === undefined ? ring.spans : [hole];
  }
}

async function readFree(around: Surroundings, spans: readonly Span[]): Promise<Ip[]> {
  const queries = spans.map(span => ({ ...around.keys.addressSpan(span), keysOnly: true }));
  const { answers } = await around.kv.read(queries, around.deadline);
  return freeIn(spans, takenOf(answers.flatMap(answer => answer.entries)));
}

async function sliceWithHole(around: Surroundings, spans: readonly Span[], scatter: boolean) {
  const slices = slice(spans, mostSlices);
  const queries = slices.map(span => ({ ...around.keys.addressSpan(span), count: true as const }));
  const { answers } = await around.kv.read(queries, around.deadline);
  const holes = slices.map((span, i) => Number(spanSize(span) - BigInt(answers[i]!.count)));
  if (!scatter) return slices[holes.findIndex(size => size > 0)];
  // Weighed by their holes, so that many who look at once spread as if they picked among all free addresses.
  const total = holes.reduce((sum, size) => sum + size, 0);
  let at = Math.random() * total;
  for (const [i, size] of holes.entries()) {
    if (size > 0 && at < size) return slices[i];
    at -= size;
  }
  return undefined;
}
