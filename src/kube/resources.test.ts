// Paths to objects: no name may lead elsewhere, and the words for a request must name the right that it takes.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { asked, leases, namespaces, nodes, pathOf, pods, statefulSets } from './resources.ts';

test.each([
  [pathOf(pods), '/api/v1/pods', 'list pods', '"list" on "pods"'],
  [
    pathOf(pods, { namespace: 'web' }),
    '/api/v1/namespaces/web/pods',
    'list pods in namespace web',
    '"list" on "pods" in namespace web',
  ],
  [
    pathOf(pods, { namespace: 'web', name: 'a-0', subresource: 'status' }),
    '/api/v1/namespaces/web/pods/a-0/status',
    'list pods/a-0/status in namespace web',
    '"list" on "pods/status" in namespace web',
  ],
  [pathOf(nodes, { name: 'n1' }), '/api/v1/nodes/n1', 'list nodes/n1', '"list" on "nodes"'],
  [pathOf(namespaces), '/api/v1/namespaces', 'list namespaces', '"list" on "namespaces"'],
  [pathOf(namespaces, { name: 'web' }), '/api/v1/namespaces/web', 'list namespaces/web', '"list" on "namespaces"'],
  [pathOf(statefulSets), '/apis/apps/v1/statefulsets', 'list statefulsets.apps', '"list" on "statefulsets.apps"'],
  [
    pathOf(leases, { namespace: 'kube-system', name: 'kube-ipam-gc' }),
    '/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kube-ipam-gc',
    'list leases.coordination.k8s.io/kube-ipam-gc in namespace kube-system',
    '"list" on "leases.coordination.k8s.io" in namespace kube-system',
  ],
])('%s', (path, expected, words, right) => {
  expect(path).toBe(expected);
  expect(asked('list', path)).toMatchObject({ words, right });
});

describe('a name that no object can have', () => {
  test.each(['', '.', '..', '../secrets/x', 'a/b', 'a%2fb'])('%j is refused', name => {
    expect(() => pathOf(pods, { namespace: 'web', name })).toThrow('Pod name');
    expect(() => pathOf(pods, { namespace: name, name: 'a' })).toThrow('namespace name');
  });

  test('whatever is accepted stays one segment, and comes back as it was', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme', minLength: 1 }), name => {
        let path: string;
        try {
          path = pathOf(pods, { namespace: 'web', name });
        } catch {
          return;
        }
        expect(new URL(path, 'https://api').pathname.split('/')).toHaveLength(7);
        expect(path).not.toMatch(/[\s?#\\]/);
        expect(asked('get', path).name).toBe(name);
      }),
    );
  });
});
