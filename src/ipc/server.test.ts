// Client and server over a real unix socket: who does the work when either side is slow, leaves, or breaks off.
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { deadlineIn } from '../base/clock.ts';
import { askAgent } from './client.ts';
import { type Answer, go, line, longestLine, type Request } from './protocol.ts';
import { AgentServer, type Caller, type Work } from './server.ts';

const request: Request = {
  v: 1,
  env: { CNI_COMMAND: 'ADD' },
  conf: '{}',
  started: 0,
  deadline: 0,
  node: 'n1',
  files: [],
};
const answer: Answer = { exitCode: 0, stdout: '{"ips":[]}' };

let folder = '';
let path = '';
let servers: { close(): unknown }[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'kube-ipam-ipc-'));
  path = join(folder, 'run', 'agent.sock');
  servers = [];
});

afterEach(async () => {
  for (const server of servers) await server.close();
  rmSync(folder, { recursive: true, force: true });
});

async function serve(take: (request: Request) => Work | string): Promise<AgentServer & { troubles: string[] }> {
  const troubles: string[] = [];
  const server = await AgentServer.listen({ path, take, onTrouble: (what, why) => troubles.push(`${what}: ${why}`) });
  servers.push({ close: () => server.drain(100) });
  return Object.assign(server, { troubles });
}

/** An agent that answers each piece it reads with the next of these texts, and then hangs up or falls silent. */
async function serveTexts(texts: readonly string[], options: { silent?: boolean } = {}): Promise<void> {
  path = join(folder, 'agent.sock');
  const server = net.createServer(socket => {
    const left = [...texts];
    socket.on('error', () => {});
    socket.on('data', () => {
      const next = left.shift();
      if (next !== undefined) socket.write(next);
      else if (!options.silent) socket.destroy();
    });
  });
  servers.push({ close: () => server.close() });
  await new Promise<void>(resolve => server.listen(path, resolve));
}

/** A plugin in single steps. */
async function dial(): Promise<{ socket: net.Socket; heard: () => string; closed: Promise<void> }> {
  const socket = net.connect(path);
  let heard = '';
  socket.on('data', piece => {
    heard += String(piece);
  });
  socket.on('error', () => {});
  const closed = new Promise<void>(resolve => socket.on('close', () => resolve()));
  await new Promise<void>(resolve => socket.on('connect', () => resolve()));
  return { socket, heard: () => heard, closed };
}

async function until(condition: () => boolean, ms = 10_000): Promise<void> {
  for (const end = performance.now() + ms; !condition(); await sleep(2)) {
    if (performance.now() > end) throw new Error('waited in vain');
  }
}

describe('a plugin', () => {
  it('gets the answer, with log', async () => {
    const log = { file: '/var/log/x', maxSize: 5, text: '{}\n' };
    const seen: Request[] = [];
    await serve(one => {
      seen.push(one);
      return async () => ({ ...answer, log });
    });
    expect(await askAgent(path, request, deadlineIn(5000))).toEqual({ answer: { ...answer, log } });
    expect(seen).toEqual([request]);
  });

  it('does the work itself where there is no socket, a stale one, a file, or a folder it may not enter', async () => {
    expect(await askAgent(path, request, deadlineIn(5000))).toBe('self');
    expect(await askAgent('/proc/kube-ipam/agent.sock', request, deadlineIn(5000))).toBe('self');
    writeFileSync(join(folder, 'file'), '');
    expect(await askAgent(join(folder, 'file'), request, deadlineIn(5000))).toBe('self');
    expect(await askAgent(join(folder, 'x'.repeat(200)), request, deadlineIn(5000))).toBe('self');
  });

  it('sends and gets what does not fit into a socket at once', async () => {
    const long = { ...request, conf: 'c'.repeat(3 * 2 ** 20) };
    const stdout = 'ö'.repeat(2 ** 20);
    let seen: Request | undefined;
    await serve(one => {
      seen = one;
      return async () => ({ ...answer, stdout });
    });
    expect(await askAgent(path, long, deadlineIn(20_000))).toEqual({ answer: { ...answer, stdout } });
    expect(seen).toEqual(long);
  });

  it('does the work itself when told so, or when it understands nothing', async () => {
    await serve(() => 'no');
    expect(await askAgent(path, request, deadlineIn(5000))).toBe('self');
    for (const text of [
      '{"type":"later"}\n',
      'HTTP/1.1 400 Bad Request\r\n\r\n',
      line({ type: 'answer', ...answer }),
    ]) {
      await serveTexts([text]);
      expect(await askAgent(path, request, deadlineIn(5000))).toBe('self');
      await servers.pop()!.close();
    }
  });

  it('does the work itself after 2 s without "taken", or at the end of its own time', async () => {
    await serveTexts([], { silent: true });
    const begun = performance.now();
    expect(await askAgent(path, request, deadlineIn(60_000))).toBe('self');
    expect(performance.now() - begun).toBeGreaterThan(1900);
    expect(await askAgent(path, request, deadlineIn(50))).toBe('self');
  });

  it('waits for a slow agent until its time is over, whatever the agent says meanwhile', async () => {
    await serveTexts([line({ type: 'taken' })], { silent: true });
    const begun = performance.now();
    expect(await askAgent(path, request, deadlineIn(2500))).toBe('late');
    expect(performance.now() - begun).toBeGreaterThan(2400);
  });

  it('tells a connection that broke after "go" from one that broke before', async () => {
    await serveTexts([line({ type: 'taken' })]);
    expect(await askAgent(path, request, deadlineIn(5000))).toBe('lost');
    await servers.pop()!.close();
    await serveTexts([line({ type: 'taken' }), line({ type: 'taken' })]);
    expect(await askAgent(path, request, deadlineIn(5000))).toBe('lost');
    await servers.pop()!.close();
    await serveTexts([]);
    expect(await askAgent(path, request, deadlineIn(5000))).toBe('self');
  });
});

describe('an agent', () => {
  it('is for root alone: a socket of mode 0600 in a folder of mode 0700', async () => {
    await serve(() => async () => answer);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(statSync(join(folder, 'run')).mode & 0o777).toBe(0o700);
  });

  it('changes no folder, and removes no file, that is not its own', async () => {
    chmodSync(folder, 0o755);
    path = join(folder, 'agent.sock');
    await serve(() => async () => answer);
    expect([statSync(folder).mode & 0o777, statSync(path).mode & 0o777]).toEqual([0o755, 0o600]);
    path = join(folder, 'precious');
    writeFileSync(path, 'x');
    await expect(serve(() => 'no')).rejects.toThrow('there is a file that is no socket');
    expect(readFileSync(path, 'utf8')).toBe('x');
  });

  it('takes the place of a socket that nobody serves any more', async () => {
    mkdirSync(join(folder, 'run'));
    // Bound and forgotten, as by a killed agent.
    const bind = "require('net').createServer().listen(process.argv[1], () => process.kill(process.pid, 'SIGKILL'))";
    spawnSync(process.execPath, ['-e', bind, path]);
    expect(statSync(path).isSocket()).toBe(true);
    await serve(() => async () => answer);
    expect(await askAgent(path, request, deadlineIn(5000))).toEqual({ answer });
  });

  it('begins nothing without "go"', async () => {
    let begun = 0;
    await serve(() => async () => {
      begun++;
      return answer;
    });
    const silent = await dial();
    silent.socket.write(line(request));
    await until(() => silent.heard() === line({ type: 'taken' }));
    const wrong = await dial();
    wrong.socket.write(`${line(request)}{"type":"stop"}\n`);
    await wrong.closed;
    const gone = await dial();
    gone.socket.end(line(request));
    await gone.closed;
    await silent.closed;
    expect(begun).toBe(0);
  });

  it('does one request a connection, once', async () => {
    let begun = 0;
    await serve(() => async () => {
      begun++;
      await sleep(50);
      return answer;
    });
    const { socket, heard, closed } = await dial();
    socket.write(line(request) + go + go + line(request) + go);
    await closed;
    expect(heard()).toBe(line({ type: 'taken' }) + line({ type: 'answer', ...answer }));
    expect(begun).toBe(1);
  });

  it('knows when the plugin has left, even if it left before the last event that was heard', async () => {
    const found: boolean[] = [];
    let caller: Caller | undefined;
    await serve(() => async one => {
      found.push(await one.left());
      caller = one;
      await until(() => found.length === 3);
      return answer;
    });
    const { socket } = await dial();
    socket.write(line(request) + go);
    await until(() => caller !== undefined);
    socket.destroy();
    found.push(await caller!.left(), await caller!.left());
    expect(found[0]).toBe(false);
    expect(found[2]).toBe(true);
  });

  it('breaks off when its own work fails, so that the plugin does it', async () => {
    const { troubles } = await serve(() => async () => {
      throw new Error('a bug');
    });
    expect(await askAgent(path, request, deadlineIn(5000))).toBe('lost');
    expect(troubles).toEqual(['a request failed: a bug']);
  });

  it('takes nothing that it cannot understand', async () => {
    const { troubles } = await serve(() => {
      throw new Error('no such store');
    });
    expect(await askAgent(path, request, deadlineIn(5000))).toBe('self');
    const newer = await dial();
    newer.socket.write('{"v":7}\n');
    await newer.closed;
    expect(JSON.parse(newer.heard())).toMatchObject({ type: 'self' });
    const endless = await dial();
    endless.socket.write(Buffer.alloc(longestLine + 10, 'x'));
    await endless.closed;
    expect(JSON.parse(endless.heard())).toEqual({ type: 'self', why: 'the request is too long' });
    const silent = await dial();
    await silent.closed;
    expect(troubles).toEqual([
      'a request was left to the plugin: no such store',
      'a request was left to the plugin: the request has version 7, this agent speaks 1',
      'a request was left to the plugin: the request is too long',
    ]);
  });

  it('drains: ends what has begun, takes nothing more, and leaves no socket behind', async () => {
    let finish: (() => void) | undefined;
    const server = await serve(() => async () => {
      await new Promise<void>(resolve => {
        finish = resolve;
      });
      return answer;
    });
    const idle = await dial();
    const asked = askAgent(path, request, deadlineIn(10_000));
    await until(() => finish !== undefined);
    expect(server.busy).toBe(1);
    const drained = server.drain(10_000);
    await idle.closed;
    expect(await askAgent(path, request, deadlineIn(5000))).toBe('self');
    finish!();
    expect(await asked).toEqual({ answer });
    expect(await drained).toBe(true);
    expect(server.busy).toBe(0);
  });

  it('drains only when work for a plugin that has left has ended too', async () => {
    let finish: (() => void) | undefined;
    const server = await serve(() => async () => {
      await new Promise<void>(resolve => {
        finish = resolve;
      });
      return answer;
    });
    const { socket } = await dial();
    socket.write(line(request) + go);
    await until(() => finish !== undefined);
    socket.destroy();
    let isOver = false;
    const drained = server.drain(10_000).finally(() => {
      isOver = true;
    });
    await sleep(100);
    expect([isOver, server.busy]).toEqual([false, 1]);
    finish!();
    expect(await drained).toBe(true);
    expect(server.busy).toBe(0);
  });

  it('drains in bounded time, whatever hangs', async () => {
    const server = await serve(() => () => new Promise(() => {}));
    const asked = askAgent(path, request, deadlineIn(60_000));
    await until(() => server.busy === 1);
    await sleep(20);
    expect(await server.drain(100)).toBe(false);
    expect(await asked).toBe('lost');
  });

  it('serves a crowd', async () => {
    await serve(one => async () => ({ exitCode: 0, stdout: one.conf }));
    const confs = Array.from({ length: 300 }, (_, n) => `${n} ${'x'.repeat(n * 300)}`);
    const outcomes = await Promise.all(confs.map(conf => askAgent(path, { ...request, conf }, deadlineIn(30_000))));
    expect(outcomes).toEqual(confs.map(stdout => ({ answer: { exitCode: 0, stdout } })));
  });
});
