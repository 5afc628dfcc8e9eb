// The agent's side of its socket: takes requests, lets the work begin at `go`, and knows at any moment whether the plugin still waits.
import { lstatSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { messageOf } from '../base/errors.ts';
import { makeFolder } from '../base/folder.ts';
import { type Answer, handshakeTime, isGo, Lines, line, parseRequest, type Request } from './protocol.ts';

/** The plugin that waits for an answer. */
export interface Caller {
  /** Whether it has left, as far as the kernel knows at this moment: whatever it did before is noticed first. */
  left(): Promise<boolean>;
}

/** The work of one request; what it throws is a bug, and the plugin does the work itself. */
export type Work = (caller: Caller) => Promise<Answer>;

export interface ServerOptions {
  readonly path: string;
  /** The work that a request asks for; a text when the plugin should do it itself, and why. Must return at once. */
  readonly take: (request: Request) => Work | string;
  /** Told of each request that was not taken, and of work that failed. */
  readonly onTrouble: (what: string, why: string) => void;
}

/** A runtime starts as many plugins as it starts pods at once; more connections than this are a fault. */
const mostConnections = 1024;

export class AgentServer {
  readonly #options: ServerOptions;
  readonly #server: Server;
  readonly #conversations = new Set<Conversation>();
  #draining = false;

  private constructor(options: ServerOptions) {
    this.#options = options;
    this.#server = createServer(socket => this.#accept(socket));
    this.#server.maxConnections = mostConnections;
  }

  /**
   * Listens on the path, for root alone, over whatever an earlier agent left there: the caller must hold the lock that
   * makes it the only agent. Throws what the system says when that is impossible.
   */
  static async listen(options: ServerOptions): Promise<AgentServer> {
    const agent = new AgentServer(options);
    makeFolder(dirname(options.path), 0o700);
    // A folder that is there already is not ours to change, nor a file that is no socket ours to remove.
    const there = lstatSync(options.path, { throwIfNoEntry: false });
    if (there !== undefined && !there.isSocket()) throw new Error('there is a file that is no socket');
    rmSync(options.path, { force: true });
    // Who may not write to it cannot connect. That is all that tells root from others: Node cannot ask the kernel.
    const umask = process.umask(0o177);
    // Node binds it at once, so that nothing else is made under this mask.
    const bound = new Promise<void>((resolve, reject) => {
      agent.#server.once('error', reject);
      agent.#server.listen({ path: options.path, backlog: mostConnections }, resolve);
    });
    process.umask(umask);
    await bound;
    agent.#server.on('error', error => options.onTrouble('the socket failed', messageOf(error)));
    return agent;
  }

  /** Requests that are being worked on, or may be any moment. */
  get busy(): number {
    return [...this.#conversations].filter(({ promised }) => promised).length;
  }

  /** Takes no more, ends what was taken, and closes, within `ms` milliseconds; true when nothing was cut off. */
  async drain(ms: number): Promise<boolean> {
    this.#draining = true;
    // Plugins that come now find no socket, and those in the queue see their connection closed: they do it themselves.
    const closed = new Promise<void>(resolve => this.#server.close(() => resolve()));
    for (const conversation of this.#conversations) conversation.endUnlessPromised();
    const all = [closed, ...[...this.#conversations].map(({ over }) => over)];
    const late = new Promise<false>(resolve => setTimeout(() => resolve(false), ms).unref());
    const inTime = await Promise.race([Promise.all(all).then(() => true), late]);
    for (const conversation of this.#conversations) conversation.destroy();
    await closed;
    return inTime;
  }

  #accept(socket: Socket): void {
    const take = (request: Request) => (this.#draining ? 'this agent is about to stop' : this.#options.take(request));
    const conversation = new Conversation(socket, { ...this.#options, take });
    this.#conversations.add(conversation);
    void conversation.over.then(() => this.#conversations.delete(conversation));
  }
}

/** One connection: a request, perhaps `go`, an answer. */
class Conversation implements Caller {
  /** The connection is closed and no work goes on. */
  readonly over: Promise<void>;
  readonly #socket: Socket;
  readonly #options: ServerOptions;
  readonly #lines = new Lines();
  #work: Work | undefined;
  #running: Promise<void> = Promise.resolve();
  #state: 'asked' | 'taken' | 'working' | 'over' = 'asked';
  #gone = false;
  #timer: NodeJS.Timeout;

  constructor(socket: Socket, options: ServerOptions) {
    this.#socket = socket;
    this.#options = options;
    this.#timer = this.#closeAfter(handshakeTime);
    socket.on('data', (piece: Buffer) => this.#read(piece));
    this.over = new Promise<void>(resolve => socket.once('close', () => resolve())).then(() => this.#running);
    for (const event of ['end', 'error', 'close'] as const) {
      socket.on(event, () => {
        this.#gone = true;
        clearTimeout(this.#timer);
      });
    }
  }

  /** Whether work goes on, or may begin any moment, because `go` is on its way. */
  get promised(): boolean {
    return this.#state === 'working' || (this.#state === 'taken' && !this.#socket.destroyed);
  }

  async left(): Promise<boolean> {
    // What has happened to the connection until now lies in the kernel. The first turn ends the round of events that is
    // under way, which may be older than a stop of this process; the second asks the kernel anew.
    for (let turn = 1; turn <= 2; turn++) await new Promise(resolve => setImmediate(resolve));
    return this.#gone;
  }

  endUnlessPromised(): void {
    if (!this.promised) this.destroy();
  }

  destroy(): void {
    this.#socket.destroy();
  }

  #read(piece: Buffer): void {
    const lines = this.#state === 'working' || this.#state === 'over' ? [] : this.#lines.add(piece);
    if (lines === undefined) this.#refuse('the request is too long');
    else for (const text of lines) this.#hear(text);
  }

  #hear(text: string): void {
    if (this.#state === 'asked') this.#consider(text);
    else if (this.#state !== 'taken') return;
    else if (isGo(text)) this.#running = this.#begin();
    else this.destroy();
  }

  #consider(text: string): void {
    const request = parseRequest(text);
    const work = typeof request === 'string' ? request : this.#taken(request);
    if (typeof work === 'string') {
      this.#refuse(work);
      return;
    }
    this.#work = work;
    this.#state = 'taken';
    clearTimeout(this.#timer);
    this.#timer = this.#closeAfter(handshakeTime);
    this.#socket.write(line({ type: 'taken' }));
  }

  #taken(request: Request): Work | string {
    try {
      return this.#options.take(request);
    } catch (error) {
      return messageOf(error);
    }
  }

  #refuse(why: string): void {
    this.#options.onTrouble('a request was left to the plugin', why);
    this.#state = 'over';
    this.#socket.end(line({ type: 'self', why }));
  }

  async #begin(): Promise<void> {
    this.#state = 'working';
    clearTimeout(this.#timer);
    try {
      const answer = await this.#work!(this);
      this.#state = 'over';
      this.#socket.end(line({ type: 'answer', ...answer }));
    } catch (error) {
      this.#options.onTrouble('a request failed', messageOf(error));
      this.#state = 'over';
      this.destroy();
    }
    // One that does not fetch its answer is stopped, or no plugin of ours.
    this.#timer = this.#closeAfter(handshakeTime);
  }

  #closeAfter(ms: number): NodeJS.Timeout {
    return setTimeout(() => this.destroy(), ms);
  }
}
