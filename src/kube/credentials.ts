// Keeps a target up to date: certificates, tokens and kubeconfig files are replaced under a program that runs for weeks.
import { isUnchanged } from '../base/stamp.ts';
import { type ApiTarget, endpointTarget, inClusterTarget, NeedsAssetError, readKubeconfig } from './config.ts';

/** Reads a target from its files, as they are now. Throws code 7 when it cannot, 11 when its kubeconfig is not there. */
export type ReadTarget = () => ApiTarget | Promise<ApiTarget>;

export interface TargetSource {
  /** A URL that needs no credentials; wins over the others. */
  readonly endpoint?: string | undefined;
  /** Absent: the service account of the pod that this process runs in. */
  readonly kubeconfig?: string | undefined;
  readonly context?: string | undefined;
  readonly env: Readonly<Record<string, string | undefined>>;
}

export function targetReader({ endpoint, kubeconfig, context, env }: TargetSource): ReadTarget {
  if (endpoint !== undefined) return () => endpointTarget(endpoint);
  if (kubeconfig === undefined) return () => inClusterTarget(env);
  return async () => {
    try {
      return readKubeconfig(kubeconfig, { context });
    } catch (error) {
      if (!(error instanceof NeedsAssetError)) throw error;
      const { parseYaml } = await import('./yaml.ts');
      return readKubeconfig(kubeconfig, { context, parseYaml });
    }
  };
}

/** How often the files are looked at, in milliseconds. */
const checkInterval = 1000;

export class Credentials {
  readonly #read: ReadTarget;
  #target: ApiTarget | undefined;
  #checked = 0;

  constructor(read: ReadTarget) {
    this.#read = read;
  }

  /** Throws only while it has never been read: a file that is just being replaced must not stop what works. */
  async current(): Promise<ApiTarget> {
    if (this.#target === undefined) return this.#renewed();
    if (performance.now() - this.#checked < checkInterval) return this.#target;
    return this.#fresh(this.#target);
  }

  /** What the files hold now, when that is something else than the server has just refused. */
  async instead(refused: ApiTarget): Promise<ApiTarget | undefined> {
    const now = await this.#fresh(this.#target ?? refused);
    return now === refused ? undefined : now;
  }

  async #fresh(target: ApiTarget): Promise<ApiTarget> {
    this.#checked = performance.now();
    if (target.files.every(isUnchanged)) return target;
    try {
      return await this.#renewed();
    } catch {
      return target;
    }
  }

  async #renewed(): Promise<ApiTarget> {
    this.#target = await this.#read();
    this.#checked = performance.now();
    return this.#target;
  }
}
