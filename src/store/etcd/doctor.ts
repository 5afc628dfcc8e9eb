// What can be known of an etcd cluster's health, endpoint by endpoint, for the command that looks for trouble.
import type { Deadline } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import { formatKey } from '../keys.ts';
import { afterPrefix } from '../kv.ts';
import type { EtcdTarget } from '../target.ts';
import { GrpcTransport } from './channel.ts';
import { origins } from './endpoints.ts';
import { HttpTransport } from './http.ts';
import { Login } from './login.ts';
import type { Transport } from './transport.ts';
import { encode, headerRevision, integer, list, type Message, message, rangeRequest } from './wire.ts';

/** What etcd does not tell this user is undefined: from 3.6 on, its status is for the user root only. */
export interface EndpointHealth {
  readonly version: string | undefined;
  /** Milliseconds of one request on a connection that stands. */
  readonly latency: number;
  /** Bytes of the database file, and of what is in use in it (a defragmentation frees the difference). */
  readonly dbSize: number | undefined;
  readonly dbSizeInUse: number | undefined;
  /** Bytes at which etcd raises NOSPACE; undefined where neither the gateway (3.6) nor the metrics page tells it. */
  readonly quota: number | undefined;
  /** Raised alarms and other trouble in etcd's words, such as "memberID:10501334649042878790 alarm:NOSPACE". */
  readonly alarms: readonly string[] | undefined;
  readonly memberId: string;
  /** Member ID of the leader; "0" when there is none. */
  readonly leader: string | undefined;
  readonly raftTerm: number;
  readonly revision: number;
  /** Whether the JSON gateway serves this client: "off" costs each ADD without agent the start of gRPC. */
  readonly gateway: 'on' | 'off' | 'unknown';
}

export type EndpointStatus = { readonly endpoint: string } & (
  | { readonly reachable: true; readonly health: EndpointHealth }
  | { readonly reachable: false; readonly reason: string }
);

/** Asks every endpoint, all at the same time. Never throws for what one of them does. */
export async function endpointStatus(target: EtcdTarget, deadline: Deadline): Promise<readonly EndpointStatus[]> {
  await using grpc = new GrpcTransport(target);
  await using http = new HttpTransport(target);
  const login = new Login(target, grpc);
  return await Promise.all(
    origins(target).map(async endpoint => {
      try {
        return await ask(endpoint, { grpc, http, login }, deadline);
      } catch (error) {
        return { endpoint, reachable: false as const, reason: messageOf(error) };
      }
    }),
  );
}

interface Ways {
  readonly grpc: GrpcTransport;
  readonly http: HttpTransport;
  readonly login: Login;
}

async function ask(endpoint: string, ways: Ways, deadline: Deadline): Promise<EndpointStatus> {
  const { token, failure } = await loginToken(endpoint, ways.login, deadline);
  if (failure !== undefined) return { endpoint, reachable: false, reason: failure };
  const forRoot = await ways.grpc.send(endpoint, 'status', {}, token, deadline);
  const start = performance.now();
  const read = await ways.grpc.request(endpoint, 'KV', 'range', rangeRequest({ key: formatKey }), token, deadline);
  const latency = performance.now() - start;
  if (read.failure !== undefined) return { endpoint, reachable: false, reason: read.failure.reason };
  const gateway = await gatewayState(ways.http, endpoint, token, deadline);
  const known = forRoot.failure === undefined ? status(forRoot.answer) : unknown;
  const figures = await metrics(ways.http, endpoint, deadline);
  return {
    endpoint,
    reachable: true,
    health: {
      version: known.version ?? (await publicVersion(ways.http, endpoint, deadline)),
      latency,
      dbSize: known.dbSize ?? figures('etcd_mvcc_db_total_size_in_bytes'),
      dbSizeInUse: known.dbSizeInUse ?? figures('etcd_mvcc_db_total_size_in_use_in_bytes'),
      quota: gateway.quota ?? figures('etcd_server_quota_backend_bytes'),
      alarms: known.alarms,
      leader: known.leader,
      ...standing(read.answer),
      gateway: gateway.state,
    },
  };
}

async function loginToken(endpoint: string, login: Login, deadline: Deadline) {
  const { token, failure } = (await login.token(endpoint, deadline)) as {
    token?: string;
    failure?: { reason: string };
  };
  return { token, failure: failure?.reason };
}

type ForRoot = Pick<EndpointHealth, 'version' | 'dbSize' | 'dbSizeInUse' | 'alarms' | 'leader'>;

const unknown: ForRoot = {
  version: undefined,
  dbSize: undefined,
  dbSizeInUse: undefined,
  alarms: undefined,
  leader: undefined,
};

function status(answer: Message): ForRoot {
  return {
    version: String(answer.version),
    dbSize: integer(answer.dbSize),
    dbSizeInUse: integer(answer.dbSizeInUse),
    alarms: list(answer.errors).map(String),
    leader: String(answer.leader),
  };
}

function standing(answer: Message): Pick<EndpointHealth, 'memberId' | 'raftTerm' | 'revision'> {
  const header = message(answer.header);
  return { memberId: String(header.member_id), raftTerm: integer(header.raft_term), revision: headerRevision(answer) };
}

async function gatewayState(http: Transport, endpoint: string, token: string | undefined, deadline: Deadline) {
  const reply = await http.send(endpoint, 'status', {}, token, deadline);
  if (reply.failure !== undefined) {
    return { state: reply.failure.kind === 'gatewayOff' ? ('off' as const) : ('unknown' as const), quota: undefined };
  }
  const quota = integer(reply.answer.dbSizeQuota);
  return { state: 'on' as const, quota: quota > 0 ? quota : undefined };
}

/** The metrics page is for everyone, in every version, unless it is served on a port of its own. */
async function metrics(
  http: HttpTransport,
  endpoint: string,
  deadline: Deadline,
): Promise<(name: string) => number | undefined> {
  const page = await http.page(endpoint, '/metrics', deadline);
  return name => {
    const figure = page?.match(new RegExp(`^${name} (\\S+)$`, 'm'))?.[1];
    return figure === undefined || !Number.isSafeInteger(Number(figure)) ? undefined : Number(figure);
  };
}

async function publicVersion(http: HttpTransport, endpoint: string, deadline: Deadline): Promise<string | undefined> {
  return (await http.page(endpoint, '/version', deadline))?.match(/"etcdserver":"([\w.+-]{1,40})"/)?.[1];
}

export interface History {
  /** The newest revision. */
  readonly revision: number;
  /**
   * The oldest revision that can be read: 1 when nothing was ever compacted, else that of the last compaction.
   * etcd keeps no time with a revision; but whoever finds a record written at this revision or later, whose own time
   * lies an hour back, knows that no compaction ran for an hour: auto-compaction is off.
   */
  readonly oldest: number;
}

/** How much of the past etcd still holds; undefined where no endpoint tells (no permission, no answer). */
export async function readableHistory(target: EtcdTarget, deadline: Deadline): Promise<History | undefined> {
  await using grpc = new GrpcTransport(target);
  const login = new Login(target, grpc);
  for (const endpoint of origins(target)) {
    const { token, failure } = await loginToken(endpoint, login, deadline);
    if (failure !== undefined) continue;
    const first = rangeRequest({ key: formatKey }, { revision: 1 });
    const reply = await grpc.request(endpoint, 'KV', 'range', first, token, deadline);
    if (reply.failure === undefined) return { revision: headerRevision(reply.answer), oldest: 1 };
    if (reply.failure.kind !== 'compacted') continue;
    const history = await compaction(grpc, endpoint, token, deadline);
    if (history !== undefined) return history;
  }
  return undefined;
}

/** A range read only says "compacted"; a watch from the same revision is told from where on it could start. */
async function compaction(
  grpc: GrpcTransport,
  endpoint: string,
  token: string | undefined,
  deadline: Deadline,
): Promise<History | undefined> {
  const opened = await grpc.stream(endpoint, 'Watch', 'watch', token, deadline);
  if (opened.failure !== undefined) return undefined;
  const { stream } = opened;
  const timer = setTimeout(() => stream.cancel(), deadline.left());
  let revision = 0;
  try {
    stream.write({
      create_request: { key: encode(formatKey), range_end: encode(afterPrefix(`${formatKey}/`)), start_revision: '1' },
    });
    for await (const raw of stream) {
      const answer = message(raw);
      // The answer that names the compaction leaves out the store's revision; the one before it has it.
      if (answer.created === true) revision = headerRevision(answer);
      const oldest = integer(answer.compact_revision);
      if (oldest > 0) return { revision: Math.max(revision, oldest), oldest };
      if (answer.canceled === true) return undefined;
    }
  } catch {
    // The deadline or the connection ended it: then it is not known.
  } finally {
    clearTimeout(timer);
    stream.cancel();
  }
  return undefined;
}
