// Which pods keep their addresses: by their controller, by the configuration, and by their own word.
import { describe, expect, it } from 'vitest';
import { FailureError } from '../base/errors.ts';
import type { OwnerReference, Pod } from '../kube/objects.ts';
import { placeOf, stickyOf, workloadOf } from './workload.ts';

const none = { statefulSets: false, vms: false };
const both = { statefulSets: true, vms: true };

function pod(name: string, owner?: Partial<OwnerReference>, labels: Record<string, string> = {}): Pod {
  const reference = { apiVersion: 'apps/v1', kind: 'StatefulSet', name: 'web', uid: 'u', controller: true };
  return {
    metadata: {
      name,
      namespace: 'ns',
      uid: 'p',
      labels,
      ...(owner && { ownerReferences: [{ ...reference, ...owner }] }),
    },
  };
}

const vmi = { apiVersion: 'kubevirt.io/v1', kind: 'VirtualMachineInstance', name: 'vm' };
const launcher = (labels?: Record<string, string>) => pod('virt-launcher-vm-x7k2p', vmi, labels);
const ofSet = { namespace: 'ns', kind: 'StatefulSet', name: 'web-3' };
const ofVm = { namespace: 'ns', kind: 'VirtualMachine', name: 'vm' };

describe('a workload', () => {
  it('is the StatefulSet with its ordinal, or the VM, that controls the pod', () => {
    expect(workloadOf(pod('web-3', {}))).toEqual(ofSet);
    expect(workloadOf(pod('web-3', { apiVersion: 'apps/v1beta2' }))).toEqual(ofSet);
    expect(workloadOf(launcher())).toEqual(ofVm);
    expect(workloadOf(pod('any', { ...vmi, apiVersion: 'kubevirt.io/v1alpha3' }))).toEqual(ofVm);
  });

  it.each([
    ['no owner', pod('web-3')],
    ['an owner that does not control it', pod('web-3', { controller: false })],
    ['a ReplicaSet', pod('web-3', { kind: 'ReplicaSet' })],
    ['a StatefulSet of another group', pod('web-3', { apiVersion: 'apps.example.org/v1' })],
    ['a StatefulSet of the core group', pod('web-3', { apiVersion: 'v1' })],
    ['a VM instance of another group', pod('web-3', { ...vmi, apiVersion: 'example.org/v1' })],
    ['a name without ordinal', pod('web', {})],
    ['the name of another set', pod('db-3', {})],
    ['an ordinal that no controller writes', pod('web-03', {})],
    ['a VM by its labels alone', pod('x', undefined, { 'kubevirt.io/domain': 'vm', 'kubevirt.io': 'virt-launcher' })],
  ])('%s makes none', (_, one) => expect(workloadOf(one)).toBeUndefined());

  it('the controller counts, wherever it stands among the owners', () => {
    const { metadata } = pod('web-3', {});
    const first = { ...metadata.ownerReferences![0]!, kind: 'Other', controller: false };
    expect(workloadOf({ metadata: { ...metadata, ownerReferences: [first, ...metadata.ownerReferences!] } })).toEqual(
      ofSet,
    );
  });
});

it.each([
  ['web-0', { set: 'web', ordinal: 0 }],
  ['my-web-1-12', { set: 'my-web-1', ordinal: 12 }],
  ['web-2147483647', { set: 'web', ordinal: 2_147_483_647 }],
  ['web', undefined],
  ['web-', undefined],
  ['-0', undefined],
  ['web-00', undefined],
  ['web-1x', undefined],
])('%s stands for %j', (name, place) => expect(placeOf(name)).toEqual(place));

describe('a pod keeps its addresses', () => {
  it('as the configuration has it for its kind', () => {
    const of = (statefulSets: boolean, vms: boolean) =>
      [pod('web-3', {}), launcher(), pod('web-3')].map(
        one => stickyOf(one, { statefulSets, vms }, undefined)?.workload,
      );
    expect(of(false, false)).toEqual([undefined, undefined, undefined]);
    expect(of(true, false)).toEqual([ofSet, undefined, undefined]);
    expect(of(false, true)).toEqual([undefined, ofVm, undefined]);
    expect(of(true, true)).toEqual([ofSet, ofVm, undefined]);
  });

  it('unless its own annotation says otherwise', () => {
    expect(stickyOf(pod('web-3', {}), none, true)?.workload).toEqual(ofSet);
    expect(stickyOf(launcher(), none, true)?.workload).toEqual(ofVm);
    expect(stickyOf(pod('web-3', {}), both, false)).toBeUndefined();
    expect(stickyOf(pod('web-3'), both, false)).toBeUndefined();
  });

  it('a wish that nothing can fulfil is told: code 7', () => {
    const wish = () => stickyOf(pod('web-3', { kind: 'ReplicaSet' }), both, true);
    expect(wish).toThrow(FailureError);
    expect(wish).toThrow(/annotation kube-ipam\.sticky "true": only pods that a StatefulSet or a KubeVirt VM controls/);
    expect(wish).toThrow(expect.objectContaining({ code: 7 }));
  });

  it('together with another pod only as the target of a VM’s migration', () => {
    const target = { 'kubevirt.io/migrationJobUID': '7f2d' };
    expect(stickyOf(launcher(target), both, undefined)?.mayShare).toBe(true);
    expect(stickyOf(launcher(), both, undefined)?.mayShare).toBe(false);
    expect(stickyOf(launcher({ 'kubevirt.io/migrationJobUID': '' }), both, undefined)?.mayShare).toBe(false);
    expect(stickyOf(pod('web-3', {}, target), both, undefined)?.mayShare).toBe(false);
  });
});
