// Examines the store of a network: whether it answers, and whether it records the ranges that this node has configured.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { FailureError } from '../../base/errors.ts';
import type { AccessConfig, NetworkConfig } from '../../ipam/config.ts';
import { parseCluster } from '../../ipam/model.ts';
import { refuseNewerFormat } from '../../ipam/service/look.ts';
import { sameRanges } from '../../ipam/service/networks.ts';
import type { PatientSurroundings } from '../../ipam/service/patience.ts';
import { clusterKey, formatKey } from '../../store/keys.ts';
import { UnknownFateError, UnreachableError } from '../../store/kv.ts';
import { openChosen } from '../store-access.ts';
import { examineCertificates } from './certificates.ts';
import { type Diagnosis, diagnosis } from './diagnosis.ts';
import { examineEndpoints, examineHistory } from './etcd.ts';

/** The store that several networks share is examined once. */
export async function examineStore(access: AccessConfig): Promise<Diagnosis[]> {
  const { store } = access;
  return opened(access, async around => {
    if (store.kind === 'embedded') {
      await around.kv.read([{ key: formatKey }], around.deadline);
      return [diagnosis('store', store.dataDir, 'fine', 'the embedded store answers')];
    }
    const endpoints = await examineEndpoints(store, around.deadline);
    around.deadline.renew();
    const certificates = await examineCertificates(store, around.now(), around.deadline);
    if (endpoints.some(({ level }) => level === 'unreachable')) return [...endpoints, ...certificates];
    around.deadline.renew();
    return [...endpoints, ...certificates, ...(await examineHistory(around, store))];
  });
}

/** A network's store; an embedded one need not be there yet. */
export async function examineStoreOf(config: NetworkConfig): Promise<Diagnosis[]> {
  const { store } = config;
  if (store.kind === 'embedded' && !existsSync(join(store.dataDir, 'store.db'))) {
    return [diagnosis('store', store.dataDir, 'fine', 'no store yet: the first address makes it')];
  }
  return examineStore(config);
}

/** Whether the store can be used by this version: empty when it can. */
export async function examineFormat(access: AccessConfig): Promise<Diagnosis[]> {
  return opened(access, async around => {
    refuseNewerFormat((await around.kv.read([{ key: formatKey }], around.deadline)).answers[0]!.entries[0]);
    return [];
  });
}

/** Whether the store can be used by this version, and records the same ranges for the network. */
export async function examineRecord(config: NetworkConfig): Promise<Diagnosis[]> {
  const { store, network } = config;
  if (store.kind === 'embedded' && !existsSync(join(store.dataDir, 'store.db'))) return [];
  return opened(config, async around => {
    const key = around.keys.network(network);
    const { answers } = await around.kv.read([{ key: formatKey }, { key }], around.deadline);
    const [format, recorded] = answers.map(({ entries }) => entries[0]);
    refuseNewerFormat(format);
    const subject = `network ${network}`;
    if (recorded === undefined)
      return [diagnosis('ranges', subject, 'fine', 'not recorded yet: the first ADD does it')];
    if (sameRanges(config, recorded.value)) return [diagnosis('ranges', subject, 'fine', 'as recorded in the store')];
    const text = 'differ from those that are recorded in the store: another node may have another configuration';
    return [
      diagnosis('ranges', subject, 'warning', text, {
        advice: '"kube-ipam usage -o wide" shows those recorded; "kube-ipam install" records yours',
      }),
    ];
  });
}

/** Whether the name of the cluster is used by this one. @param uid of the cluster; undefined where nobody said */
export async function examineCluster(config: NetworkConfig, uid: string | undefined): Promise<Diagnosis[]> {
  const { store, cluster } = config;
  const isAbsent = store.kind === 'embedded' && !existsSync(join(store.dataDir, 'store.db'));
  if (uid === undefined || isAbsent) return [];
  return opened(config, async around => {
    const key = clusterKey(cluster);
    const recorded = (await around.kv.read([{ key }], around.deadline)).answers[0]!.entries[0];
    if (recorded === undefined || parseCluster(recorded.value) === uid) return [];
    const text = `is the name of another cluster in this store: pods are refused (this one has uid ${uid}, that one ${parseCluster(recorded.value) ?? 'unknown'})`;
    const advice = `give this cluster a name of its own, "cluster" in the configuration; if it is that one, set up anew, delete the key ${key}`;
    return [diagnosis('kubernetes', `cluster ${cluster}`, 'wrong', text, { advice })];
  });
}

/** A store that cannot be used is a diagnosis, not a failure of the doctor. */
async function opened(access: AccessConfig, examine: (around: PatientSurroundings) => Promise<Diagnosis[]>) {
  const subject = access.store.kind === 'embedded' ? access.store.dataDir : access.store.endpoints.join(', ');
  try {
    await using store = await openChosen({ access });
    return await examine(store.around);
  } catch (error) {
    if (!(error instanceof FailureError)) throw error;
    const isAway = error instanceof UnreachableError || error instanceof UnknownFateError;
    return [diagnosis('store', subject, isAway ? 'unreachable' : 'wrong', error.message)];
  }
}
