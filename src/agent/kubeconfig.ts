// Keeps the kubeconfig with which the plugin asks the API server when this agent is not there to answer for it.
import { dirname } from 'node:path';
import { backoff, type Deadline, deadlineIn } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import { makeFolder } from '../base/folder.ts';
import type { Log } from '../base/log.ts';
import type { Part, PartState } from '../base/part.ts';
import { writeAtomically } from '../host/atomic-file.ts';
import type { Client } from '../kube/client.ts';
import type { ApiTarget } from '../kube/config.ts';
import { pathOf, serviceAccounts } from '../kube/resources.ts';

/** A token is asked for this long, in seconds: an agent may be stopped for a day, and the plugin goes on. */
const tokenSeconds = 48 * 3600;

/** Renewed when less than half of its life is left: then at least a day is always written. */
const renewAt = 0.5;

const requestTimeout = 10_000;
const longestPause = 60_000;

export interface KubeconfigOptions {
  /** `/etc/cni/net.d/kube-ipam.d/kubeconfig`; its folder is made, for root alone. */
  readonly file: string;
  /** The plugin's own account, which may get pods, nodes and namespaces and nothing else. */
  readonly account: { readonly namespace: string; readonly name: string };
}

interface TokenRequest {
  readonly metadata: { readonly creationTimestamp: string };
  readonly status: { readonly token: string; readonly expirationTimestamp: string };
}

/** Asks for a token and writes the file, again and again, until it is stopped. */
export class KubeconfigKeeper implements Part {
  readonly name = 'kubeconfig';
  readonly #client: Client;
  readonly #options: KubeconfigOptions;
  readonly #log: Log;
  #timer: NodeJS.Timeout | undefined;
  #failures = 0;
  #stopped = false;
  #state: PartState = { ready: false, detail: 'the first token was not written yet' };

  constructor(client: Client, options: KubeconfigOptions, log: Log) {
    this.#client = client;
    this.#options = options;
    this.#log = log;
  }

  state(): PartState {
    return this.#state;
  }

  async start(): Promise<void> {
    void this.#round();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  async #round(): Promise<void> {
    const pause = await this.#renewed();
    if (!this.#stopped) this.#timer = setTimeout(() => void this.#round(), pause);
  }

  /** The milliseconds until the next round. */
  async #renewed(): Promise<number> {
    const { file } = this.#options;
    try {
      const { granted, until } = await this.renew(deadlineIn(requestTimeout));
      this.#failures = 0;
      this.#state = { ready: true, detail: `${file} counts until ${until}` };
      // Old API servers do not say when they granted it.
      return Math.max(longestPause, granted * renewAt || 0);
    } catch (error) {
      const message = messageOf(error);
      this.#state = { ready: false, detail: `${file} could not be renewed: ${message}` };
      this.#log.warn('kubeconfig not renewed', { file, message });
      return backoff(++this.#failures, 1000, longestPause);
    }
  }

  /** Writes a file with a new token: how many milliseconds it counts for, and until when by the API server's clock. */
  async renew(deadline: Deadline): Promise<{ readonly granted: number; readonly until: string }> {
    const { file, account } = this.#options;
    const path = pathOf(serviceAccounts, { ...account, subresource: 'token' });
    const spec = { expirationSeconds: tokenSeconds };
    const request = { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest', spec };
    const { metadata, status } = await this.#client.create<TokenRequest>(path, request, deadline);
    makeFolder(dirname(file), 0o700);
    writeAtomically(file, kubeconfigText(await this.#client.target(), status.token), 0o600);
    const until = status.expirationTimestamp;
    this.#log.info('kubeconfig renewed', { file, until });
    // Both times are the server's; it may have granted less than was asked for.
    return { granted: Date.parse(until) - Date.parse(metadata.creationTimestamp), until };
  }
}

/** JSON, which every reader of YAML takes, and which the plugin reads without loading one. */
function kubeconfigText({ server, basePath, tls }: ApiTarget, token: string): string {
  const name = 'kube-ipam';
  const cluster = {
    server: `${server}${basePath}`,
    ...(tls.ca && { 'certificate-authority-data': tls.ca.toString('base64') }),
    ...(tls.serverName !== undefined && { 'tls-server-name': tls.serverName }),
    ...(tls.insecure === true && { 'insecure-skip-tls-verify': true }),
  };
  const config = {
    apiVersion: 'v1',
    kind: 'Config',
    'current-context': name,
    clusters: [{ name, cluster }],
    users: [{ name, user: { token } }],
    contexts: [{ name, context: { cluster: name, user: name } }],
  };
  return `${JSON.stringify(config, undefined, 2)}\n`;
}
