// The addresses that ADDs of this agent are about to write, so that those that run at the same time choose others.
import type { Claims } from '../ipam/ports.ts';
import type { Family, Ip } from '../net/ip.ts';

interface Book {
  readonly claimed: Readonly<Record<Family, Set<bigint>>>;
  users: number;
}

export class ClaimBooks {
  readonly #books = new Map<string, Book>();

  /** The claims of one command in a place (a store and an address space), until it is disposed of. */
  open(place: string): Claims & Disposable {
    const book = this.#books.get(place) ?? { claimed: { 4: new Set(), 6: new Set() }, users: 0 };
    this.#books.set(place, book);
    book.users++;
    const own: Ip[] = [];
    return {
      has: ({ family, value }: Ip) => book.claimed[family].has(value),
      add: (ip: Ip) => {
        own.push(ip);
        book.claimed[ip.family].add(ip.value);
      },
      [Symbol.dispose]: () => {
        for (const { family, value } of own) book.claimed[family].delete(value);
        if (--book.users === 0) this.#books.delete(place);
      },
    };
  }
}
