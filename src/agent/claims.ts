// The addresses that ADDs of this agent are about to write, so that those that run at the same time choose others.
import type { Claims } from '../ipam/ports.ts';
import { formatIp, type Ip } from '../net/ip.ts';

interface Book {
  readonly claimed: Set<string>;
  users: number;
}

export class ClaimBooks {
  readonly #books = new Map<string, Book>();

  /** The claims of one command in a place (a store and an address space), until it is disposed of. */
  open(place: string): Claims & Disposable {
    const book = this.#books.get(place) ?? { claimed: new Set(), users: 0 };
    this.#books.set(place, book);
    book.users++;
    const own: string[] = [];
    return {
      has: (ip: Ip) => book.claimed.has(formatIp(ip)),
      add: (ip: Ip) => {
        own.push(formatIp(ip));
        book.claimed.add(formatIp(ip));
      },
      [Symbol.dispose]: () => {
        for (const ip of own) book.claimed.delete(ip);
        if (--book.users === 0) this.#books.delete(place);
      },
    };
  }
}
