// A client of the Kubernetes container runtime interface over its unix socket: what a kubelet says about pods, no more.
import { join } from 'node:path';
import { Client, credentials, type ServiceError } from '@grpc/grpc-js';
import { loadSync, type MethodDefinition } from '@grpc/proto-loader';

export interface PodName {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
}

export interface SandboxStatus {
  readonly ready: boolean;
  /** Empty when the sandbox has been stopped. */
  readonly ips: readonly string[];
  /** Its first process, numbered as the runtime sees it. */
  readonly pid: number;
}

/** The runtime refused; the message is what it would show to a person. */
export class CriError extends Error {
  override name = 'CriError';
}

const proto = join(import.meta.dirname, 'cri.proto');

// proto-loader types a service as a union with messages and enums; this file is known to hold the service.
const service = loadSync(proto, { keepCase: true, defaults: true, enums: String })[
  'runtime.v1.RuntimeService'
] as unknown as Readonly<Record<string, MethodDefinition<object, object>>>;

export class CriClient implements Disposable {
  readonly #client: Client;

  constructor(socket: string) {
    this.#client = new Client(`unix:${socket}`, credentials.createInsecure());
  }

  /** Answers as soon as the runtime listens. */
  async version(): Promise<string> {
    const answer = (await this.#call('Version', {}, 2_000)) as { runtime_version: string };
    return answer.runtime_version;
  }

  /** Makes a sandbox, its network included; gives its ID. */
  async runPod(pod: PodName, cgroupParent: string, logDirectory: string): Promise<string> {
    const config = {
      metadata: { ...pod, attempt: 0 },
      hostname: pod.name,
      log_directory: logDirectory,
      linux: { cgroup_parent: cgroupParent },
    };
    const answer = (await this.#call('RunPodSandbox', { config })) as { pod_sandbox_id: string };
    return answer.pod_sandbox_id;
  }

  async stopPod(id: string): Promise<void> {
    await this.#call('StopPodSandbox', { pod_sandbox_id: id });
  }

  async removePod(id: string): Promise<void> {
    await this.#call('RemovePodSandbox', { pod_sandbox_id: id });
  }

  async list(): Promise<readonly string[]> {
    const answer = (await this.#call('ListPodSandbox', {})) as { items: readonly { id: string }[] };
    return answer.items.map(item => item.id);
  }

  async status(id: string): Promise<SandboxStatus> {
    const answer = (await this.#call('PodSandboxStatus', { pod_sandbox_id: id, verbose: true })) as {
      status: { state: string; network: { ip: string; additional_ips: readonly { ip: string }[] } | null };
      info: Readonly<Record<string, string>>;
    };
    const { network, state } = answer.status;
    const details = JSON.parse(answer.info.info ?? '{}') as { readonly pid?: number };
    return {
      ready: state === 'SANDBOX_READY',
      ips: [network?.ip ?? '', ...(network?.additional_ips ?? []).map(each => each.ip)].filter(Boolean),
      pid: details.pid ?? 0,
    };
  }

  [Symbol.dispose](): void {
    this.#client.close();
  }

  #call(name: string, request: object, ms = 40_000): Promise<object> {
    const method = service[name];
    if (method === undefined) throw new RangeError(`cri.proto has no ${name}`);
    return new Promise((resolve, reject) => {
      const answered = (error: ServiceError | null, answer?: object) => {
        if (error !== null) reject(new CriError(`${name}: ${error.details}`, { cause: error }));
        else resolve(answer ?? {});
      };
      const { path, requestSerialize, responseDeserialize } = method;
      const deadline = Date.now() + ms;
      this.#client.makeUnaryRequest(path, requestSerialize, responseDeserialize, request, { deadline }, answered);
    });
  }
}
