// The port between the fail-over rules, which both ways to etcd share, and the way itself: the JSON gateway or gRPC.
import type { Deadline } from '../../base/clock.ts';
import type { TransportName } from './endpoints.ts';
import type { Failure } from './failure.ts';
import type { Message } from './wire.ts';

export type Method = 'txn' | 'leaseGrant' | 'leaseRevoke' | 'leaseTimeToLive' | 'authenticate' | 'status';

export type Reply = { readonly answer: Message; readonly failure?: never } | { readonly failure: Failure };

export interface Transport extends AsyncDisposable {
  readonly name: TransportName;
  /** One request to one endpoint, once. Ends by the deadline, and never throws for what the network or etcd does. */
  send(endpoint: string, method: Method, body: Message, token: string | undefined, deadline: Deadline): Promise<Reply>;
}
