// Where a daemon serves its pages, as a flag says it.

/** `host` absent means every address of the node. */
export interface ListenAddress {
  readonly host?: string;
  readonly port: number;
}

export const listenRule = 'must be HOST:PORT, :PORT for every address, or "off"';

/** Reads `HOST:PORT`, `[HOST]:PORT`, `:PORT` or `off`; undefined for anything else. */
export function parseListen(value: unknown): ListenAddress | 'off' | undefined {
  if (value === 'off') return value;
  const match = typeof value === 'string' ? /^(?:\[([^\]]+)\]|([^:]*)):(\d{1,5})$/.exec(value) : null;
  if (match === null || Number(match[3]) > 65_535) return undefined;
  const host = match[1] ?? match[2];
  return { port: Number(match[3]), ...(host && { host }) };
}
