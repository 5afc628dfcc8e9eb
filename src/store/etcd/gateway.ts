// The store over etcd's HTTP/JSON gateway: the plugin's own path, where each millisecond of a process's start counts.
import type { Kv } from '../kv.ts';
import type { EtcdTarget } from '../target.ts';
import { Calls } from './calls.ts';
import { EtcdKv } from './etcd-kv.ts';
import { HttpTransport } from './http.ts';

export { hintedTransport } from './endpoints.ts';
export { GatewayOffError } from './errors.ts';

/**
 * Opens etcd's gateway; nothing is sent before the first call. Beside the errors of the port, every call may throw
 * GatewayOffError (nothing was done: open the same target with `openGrpc` and repeat) and, from `scan`, RelistError.
 */
export function openGateway(target: EtcdTarget): Kv {
  return new EtcdKv(new Calls(target, new HttpTransport(target)));
}
