// Takes an API server's answers apart; what is not exactly what was asked for is a failure, never an empty answer.
import { isObject } from '../base/section.ts';
import type { ApiTarget } from './config.ts';
import { type Request, refusal, type Status, strange } from './failure.ts';
import type { Found, KubeObject } from './objects.ts';
import { asked } from './resources.ts';

/** An answer as it came. */
export interface Answer {
  readonly status: number;
  /** The header `Date`. */
  readonly date: string | undefined;
  readonly body: string;
}

/** The very object that was asked for; undefined when the server says that it does not exist. */
export function foundIn<T extends KubeObject>(
  request: Request,
  target: ApiTarget,
  answer: Answer,
): Found<T> | undefined {
  const value = parsed(answer.body);
  if (isAbsent(request, answer.status, statusOf(value))) return undefined;
  demandSuccess(request, target, answer.status, value);
  const at = Date.parse(answer.date ?? '');
  if (Number.isNaN(at)) throw strange(request, target, 'an answer without a date');
  if (!isKubeObject(value)) throw strange(request, target, 'not an object of Kubernetes');
  if (value.metadata.name !== asked(request.verb, request.path).name) {
    throw strange(request, target, 'another object than the one asked for');
  }
  return { object: value as T, at };
}

/** Whether the server says, in its own form, that this very object does not exist: any other 404 says nothing about it. */
export function isAbsent({ verb, path }: Request, status: number, said: Status | undefined): boolean {
  const { name } = asked(verb, path);
  return status === 404 && said?.reason === 'NotFound' && name !== undefined && said.name === name;
}

export interface Page<T> {
  readonly items: readonly T[];
  readonly resourceVersion: string;
  /** For the next page; "" behind the last one. */
  readonly next: string;
}

export function pageIn<T extends KubeObject>(request: Request, target: ApiTarget, { status, body }: Answer): Page<T> {
  const value = parsed(body);
  demandSuccess(request, target, status, value);
  if (!isObject(value) || !String(value.kind).endsWith('List') || !isObject(value.metadata)) {
    throw strange(request, target, 'not a list of Kubernetes');
  }
  const { resourceVersion, continue: next = '' } = value.metadata;
  // Go writes an empty list as null.
  const items = value.items ?? [];
  if (typeof resourceVersion !== 'string' || typeof next !== 'string' || !Array.isArray(items)) {
    throw strange(request, target, 'not a list of Kubernetes');
  }
  if (!items.every(isKubeObject)) throw strange(request, target, 'a list of things without names');
  return { items: items as unknown as T[], resourceVersion, next };
}

/** What a write answers: the object as it is now, or what the server made of it. */
export function valueIn<T>(request: Request, target: ApiTarget, { status, body }: Answer): T {
  const value = parsed(body);
  demandSuccess(request, target, status, value);
  if (!isObject(value)) throw strange(request, target, 'not an object');
  return value as T;
}

function demandSuccess(request: Request, target: ApiTarget, status: number, value: unknown): void {
  if (status < 200 || status > 299) throw refusal(request, target, status, statusOf(value));
}

/** The server's own form of a failure; undefined for anything else. */
export function statusOf(value: unknown): Status | undefined {
  if (!isObject(value) || value.kind !== 'Status') return undefined;
  const { message, reason, details, code } = value;
  const name = isObject(details) ? details.name : undefined;
  return {
    message: typeof message === 'string' ? message : '',
    reason: typeof reason === 'string' ? reason : '',
    name: typeof name === 'string' ? name : undefined,
    code: typeof code === 'number' ? code : undefined,
  };
}

export function isKubeObject(value: unknown): value is KubeObject & Readonly<Record<string, unknown>> {
  if (!isObject(value) || !isObject(value.metadata)) return false;
  return typeof value.metadata.name === 'string' && typeof value.metadata.uid === 'string';
}

/** Undefined when it is not JSON. */
export function parsed(body: string): unknown {
  try {
    return JSON.parse(body);
  } catch {
    return undefined;
  }
}
