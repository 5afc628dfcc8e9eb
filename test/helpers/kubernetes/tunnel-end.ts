// How tunnel.ts is started, and how one sees that it listens.
import net from 'node:net';
import { join } from 'node:path';

/** The command that carries connections from each LISTEN to the TARGET behind it. */
export function tunnelArgv(routes: readonly string[]): readonly string[] {
  return [process.execPath, join(import.meta.dirname, 'tunnel.ts'), ...routes];
}

/** Whether somebody listens on a socket. */
export function accepts(path: string): Promise<boolean> {
  return new Promise(resolve => {
    const socket = net.connect({ path });
    socket.on('connect', () => {
      resolve(true);
      socket.destroy();
    });
    socket.on('error', () => resolve(false));
  });
}
