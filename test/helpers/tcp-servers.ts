// Servers that are not etcd, or not well: silent ones, ones that talk nonsense, ones that hang up half-way.
import net from 'node:net';

export interface TcpServer extends AsyncDisposable {
  readonly endpoint: string;
  /** Connections that were ever made. */
  readonly connections: number;
}

/** Calls `answer` with each connection once something has come in on it. */
export async function startServer(answer: (socket: net.Socket, request: string) => void): Promise<TcpServer> {
  const sockets = new Set<net.Socket>();
  let connections = 0;
  const server = net.createServer(socket => {
    connections++;
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    socket.on('error', () => {});
    socket.on('data', data => answer(socket, data.toString('latin1')));
  });
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as net.AddressInfo;
  return {
    endpoint: `http://127.0.0.1:${port}`,
    get connections() {
      return connections;
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise(resolve => server.close(resolve));
    },
  };
}

/** Accepts connections and never says a word. */
export function startBlackHole(): Promise<TcpServer> {
  return startServer(() => {});
}

export function httpAnswer(status: string, body: string): string {
  return `HTTP/1.1 ${status}\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`;
}
