// Who counts as dead: each rule, and what must not be taken for it.
import { describe, expect, it } from 'vitest';
import type { Node, NodeCondition, Pod, StatefulSet } from '../kube/objects.ts';
import {
  defaultNodeGrace,
  holderOfPod,
  isOfEarlierBoot,
  isReplaced,
  mayBeGone,
  outlineOf,
  outlineOfNode,
  type Subject,
  shareController,
  whyDead,
  whyGone,
  whyUnclaimed,
  whyUntouchable,
} from './gc.ts';
import { type Holder, parseOwner } from './model.ts';

const holder: Holder = {
  node: 'n',
  network: 'w',
  containerID: 'c',
  ifname: 'eth0',
  machine: 'm',
  boot: 'b',
  netns: '',
  pod: { namespace: 'd', name: 'p', uid: 'u' },
};

function pod(uid: string, more: Partial<Pod> = {}): Pod {
  return { metadata: { name: 'p', namespace: 'd', uid }, status: { phase: 'Running' }, ...more };
}

describe('a pod', () => {
  it('lives under its own uid', () => {
    expect(whyDead(holder, pod('u'))).toBeUndefined();
  });

  it('is dead when absent, replaced or ended', () => {
    expect(whyDead(holder, undefined)).toMatch(/gone/);
    expect(whyDead(holder, pod('u2'))).toMatch(/another pod/);
    for (const phase of ['Succeeded', 'Failed'])
      expect(whyDead(holder, pod('u', { status: { phase } }))).toMatch(phase);
  });

  it('that is static lives under the uid in the annotation of its mirror', () => {
    const mirror = { name: 'p', uid: 'u2', annotations: { 'kubernetes.io/config.mirror': 'u' } };
    expect(whyDead(holder, pod('u2', { metadata: mirror }))).toBeUndefined();
  });

  it('whose uid nobody told lives while its name does', () => {
    expect(whyDead({ ...holder, pod: { namespace: 'd', name: 'p' } }, pod('u2'))).toBeUndefined();
  });

  it('without a namespace, or none at all, is not for the API to judge', () => {
    expect(whyDead({ ...holder, pod: { namespace: '', name: 'p' } }, undefined)).toBeUndefined();
    const { pod: _, ...bare } = holder;
    expect(whyDead(bare, undefined)).toBeUndefined();
  });
});

describe('an outline', () => {
  it('of a pod gets the same verdict as the pod', () => {
    const mirror = { 'kubernetes.io/config.mirror': 'u' };
    const pods = [
      pod('u', { metadata: { name: 'p', namespace: 'd', uid: 'u', annotations: { more: 'x' }, labels: { app: 'y' } } }),
      pod('u2'),
      pod('u2', { metadata: { name: 'p', namespace: 'd', uid: 'u2', annotations: { ...mirror, more: 'x' } } }),
      pod('u', { status: { phase: 'Failed' } }),
      { metadata: { name: 'p', uid: 'u' } },
    ];
    for (const one of pods) expect(whyDead(holder, outlineOf(one))).toBe(whyDead(holder, one));
    expect(JSON.stringify(pods.map(outlineOf))).not.toMatch(/more|labels/);
  });
});

/** What the store has of `holder`, with these fields changed. */
function record(more: object = {}): object {
  return { kind: 'dynamic', cluster: 'here', ...holder, boot: 'now', ...more };
}

function subject(records: readonly object[] = [record()], id: Partial<Subject['id']> = {}, created = 5): Subject {
  const { node, network, containerID, ifname } = holder;
  const owners = records.map(value => parseOwner(JSON.stringify(value)));
  return { id: { node, network, containerID, ifname, ...id }, created, owners };
}

describe('what gc may touch', () => {
  const may = (one: Subject) => whyUntouchable(one, 'here') === undefined;
  const sticky = record({ kind: 'sticky', workload: {}, holders: [holder] });

  it('is what a container of this cluster holds, whatever the kind of its address', () => {
    for (const one of [record(), record({ kind: 'fixed' }), sticky]) expect(may(subject([one]))).toBe(true);
  });

  it.each(['reserved', 'service', 'held', 'from-the-future'])('is no record of kind %s', kind => {
    expect(may(subject([record(), record({ kind })]))).toBe(false);
  });

  it('is no record of another cluster, nor one that names none', () => {
    expect(whyUntouchable(subject([record(), record({ cluster: 'there' })]), 'here')).toMatch('cluster there');
    expect(may(subject([record({ cluster: undefined })]))).toBe(false);
  });

  it.each(['kube-ipam.eip', 'kube-ipam.public-ip'])(
    'is nothing that a feature keeps in the place of a node: %s',
    node => {
      expect(may(subject([record({ node })], { node }))).toBe(false);
    },
  );

  it('is no attachment that no record names: nobody knows whose it is', () => {
    expect(may(subject([]))).toBe(false);
  });
});

describe('the pod by which the API judges', () => {
  it('is that of the holder, also among the holders of a workload', () => {
    expect(holderOfPod(subject())?.pod).toEqual(holder.pod);
    const other = { ...holder, containerID: 'c2', pod: { namespace: 'd', name: 'p2', uid: 'u9' } };
    const sticky = record({ kind: 'sticky', holders: [other, holder] });
    expect(holderOfPod(subject([sticky]))?.pod).toEqual(holder.pod);
  });

  it('is none for a container of podman, one without any pod, or one of a name that no pod can have', () => {
    const strange = ['My Pod', '../x', 'a/b', 'p%2f', 'P', '-p', 'p.'].map(name => ({ namespace: 'd', name }));
    for (const pod of [{ namespace: '', name: 'p' }, { namespace: 'd', name: '' }, undefined, ...strange]) {
      expect(holderOfPod(subject([record({ pod })]))).toBeUndefined();
    }
  });

  it('is none where its records disagree', () => {
    for (const pod of [
      { ...holder.pod, uid: 'u2' },
      { ...holder.pod, name: 'p2' },
      { ...holder.pod, namespace: 'e' },
    ]) {
      expect(holderOfPod(subject([record(), record({ pod })]))).toBeUndefined();
    }
  });
});

describe('a sandbox', () => {
  const old = subject();
  const newer = (more: object = {}, id: Partial<Subject['id']> = {}, created = 6) =>
    subject([record({ containerID: 'c2', ...more, ...id })], { containerID: 'c2', ...id }, created);

  it('is replaced by one of the same pod, network and interface that was created later', () => {
    expect(isReplaced(old, [old, newer()])).toBe(true);
    expect(isReplaced(newer(), [old, newer()])).toBe(false);
  });

  it('is not replaced by an older one, or one of another pod, network or interface', () => {
    const pod = { ...holder.pod, uid: 'u2' };
    for (const other of [newer({}, {}, 4), newer({}, {}, 5), newer({ pod }), newer({}, { network: 'w2' })]) {
      expect(isReplaced(old, [old, other])).toBe(false);
    }
    expect(isReplaced(old, [newer({}, { ifname: 'net1' })])).toBe(false);
  });

  it('of a pod without uid is never replaced: another pod may have had its name', () => {
    const pod = { namespace: 'd', name: 'p' };
    expect(isReplaced(subject([record({ pod })]), [newer({ pod })])).toBe(false);
  });
});

describe('an earlier boot', () => {
  const earlier = (more: object, machine = { machine: 'm', boot: 'now' }) =>
    isOfEarlierBoot(subject([record(more)]), machine);

  it('of this machine has left no network namespace', () => {
    expect(earlier({ boot: 'before' })).toBe(true);
    expect(earlier({ boot: 'before', pod: undefined })).toBe(true);
  });

  it('is not this one, one of another machine, or one that was not told', () => {
    for (const more of [{}, { boot: 'before', machine: 'm2' }, { boot: '' }]) expect(earlier(more)).toBe(false);
  });

  it('is unknown to a machine that cannot tell itself or its boot from others', () => {
    expect(earlier({ boot: 'before', machine: '' }, { machine: '', boot: 'now' })).toBe(false);
    expect(earlier({ boot: 'before' }, { machine: 'm', boot: '' })).toBe(false);
  });

  it('must have written all of its records', () => {
    expect(isOfEarlierBoot(subject([record({ boot: 'before' }), record()]), { machine: 'm', boot: 'now' })).toBe(false);
    expect(isOfEarlierBoot(subject([]), { machine: 'm', boot: 'now' })).toBe(false);
  });
});

describe('an ordinal of a StatefulSet', () => {
  const set = (spec?: StatefulSet['spec']): StatefulSet => ({
    metadata: { name: 's', uid: 'x' },
    ...(spec && { spec }),
  });

  it('is unclaimed when the set is gone or too small for it', () => {
    expect(whyUnclaimed(undefined, 0)).toMatch(/gone/);
    expect(whyUnclaimed(set({ replicas: 3 }), 3)).toMatch('0 to 2');
    expect(whyUnclaimed(set({ replicas: 0 }), 0)).toMatch(/no pods/);
    expect(whyUnclaimed(set({}), 1)).toMatch('0 to 0');
    expect(whyUnclaimed(set({ replicas: 3, ordinals: { start: 5 } }), 4)).toMatch('5 to 7');
    expect(whyUnclaimed(set({ replicas: 3, ordinals: { start: 5 } }), 8)).toMatch('5 to 7');
  });

  it('is claimed inside, from the start that the set names', () => {
    expect(whyUnclaimed(set({ replicas: 3 }), 2)).toBeUndefined();
    expect(whyUnclaimed(set({}), 0)).toBeUndefined();
    for (const ordinal of [5, 7])
      expect(whyUnclaimed(set({ replicas: 3, ordinals: { start: 5 } }), ordinal)).toBeUndefined();
    expect(whyUnclaimed(set({ replicas: 3, ordinals: {} }), 0)).toBeUndefined();
  });

  it('is claimed where the set does not say how large it is', () => {
    expect(whyUnclaimed(set(), 7)).toBeUndefined();
  });
});

describe('a node', () => {
  const at = Date.UTC(2026, 0, 2);
  const outOfService = 'node.kubernetes.io/out-of-service';
  const node = (ready: Partial<NodeCondition>, taints: string[] = []): { object: Node; at: number } => ({
    at,
    object: {
      metadata: { name: 'n', uid: 'x' },
      spec: { taints: taints.map(key => ({ key, effect: 'NoExecute' })) },
      status: { conditions: [{ type: 'Ready', status: 'True', ...ready }] },
    },
  });
  const ago = (ms: number) => new Date(at - ms).toISOString();

  it('is gone when absent, out of service, or not ready for longer than the grace', () => {
    expect(whyGone(undefined, defaultNodeGrace)).toMatch(/gone/);
    expect(whyGone(node({}, ['node.kubernetes.io/out-of-service']), defaultNodeGrace)).toMatch(/out of service/);
    for (const status of ['False', 'Unknown']) {
      expect(whyGone(node({ status, lastTransitionTime: ago(300_001) }), defaultNodeGrace)).toMatch(/not ready/);
    }
  });

  it('that may be gone is worth a question, whatever the grace, and so is its outline', () => {
    const [worth, not] = [
      [node({ status: 'Unknown' }), node({ status: 'False', lastTransitionTime: ago(1) }), node({}, [outOfService])],
      [node({}), node({}, ['node.kubernetes.io/unreachable'])],
    ];
    for (const { object } of worth) expect([mayBeGone(object), mayBeGone(outlineOfNode(object))]).toEqual([true, true]);
    for (const { object } of not) expect([mayBeGone(object), mayBeGone(outlineOfNode(object))]).toEqual([false, false]);
    expect(mayBeGone({ metadata: { name: 'n', uid: 'x' } })).toBe(true);
    for (const { object, at } of [...worth, ...not]) {
      expect(whyGone({ object: outlineOfNode(object), at }, 0)).toBe(whyGone({ object, at }, 0));
    }
  });

  it('may come back before that, and where nobody says since when', () => {
    expect(whyGone(node({ lastTransitionTime: ago(10 ** 9) }), defaultNodeGrace)).toBeUndefined();
    expect(whyGone(node({ status: 'Unknown', lastTransitionTime: ago(299_999) }), defaultNodeGrace)).toBeUndefined();
    expect(whyGone(node({ status: 'Unknown' }), defaultNodeGrace)).toBeUndefined();
    expect(whyGone(node({}, ['node.kubernetes.io/unreachable']), defaultNodeGrace)).toBeUndefined();
  });
});

describe('one controller', () => {
  const made = (kind: string, name: string, uid: string, hash?: string): Pod => ({
    metadata: {
      name: 'p',
      namespace: 'd',
      uid: 'u',
      ownerReferences: [{ apiVersion: 'apps/v1', kind, name, uid, controller: true }],
      ...(hash !== undefined && { labels: { 'pod-template-hash': hash } }),
    },
  });

  it('is the same owner, or the Deployment behind two ReplicaSets', () => {
    expect(shareController(made('ReplicaSet', 'web-1', 'a'), made('ReplicaSet', 'web-1', 'a'))).toBe(true);
    expect(shareController(made('ReplicaSet', 'web-aa', 'a', 'aa'), made('ReplicaSet', 'web-bb', 'b', 'bb'))).toBe(
      true,
    );
    expect(shareController(made('ReplicaSet', 'web-aa', 'a', 'aa'), made('ReplicaSet', 'db-bb', 'b', 'bb'))).toBe(
      false,
    );
    expect(shareController(made('ReplicaSet', 'web-aa', 'a'), made('ReplicaSet', 'web-bb', 'b'))).toBe(false);
    expect(shareController(pod('a'), pod('b'))).toBe(false);
  });
});
