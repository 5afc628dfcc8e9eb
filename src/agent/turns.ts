// One at a time for each attachment: a DEL never overtakes the ADD of the same container that came before it.

export class Turns {
  readonly #last = new Map<string, Promise<unknown>>();

  /** Runs the work when everything that was asked earlier under this key has ended, however it ended. */
  async take<T>(key: string, work: () => Promise<T>): Promise<T> {
    const turn = (this.#last.get(key) ?? Promise.resolve()).then(work, work);
    this.#last.set(key, turn);
    try {
      return await turn;
    } finally {
      if (this.#last.get(key) === turn) this.#last.delete(key);
    }
  }
}

/** The node is always this one. */
export function attachmentKey(network: string, containerID = '', ifname = ''): string {
  return JSON.stringify([network, containerID, ifname]);
}
