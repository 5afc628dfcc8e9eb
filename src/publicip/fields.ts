// Reads Kubernetes objects that may be anything: what is not as it should be counts as absent.
import { isObject } from '../base/section.ts';

export type ObjectFields = Readonly<Record<string, unknown>>;

const none: ObjectFields = Object.freeze({});

export function fieldsOf(value: unknown): ObjectFields {
  return isObject(value) ? value : none;
}

export function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}
