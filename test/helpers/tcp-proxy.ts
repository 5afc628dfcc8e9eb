// A TCP proxy for tests: it can cut its connections, swallow what passes, or refuse new ones, at the moment a test wants.
import net from 'node:net';

export interface TcpProxy extends AsyncDisposable {
  readonly port: number;
  /** Connections that were ever made. */
  readonly connections: number;
  /** Resets every connection that stands. */
  cut(): void;
  /** Keeps connections, but lets nothing through in either direction. */
  blackHole(on: boolean): void;
  /** Resets new connections at once. */
  refuse(on: boolean): void;
  /** Sees each piece from the server before it is passed on; "cut" resets that connection instead. */
  inspect(look: ((piece: Buffer) => 'pass' | 'pass-and-cut' | 'cut') | undefined): void;
}

export async function startProxy(targetPort: number, address = '127.0.0.1'): Promise<TcpProxy> {
  const proxy = new CuttingProxy(targetPort);
  await proxy.listen(address);
  return proxy;
}

class CuttingProxy implements TcpProxy {
  readonly #targetPort: number;
  readonly #server: net.Server;
  readonly #sockets = new Set<net.Socket>();
  #hole = false;
  #refuse = false;
  #look: ((piece: Buffer) => 'pass' | 'pass-and-cut' | 'cut') | undefined;
  connections = 0;

  constructor(targetPort: number) {
    this.#targetPort = targetPort;
    this.#server = net.createServer(socket => this.#accept(socket));
  }

  listen(address: string): Promise<void> {
    return new Promise((resolve, reject) => this.#server.once('error', reject).listen(0, address, resolve));
  }

  get port(): number {
    return (this.#server.address() as net.AddressInfo).port;
  }

  cut(): void {
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }

  blackHole(on: boolean): void {
    this.#hole = on;
    if (!on) for (const socket of this.#sockets) socket.resume();
  }

  refuse(on: boolean): void {
    this.#refuse = on;
  }

  inspect(look: ((piece: Buffer) => 'pass' | 'pass-and-cut' | 'cut') | undefined): void {
    this.#look = look;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise(resolve => this.#server.close(resolve));
    this.cut();
    await closed;
  }

  #accept(client: net.Socket): void {
    this.connections++;
    if (this.#refuse) {
      client.resetAndDestroy();
      return;
    }
    const server = net.connect(this.#targetPort, '127.0.0.1');
    this.#join(client, server, piece => (this.#hole ? 'drop' : piece.length > 0 ? 'pass' : 'drop'));
    this.#join(server, client, piece => (this.#hole ? 'drop' : (this.#look?.(piece) ?? 'pass')));
  }

  #join(from: net.Socket, to: net.Socket, decide: (piece: Buffer) => 'pass' | 'pass-and-cut' | 'cut' | 'drop'): void {
    this.#sockets.add(from);
    from.on('data', (piece: Buffer) => {
      const decision = decide(piece);
      if (decision === 'pass') to.write(piece);
      if (decision === 'pass-and-cut') to.end(piece, () => from.resetAndDestroy());
      if (decision === 'cut') {
        from.resetAndDestroy();
        to.resetAndDestroy();
      }
    });
    from.on('error', () => to.destroy());
    from.on('close', () => {
      this.#sockets.delete(from);
      to.destroy();
    });
  }
}
