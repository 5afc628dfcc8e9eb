// A request to the Kubernetes API the way a test needs it: JSON there, JSON back, a refusal as an error with its status.
import { readFileSync } from 'node:fs';
import https from 'node:https';

/** The API server answered with another status than 2xx; `reason` is its machine-readable word. */
export class ApiRefusal extends Error {
  override name = 'ApiRefusal';
  readonly status: number;
  readonly reason: string;

  constructor(request: string, status: number, body: string) {
    const { reason = '', message = body } = asStatus(body);
    super(`${request}: ${status} ${reason}: ${message}`);
    this.status = status;
    this.reason = reason;
  }
}

export interface RequestOptions {
  /** Who asks; absent: the administrator. */
  readonly token?: string;
  /** Of the body: PATCH needs another one than application/json. */
  readonly contentType?: string;
  /** Milliseconds. */
  readonly timeout?: number;
}

/** A connection to one API server, which is verified by its authority. */
export class ApiClient implements Disposable {
  readonly #url: string;
  readonly #token: string;
  readonly #agent: https.Agent;

  constructor(url: string, caFile: string, token: string) {
    this.#url = url;
    this.#token = token;
    this.#agent = new https.Agent({ ca: readFileSync(caFile), keepAlive: true });
  }

  /** The parsed answer; text where the answer is not JSON. */
  request<T>(method: string, path: string, body?: unknown, options: RequestOptions = {}): Promise<T> {
    const text = body === undefined ? undefined : JSON.stringify(body);
    const headers = {
      authorization: `Bearer ${options.token ?? this.#token}`,
      accept: 'application/json',
      ...(text !== undefined && {
        'content-type': options.contentType ?? 'application/json',
        'content-length': Buffer.byteLength(text),
      }),
    };
    const signal = AbortSignal.timeout(options.timeout ?? 30_000);
    return new Promise((resolve, reject) => {
      const request = https.request(new URL(path, this.#url), { method, headers, agent: this.#agent, signal });
      request.on('error', reject);
      request.on('response', response => {
        const chunks: Buffer[] = [];
        response.on('data', chunk => chunks.push(chunk));
        response.on('error', reject);
        response.on('end', () => {
          const answer = Buffer.concat(chunks).toString();
          const status = response.statusCode ?? 0;
          if (status < 200 || status > 299) reject(new ApiRefusal(`${method} ${path}`, status, answer));
          else resolve(parsed(answer) as T);
        });
      });
      request.end(text);
    });
  }

  /** Whether a GET of this path succeeds, soon. */
  async answers(path: string): Promise<boolean> {
    try {
      await this.request('GET', path, undefined, { timeout: 2_000 });
      return true;
    } catch {
      return false;
    }
  }

  [Symbol.dispose](): void {
    this.#agent.destroy();
  }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

function asStatus(body: string): { readonly reason?: string; readonly message?: string } {
  const status = parsed(body);
  return typeof status === 'object' && status !== null ? status : {};
}
