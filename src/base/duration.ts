// Durations as configurations write them: numbers are seconds, strings are Go durations.

const unitMs: Readonly<Record<string, number>> = {
  ns: 1e-6,
  us: 1e-3,
  '\u00b5s': 1e-3,
  '\u03bcs': 1e-3,
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
};

/** Milliseconds of `5`, `"5"` (seconds), `"1m30s"` or `"1.5h"`; undefined for anything else and for negative ones. */
export function parseDuration(value: unknown): number | undefined {
  if (typeof value === 'number') return Number.isFinite(value) && value >= 0 ? value * 1000 : undefined;
  if (typeof value !== 'string') return undefined;
  if (/^\d+(\.\d+)?$/.test(value)) return Number(value) * 1000;
  if (!/^((\d+(\.\d*)?|\.\d+)(ns|us|\u00b5s|\u03bcs|ms|s|m|h))+$/.test(value)) return undefined;
  let sum = 0;
  for (const [, amount, unit] of value.matchAll(/([\d.]+)(ns|us|\u00b5s|\u03bcs|ms|s|m|h)/g)) {
    sum += Number(amount) * unitMs[unit!]!;
  }
  return sum;
}

/** As parseDuration, but 0 is refused too. */
export function parsePositiveDuration(value: unknown): number | undefined {
  return parseDuration(value) || undefined;
}

/** As parsePositiveDuration, at most an hour: beyond 24 days a timer of Node's ends at once. */
export function parseDeadline(value: unknown): number | undefined {
  const ms = parsePositiveDuration(value);
  return ms !== undefined && ms <= 3_600_000 ? ms : undefined;
}

export const durationRule = 'must be a number of seconds or a duration like "1m30s"';
export const deadlineRule = `${durationRule}, above 0, at most "1h"`;
