// What an API server's answer means when it is not what was asked for, told so that a person can mend it.
import { code, FailureError } from '../base/errors.ts';
import { isObject } from '../base/section.ts';
import type { ApiTarget } from './config.ts';
import { type Asked, asked } from './resources.ts';

/** The API server answered, and not with what was asked for. Code 11: asking again later may help. */
export class ApiError extends FailureError {
  override name = 'ApiError';
  /** HTTP status; of an error in the middle of a watch the one that the server names there. */
  readonly status: number;
  /** The server's word for it (`NotFound`, `Conflict`, `Expired`, ...); "" when it gave none. */
  readonly reason: string;

  constructor(message: string, status: number, reason: string) {
    super(code.tryAgain, message);
    this.status = status;
    this.reason = reason;
  }
}

/** One request, as far as messages need it. */
export interface Request {
  /** The verb of RBAC: get, list, watch, create, update, patch, delete. */
  readonly verb: string;
  /** Without query. */
  readonly path: string;
}

/** Kubernetes' own form of an error (metav1.Status). */
export interface Status {
  readonly message: string;
  readonly reason: string;
  /** The object that it is about. */
  readonly name: string | undefined;
  readonly code: number | undefined;
}

/** Undefined for anything but a Status: a proxy's page is not shown to anybody. */
export function statusOf(value: unknown): Status | undefined {
  if (!isObject(value) || value.kind !== 'Status') return undefined;
  const { message, reason, details, code: status } = value;
  const name = isObject(details) ? details.name : undefined;
  return {
    message: typeof message === 'string' ? message : '',
    reason: typeof reason === 'string' ? reason : '',
    name: typeof name === 'string' ? name : undefined,
    code: typeof status === 'number' ? status : undefined,
  };
}

/** Undefined when it is not JSON. */
export function parsed(body: string): unknown {
  try {
    return JSON.parse(body);
  } catch {
    return undefined;
  }
}

/** No answer came, or none that could be read. */
export function unanswered({ verb, path }: Request, target: ApiTarget, why: string): FailureError {
  return new FailureError(
    code.tryAgain,
    `${asked(verb, path).words}: no answer from the API server ${target.server} (${target.source}): ${why}`,
  );
}

/** The server says, in its own form, that this very object does not exist: a 404 of anything else says nothing about it. */
export function isAbsent({ verb, path }: Request, status: number, said: Status | undefined): boolean {
  const { name } = asked(verb, path);
  return status === 404 && said?.reason === 'NotFound' && name !== undefined && said.name === name;
}

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

function meaning(status: number, request: Asked, target: ApiTarget): string {
  switch (status) {
    case 401:
      return `does not accept the credentials of ${target.source}: token or certificate has expired or was revoked; renew it`;
    case 403:
      return `does not allow it: give the account of ${target.source} the right ${request.right}`;
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
