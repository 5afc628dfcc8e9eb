// Who counts as dead: each rule, and what must not be taken for it.
import { describe, expect, it } from 'vitest';
import type { Node, NodeCondition, Pod } from '../kube/objects.ts';
import { defaultNodeGrace, shareController, whyDead, whyGone } from './gc.ts';
import type { Holder } from './model.ts';

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

describe('a node', () => {
  const at = Date.UTC(2026, 0, 2);
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
