// This node's name in the store.
import { existsSync, readFileSync } from 'node:fs';

/** The first line of a file, trimmed; "" when it cannot be read. */
export function firstLine(path: string): string {
  // Most machines lack one of these files, and an error that is thrown costs more than a look.
  if (!existsSync(path)) return '';
  try {
    return readFileSync(path, 'utf8').split('\n', 1)[0]!.trim();
  } catch {
    return '';
  }
}

/** As configured, else /etc/kube-ipam/node, else the host name in lower case. */
export function nodeNameOf(configured: string | undefined): string {
  return configured ?? (firstLine('/etc/kube-ipam/node') || firstLine('/proc/sys/kernel/hostname').toLowerCase());
}
