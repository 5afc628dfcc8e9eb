// The `dns` part of a result, read from the resolv.conf that the configuration names.
import { readFileSync } from 'node:fs';
import { code, FailureError, messageOf } from '../base/errors.ts';

export interface Dns {
  readonly nameservers?: readonly string[];
  readonly domain?: string;
  readonly search?: readonly string[];
  readonly options?: readonly string[];
}

/** Reads the file; code 5 when it cannot be read. */
export function readDns(path: string): Dns {
  try {
    return parseResolvConf(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new FailureError(code.io, `ipam.resolvConf ${JSON.stringify(path)} cannot be read: ${messageOf(error)}`);
  }
}

/** As host-local reads it: the last domain wins, the rest adds up; lines with less than two words do not count. */
export function parseResolvConf(text: string): Dns {
  const nameservers: string[] = [];
  const search: string[] = [];
  const options: string[] = [];
  let domain: string | undefined;
  for (const line of text.split('\n')) {
    const [key, ...words] = line.trim().split(/\s+/);
    if (key === undefined || /^[#;]/.test(key) || words.length === 0) continue;
    if (key === 'nameserver') nameservers.push(words[0]!);
    if (key === 'domain') domain = words[0]!;
    if (key === 'search') search.push(...words);
    if (key === 'options') options.push(...words);
  }
  return {
    ...(nameservers.length > 0 && { nameservers }),
    ...(domain !== undefined && { domain }),
    ...(search.length > 0 && { search }),
    ...(options.length > 0 && { options }),
  };
}
