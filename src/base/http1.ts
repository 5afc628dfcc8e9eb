// HTTP/1.1 over one connection, as much as etcd's gateway and an API server speak: node:http would cost every ADD 3 to 5 ms.
import type { Socket } from 'node:net';

/** An answer as it came. */
export interface HttpAnswer {
  readonly status: number;
  /** By name in lower case; of several of one name the first. */
  readonly headers: ReadonlyMap<string, string>;
  readonly body: string;
}

/** What the server sent is not HTTP, or is larger than any answer that we ask for. */
export class NotHttpError extends Error {
  override name = 'NotHttpError';
}

/** The server closed the connection before the answer was complete. */
export class ClosedEarlyError extends Error {
  override name = 'ClosedEarlyError';
  /** Whether any byte of the answer had come. */
  readonly answering: boolean;

  constructor(answering: boolean) {
    super('connection closed in the middle of the answer');
    this.answering = answering;
  }
}

const longestHead = 64 * 1024;

/** A page of 10 000 large records is a fifth of this: more is another server, and must not fill the memory. */
const largestBody = 64 * 1024 * 1024;

/** One connection; one exchange at a time. */
export class HttpConnection {
  readonly #socket: Socket;
  /** How many exchanges it has completed. */
  completed = 0;
  #reusable = true;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.setNoDelay(true);
    const over = () => {
      this.#reusable = false;
    };
    socket.on('error', over).on('close', over).on('end', over);
  }

  get reusable(): boolean {
    return this.#reusable && !this.#socket.destroyed;
  }

  close(): void {
    this.#socket.destroy();
  }

  /** Sends the request and takes the whole answer. Rejects with the socket's error, NotHttpError or ClosedEarlyError. */
  exchange(request: string): Promise<HttpAnswer> {
    const socket = this.#socket;
    const reader = new AnswerReader();
    return new Promise<HttpAnswer>((resolve, reject) => {
      const onEnd = () => finish(() => resolve(reader.end()));
      const onData = (chunk: Buffer) => {
        try {
          if (reader.take(chunk)) finish(() => resolve(reader.answer()));
        } catch (error) {
          finish(() => reject(error));
        }
      };
      const onError = (error: Error) => finish(() => reject(error));
      const finish = (settle: () => void) => {
        socket.off('data', onData).off('end', onEnd).off('close', onEnd).off('error', onError);
        this.completed++;
        if (!reader.keepsOpen) this.#reusable = false;
        try {
          settle();
        } catch (error) {
          reject(error);
        }
      };
      socket.on('data', onData).on('end', onEnd).on('close', onEnd).on('error', onError);
      socket.write(request);
    });
  }
}

/** Puts an answer together from the pieces that arrive. */
class AnswerReader {
  #head = '';
  #status = 0;
  #headers: ReadonlyMap<string, string> = new Map();
  #body: BodyReader | undefined;
  keepsOpen = false;

  /** True when the answer is complete. */
  take(chunk: Buffer): boolean {
    if (this.#body !== undefined) return this.#body.take(chunk);
    const before = this.#head.length;
    this.#head += chunk.toString('latin1');
    const end = this.#head.indexOf('\r\n\r\n');
    if (end < 0) {
      if (this.#head.length > longestHead || !'HTTP/1.'.startsWith(this.#head.slice(0, 7))) throw notHttp();
      return false;
    }
    const rest = chunk.subarray(end + 4 - before);
    const head = this.#head.slice(0, end);
    this.#head = '';
    this.#readHead(head);
    // 100 Continue and its like announce the real answer.
    if (this.#status >= 100 && this.#status < 200) {
      this.#body = undefined;
      return rest.length > 0 && this.take(rest);
    }
    return this.#body!.take(rest);
  }

  #readHead(head: string): void {
    const [first, ...lines] = head.split('\r\n');
    const match = /^HTTP\/1\.([01]) (\d{3})(?: |$)/.exec(first!);
    if (match === null) throw notHttp();
    this.#status = Number(match[2]);
    this.#headers = fields(lines);
    const length = this.#headers.get('content-length');
    if (length !== undefined && !/^\d{1,9}$/.test(length)) throw notHttp();
    const chunked = this.#headers.get('transfer-encoding')?.toLowerCase() === 'chunked';
    const closes = match[1] === '0' || this.#headers.get('connection')?.toLowerCase() === 'close';
    this.keepsOpen = !closes && (chunked || length !== undefined);
    this.#body = chunked ? new ChunkedBody() : new PlainBody(length === undefined ? undefined : Number(length));
  }

  answer(): HttpAnswer {
    return { status: this.#status, headers: this.#headers, body: this.#body!.text() };
  }

  /** The answer, when the end of the connection is a proper end of it. */
  end(): HttpAnswer {
    if (this.#body?.endsWithConnection !== true) {
      throw new ClosedEarlyError(this.#body !== undefined || this.#head !== '');
    }
    return this.answer();
  }
}

function fields(lines: readonly string[]): ReadonlyMap<string, string> {
  const found = new Map<string, string>();
  for (const line of lines) {
    const colon = line.indexOf(':');
    const name = line.slice(0, colon).toLowerCase();
    if (colon > 0 && !found.has(name)) found.set(name, line.slice(colon + 1).trim());
  }
  return found;
}

interface BodyReader {
  readonly endsWithConnection: boolean;
  take(chunk: Buffer): boolean;
  text(): string;
}

/** A body of known length, or one that ends with the connection. */
class PlainBody implements BodyReader {
  readonly endsWithConnection: boolean;
  readonly #length: number;
  readonly #chunks: Buffer[] = [];
  #size = 0;

  constructor(length: number | undefined) {
    this.endsWithConnection = length === undefined;
    this.#length = length ?? Number.POSITIVE_INFINITY;
    if (length !== undefined && length > largestBody) throw tooLarge();
  }

  take(chunk: Buffer): boolean {
    if (chunk.length > 0) this.#chunks.push(chunk);
    this.#size += chunk.length;
    if (this.#size > largestBody) throw tooLarge();
    if (this.#size > this.#length) throw notHttp();
    return this.#size === this.#length;
  }

  text(): string {
    return Buffer.concat(this.#chunks).toString('utf8');
  }
}

/** RFC 9112 section 7.1, without extensions and trailers that mean anything. */
class ChunkedBody implements BodyReader {
  readonly endsWithConnection = false;
  readonly #chunks: Buffer[] = [];
  #size = 0;
  /** Bytes of the current chunk still to come, its line end included; 0: a size line is next. */
  #left = 0;
  #line = '';
  #last = false;

  take(chunk: Buffer): boolean {
    let at = 0;
    while (at < chunk.length) {
      if (this.#left > 0) {
        const part = chunk.subarray(at, at + this.#left);
        const payload = part.subarray(0, Math.max(0, this.#left - 2));
        if (payload.length > 0) this.#chunks.push(payload);
        this.#left -= part.length;
        at += part.length;
        continue;
      }
      const end = chunk.indexOf('\n', at);
      this.#line += chunk.toString('latin1', at, end < 0 ? chunk.length : end);
      if (end < 0) return false;
      at = end + 1;
      if (!this.#endOfLine()) continue;
      if (at < chunk.length) throw notHttp();
      return true;
    }
    return false;
  }

  /** A size line, or one of the lines behind the last chunk; true at the very end. */
  #endOfLine(): boolean {
    const line = this.#line.replace(/\r$/, '');
    this.#line = '';
    if (this.#last) return line === '';
    const match = /^([0-9a-fA-F]{1,8})(?:;.*)?$/.exec(line);
    if (match === null) throw notHttp();
    const size = Number.parseInt(match[1]!, 16);
    this.#last = size === 0;
    this.#left = size === 0 ? 0 : size + 2;
    this.#size += size;
    if (this.#size > largestBody) throw tooLarge();
    return false;
  }

  text(): string {
    return Buffer.concat(this.#chunks).toString('utf8');
  }
}

function notHttp(): NotHttpError {
  return new NotHttpError('an answer that is not HTTP');
}

function tooLarge(): NotHttpError {
  return new NotHttpError('an answer too large to be a true one');
}
