// A program: carries TCP connections between the test's network and a node's, through sockets in a folder: tunnel.ts [LISTEN TARGET]...
//
// A place is a port of 127.0.0.1 or the path of a socket. The target "connect:FOLDER" asks each client by HTTP CONNECT where to:
// to the socket of that name in the folder when there is one (a node's kubelet), else straight there (a webhook).
import { existsSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import net from 'node:net';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';

const places = process.argv.slice(2);
for (let index = 0; index + 1 < places.length; index += 2) open(places[index]!, places[index + 1]!);

function open(listen: string, target: string): void {
  if (isPath(listen)) rmSync(listen, { force: true });
  const server = target.startsWith('connect:') ? connector(target.slice('connect:'.length)) : forwarder(target);
  server.listen(isPath(listen) ? { path: listen } : { host: '127.0.0.1', port: Number(listen) });
}

function forwarder(target: string): net.Server {
  return net.createServer({ allowHalfOpen: true, noDelay: true }, client => carry(client, dial(target)));
}

function connector(folder: string): net.Server {
  const server = createServer();
  server.on('connect', (request, client, head) => {
    const { hostname, port } = new URL(`tcp://${request.url}`);
    const socket = join(folder, `${hostname}:${port}`);
    const far = existsSync(socket) ? dial(socket) : net.connect({ host: hostname, port: Number(port) });
    far.once('connect', () => {
      client.write('HTTP/1.1 200 Connection established\r\n\r\n');
      far.write(head);
    });
    carry(client, far);
  });
  return server;
}

function dial(target: string): net.Socket {
  const options = { allowHalfOpen: true, noDelay: true };
  return net.connect(
    isPath(target) ? { path: target, ...options } : { host: '127.0.0.1', port: Number(target), ...options },
  );
}

function isPath(place: string): boolean {
  return place.startsWith('/');
}

function carry(near: Duplex, far: Duplex): void {
  near.pipe(far).pipe(near);
  near.on('error', () => far.destroy());
  far.on('error', () => near.destroy());
}
