// The plugin's own reader: a few GETs over one connection, in a process that lives for milliseconds.
import type { Deadline } from '../base/clock.ts';
import { connectionReason, dial } from '../base/dial.ts';
import { FailureError, systemCode } from '../base/errors.ts';
import { ClosedEarlyError, type HttpAnswer, type HttpConnection, NotHttpError } from '../base/http1.ts';
import { version } from '../base/version.ts';
import { foundIn } from './answer.ts';
import { type ApiTarget, type ParseYaml, readKubeconfig } from './config.ts';
import { type Request, unanswered, unusableCertificates } from './failure.ts';
import type { Found, KubeObject } from './objects.ts';

export interface Reader {
  /**
   * The object at the path (of `pathOf`) with the server's clock; undefined when the API server says that it does not
   * exist. Everything else is code 11, with a message that names the request and what would mend it.
   */
  get<T extends KubeObject>(path: string, deadline: Deadline): Promise<Found<T> | undefined>;
  close(): void;
}

/**
 * Reads the kubeconfig; connects with the first GET. Throws code 7 for what is wrong in it, code 11 when it is not there,
 * and NeedsAssetError when it is no JSON and no `parseYaml` was given.
 */
export function openReader(kubeconfig: string, parseYaml?: ParseYaml): Reader {
  return new SingleReader(readKubeconfig(kubeconfig, { parseYaml }));
}

/** One connection, one GET after another: a second connection would cost more than the wait for the first answer. */
class SingleReader implements Reader {
  readonly #target: ApiTarget;
  #connection: HttpConnection | undefined;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(target: ApiTarget) {
    this.#target = target;
  }

  get<T extends KubeObject>(path: string, deadline: Deadline): Promise<Found<T> | undefined> {
    const request = { verb: 'get', path };
    const answer = this.#turn.then(async () => {
      const { status, headers, body } = await this.#ask(request, deadline);
      return foundIn<T>(request, this.#target, { status, date: headers.get('date'), body });
    });
    this.#turn = answer.catch(() => {});
    return answer;
  }

  close(): void {
    this.#connection?.close();
    this.#connection = undefined;
  }

  async #ask(request: Request, deadline: Deadline): Promise<HttpAnswer> {
    for (;;) {
      const { connection, kept } = await this.#connected(request, deadline);
      try {
        return await this.#exchange(connection, request, deadline);
      } catch (error) {
        connection.close();
        // A kept connection that the server had closed in the meantime says nothing about the server.
        if (kept && !(error instanceof FailureError || error instanceof NotHttpError)) continue;
        throw error instanceof FailureError ? error : unanswered(request, this.#target, broken(error));
      }
    }
  }

  async #connected(request: Request, deadline: Deadline): Promise<{ connection: HttpConnection; kept: boolean }> {
    if (this.#connection?.reusable === true) return { connection: this.#connection, kept: true };
    this.close();
    const { host, port, tls } = this.#target;
    let connection: HttpConnection | string;
    try {
      connection = await dial(host, port, tls, deadline.left());
    } catch (error) {
      throw unusableCertificates(this.#target, error);
    }
    if (typeof connection === 'string') throw unanswered(request, this.#target, connection);
    this.#connection = connection;
    return { connection, kept: false };
  }

  async #exchange(connection: HttpConnection, request: Request, deadline: Deadline): Promise<HttpAnswer> {
    const { server, basePath, token } = this.#target;
    const head = [
      `GET ${basePath}${request.path} HTTP/1.1`,
      `host: ${server.slice('https://'.length)}`,
      'accept: application/json',
      `user-agent: kube-ipam/${version}`,
      ...(token === undefined ? [] : [`authorization: Bearer ${token}`]),
    ];
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(
        () => reject(unanswered(request, this.#target, 'connected, but no answer in time')),
        deadline.left(),
      );
    });
    try {
      return await Promise.race([connection.exchange(`${head.join('\r\n')}\r\n\r\n`), late]);
    } finally {
      clearTimeout(timer);
    }
  }
}

function broken(error: unknown): string {
  if (error instanceof NotHttpError || error instanceof ClosedEarlyError) return error.message;
  return connectionReason(systemCode(error));
}
