// gRPC connections to single endpoints, through etcd3: it brings the protocol, while retries, deadlines and tokens are ours.
import net from 'node:net';
import tls from 'node:tls';
import { Etcd3, type IOptions } from 'etcd3';
import type { Deadline } from '../../base/clock.ts';
import { connectionReason } from '../../base/dial.ts';
import { stampOf } from '../../base/stamp.ts';
import type { EtcdTarget } from '../target.ts';
import { type Failure, judge } from './failure.ts';
import { tlsFiles, unusableCertificates } from './tls-files.ts';
import type { Method, Reply, Transport } from './transport.ts';
import type { Message } from './wire.ts';

export type Service = 'KV' | 'Watch' | 'Lease' | 'Auth' | 'Maintenance';

const calls: Readonly<Record<Method, readonly [Service, string]>> = {
  txn: ['KV', 'txn'],
  leaseGrant: ['Lease', 'leaseGrant'],
  leaseRevoke: ['Lease', 'leaseRevoke'],
  leaseTimeToLive: ['Lease', 'leaseTimeToLive'],
  authenticate: ['Auth', 'authenticate'],
  status: ['Maintenance', 'status'],
};

/** States of a gRPC channel, by the numbers that every gRPC library gives them. */
const ready = 2;
const transientFailure = 3;

const channelOptions = {
  // Proxies of the environment are for other traffic.
  'grpc.enable_http_proxy': 0,
  'grpc.enable_channelz': 0,
  'grpc.service_config_disable_resolution': 1,
  // Even the "transparent" repetition is left to the rules of our own.
  'grpc.enable_retries': 0,
  // A member that stops answering is noticed within 7 s; etcd takes pings more often than every 5 s for an attack.
  'grpc.keepalive_time_ms': 5500,
  'grpc.keepalive_timeout_ms': 1500,
  'grpc.keepalive_permit_without_calls': 0,
  // The defaults let a member that is back wait for up to two minutes.
  'grpc.initial_reconnect_backoff_ms': 100,
  'grpc.max_reconnect_backoff_ms': 500,
  // An answer is bounded by our own pages and batches; a watch that catches up may be sent more than 4 MiB at once.
  'grpc.max_receive_message_length': -1,
  'grpc.max_send_message_length': -1,
};

/** How often the files of certificates are looked at, in milliseconds: rotated ones then serve all new connections. */
const certificateCheck = 5000;

/** etcd3's own handling of faults repeats writes and locks itself out for 5 s: it is replaced by nothing at all. */
const plainPolicy = { execute: (call: (context: { signal: AbortSignal }) => unknown) => call({ signal: never }) };
const never = new AbortController().signal;

type Connection = Parameters<Parameters<Etcd3['pool']['withConnection']>[1]>[0];
type GrpcClient = Connection['client'];
type Metadata = Connection['metadata'];

/** etcd3 for one endpoint, with the raw gRPC clients within reach. */
class Endpoint extends Etcd3 {
  connection(service: Service): Promise<Connection> {
    return this.pool.withConnection(service, connection => connection);
  }
}

export interface Stream extends AsyncIterable<unknown> {
  write(request: Message): void;
  cancel(): void;
}

export type OpenedStream = { readonly stream: Stream; readonly failure?: never } | { readonly failure: Failure };

export class GrpcTransport implements Transport {
  readonly name = 'grpc';
  readonly #target: EtcdTarget;
  #endpoints = new Map<string, Endpoint>();
  #certificates = '';
  #checked = -certificateCheck;

  constructor(target: EtcdTarget) {
    this.#target = target;
    acceptAddressesAsTlsNames();
  }

  async send(
    endpoint: string,
    method: Method,
    body: Message,
    token: string | undefined,
    deadline: Deadline,
  ): Promise<Reply> {
    const [service, name] = calls[method];
    return this.request(endpoint, service, name, body, token, deadline);
  }

  async request(
    endpoint: string,
    service: Service,
    method: string,
    body: Message,
    token: string | undefined,
    deadline: Deadline,
  ): Promise<Reply> {
    const connected = await this.#connect(endpoint, service, token, deadline);
    if (connected.failure !== undefined) return connected;
    const { client, metadata } = connected;
    const call = (client as unknown as Record<string, UnaryCall>)[method]!;
    return new Promise(resolve => {
      const done = (error: ServiceError | null, answer?: Message) =>
        resolve(error === null ? { answer: answer ?? {} } : { failure: fault(error) });
      call.call(client, body, metadata, { deadline: Date.now() + deadline.left() }, done);
    });
  }

  /** A stream in both directions; it ends with its `cancel`, with the connection, or when etcd loses its leader. */
  async stream(
    endpoint: string,
    service: Service,
    method: string,
    token: string | undefined,
    deadline: Deadline,
  ): Promise<OpenedStream> {
    const connected = await this.#connect(endpoint, service, token, deadline);
    if (connected.failure !== undefined) return connected;
    const { client, metadata } = connected;
    const open = (client as unknown as Record<string, StreamCall>)[method]!;
    const stream = open.call(client, metadata, {});
    // The reader sees the error in its loop; between two reads an 'error' event without listener would end the process.
    stream.on('error', () => {});
    return { stream };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const endpoint of this.#endpoints.values()) endpoint.close();
    this.#endpoints.clear();
  }

  /** Waits until the connection stands, so that what fails before that is known never to have been sent. */
  async #connect(endpoint: string, service: Service, token: string | undefined, deadline: Deadline) {
    const { client, metadata } = await this.#endpoint(endpoint).connection(service);
    metadata.set('hasleader', 'true');
    if (token !== undefined) metadata.set('token', token);
    const limit = deadline.within(this.#target.dialTimeout);
    const channel = client.getChannel();
    for (let state = channel.getConnectivityState(true); state !== ready; ) {
      if (state === transientFailure) return { failure: await lastConnectionError(client, metadata) };
      const at = Date.now() + limit.left();
      const before = state;
      const late = await new Promise<Error | undefined>(done => channel.watchConnectivityState(before, at, done));
      if (late !== undefined) return { failure: { kind: 'unsent', reason: 'no connection in time' } satisfies Failure };
      state = channel.getConnectivityState(true);
    }
    return { client, metadata };
  }

  #endpoint(origin: string): Endpoint {
    this.#renewCertificates();
    let endpoint = this.#endpoints.get(origin);
    if (endpoint === undefined) {
      endpoint = new Endpoint(this.#options(origin));
      this.#endpoints.set(origin, endpoint);
    }
    return endpoint;
  }

  #options(origin: string): IOptions {
    const policy = plainPolicy as unknown as NonNullable<NonNullable<IOptions['faultHandling']>['global']>;
    const faultHandling = { global: policy, host: () => policy };
    const common = { hosts: [origin], grpcOptions: channelOptions, faultHandling };
    if (!origin.startsWith('https:')) return common;
    const { ca, cert, key } = tlsFiles(this.#target);
    try {
      // gRPC does the same, but its error would look like a bug of ours.
      tls.createSecureContext({ ca, cert, key });
    } catch (error) {
      throw unusableCertificates(this.#target, error);
    }
    const credentials = { rootCertificate: ca, certChain: cert, privateKey: key };
    return { ...common, credentials: credentials as NonNullable<IOptions['credentials']> };
  }

  /** gRPC never reads a certificate again: connections made from older files are closed once their calls have ended. */
  #renewCertificates(): void {
    const now = performance.now();
    if (now - this.#checked < certificateCheck) return;
    this.#checked = now;
    const { caFile, certFile, keyFile } = this.#target;
    const found = [caFile, certFile, keyFile].map(file => (file === undefined ? '' : stampOf(file))).join(' ');
    // A file that is just being replaced: what stands goes on until the new one is there.
    if (found.includes('absent') || found === this.#certificates) return;
    if (this.#certificates !== '') {
      for (const endpoint of this.#endpoints.values()) endpoint.close();
      this.#endpoints = new Map();
    }
    this.#certificates = found;
  }
}

interface ServiceError {
  readonly code: number;
  readonly details: string;
}

type Done = (error: ServiceError | null, answer?: Message) => void;
type UnaryCall = (body: Message, metadata: Metadata, options: { deadline: number }, done: Done) => void;
type StreamCall = (metadata: Metadata, options: object) => Stream & { on(event: 'error', listener: () => void): void };

/** What an error of gRPC means; its own words are kept only where they are etcd's. */
export function fault(error: unknown): Failure {
  const { code, details } = error as Partial<ServiceError>;
  if (typeof code !== 'number' || typeof details !== 'string') return { kind: 'unclear', reason: 'connection failed' };
  if (code === 4 && !details.startsWith('etcdserver: ')) {
    return { kind: 'unclear', reason: 'connected, but no answer in time' };
  }
  const connectionEnded = (code === 14 || code === 13 || code === 1) && !details.startsWith('etcdserver: ');
  return connectionEnded ? { kind: 'unclear', reason: 'connection closed' } : judge(code, details);
}

/** Why there is no connection: gRPC tells only a call, so one is made that is harmless should it pass after all. */
function lastConnectionError(client: GrpcClient, metadata: Metadata): Promise<Failure> {
  const path = '/etcdserverpb.Maintenance/Status';
  const empty = () => Buffer.alloc(0);
  return new Promise(resolve => {
    client.makeUnaryRequest(
      path,
      empty,
      () => undefined,
      {},
      metadata,
      { deadline: Date.now() + 200 },
      error => {
        const found = error?.details.match(/Last error: (?:Error: )?(.{1,200}?)\.? ?Resolution note/s)?.[1] ?? '';
        // What grpc-js prints for a connection that another service's client had tried.
        const text = found === 'null' ? '' : found;
        const cause = text.match(/\b(E[A-Z]{4,}|ERR_[A-Z0-9_]+)\b/)?.[1];
        const words = text
          .replace(/\s+/g, ' ')
          .replace(/ \(\d{4}-[^)]*\)$/, '')
          .slice(0, 120);
        resolve({ kind: 'unsent', reason: cause !== undefined || words === '' ? connectionReason(cause) : words });
      },
    );
  });
}

let mended = false;

/**
 * grpc-js puts an IP address into the TLS server name, where Node 26 refuses it. Without the name, Node checks the
 * certificate against `host`, the same address. Nothing else is touched: every such call would have failed.
 */
function acceptAddressesAsTlsNames(): void {
  if (mended) return;
  mended = true;
  const connect = tls.connect;
  tls.connect = ((...args: Parameters<typeof tls.connect>) => {
    const [options, ...rest] = args as unknown as [tls.ConnectionOptions | undefined, ...unknown[]];
    const named = typeof options === 'object' && typeof options.servername === 'string' && net.isIP(options.servername);
    const mendedOptions = named ? { ...options, host: options.host ?? options.servername, servername: '' } : options;
    return (connect as (...all: unknown[]) => tls.TLSSocket)(mendedOptions, ...rest);
  }) as typeof tls.connect;
}
