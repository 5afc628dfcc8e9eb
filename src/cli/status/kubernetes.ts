// Asks the Kubernetes API what a pod's ADD asks it, with the kubeconfig of a network, and tells what is lacking.
import { deadlineIn } from '../../base/clock.ts';
import { FailureError } from '../../base/errors.ts';
import { nodeNameOf } from '../../base/node-name.ts';
import { isObject } from '../../base/section.ts';
import { openApi } from '../../cni/api.ts';
import type { NetworkConfig } from '../../ipam/config.ts';
import { type ApiTarget, readKubeconfig } from '../../kube/config.ts';
import { StrangeAnswerError, UnansweredError } from '../../kube/failure.ts';
import { counted } from '../output.ts';
import { type Diagnosis, diagnosis } from './diagnosis.ts';

export interface KubernetesReport {
  readonly diagnoses: readonly Diagnosis[];
  /** Which cluster it is; absent where nobody said. */
  readonly clusterUid?: string;
}

/** Nothing for a network without a kubeconfig: no pod is looked up then. */
export async function examineKubernetes(config: NetworkConfig, now: number): Promise<KubernetesReport> {
  const { kubeConfig } = config;
  if (kubeConfig === undefined) return { diagnoses: [] };
  const { parseYaml } = await import('../../kube/yaml.ts');
  try {
    const target = readKubeconfig(kubeConfig, { parseYaml });
    const { diagnoses, clusterUid } = await ask(config, target, openApi(kubeConfig, parseYaml));
    const all = [...diagnoses, ...examineTarget(kubeConfig, target, now)];
    return { diagnoses: all, ...(clusterUid !== undefined && { clusterUid }) };
  } catch (error) {
    if (!(error instanceof FailureError)) throw error;
    const advice = 'the agent keeps one for the plugin; name its file under "kubeConfig"';
    return { diagnoses: [diagnosis('kubernetes', kubeConfig, 'wrong', error.message, { advice })] };
  }
}

/** What an ADD asks for, in one account's name: each right that is missing is told. */
async function ask(
  { timeout, nodeName }: NetworkConfig,
  { server }: ApiTarget,
  api: ReturnType<typeof openApi>,
): Promise<KubernetesReport> {
  const node = nodeNameOf(nodeName);
  let clusterUid: string | undefined;
  const questions = [
    async () => {
      clusterUid = await api.clusterUid(deadlineIn(timeout));
      return [];
    },
    async () => {
      // There is none of this name: what counts is whether we may ask.
      await api.pod('kube-system', 'kube-ipam-status', deadlineIn(timeout));
      return [];
    },
    async () => ((await api.node(node, deadlineIn(timeout))) === undefined ? [noSuchNode(node)] : []),
  ];
  const faults: Diagnosis[] = [];
  for (const question of questions) {
    try {
      faults.push(...(await question()));
    } catch (error) {
      if (!(error instanceof FailureError)) throw error;
      const isAway = error instanceof UnansweredError || error instanceof StrangeAnswerError;
      faults.push(diagnosis('kubernetes', server, isAway ? 'unreachable' : 'wrong', error.message));
      if (isAway) break;
    }
  }
  const fine = diagnosis('kubernetes', server, 'fine', 'the API answers: pods, nodes and namespaces may be read');
  const answered = faults.every(({ level }) => level === 'warning') ? [fine] : [];
  return { diagnoses: [...answered, ...faults], ...(clusterUid !== undefined && { clusterUid }) };
}

function noSuchNode(node: string): Diagnosis {
  const advice = `write the name of its Node into /etc/kube-ipam/node ("kube-ipam install --node NAME")`;
  const text = 'the cluster has no Node of this name: what dies with this machine is not freed by the others';
  return diagnosis('kubernetes', `node ${node}`, 'warning', text, { advice });
}

const hour = 3_600_000;

function examineTarget(kubeConfig: string, { tls, token }: ApiTarget, now: number): Diagnosis[] {
  const faults: Diagnosis[] = [];
  if (tls.insecure === true) {
    const text = 'says insecure-skip-tls-verify: whoever stands between can choose addresses for pods';
    faults.push(diagnosis('kubernetes', kubeConfig, 'warning', text));
  }
  const end = token === undefined ? undefined : endOf(token);
  if (end === undefined) return faults;
  const left = end - now;
  const [level, when] =
    left <= 0
      ? (['wrong', `ended at ${new Date(end).toISOString()}`] as const)
      : ([left < 12 * hour ? 'warning' : 'fine', `ends in ${spanOf(left)}`] as const);
  const advice = level === 'fine' ? {} : { advice: 'the agent renews the token that it keeps: does it run?' };
  return [...faults, diagnosis('kubernetes', kubeConfig, level, `its token ${when}`, advice)];
}

function spanOf(ms: number): string {
  return ms < 2 * hour ? counted(Math.floor(ms / 60_000), 'minute') : counted(Math.floor(ms / hour), 'hour');
}

/** When a service account's token ends, in milliseconds; undefined for tokens that do not say. */
function endOf(token: string): number | undefined {
  try {
    const claims: unknown = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString());
    return isObject(claims) && typeof claims.exp === 'number' ? claims.exp * 1000 : undefined;
  } catch {
    return undefined;
  }
}
