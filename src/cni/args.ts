// CNI_ARGS: what the runtime says about the pod, and an address that may be asked for.
import { code, FailureError } from '../base/errors.ts';
import type { Pod } from '../ipam/model.ts';

export interface CniArgs {
  readonly ip: string | undefined;
  readonly pod: Pod | undefined;
}

const known = [
  'IgnoreUnknown',
  'IP',
  'MAC',
  'K8S_POD_NAMESPACE',
  'K8S_POD_NAME',
  'K8S_POD_UID',
  'K8S_POD_INFRA_CONTAINER_ID',
];

/** Kubernetes allows no longer names, and a record must stay small. */
const longestName = 253;

/** Reads `K=V;K=V`. Throws code 4 for a malformed pair, code 2 for an unknown key unless IgnoreUnknown is set. */
export function readArgs(text: string): CniArgs {
  const values = new Map<string, string>();
  for (const pair of text.split(';').filter(one => one !== '')) {
    const [key, value, ...more] = pair.split('=');
    if (value === undefined || more.length > 0) {
      throw new FailureError(
        code.environment,
        `CNI_ARGS: ${JSON.stringify(pair.slice(0, 80))} is not of the form KEY=VALUE`,
      );
    }
    values.set(key!, value);
  }
  const unknown = [...values.keys()].filter(key => !known.includes(key));
  if (unknown.length > 0 && !/^(1|t|true)$/i.test(values.get('IgnoreUnknown') ?? '')) {
    const first = unknown[0]!;
    throw new FailureError(
      code.unsupported,
      `CNI_ARGS: unknown key ${JSON.stringify(first.slice(0, 80))} with value ${JSON.stringify(values.get(first)!.slice(0, 80))}; IgnoreUnknown=1 allows it`,
    );
  }
  return { ip: values.get('IP') || undefined, pod: podOf(values) };
}

function podOf(values: ReadonlyMap<string, string>): Pod | undefined {
  const field = (key: string) => (values.get(key) ?? '').slice(0, longestName);
  const name = field('K8S_POD_NAME');
  if (name === '') return undefined;
  const uid = field('K8S_POD_UID');
  // podman sends the container's name as K8S_POD_NAME, without a namespace.
  return { namespace: field('K8S_POD_NAMESPACE'), name, ...(uid !== '' && { uid }) };
}
