// What an attempt at one etcd endpoint came to when it brought no answer, judged by etcd's own codes and fixed texts.

/**
 * - unsent: the request never reached the endpoint (refused, timed out, TLS).
 * - unclear: it was sent, or may have been, and whether it was applied is not known.
 * - gatewayOff: the endpoint does not serve this client over its JSON gateway.
 * - broken: etcd says that its data cannot be trusted.
 *
 * The others are etcd's clear refusals, each of which proves that nothing was applied:
 * - busy: another endpoint, or the same a little later, may do it.
 * - token: the token has expired or belongs to an older state of etcd's user database.
 * - login: no user, or name and password do not fit.  noLogin: etcd runs without authentication.
 * - leaseGone: the lease of a put ran out before the put.
 */
export type FailureKind =
  | 'unsent'
  | 'unclear'
  | 'gatewayOff'
  | 'broken'
  | 'busy'
  | 'space'
  | 'permission'
  | 'token'
  | 'login'
  | 'noLogin'
  | 'compacted'
  | 'leaseGone'
  | 'refused';

export interface Failure {
  readonly kind: FailureKind;
  /** For people; holds no secret. */
  readonly reason: string;
  /** It is worth asking the same endpoint again, for a read. */
  readonly passing?: boolean;
}

/** Status codes of gRPC, which etcd's gateway repeats in the body of an error. */
const grpc = {
  cancelled: 1,
  unknown: 2,
  invalidArgument: 3,
  deadlineExceeded: 4,
  notFound: 5,
  alreadyExists: 6,
  permissionDenied: 7,
  resourceExhausted: 8,
  failedPrecondition: 9,
  outOfRange: 11,
  unimplemented: 12,
  unavailable: 14,
  dataLoss: 15,
  unauthenticated: 16,
} as const;

/**
 * etcd gives several meanings one code; these texts (api/v3rpc/rpctypes/error.go, the same from 3.4 to 3.6) tell them apart.
 * What is not listed goes by its code.
 */
const texts: ReadonlyMap<string, FailureKind> = new Map<string, FailureKind>([
  ['etcdserver: mvcc: database space exceeded', 'space'],
  ['etcdserver: too many requests', 'busy'],
  ['etcdserver: no leader', 'busy'],
  ['etcdserver: not leader', 'busy'],
  ['etcdserver: not capable', 'busy'],
  ['etcdserver: unhealthy cluster', 'busy'],
  ['etcdserver: rpc not supported for learner', 'busy'],
  // Raft's own word when a member without leader is asked to propose: it was dropped there and then.
  ['raft proposal dropped', 'busy'],
  ['etcdserver: invalid auth token', 'token'],
  ['etcdserver: revision of auth store is old', 'token'],
  ['etcdserver: permission denied', 'permission'],
  ['etcdserver: authentication failed, invalid user ID or password', 'login'],
  ['etcdserver: user name is empty', 'login'],
  ['etcdserver: user name not found', 'login'],
  ['etcdserver: authentication is not enabled', 'noLogin'],
  ['etcdserver: mvcc: required revision has been compacted', 'compacted'],
  ['etcdserver: mvcc: required revision is a future revision', 'compacted'],
  ['etcdserver: requested lease not found', 'leaseGone'],
  ['etcdserver: corrupt cluster', 'broken'],
]);

/** Codes that etcd gives only to what it refused before applying anything. */
const clear: ReadonlySet<number> = new Set([
  grpc.invalidArgument,
  grpc.notFound,
  grpc.alreadyExists,
  grpc.resourceExhausted,
  grpc.failedPrecondition,
  grpc.outOfRange,
  grpc.unimplemented,
]);

/** Judges an error that etcd itself answered, by its gRPC status code and message. */
export function judge(code: number, message: string): Failure {
  const reason = shown(code, message);
  const known = texts.get(message);
  if (known !== undefined) return { kind: known, reason, passing: known === 'busy' };
  if (code === grpc.permissionDenied) return { kind: 'permission', reason };
  if (code === grpc.unauthenticated) return { kind: 'token', reason };
  if (code === grpc.dataLoss) return { kind: 'broken', reason };
  if (clear.has(code)) return { kind: 'refused', reason };
  return { kind: 'unclear', reason, passing: code === grpc.unavailable && message.startsWith('etcdserver: ') };
}

/** Only etcd's own texts are shown: anything else on that port could echo what was sent, password and token included. */
function shown(code: number, message: string): string {
  if (texts.has(message) || /^etcdserver: [\w ,:;.()'"/-]{1,160}$/.test(message)) return message;
  return `error ${code}`;
}
