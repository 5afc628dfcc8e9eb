// The pages that supervisors and Prometheus read: /healthz, /readyz, /metrics.
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { code, FailureError, messageOf } from '../base/errors.ts';
import type { ListenAddress } from '../base/listen.ts';
import type { Metrics } from '../base/metrics.ts';
import type { Part, PartState } from '../base/part.ts';

const mostConnections = 64;

export class Pages implements Part {
  readonly name = 'pages';
  readonly #address: ListenAddress;
  readonly #parts: () => readonly Part[];
  readonly #metrics: Metrics;
  readonly #server: Server;
  /** In the order in which they came. */
  readonly #connections = new Set<Socket>();

  constructor(address: ListenAddress, parts: () => readonly Part[], metrics: Metrics) {
    this.#address = address;
    this.#parts = parts;
    this.#metrics = metrics;
    // Anybody who reaches the port may ask: what a stranger can hold of us is small and short-lived.
    const times = {
      headersTimeout: 5000,
      requestTimeout: 5000,
      keepAliveTimeout: 5000,
      connectionsCheckingInterval: 1000,
    };
    const limits = { ...times, maxHeaderSize: 8192 };
    this.#server = createServer(limits, (request, response) => this.#answer(request, response));
    this.#server.on('connection', socket => this.#makeRoom(socket));
  }

  async start(): Promise<void> {
    const { host, port } = this.#address;
    try {
      await new Promise<void>((resolve, reject) => {
        this.#server.once('error', reject);
        this.#server.listen({ port, ...(host && { host }) }, resolve);
      });
    } catch (error) {
      throw new FailureError(
        code.io,
        `cannot listen on ${host ?? ''}:${port} (${messageOf(error)}): another address is given with --listen`,
      );
    }
    this.#server.on('error', () => {});
  }

  /** The port in use, which the system chose where 0 was asked for. */
  get port(): number {
    const address = this.#server.address();
    return typeof address === 'object' && address !== null ? address.port : 0;
  }

  state(): PartState {
    return { ready: true, detail: `port ${this.port}` };
  }

  async stop(): Promise<void> {
    const closed = new Promise<void>(resolve => this.#server.close(() => resolve()));
    this.#server.closeAllConnections();
    await closed;
  }

  /** Too many: the oldest goes, not the newest, which may be a supervisor's question whether we live. */
  #makeRoom(socket: Socket): void {
    this.#connections.add(socket);
    socket.on('close', () => this.#connections.delete(socket));
    if (this.#connections.size <= mostConnections) return;
    const [oldest] = this.#connections;
    oldest?.destroy();
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const isRead = request.method === 'GET' || request.method === 'HEAD';
    const { status, type, body } = isRead ? this.#page(request.url ?? '') : plain(405, 'only GET and HEAD\n');
    response.writeHead(status, { 'content-type': type, 'content-length': Buffer.byteLength(body) });
    response.end(request.method === 'HEAD' ? undefined : body);
  }

  #page(url: string): Page {
    switch (url.split('?', 1)[0]) {
      case '/healthz':
        // That this line runs is the whole answer: a slow store or API is no reason to be killed.
        return plain(200, 'ok\n');
      case '/readyz': {
        const states = this.#parts().map(part => [part.name, part.state()] as const);
        const ready = states.every(([, state]) => state.ready);
        const body = `${JSON.stringify({ ready, parts: Object.fromEntries(states) }, null, 2)}\n`;
        return { status: ready ? 200 : 503, type: 'application/json', body };
      }
      case '/metrics':
        return { status: 200, type: 'text/plain; version=0.0.4; charset=utf-8', body: this.#metrics.page() };
      default:
        return plain(404, 'there are /healthz, /readyz and /metrics\n');
    }
  }
}

interface Page {
  readonly status: number;
  readonly type: string;
  readonly body: string;
}

function plain(status: number, body: string): Page {
  return { status, type: 'text/plain; charset=utf-8', body };
}
