// What the doctor says of one thing that it looked at.

export const levels = ['fine', 'advice', 'warning', 'wrong', 'unreachable'] as const;
export type Level = (typeof levels)[number];

export interface Diagnosis {
  /** Part of the installation: executable, configuration, store, ... */
  readonly area: string;
  /** The file, endpoint or network that it is about. */
  readonly subject: string;
  readonly level: Level;
  readonly text: string;
  /** What to do about it. */
  readonly advice?: string;
  /** Figures, for programs. */
  readonly figures?: Readonly<Record<string, string | number | boolean | readonly string[]>>;
}

export function diagnosis(
  area: string,
  subject: string,
  level: Level,
  text: string,
  more: { advice?: string; figures?: NonNullable<Diagnosis['figures']> } = {},
): Diagnosis {
  return { area, subject, level, text, ...more };
}
