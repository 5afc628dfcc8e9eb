// How much memory this process has, and how it gives back what a burst of requests needed.
import { readFileSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { Part, PartState } from '../base/part.ts';

/** Milliseconds between two looks: the first, and the longest while there is nothing to be won. */
const [shortPause, longPause] = [10_000, 600_000];

/** Bytes above the least there ever was that are worth a collection. */
const worthwhile = 32 * 2 ** 20;

/** Bytes; undefined where the kernel does not tell. */
export function residentMemory(): number | undefined {
  const found = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8'));
  return found === null ? undefined : Number(found[1]) * 1024;
}

type CollectGarbage = (options: { readonly type: 'major'; readonly flavor: 'last-resort' }) => void;

/**
 * V8 keeps the memory of a burst for the next one, which is right for a server and wrong for one process of many on each
 * node. When nobody waits, everything is collected and given back, which takes some tens of milliseconds.
 */
export class Memory implements Part {
  readonly name = 'memory';
  readonly #isBusy: () => boolean;
  #timer: NodeJS.Timeout | undefined;
  #least = Number.POSITIVE_INFINITY;
  #pause = shortPause;

  constructor(isBusy: () => boolean) {
    this.#isBusy = isBusy;
  }

  async start(): Promise<void> {
    // The heap grows in smaller steps than V8 would choose for the memory of this machine.
    setFlagsFromString('--heap-growing-percent=50');
    setFlagsFromString('--expose-gc');
    const collect: CollectGarbage = runInNewContext('gc');
    this.#look(collect);
  }

  state(): PartState {
    return { ready: true, detail: `${Math.round((residentMemory() ?? 0) / 2 ** 20)} MiB` };
  }

  async stop(): Promise<void> {
    clearTimeout(this.#timer);
  }

  #look(collect: CollectGarbage): void {
    const before = residentMemory() ?? 0;
    this.#least = Math.min(this.#least, before);
    if (before >= this.#least + worthwhile && !this.#isBusy()) {
      collect({ type: 'major', flavor: 'last-resort' });
      const won = before - (residentMemory() ?? 0);
      // What is really in use is not looked through again and again.
      this.#pause = won >= worthwhile / 2 ? shortPause : Math.min(this.#pause * 2, longPause);
    }
    this.#timer = setTimeout(() => this.#look(collect), this.#pause);
  }
}
