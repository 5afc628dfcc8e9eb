// What went wrong with a request to an API server, told so that a person can mend it.
import { code, FailureError, messageOf } from '../base/errors.ts';
import type { ApiTarget } from './config.ts';
import { type Asked, asked } from './resources.ts';

/** One request, as far as messages need it. */
export interface Request {
  /** The verb of RBAC: get, list, watch, create, update, patch, delete. */
  readonly verb: string;
  /** As `pathOf` makes it, without query. */
  readonly path: string;
}

/** The API server answered, and not with what was asked for. Code 11: asking again later may help. */
export class ApiError extends FailureError {
  override name = 'ApiError';
  /** HTTP status; of an error in the middle of a watch the one that the server names there. */
  readonly status: number;
  /** The server's word for it (`Conflict`, `AlreadyExists`, `Expired`, ...); "" when it gave none. */
  readonly reason: string;

  constructor(message: string, status: number, reason: string) {
    super(code.tryAgain, message);
    this.status = status;
    this.reason = reason;
  }
}

/** No answer came, or it broke off: of a request that writes nobody knows whether it was done. Code 11. */
export class UnansweredError extends FailureError {
  override name = 'UnansweredError';
}

/** An answer came that no API server gives, or a watch on which nothing comes at all. Code 11. */
export class StrangeAnswerError extends FailureError {
  override name = 'StrangeAnswerError';
}

export function unanswered(request: Request, target: ApiTarget, why: string): UnansweredError {
  return new UnansweredError(code.tryAgain, noAnswer(request, target, why));
}

export function strange(request: Request, target: ApiTarget, what: string): StrangeAnswerError {
  return new StrangeAnswerError(code.tryAgain, noAnswer(request, target, what));
}

function noAnswer({ verb, path }: Request, { server, source }: ApiTarget, why: string): string {
  return `${asked(verb, path).words}: no usable answer from the API server ${server} (${source}): ${why}`;
}

/** TLS itself refuses what the kubeconfig names: no PEM, or a key that belongs to another certificate. Code 7. */
export function unusableCertificates({ source }: ApiTarget, cause: unknown): FailureError {
  return new FailureError(code.config, `${source} cannot be used: its certificates: ${messageOf(cause)}`, { cause });
}

/** What the server itself says of a failure (metav1.Status). */
export interface Status {
  readonly message: string;
  readonly reason: string;
  /** Of the object that it is about. */
  readonly name: string | undefined;
  readonly code: number | undefined;
}

/** @param said undefined when the answer was none of an API server's own: a proxy's page is shown to nobody. */
export function refusal(
  { verb, path }: Request,
  target: ApiTarget,
  status: number,
  said: Status | undefined,
): ApiError {
  const request = asked(verb, path);
  const words = said === undefined ? '' : shown(said.message, target);
  const told = `HTTP ${status}${words === '' ? '' : `: ${words}`}`;
  const message = `${request.words}: the API server ${target.server} ${meaning(status, request, target)} (${told})`;
  return new ApiError(message, status, said?.reason ?? '');
}

function meaning(status: number, { right }: Asked, { source }: ApiTarget): string {
  switch (status) {
    case 401:
      return `does not accept the credentials of ${source}: token or certificate has expired or was revoked; renew it`;
    case 403:
      return `does not allow it: give the account of ${source} the right ${right}`;
    case 404:
      return 'does not know it';
    case 409:
      return 'refuses it, because somebody else has changed the object or it exists already';
    case 410:
      return 'no longer has that version';
    case 429:
      return 'is too busy';
    default:
      return status >= 500 ? 'has trouble of its own' : 'refuses it';
  }
}

const longestWords = 300;

function shown(message: string, { token }: ApiTarget): string {
  const line = message.replace(/\s+/g, ' ').trim();
  const safe = token === undefined ? line : line.replaceAll(token, '***');
  return safe.length > longestWords ? `${safe.slice(0, longestWords)}...` : safe;
}
