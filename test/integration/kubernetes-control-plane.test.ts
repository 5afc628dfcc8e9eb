// The control plane of the tests itself: it is a real one, it says no, and it can be taken away and brought back.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { ApiRefusal } from '../helpers/kubernetes/api.ts';
import { type ControlPlane, startControlPlane, whyNoControlPlane } from '../helpers/kubernetes/control-plane.ts';

const options = {
  serviceAccounts: true,
  controllerManager: true,
  scheduler: true,
  users: [{ name: 'eve', token: 'token-of-eve', groups: ['visitors'] }],
};
const obstacle = whyNoControlPlane(options);
const configMaps = '/api/v1/namespaces/default/configmaps';

interface Named {
  readonly metadata: { readonly name: string; readonly resourceVersion: string };
}

function configMap(name: string): object {
  return { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name } };
}

if (obstacle !== undefined) test('control plane', ({ skip }) => skip(obstacle));

describe.skipIf(obstacle !== undefined)('control plane', () => {
  let plane: ControlPlane;

  beforeAll(async () => {
    plane = await startControlPlane(options);
  });

  afterAll(() => plane?.[Symbol.asyncDispose]());

  test('objects are made, read and changed by the administrator', async () => {
    await plane.api('POST', configMaps, configMap('first'));
    const change = { metadata: { labels: { colour: 'blue' } } };
    await plane.api('PATCH', `${configMaps}/first`, change, { contentType: 'application/merge-patch+json' });
    expect(await plane.kubectl(['get', 'configmap', '-l', 'colour=blue', '-o', 'name'])).toBe('configmap/first\n');
    await plane.kubectl(['apply', '-f', '-'], { input: JSON.stringify(configMap('second')) });
    expect(await plane.api<Named>('GET', `${configMaps}/second`)).toMatchObject({ metadata: { name: 'second' } });
  });

  test('others may do what RBAC says, however they prove who they are', async () => {
    const eve = { token: 'token-of-eve' };
    const refusal = await plane.api('GET', configMaps, undefined, eve).catch((error: ApiRefusal) => error);
    expect(refusal).toMatchObject({ name: 'ApiRefusal', status: 403, reason: 'Forbidden' });
    expect(String(refusal)).toContain('User "eve" cannot list resource "configmaps"');
    await expect(plane.api('GET', configMaps, undefined, { token: 'nobody' })).rejects.toMatchObject({ status: 401 });
    await plane.kubectl(['create', 'role', 'reader', '--verb=list', '--resource=configmaps']);
    await plane.kubectl(['create', 'rolebinding', 'visitors', '--role=reader', '--group=visitors']);
    await expect.poll(() => plane.api('GET', configMaps, undefined, eve).then(() => 'listed', String)).toBe('listed');

    const tokenFile = join(plane.folder, 'token-of-eve');
    writeFileSync(tokenFile, 'token-of-eve');
    const certificate = await plane.clientCertificate('adam', ['visitors']);
    for (const credential of [eve, { tokenFile }, { certificate }]) {
      const kubeconfig = plane.kubeconfig(credential);
      expect(await plane.kubectl(['get', 'configmaps', '-o', 'name'], { kubeconfig })).toContain('kube-root-ca.crt');
      await expect(plane.kubectl(['get', 'secrets'], { kubeconfig })).rejects.toThrow('cannot list resource "secrets"');
    }
  });

  test('controllers and scheduler work: a Deployment becomes a pod that finds no node', async () => {
    await plane.kubectl(['create', 'deployment', 'web', '--image=localhost/none']);
    const reasons = ['get', 'pods', '-l', 'app=web', '-o', 'jsonpath={.items[*].status.conditions[*].reason}'];
    await expect.poll(() => plane.kubectl(reasons), { timeout: 60_000, interval: 200 }).toBe('Unschedulable');
    const account = ['get', 'pods', '-l', 'app=web', '-o', 'jsonpath={.items[*].spec.serviceAccountName}'];
    expect(await plane.kubectl(account)).toBe('default');
  });

  test('the API server is silent while it is stopped, refuses when killed, and comes back with its objects', async () => {
    await plane.api('POST', configMaps, configMap('kept'));
    await plane.apiServer.stop();
    await expect(plane.api('GET', configMaps, undefined, { timeout: 500 })).rejects.toThrow(/abort|timeout/);
    plane.apiServer.cont();
    await plane.api('GET', `${configMaps}/kept`);
    await plane.apiServer.kill();
    await expect(plane.api('GET', configMaps)).rejects.toThrow('ECONNREFUSED');
    await plane.apiServer.restart();
    expect(await plane.api<Named>('GET', `${configMaps}/kept`)).toMatchObject({ metadata: { name: 'kept' } });
  });

  test('what etcd has compacted is gone for a watch', async () => {
    const made = await plane.api<Named>('POST', configMaps, configMap('old'));
    await plane.api('POST', configMaps, configMap('new'));
    await plane.compact();
    await plane.apiServer.restart();
    const since = `${configMaps}?watch=1&timeoutSeconds=20&resourceVersion=${made.metadata.resourceVersion}`;
    const events = await plane.api('GET', since);
    expect(events).toMatchObject({ type: 'ERROR', object: { code: 410, reason: 'Expired' } });
  });
});
