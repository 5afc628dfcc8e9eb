// The one class for failures that were foreseen, and the codes that CNI and our command line give them.

/** CNI error codes: 1-99 from the CNI specification, 100 and up our own (docs/reference.md lists them all). */
export const code = {
  incompatibleVersion: 1,
  unsupported: 2,
  environment: 4,
  io: 5,
  decode: 6,
  config: 7,
  tryAgain: 11,
  unavailable: 50,
  exhausted: 100,
  newerFormat: 101,
  noRange: 103,
  noSpace: 104,
  damaged: 105,
  notReserved: 106,
  bug: 199,
} as const;

/** A failure that was foreseen: its message tells a person what happened, to what, and what to do next. */
export class FailureError extends Error {
  override name = 'FailureError';
  readonly code: number;
  readonly details: string | undefined;

  constructor(failureCode: number, message: string, options: { cause?: unknown; details?: string } = {}) {
    super(legible(message), options.cause === undefined ? {} : { cause: options.cause });
    this.code = failureCode;
    this.details = options.details;
  }
}

/** Messages quote names from a store, a file or a server, and end on terminals, which control characters would steer. */
function legible(message: string): string {
  return message.replace(/[^\P{Cc}\n]/gu, '?');
}

/** The message of anything thrown, on one line, for a log or for a larger message. */
export function messageOf(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return legible(text.replace(/\s+/g, ' ').trim());
}

/** The system's code of a failed call (`ENOENT`, `EROFS`, ...), if the error has one. */
export function systemCode(error: unknown): string | undefined {
  if (typeof error !== 'object' || error === null || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}
