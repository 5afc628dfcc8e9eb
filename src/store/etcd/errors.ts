// Errors that only etcd's adapters know, beside those of the port.
import { code, FailureError } from '../../base/errors.ts';

/** The JSON gateway does not serve this client (switched off, or it identifies by certificate name): use gRPC instead. */
export class GatewayOffError extends FailureError {
  override name = 'GatewayOffError';

  constructor(message: string) {
    super(code.tryAgain, message);
  }
}

/** The history from the revision asked for is gone (compacted, or the store was restored): list again and go on from there. */
export class RelistError extends FailureError {
  override name = 'RelistError';
  /** The oldest revision that can still be read, where etcd told it. */
  readonly oldest: number | undefined;

  constructor(message: string, oldest?: number) {
    super(code.tryAgain, message);
    this.oldest = oldest;
  }
}
