// Whose cluster a store's records belong to: proven before anything is judged by what an API says of names.
import { code, FailureError } from '../../base/errors.ts';
import { clusterKey, formatKey } from '../../store/keys.ts';
import { parseCluster, renderCluster } from '../model.ts';
import type { Api } from '../ports.ts';
import { refuseNewerFormat } from './look.ts';
import { type PatientSurroundings, untilDone } from './patience.ts';
import type { SweepOptions } from './sweep.ts';

/**
 * Returns when the API is that of the cluster which this name stands for in the store. A name that stands for none yet is
 * given to it; by `mayClaim` false it is refused, as a mistyped store must not be taken for ours. Throws code 7 for
 * another cluster, 101 for a store that only newer programs may write, 11 when API or store do not answer.
 */
export async function proveCluster(
  around: PatientSurroundings,
  api: Pick<Api, 'clusterUid'>,
  { cluster, mayClaim, dryRun }: Pick<SweepOptions, 'cluster' | 'mayClaim' | 'dryRun'>,
): Promise<void> {
  around.deadline.renew();
  const uid = await api.clusterUid(around.deadline);
  await untilDone(around, async () => {
    const { kv, deadline } = around;
    const key = clusterKey(cluster);
    const { answers } = await kv.read([{ key }, { key: formatKey }], deadline);
    const [entry, format] = answers.map(({ entries }) => entries[0]);
    refuseNewerFormat(format);
    if (entry !== undefined) return refuseOther(cluster, parseCluster(entry.value), uid);
    if (dryRun) return true;
    if (!mayClaim) throw unclaimed(cluster);
    const writes = [{ put: key, value: renderCluster(uid) }];
    return (await kv.commit({ conditions: [{ absent: key }], writes }, deadline)).won || undefined;
  });
}

function refuseOther(cluster: string, recorded: string | undefined, uid: string): true {
  if (recorded === uid) return true;
  throw new FailureError(
    code.config,
    `set "cluster": ${cluster} belongs to another cluster in this store, whose namespace kube-system has uid ${recorded ?? 'unknown'}, not ${uid}; nothing is judged`,
  );
}

function unclaimed(cluster: string): FailureError {
  return new FailureError(
    code.config,
    `no record of this store says which cluster "${cluster}" is, so nothing is judged: an agent records it, and the first pod of a network with kubeConfig`,
  );
}
