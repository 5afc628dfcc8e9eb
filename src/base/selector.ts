// Label selectors as Kubernetes has them: read from a configuration, matched against labels, shown as kubectl writes them.
import type { Section } from './section.ts';

export const operators = ['In', 'NotIn', 'Exists', 'DoesNotExist'] as const;

/** One condition on one label. */
export interface Requirement {
  readonly key: string;
  readonly operator: (typeof operators)[number];
  /** At least one for In and NotIn, none for the others. */
  readonly values: readonly string[];
}

/** Every requirement must be met; without any, everything matches. */
export type Selector = readonly Requirement[];

export type Labels = Readonly<Record<string, string>>;

/** Reads `{matchLabels, matchExpressions}`, all of it optional. Notes every problem; what is wrong is left out. */
export function readSelector(section: Section): Selector {
  section.knowsOnly(['matchLabels', 'matchExpressions']);
  return Object.freeze([...readMatchLabels(section), ...readExpressions(section)]);
}

function readMatchLabels(selector: Section): Requirement[] {
  const labels = selector.section('matchLabels');
  return (labels?.keys() ?? []).flatMap(key => {
    if (asKey(key) === undefined) labels!.wrong(key, keyRule);
    const value = labels!.required(key, asValue, valueRule);
    return value === undefined ? [] : [{ key, operator: 'In' as const, values: [value] }];
  });
}

function readExpressions(selector: Section): Requirement[] {
  return selector.sectionList('matchExpressions').flatMap(expression => {
    expression.knowsOnly(['key', 'operator', 'values']);
    const key = expression.required('key', asKey, keyRule);
    const operator = expression.required('operator', asOperator, `must be one of ${operators.join(', ')}`);
    const written = expression.list('values');
    const values = written.filter(value => asValue(value) !== undefined) as string[];
    if (values.length < written.length) expression.wrong('values', `of each: ${valueRule}`);
    if (operator === undefined || key === undefined) return [];
    const takesValues = operator === 'In' || operator === 'NotIn';
    if (takesValues && written.length === 0) expression.wrong('values', `operator ${operator} needs at least one`);
    if (!takesValues && written.length > 0) expression.wrong('values', `operator ${operator} takes none`);
    return [{ key, operator, values }];
  });
}

const word = '[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?';
const valuePattern = new RegExp(`^(${word})?$`);
const keyPattern = new RegExp(`^((?<prefix>[^/]+)/)?${word}$`);
const prefixPattern = /^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$/;

const keyRule =
  'must be a label key: at most 63 letters, digits, "-", "_" and ".", behind an optional DNS name and "/"';
const valueRule = 'must be a label value: a string of at most 63 letters, digits, "-", "_" and "."';

function asKey(value: unknown): string | undefined {
  const match = typeof value === 'string' ? keyPattern.exec(value) : null;
  if (match === null) return undefined;
  const prefix = match.groups?.prefix;
  return prefix === undefined || (prefix.length <= 253 && prefixPattern.test(prefix)) ? match[0] : undefined;
}

function asValue(value: unknown): string | undefined {
  return typeof value === 'string' && valuePattern.test(value) ? value : undefined;
}

function asOperator(value: unknown): Requirement['operator'] | undefined {
  return operators.find(operator => operator === value);
}

/** Whether labels meet every requirement. */
export function matches(selector: Selector, labels: Labels): boolean {
  return unmet(selector, labels).length === 0;
}

/** The requirements that labels do not meet. */
export function unmet(selector: Selector, labels: Labels): Requirement[] {
  return selector.filter(requirement => !meets(requirement, labels));
}

/** A label that is absent is none of the values: NotIn is met, as in Kubernetes. */
function meets({ key, operator, values }: Requirement, labels: Labels): boolean {
  // A label may be named like something that every object inherits.
  const value = Object.hasOwn(labels, key) ? labels[key] : undefined;
  switch (operator) {
    case 'In':
      return value !== undefined && values.includes(value);
    case 'NotIn':
      return value === undefined || !values.includes(value);
    case 'Exists':
      return value !== undefined;
    case 'DoesNotExist':
      return value === undefined;
  }
}

/** As `kubectl get --selector` takes it: `app=db,tier in (a,b),!old`. */
export function describeSelector(selector: Selector): string {
  return selector.map(describeRequirement).join(',');
}

function describeRequirement({ key, operator, values }: Requirement): string {
  switch (operator) {
    case 'In':
      return values.length === 1 ? `${key}=${values[0]}` : `${key} in (${values.join(',')})`;
    case 'NotIn':
      return values.length === 1 ? `${key}!=${values[0]}` : `${key} notin (${values.join(',')})`;
    case 'Exists':
      return key;
    case 'DoesNotExist':
      return `!${key}`;
  }
}

/** Reads what describeSelector writes, and what else kubectl takes: `app==db`, `app!=db`, blanks. Undefined: it is none. */
export function parseSelector(text: string): Selector | undefined {
  // A comma inside of parentheses parts values.
  const parts = text.trim() === '' ? [] : text.split(/,(?![^(]*\))/);
  const requirements = parts.map(part => parseRequirement(part.trim()));
  return requirements.includes(undefined) ? undefined : Object.freeze(requirements as Requirement[]);
}

const requirementPattern =
  /^(?<absent>!)?\s*(?<key>[^\s!=,()]+)(?:\s*(?<sign>==?|!=)\s*(?<value>[^\s!=,()]*)|\s+(?<not>not)?in\s*\((?<list>[^()]*)\))?$/;

function parseRequirement(text: string): Requirement | undefined {
  const { absent, key, sign, value = '', not, list } = requirementPattern.exec(text)?.groups ?? {};
  const values = sign !== undefined ? [value] : (list?.split(',').map(one => one.trim()) ?? []);
  if (key === undefined || asKey(key) === undefined || values.some(one => asValue(one) === undefined)) return undefined;
  if (values.length === 0) return { key, operator: absent ? 'DoesNotExist' : 'Exists', values };
  if (absent) return undefined;
  return { key, operator: sign === '!=' || not ? 'NotIn' : 'In', values };
}
