// This node's name in the store.
import { readFileSync } from 'node:fs';

/** The first line of a file, trimmed; "" when it cannot be read. */
export function firstLine(path: string): string {
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
