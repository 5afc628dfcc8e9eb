// The endpoints of an etcd cluster in the order to try them, and the hint that carries this order from one process to the next.
import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { code, FailureError } from '../../base/errors.ts';
import { makeFolder } from '../../base/folder.ts';
import type { EtcdTarget } from '../target.ts';

export type TransportName = 'gateway' | 'grpc';

/** The gateway may have been switched on meanwhile. */
const grpcHintFor = 3_600_000;

interface Hint {
  readonly endpoints: readonly string[];
  readonly endpoint: string;
  readonly transport: TransportName;
  /** When the transport was found out, in milliseconds since 1970. */
  readonly since: number;
}

/** Scheme, host and port: user names and passwords that someone wrote into a URL go no further than this. */
export function origins(target: EtcdTarget): readonly string[] {
  return target.endpoints.map(endpoint => {
    const url = URL.parse(endpoint.includes('://') ? endpoint : `http://${endpoint}`);
    if (url === null || url.hostname === '' || !['http:', 'https:'].includes(url.protocol)) {
      const name = endpoint.replace(/\/\/.*@/, '//');
      throw new FailureError(
        code.config,
        `etcdURL: ${JSON.stringify(name)} is not http://HOST:PORT or https://HOST:PORT`,
      );
    }
    return `${url.protocol}//${url.hostname}:${url.port === '' ? defaultPort(url.protocol) : url.port}`;
  });
}

function defaultPort(protocol: string): number {
  return protocol === 'https:' ? 443 : 80;
}

/** The transport that worked last for this target from this node: gRPC only while that is fresh. */
export function hintedTransport(target: EtcdTarget): TransportName {
  const hint = readHint(target.dataDir, origins(target));
  return hint === undefined ? 'gateway' : freshTransport(hint);
}

function freshTransport(hint: Hint): TransportName {
  const age = Date.now() - hint.since;
  return hint.transport === 'grpc' && age >= 0 && age < grpcHintFor ? 'grpc' : 'gateway';
}

function hintFile(dataDir: string): string {
  return join(dataDir, 'endpoint.json');
}

function readHint(dataDir: string, endpoints: readonly string[]): Hint | undefined {
  let found: Partial<Hint> | null;
  try {
    found = JSON.parse(readFileSync(hintFile(dataDir), 'utf8')) as Partial<Hint> | null;
  } catch {
    // Absent, unreadable or half a file: a hint is never worth an error.
    return undefined;
  }
  if (typeof found !== 'object' || found === null || JSON.stringify(found.endpoints) !== JSON.stringify(endpoints)) {
    return undefined;
  }
  if (typeof found.endpoint !== 'string' || !endpoints.includes(found.endpoint)) return undefined;
  const transport = found.transport === 'grpc' ? 'grpc' : 'gateway';
  return { endpoints, endpoint: found.endpoint, transport, since: typeof found.since === 'number' ? found.since : 0 };
}

function writeHint(dataDir: string, hint: Hint): void {
  const file = hintFile(dataDir);
  const fresh = `${file}.${process.pid}.${performance.now().toString(36)}`;
  try {
    makeFolder(dataDir, 0o700);
    writeFileSync(fresh, `${JSON.stringify(hint)}\n`, { mode: 0o600, flag: 'wx' });
    renameSync(fresh, file);
  } catch {
    try {
      rmSync(fresh, { force: true });
    } catch {
      // A read-only or full disk costs the hint, nothing else.
    }
  }
}

/** The order in which endpoints are tried: the one that answered last first, those that failed last at the end. */
export class Endpoints {
  readonly all: readonly string[];
  readonly #dataDir: string;
  readonly #failed = new Set<string>();
  #hint: Hint;

  constructor(target: EtcdTarget) {
    this.all = origins(target);
    this.#dataDir = target.dataDir;
    this.#hint = readHint(target.dataDir, this.all) ?? {
      endpoints: this.all,
      endpoint: this.all[0]!,
      transport: 'gateway',
      since: 0,
    };
  }

  order(): readonly string[] {
    const rank = (endpoint: string) => (this.#failed.has(endpoint) ? 2 : endpoint === this.#hint.endpoint ? 0 : 1);
    return [...new Set(this.all)].sort((a, b) => rank(a) - rank(b));
  }

  /** @param transport what is proven by this answer; gRPC answers also where the gateway would, so it proves nothing. */
  answered(endpoint: string, transport: TransportName): void {
    this.#failed.delete(endpoint);
    const unchanged = endpoint === this.#hint.endpoint && (transport === 'grpc' || this.#hint.transport === 'gateway');
    if (unchanged) return;
    const keep = transport === 'grpc' ? this.#hint : { transport, since: Date.now() };
    this.#remember({ endpoints: this.all, endpoint, transport: keep.transport, since: keep.since });
  }

  failed(endpoint: string): void {
    this.#failed.add(endpoint);
  }

  gatewayOff(endpoint: string): void {
    this.#remember({ endpoints: this.all, endpoint, transport: 'grpc', since: Date.now() });
  }

  #remember(hint: Hint): void {
    this.#hint = hint;
    writeHint(this.#dataDir, hint);
  }
}
