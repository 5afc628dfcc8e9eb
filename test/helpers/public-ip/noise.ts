// Foreign address noise: somebody else adds an address to the interface and removes it again, ten times a second.
import type { Machine } from '../machine.ts';
import { Piped } from './piped.ts';

export class AddressNoise implements AsyncDisposable {
  readonly #batch: Piped;
  readonly #timer: NodeJS.Timeout;

  /** Until it is disposed of; `number` makes the addresses differ from those of other machines. */
  constructor(machine: Machine, number: number, dev = 'eth0') {
    this.#batch = new Piped(machine, ['ip', '-force', '-batch', '-']);
    let round = 0;
    this.#timer = setInterval(() => {
      const verb = round++ % 2 === 0 ? 'add' : 'del';
      this.#batch.write(`address ${verb} 198.51.100.${number}/32 dev ${dev}`);
      this.#batch.write(`address ${verb} 2001:db8::${number}/128 dev ${dev} nodad`);
    }, 50);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    await this.#batch[Symbol.asyncDispose]();
  }
}
