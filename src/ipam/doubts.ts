// Remembers on disk which ADDs ended without knowing the fate of their commit, so that their DEL fences it off.
import { closeSync, existsSync, fsyncSync, openSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { messageOf } from '../base/errors.ts';
import { makeFolder } from '../base/folder.ts';
import type { Log } from '../base/log.ts';
import { sha256 } from '../base/sha256.ts';
import type { AttachmentId } from '../store/keys.ts';
import type { Doubts } from './ports.ts';

/** One empty file for each doubt, named by a hash of the attachment: `<dataDir>/doubt/<hash>`. */
export class FileDoubts implements Doubts {
  readonly #folder: string;
  readonly #log: Log;

  constructor(dataDir: string, log: Log) {
    this.#folder = join(dataDir, 'doubt');
    this.#log = log;
  }

  has(id: AttachmentId): boolean {
    return existsSync(this.#fileOf(id));
  }

  leave(id: AttachmentId): void {
    try {
      makeFolder(this.#folder, 0o700);
      const file = openSync(this.#fileOf(id), 'w', 0o600);
      fsyncSync(file);
      closeSync(file);
      const folder = openSync(dirname(this.#fileOf(id)), 'r');
      fsyncSync(folder);
      closeSync(folder);
    } catch (error) {
      // gc finds what a late commit leaves behind; the ADD has failed already and says why.
      this.#log.error('a doubt could not be written', { containerID: id.containerID, cause: messageOf(error) });
    }
  }

  clear(id: AttachmentId): void {
    try {
      rmSync(this.#fileOf(id), { force: true });
    } catch (error) {
      this.#log.warn('a doubt could not be removed', { containerID: id.containerID, cause: messageOf(error) });
    }
  }

  #fileOf(id: AttachmentId): string {
    return join(this.#folder, sha256([id.node, id.network, id.containerID, id.ifname].join('\0')));
  }
}
