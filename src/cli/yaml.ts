// Writes plain values as YAML 1.2; whatever could be read as something else is quoted as JSON, which YAML contains.
import { jsonOf } from './json.ts';

export function yamlOf(value: unknown): string {
  return isBranch(value) ? lines(value).join('\n').concat('\n') : `${scalar(value)}\n`;
}

/** One item of a list on the top level. */
export function yamlItem(value: unknown): string {
  return `${lines([value]).join('\n')}\n`;
}

type Branch = readonly unknown[] | Readonly<Record<string, unknown>>;

function isBranch(value: unknown): value is Branch {
  return typeof value === 'object' && value !== null && Object.keys(value).length > 0;
}

function lines(value: Branch): string[] {
  if (Array.isArray(value)) {
    return value.flatMap(item => {
      if (!isBranch(item)) return [`- ${scalar(item)}`];
      const [first, ...rest] = lines(item);
      return [`- ${first}`, ...rest.map(line => `  ${line}`)];
    });
  }
  return Object.entries(value).flatMap(([key, item]) => {
    if (item === undefined) return [];
    if (!isBranch(item)) return [`${scalar(key)}: ${scalar(item)}`];
    const indent = Array.isArray(item) ? '' : '  ';
    return [`${scalar(key)}:`, ...lines(item).map(line => indent + line)];
  });
}

function scalar(value: unknown): string {
  if (typeof value === 'bigint') return String(value);
  if (typeof value !== 'string') return jsonOf(value);
  const isPlain =
    /^[A-Za-z/][\w./-]*( [\w./-]+)*$/.test(value) && !/^(true|false|null|yes|no|on|off|y|n)$/i.test(value);
  return isPlain ? value : jsonOf(value);
}
