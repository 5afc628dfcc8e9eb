// A TLS proxy before a real API server that spoils true answers on demand: what a healthy server never does to a client.
import { readFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import https from 'node:https';
import type { AddressInfo } from 'node:net';
import { leaf } from '../certificates.ts';
import type { ControlPlane } from './control-plane.ts';

export type Damage =
  /** This in place of the server's answer. */
  | { readonly answer: { readonly status: number; readonly headers?: Record<string, string>; readonly body: string } }
  /** Not HTTP at all. */
  | { readonly raw: string }
  /** The request arrives, and nothing comes back. */
  | { readonly silent: true }
  /** The request is passed on when this resolves. */
  | { readonly after: Promise<unknown> }
  /** The connection is closed once the request has come. */
  | { readonly hangUp: true }
  /** Each piece of the server's answer may be changed; undefined closes the connection in the middle. */
  | { readonly alter: (piece: Buffer) => Buffer | undefined };

export interface Seen {
  readonly method: string;
  /** With query. */
  readonly path: string;
}

export class DamagingProxy implements AsyncDisposable {
  readonly #server: https.Server;
  readonly #upstream: https.Agent;
  readonly #controlPlane: ControlPlane;
  /** Every request that came, the oldest first. */
  readonly seen: Seen[] = [];
  /** Which requests are damaged; undefined: this one is not. */
  damage: (request: Seen) => Damage | undefined = () => undefined;
  /** Connections that were ever made. */
  connections = 0;

  private constructor(controlPlane: ControlPlane, certificate: { readonly cert: Buffer; readonly key: Buffer }) {
    this.#controlPlane = controlPlane;
    this.#upstream = new https.Agent({ ca: readFileSync(controlPlane.caFile), keepAlive: true });
    this.#server = https.createServer(certificate, (request, response) => this.#pass(request, response));
    this.#server.on('connection', () => this.connections++);
  }

  static async start(controlPlane: ControlPlane): Promise<DamagingProxy> {
    const names = ['subjectAltName=IP:127.0.0.1', 'extendedKeyUsage=serverAuth'];
    const { cert, key } = await leaf(controlPlane.folder, 'damaging-proxy', '/CN=damaging-proxy', names);
    const proxy = new DamagingProxy(controlPlane, { cert: readFileSync(cert), key: readFileSync(key) });
    await new Promise<void>((resolve, reject) => proxy.#server.once('error', reject).listen(0, '127.0.0.1', resolve));
    return proxy;
  }

  get url(): string {
    return `https://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Closes the connections that wait for a next request, as a server does after a while. */
  closeIdle(): void {
    this.#server.closeIdleConnections();
  }

  cut(): void {
    this.#server.closeAllConnections();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise(resolve => this.#server.close(resolve));
    this.cut();
    await closed;
    this.#upstream.destroy();
  }

  #pass(request: IncomingMessage, response: ServerResponse): void {
    const seen = { method: request.method!, path: request.url! };
    this.seen.push(seen);
    const damage = this.damage(seen);
    if (damage !== undefined && 'answer' in damage) {
      request.resume();
      const { status, headers, body } = damage.answer;
      response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(body);
    } else if (damage !== undefined && 'raw' in damage) request.socket.end(damage.raw);
    else if (damage !== undefined && 'hangUp' in damage) request.socket.destroy();
    else if (damage !== undefined && 'silent' in damage) request.resume();
    else if (damage !== undefined && 'after' in damage) {
      void damage.after.then(() => this.#forward(request, response, piece => piece));
    } else this.#forward(request, response, damage?.alter ?? (piece => piece));
  }

  #forward(request: IncomingMessage, response: ServerResponse, alter: (piece: Buffer) => Buffer | undefined): void {
    const { host: _host, ...headers } = request.headers;
    const target = new URL(request.url!, this.#controlPlane.url);
    const upstream = https.request(target, { method: request.method!, headers, agent: this.#upstream });
    const hangUp = () => request.socket.destroy();
    response.on('close', () => upstream.destroy());
    upstream.on('error', hangUp);
    upstream.on('response', answer => {
      const { 'content-length': _length, ...kept } = answer.headers;
      response.writeHead(answer.statusCode!, kept);
      response.flushHeaders();
      answer.on('error', hangUp);
      answer.on('data', (piece: Buffer) => {
        const altered = alter(piece);
        if (altered === undefined) hangUp();
        else response.write(altered);
      });
      answer.on('end', () => response.end());
    });
    request.pipe(upstream);
  }
}
