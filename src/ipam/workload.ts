// Which workload, if any, keeps a pod's addresses. Pure: all is read from the pod's own controller reference.
import { code, FailureError } from '../base/errors.ts';
import type { Pod as KubePod } from '../kube/objects.ts';
import type { StickySettings } from './config.ts';
import type { Workload } from './model.ts';

/** A workload that keeps the addresses of this pod. */
export interface Sticky {
  readonly workload: Workload;
  /** Whether another living pod may have them at the same time: the target of a VM's migration beside its source. */
  readonly mayShare: boolean;
}

/** KubeVirt's mark on the pod that a VM migrates to. It stays when the migration is over. */
const migrationLabel = 'kubevirt.io/migrationJobUID';

/**
 * The workload that keeps the pod's addresses, by the configuration or, stronger, by the pod's own wish (its annotation
 * `kube-ipam.sticky`). Throws code 7 where the pod wishes it and no such workload controls it.
 */
export function stickyOf(pod: KubePod, settings: StickySettings, wish: boolean | undefined): Sticky | undefined {
  if (wish === false) return undefined;
  const workload = workloadOf(pod);
  if (workload === undefined) {
    if (wish === undefined) return undefined;
    throw new FailureError(
      code.config,
      'annotation kube-ipam.sticky "true": only pods that a StatefulSet or a KubeVirt VM controls can keep an address; remove it, or ask for a fixed one by kube-ipam.ip',
    );
  }
  const isVm = workload.kind === 'VirtualMachine';
  if (wish === undefined && !(isVm ? settings.vms : settings.statefulSets)) return undefined;
  return { workload, mayShare: isVm && isMigrationTarget(pod) };
}

/**
 * The StatefulSet or the VM that controls a pod; undefined for any other pod. A VM is known by its instance, which has
 * its name: the labels and annotations of a VM's pods are the user's own and prove nothing.
 */
export function workloadOf({ metadata }: KubePod): Workload | undefined {
  const { name, namespace = '' } = metadata;
  const owner = metadata.ownerReferences?.find(({ controller }) => controller === true);
  if (owner === undefined) return undefined;
  const group = owner.apiVersion.split('/')[0];
  if (group === 'kubevirt.io' && owner.kind === 'VirtualMachineInstance') {
    return { namespace, kind: 'VirtualMachine', name: owner.name };
  }
  if (group !== 'apps' || owner.kind !== 'StatefulSet' || placeOf(name)?.set !== owner.name) return undefined;
  return { namespace, kind: 'StatefulSet', name };
}

/** The StatefulSet and the ordinal that a pod's name stands for: `web-0` is ordinal 0 of `web`. */
export function placeOf(podName: string): { readonly set: string; readonly ordinal: number } | undefined {
  const match = /^(.+)-(0|[1-9]\d{0,9})$/.exec(podName);
  return match === null ? undefined : { set: match[1]!, ordinal: Number(match[2]) };
}

/** Whether a pod was made to be the target of a VM's live migration. */
function isMigrationTarget({ metadata }: KubePod): boolean {
  const { labels = {} } = metadata;
  return Object.hasOwn(labels, migrationLabel) && labels[migrationLabel] !== '';
}
