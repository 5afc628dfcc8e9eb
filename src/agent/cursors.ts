// Where this agent left the cursors of its stores, so that an ADD on a quiet cluster needs one read instead of two.
import type { CursorMemory } from '../ipam/ports.ts';
import { type Ip, sameIp } from '../net/ip.ts';

interface Known {
  readonly cursor: Ip;
  /** Nobody else moved it between the last two looks at it: where they do, a guess would most often be wrong. */
  readonly isOurs: boolean;
}

export class Cursors {
  readonly #places = new Map<string, Map<string, Known>>();

  /** Those of one store. */
  of(place: string): CursorMemory {
    const known = this.#places.get(place) ?? new Map<string, Known>();
    this.#places.set(place, known);
    return {
      expected: key => {
        const { cursor, isOurs } = known.get(key) ?? {};
        return isOurs ? cursor : undefined;
      },
      saw: (key, cursor) => {
        const before = known.get(key)?.cursor;
        if (cursor === undefined) known.delete(key);
        else known.set(key, { cursor, isOurs: before !== undefined && sameIp(before, cursor) });
      },
      left: (key, cursor) => {
        known.set(key, { cursor, isOurs: known.get(key)?.isOurs ?? false });
      },
    };
  }
}
