// Keeps the certificates on a node as a mounted Secret has them: they are renewed without a restart.
import { messageOf } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { Part, PartState } from '../base/part.ts';
import { certificateMode, certificatesIn } from '../host/certificates.ts';
import { putFile } from '../host/files.ts';

/** Milliseconds between two looks; a kubelet itself takes about a minute. */
const period = 10_000;

export interface CertificatesOptions {
  /** Where the Secret is mounted. */
  readonly folder: string;
  readonly log: Log;
}

export class Certificates implements Part {
  readonly name = 'certificates';
  readonly #options: CertificatesOptions;
  #timer: NodeJS.Timeout | undefined;
  #state: PartState = { ready: false, detail: 'not read yet' };

  constructor(options: CertificatesOptions) {
    this.#options = options;
  }

  async start(): Promise<void> {
    this.#copy();
    this.#timer = setInterval(() => this.#copy(), period);
  }

  state(): PartState {
    return this.#state;
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
  }

  /** Whoever reads between two files of a pair gets a failure that passes: it is asked again. */
  #copy(): void {
    const { folder, log } = this.#options;
    try {
      const files = [...certificatesIn(folder)];
      for (const [path, bytes] of files) {
        if (putFile(path, bytes, certificateMode)) log.info('a certificate was renewed', { file: path });
      }
      this.#state = { ready: true, detail: `${files.length} files of ${folder}` };
    } catch (error) {
      const problem = messageOf(error);
      if (this.#state.ready || this.#state.detail !== problem) log.error('certificates cannot be copied', { problem });
      this.#state = { ready: false, detail: problem };
    }
  }
}
