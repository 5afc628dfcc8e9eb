// The kubeconfig that the agent keeps for the plugin: an account of its own, with a token that outlives a day without the agent.
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { KubeconfigKeeper } from '../../src/agent/kubeconfig.ts';
import { deadlineIn } from '../../src/base/clock.ts';
import { Log } from '../../src/base/log.ts';
import { openClient } from '../../src/kube/client.ts';
import { openReader } from '../../src/kube/light.ts';
import { namespaces, pathOf, pods, serviceAccounts } from '../../src/kube/resources.ts';
import { type ControlPlane, startControlPlane, whyNoControlPlane } from '../helpers/kubernetes/control-plane.ts';
import { DamagingProxy } from '../helpers/kubernetes/damaging-proxy.ts';

const obstacle = whyNoControlPlane();
const namespace = 'kube-system';
const account = { namespace, name: 'kube-ipam-plugin' };

describe.skipIf(obstacle !== undefined)(`the kubeconfig for the plugin${obstacle ? ` (${obstacle})` : ''}`, () => {
  let plane: ControlPlane;
  let folder: string;

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'kube-ipam-kubeconfig-'));
    plane = await startControlPlane({ users: [{ name: 'agent', token: 'agent-token' }] });
    await plane.api('POST', pathOf(serviceAccounts, { namespace }), { metadata: { name: account.name } });
    const rbac = '/apis/rbac.authorization.k8s.io/v1';
    const rights = (name: string, rules: object[]) =>
      plane.api('POST', `${rbac}/clusterroles`, { metadata: { name }, rules });
    await rights('plugin', [{ apiGroups: [''], resources: ['pods', 'nodes', 'namespaces'], verbs: ['get'] }]);
    await plane.api('POST', `${rbac}/clusterrolebindings`, {
      metadata: { name: 'plugin' },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'plugin' },
      subjects: [{ kind: 'ServiceAccount', ...account }],
    });
  }, 60_000);

  afterAll(async () => {
    await plane?.[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true, force: true });
  });

  const soon = () => deadlineIn(20_000);
  const quiet = () => new Log({ file: join(folder, 'log'), level: 'info', maxSize: 2 ** 20 });

  async function keeper(token: string, server?: string) {
    const file = join(folder, 'conf.d', 'kubeconfig');
    const client = await openClient({ kubeconfig: plane.kubeconfig({ token }, server), env: {} });
    return { file, client, keeper: new KubeconfigKeeper(client, { file, account }, quiet()) };
  }

  it('is for root alone, lasts a day without the agent, and opens exactly what the plugin asks for', async () => {
    const { file, client, keeper: keeps } = await keeper(plane.adminToken);
    await using _ = client;
    const { granted } = await keeps.renew(soon());
    expect(granted).toBeGreaterThanOrEqual(2 * 24 * 3_600_000);
    expect(statSync(file).mode & 0o777).toBe(0o600);
    expect(statSync(join(folder, 'conf.d')).mode & 0o777).toBe(0o700);
    expect(readFileSync(join(folder, 'log'), 'utf8')).not.toContain(
      JSON.parse(readFileSync(file, 'utf8')).users[0].user.token,
    );
    const reader = openReader(file);
    try {
      const found = await reader.get(pathOf(namespaces, { name: 'kube-system' }), soon());
      expect(found?.object.metadata.name).toBe('kube-system');
      expect(await reader.get(pathOf(pods, { namespace: 'default', name: 'none' }), soon())).toBeUndefined();
      const denied = reader.get(pathOf(serviceAccounts, { namespace, name: account.name }), soon());
      await expect(denied).rejects.toMatchObject({
        code: 11,
        message: expect.stringMatching(/"get" on "serviceaccounts"/),
      });
    } finally {
      reader.close();
    }
  });

  it('is renewed when half of its life is over', async () => {
    const { file, client, keeper: keeps } = await keeper(plane.adminToken);
    await using _ = client;
    const timers = vi.spyOn(globalThis, 'setTimeout');
    await keeps.start();
    try {
      await expect.poll(() => keeps.state().ready, { timeout: 20_000 }).toBe(true);
      const [renew, ms] = timers.mock.calls.find(([, wait = 0]) => wait > 3_600_000)!;
      expect(ms).toBe(24 * 3_600_000);
      const before = readFileSync(file, 'utf8');
      (renew as () => void)();
      await expect.poll(() => readFileSync(file, 'utf8'), { timeout: 20_000 }).not.toBe(before);
    } finally {
      await keeps.stop();
      timers.mockRestore();
    }
  });

  it('is not asked for again and again where the server does not say when it granted it', async () => {
    await using proxy = await DamagingProxy.start(plane);
    const withoutTime = (piece: Buffer) =>
      Buffer.from(String(piece).replace(/"creationTimestamp":"[^"]*"/, '"creationTimestamp":null'));
    proxy.damage = ({ method }) => (method === 'POST' ? { alter: withoutTime } : undefined);
    const { client, keeper: keeps } = await keeper(plane.adminToken, proxy.url);
    await using _ = client;
    await keeps.start();
    try {
      await expect.poll(() => keeps.state().ready, { timeout: 20_000 }).toBe(true);
      await sleep(500);
      expect(proxy.seen).toHaveLength(1);
    } finally {
      await keeps.stop();
    }
  });

  it('stays as it is while it cannot be renewed, and is renewed once it can', async () => {
    const { file, client, keeper: keeps } = await keeper('agent-token');
    await using _ = client;
    const before = readFileSync(file, 'utf8');
    await keeps.start();
    try {
      await expect
        .poll(() => keeps.state(), { timeout: 20_000 })
        .toMatchObject({
          ready: false,
          detail: expect.stringMatching(/"create" on "serviceaccounts\/token"/),
        });
      expect(readFileSync(file, 'utf8')).toBe(before);
      const rbac = '/apis/rbac.authorization.k8s.io/v1';
      await plane.api('POST', `${rbac}/clusterrolebindings`, {
        metadata: { name: 'agent' },
        roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'cluster-admin' },
        subjects: [{ kind: 'User', name: 'agent' }],
      });
      await expect.poll(() => keeps.state().ready, { timeout: 60_000 }).toBe(true);
      expect(readFileSync(file, 'utf8')).not.toBe(before);
    } finally {
      await keeps.stop();
    }
  });
});
