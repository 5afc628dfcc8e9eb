// What the plugin's reader and the client ask of a real API server, on good days and on bad ones.
import { execFile } from 'node:child_process';
import { copyFileSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, describe, expect, it, test } from 'vitest';
import { type Deadline, deadlineIn } from '../../src/base/clock.ts';
import { code, FailureError } from '../../src/base/errors.ts';
import { Client, openClient } from '../../src/kube/client.ts';
import { NeedsAssetError, readKubeconfig } from '../../src/kube/config.ts';
import { openReader } from '../../src/kube/light.ts';
import type { Found, KubeObject } from '../../src/kube/objects.ts';
import { namespaces, nodes, pathOf, pods, type Resource } from '../../src/kube/resources.ts';
import { parseYaml } from '../../src/kube/yaml.ts';
import { authority } from '../helpers/certificates.ts';
import { freePorts } from '../helpers/etcd.ts';
import { type ControlPlane, startControlPlane, whyNoControlPlane } from '../helpers/kubernetes/control-plane.ts';
import { type Damage, DamagingProxy } from '../helpers/kubernetes/damaging-proxy.ts';
import { kubernetesProgram } from '../helpers/kubernetes/tools.ts';
import { project } from '../helpers/project.ts';
import { endsWithParent, ServerProcess } from '../helpers/server-process.ts';
import { startBlackHole } from '../helpers/tcp-servers.ts';

const obstacle = whyNoControlPlane();
const soon = () => deadlineIn(30_000);
const kubeSystem = pathOf(namespaces, { name: 'kube-system' });
const web0 = pathOf(pods, { namespace: 'default', name: 'web-0' });
const web1 = pathOf(pods, { namespace: 'default', name: 'web-1' });
const configMaps: Resource = { apiVersion: 'v1', kind: 'ConfigMap', plural: 'configmaps' };
const inDefault = (name?: string) => pathOf(configMaps, { namespace: 'default', name });

interface ConfigMap extends KubeObject {
  readonly data?: Readonly<Record<string, string>>;
}

function configMap(name: string, data: Readonly<Record<string, string>> = {}): object {
  return { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name }, data };
}

async function failure(promise: Promise<unknown>): Promise<FailureError> {
  const error = await promise.then(
    () => new Error('it succeeded'),
    (reason: unknown) => reason,
  );
  if (error instanceof FailureError) return error;
  throw error;
}

if (obstacle !== undefined) test('kubernetes client', ({ skip }) => skip(obstacle));

describe.skipIf(obstacle !== undefined)('against a real API server', () => {
  let plane: ControlPlane;
  let proxy: DamagingProxy;

  beforeAll(async () => {
    plane = await startControlPlane({ users: [{ name: 'eve', token: 'token-of-eve' }] });
    proxy = await DamagingProxy.start(plane);
    const container = { name: 'a', image: 'localhost/pause:1' };
    const pod = { metadata: { name: 'web-1', annotations: { a: 'ü€😀' } }, spec: { containers: [container] } };
    await plane.api('POST', '/api/v1/namespaces/default/pods', pod);
  });

  afterEach(() => {
    proxy.damage = () => undefined;
    proxy.seen.length = 0;
  });

  afterAll(async () => {
    await proxy?.[Symbol.asyncDispose]();
    await plane?.[Symbol.asyncDispose]();
  });

  const admin = (server?: string) => plane.kubeconfig({ token: plane.adminToken }, server);

  /** The two that read: what holds for one holds for the other. */
  const readers: Readonly<Record<string, (kubeconfig: string) => AsyncDisposable & { get: Get }>> = {
    "the plugin's reader": kubeconfig => {
      const reader = openReader(kubeconfig);
      return { get: (path, deadline) => reader.get(path, deadline), [Symbol.asyncDispose]: async () => reader.close() };
    },
    'the client': kubeconfig => new Client(() => readKubeconfig(kubeconfig)),
  };
  type Get = (path: string, deadline: Deadline) => Promise<Found<KubeObject> | undefined>;

  async function get(open: (kubeconfig: string) => AsyncDisposable & { get: Get }, kubeconfig: string, path: string) {
    await using reader = open(kubeconfig);
    return await reader.get(path, soon());
  }

  describe.each(Object.entries(readers))('%s', (_name, open) => {
    it('gives an object with the time of the server, and undefined for one that does not exist', async () => {
      await using reader = open(admin());
      const found = await reader.get(web1, soon());
      expect(found?.object.metadata).toMatchObject({ name: 'web-1', annotations: { a: 'ü€😀' } });
      expect(Math.abs(found!.at - Date.now())).toBeLessThan(10_000);
      expect(await reader.get(web0, soon())).toBeUndefined();
      expect(await reader.get(pathOf(pods, { namespace: 'nowhere', name: 'web-1' }), soon())).toBeUndefined();
      expect(await reader.get(pathOf(nodes, { name: 'n1' }), soon())).toBeUndefined();
    });

    it('asks several questions at once and one after another', async () => {
      await using reader = open(admin(proxy.url));
      const before = proxy.connections;
      const names = ['kube-system', 'default', 'nowhere'];
      const ask = (name: string) => reader.get(pathOf(namespaces, { name }), soon());
      const atOnce = await Promise.all(names.map(ask));
      expect(atOnce.map(found => found?.object.metadata.name)).toEqual(['kube-system', 'default', undefined]);
      const connections = proxy.connections - before;
      expect((await ask('kube-public'))?.object.metadata.name).toBe('kube-public');
      expect(proxy.connections - before).toBe(connections);
    });

    it('proves who it is by token, by a file with a token and by certificate', async () => {
      const tokenFile = join(plane.folder, 'token-of-admin');
      writeFileSync(tokenFile, `${plane.adminToken}\n`);
      const certificate = await plane.clientCertificate('adam', ['system:masters']);
      for (const credential of [{ tokenFile }, { certificate }]) {
        const found = await get(open, plane.kubeconfig(credential), kubeSystem);
        expect(found?.object.metadata.name).toBe('kube-system');
      }
    });

    it('accepts no server but the one whose certificate it was told of', async () => {
      const config = JSON.parse(readFileSync(admin(), 'utf8'));
      const [{ cluster }] = config.clusters;
      const at = (changes: object) => {
        const path = join(plane.folder, 'changed.kubeconfig');
        writeFileSync(
          path,
          JSON.stringify({ ...config, clusters: [{ name: 'test', cluster: { ...cluster, ...changes } }] }),
        );
        return path;
      };
      const otherCa = await authority(plane.folder, 'other-ca');
      expect((await failure(get(open, at({ 'certificate-authority': otherCa }), kubeSystem))).message).toMatch(
        /^get namespaces\/kube-system: no usable answer .*: certificate not signed by the trusted CA$/,
      );
      expect((await failure(get(open, at({ 'tls-server-name': 'other.example' }), kubeSystem))).message).toMatch(
        /certificate does not name this host or address/,
      );
      // The proxy's certificate names its address, and nothing else.
      const byName = proxy.url.replace('127.0.0.1', 'localhost');
      expect((await failure(get(open, admin(byName), kubeSystem))).message).toMatch(/does not name this host/);
      expect(await get(open, at({ 'tls-server-name': 'kubernetes.default.svc' }), kubeSystem)).toBeDefined();
      expect(await get(open, admin(plane.url.replace('127.0.0.1', 'localhost')), kubeSystem)).toBeDefined();
      const unverified = { 'certificate-authority': undefined, 'insecure-skip-tls-verify': true };
      expect(await get(open, at(unverified), kubeSystem)).toBeDefined();
    });

    it('403: says which right is missing, to whom', async () => {
      const kubeconfig = plane.kubeconfig({ token: 'token-of-eve' });
      const told = await failure(get(open, kubeconfig, web0));
      expect(told).toMatchObject({ name: 'ApiError', code: code.tryAgain, status: 403, reason: 'Forbidden' });
      expect(told.message).toContain('get pods/web-0 in namespace default: the API server https://127.0.0.1:');
      expect(told.message).toContain(
        `give the account of kubeconfig ${kubeconfig} the right "get" on "pods" in namespace`,
      );
      expect(told.message).toContain('User "eve" cannot get resource "pods"');
    });

    it('401: says that the token is not accepted, and not which one it was', async () => {
      const kubeconfig = plane.kubeconfig({ token: 'token-of-nobody' });
      const told = await failure(get(open, kubeconfig, web0));
      expect(told).toMatchObject({ code: code.tryAgain, status: 401 });
      expect(told.message).toMatch(
        /does not accept the credentials of kubeconfig .*: token or certificate has expired/,
      );
      expect(told.message).not.toContain('nobody');
    });

    it('a 404 that is not about the object proves nothing', async () => {
      const machine = { apiVersion: 'kubevirt.io/v1', kind: 'VirtualMachine', plural: 'virtualmachines' };
      const unknownKind = pathOf(machine, { namespace: 'default', name: 'vm' });
      expect((await failure(get(open, admin(), unknownKind))).message).toMatch(/does not know it \(HTTP 404/);
      const unknownPlural = '/api/v1/namespaces/default/podz/web-0';
      expect(await failure(get(open, admin(), unknownPlural))).toMatchObject({ status: 404 });
      const elsewhere = admin(`${plane.url}/elsewhere`);
      expect(await failure(get(open, elsewhere, web0))).toMatchObject({ status: 404 });
    });

    const status = (status: number, message: string, headers = {}): Damage => ({
      answer: { status, headers, body: JSON.stringify({ kind: 'Status', message, code: status }) },
    });
    const body = (text: string): Damage => ({ answer: { status: 200, body: text } });

    it.each<[string, Damage, RegExp]>([
      ['429', status(429, 'too many requests'), /is too busy \(HTTP 429: too many requests\)/],
      [
        '500',
        status(500, 'etcdserver: leader changed'),
        /has trouble of its own \(HTTP 500: etcdserver: leader changed\)/,
      ],
      [
        '502 of a proxy',
        { answer: { status: 502, body: '<h1>admin-token</h1>' } },
        /has trouble of its own \(HTTP 502\)$/,
      ],
      ['an endless message', status(500, 'x'.repeat(9000)), /x{300}\.\.\.\)$/],
      ['a token in a message', status(500, 'bad admin-token,\n here'), /HTTP 500: bad \*\*\*, here\)$/],
      [
        '302',
        { answer: { status: 302, headers: { location: 'https://127.0.0.1:1' }, body: '' } },
        /refuses it \(HTTP 302\)/,
      ],
      ['no JSON', body('hello'), /not an object of Kubernetes$/],
      ['half an object', { alter: piece => piece.subarray(0, 100) }, /not an object of Kubernetes$/],
      ['another object', body('{"metadata":{"name":"web-2","uid":"u"}}'), /another object than the one asked for$/],
      ['an object without uid', body('{"metadata":{"name":"web-1"}}'), /not an object of Kubernetes$/],
      ['a list', body('{"kind":"PodList","items":[],"metadata":{}}'), /not an object of Kubernetes$/],
      ['no HTTP', { raw: 'SSH-2.0-OpenSSH_9.2\r\n' }, /an answer that is not HTTP$/],
      [
        'a head, and what is no body',
        { raw: 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nno chunk\r\n' },
        /connection closed|not HTTP/,
      ],
      [
        'another protocol',
        { raw: 'HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n' },
        /connection closed/,
      ],
      ['a closed connection', { hangUp: true }, /connection closed/],
      ['an end in the middle', { alter: () => undefined }, /connection closed/],
    ])('%s: code 11, and says what it was', async (_what, damage, message) => {
      proxy.damage = () => damage;
      const told = await failure(get(open, admin(proxy.url), web1));
      expect(told.code).toBe(code.tryAgain);
      expect(told.message).toMatch(/^get pods\/web-1 in namespace default: /);
      expect(told.message).toMatch(message);
      expect(told.message).not.toContain(plane.adminToken);
      expect(told.message.length).toBeLessThan(700);
    });

    it('no answer: ends with its deadline', async () => {
      proxy.damage = () => ({ silent: true });
      await using reader = open(admin(proxy.url));
      const began = performance.now();
      const told = await failure(reader.get(web0, deadlineIn(500)));
      expect(performance.now() - began).toBeLessThan(5000);
      expect(told).toMatchObject({ name: 'UnansweredError', code: code.tryAgain });
      expect(told.message).toMatch(/no answer in time/);
    });

    it('no connection: says why', async () => {
      const [port] = await freePorts(1);
      const refused = await failure(get(open, admin(`https://127.0.0.1:${port}`), web0));
      expect(refused.message).toMatch(/: connection refused$/);
      await using hole = await startBlackHole();
      await using reader = open(admin(hole.endpoint.replace('http:', 'https:')));
      expect(await failure(reader.get(web0, deadlineIn(500)))).toMatchObject({ name: 'UnansweredError' });
      const unknown = await failure(get(open, admin('https://no-such-host.invalid'), web0));
      expect(unknown.message).toMatch(/host name/);
    });

    it('a kept connection that the server has closed is replaced without a word', async () => {
      await using reader = open(admin(proxy.url));
      expect(await reader.get(kubeSystem, soon())).toBeDefined();
      // It is closed in the very moment in which the next request comes.
      let closed = 0;
      proxy.damage = () => (closed++ === 0 ? { hangUp: true } : undefined);
      expect(await reader.get(kubeSystem, soon())).toBeDefined();
      expect(closed).toBe(2);
      proxy.cut();
      expect(await reader.get(kubeSystem, soon())).toBeDefined();
    });

    it('certificates that TLS refuses are a fault of the configuration', async () => {
      const [one, other] = [await plane.clientCertificate('one'), await plane.clientCertificate('other')];
      const certificate = { cert: one.cert, key: other.key };
      const told = await failure(get(open, plane.kubeconfig({ certificate }), web0));
      expect(told).toMatchObject({ code: code.config });
      expect(told.message).toMatch(/^kubeconfig .* cannot be used: its certificates: /);
    });

    it('a server that hangs, dies and comes back', async () => {
      await using reader = open(admin());
      expect(await reader.get(kubeSystem, soon())).toBeDefined();
      await plane.apiServer.stop();
      expect(await failure(reader.get(kubeSystem, deadlineIn(700)))).toMatchObject({ name: 'UnansweredError' });
      await plane.apiServer.kill();
      expect((await failure(reader.get(kubeSystem, soon()))).message).toMatch(/connection (refused|closed)$/);
      await plane.apiServer.restart();
      expect(await reader.get(kubeSystem, soon())).toBeDefined();
    });
  });

  it('proxies of the environment are not used', async () => {
    await using hole = await startBlackHole();
    const script = `
      const { openReader } = await import('./src/kube/light.ts');
      const { openClient } = await import('./src/kube/client.ts');
      const { deadlineIn } = await import('./src/base/clock.ts');
      const kubeconfig = process.argv[1];
      for (const one of [openReader(kubeconfig), await openClient({ kubeconfig, env: {} })])
        console.log((await one.get('${kubeSystem}', deadlineIn(20_000))).object.metadata.name);
      process.exit(0);`;
    const proxies = { HTTPS_PROXY: hole.endpoint, https_proxy: hole.endpoint, ALL_PROXY: hole.endpoint };
    const env = { ...proxies, NODE_USE_ENV_PROXY: '1', PATH: process.env.PATH };
    const args = ['--input-type=module', '-e', script, admin()];
    const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: project, env, timeout: 60_000 });
    expect(stdout).toBe('kube-system\nkube-system\n');
    expect(hole.connections).toBe(0);
  });

  it('a kubeconfig in YAML is for the part of the program that can read it', async () => {
    const path = join(plane.folder, 'kubeconfig.yaml');
    const view = ['config', 'view', '--flatten', '--raw', '--kubeconfig', admin(), '-o', 'yaml'];
    writeFileSync(path, await plane.kubectl(view));
    expect(() => openReader(path)).toThrow(NeedsAssetError);
    expect(await openReader(path, parseYaml).get(kubeSystem, soon())).toBeDefined();
    await using client = await openClient({ kubeconfig: path, env: {} });
    expect(await client.get(kubeSystem, soon())).toBeDefined();
  });

  describe('the client', () => {
    it('goes by a URL alone, as `kubectl proxy` offers one', async () => {
      const [port] = await freePorts(1);
      const { host } = new URL(`http://127.0.0.1:${port}`);
      const argv = [kubernetesProgram('kubectl')!, '--kubeconfig', admin(), 'proxy', '--port', String(port)];
      const answers = () =>
        fetch(`http://${host}/version`).then(
          ({ ok }) => ok,
          () => false,
        );
      const server = new ServerProcess({ name: 'kubectl proxy', argv: [...endsWithParent, ...argv], answers });
      try {
        await server.ready();
        await using byUrl = await openClient({ endpoint: `http://${host}/`, env: {} });
        expect((await byUrl.get(web1, soon()))?.object.metadata.name).toBe('web-1');
        const { items, resourceVersion } = await byUrl.list(inDefault(), {}, soon());
        const changes = await byUrl.watch<ConfigMap>(
          inDefault(),
          { resourceVersion, timeoutSeconds: 20, silence: 20_000 },
          never,
        );
        const made = { metadata: { name: `by-url-${items.length}` } };
        await byUrl.create(inDefault(), made, soon());
        for await (const event of changes) {
          expect(event).toMatchObject({ type: 'ADDED', object: { metadata: { name: made.metadata.name } } });
          break;
        }
      } finally {
        await server.kill();
      }
      const wrong = await failure(openClient({ endpoint: 'http://u:secret@h:1', env: {} }));
      expect(wrong.code).toBe(code.config);
      expect(wrong.message).not.toContain('secret');
    });

    let client: Client;
    beforeAll(async () => {
      client = await openClient({ kubeconfig: admin(proxy.url), env: {} });
    });
    afterAll(() => client?.[Symbol.asyncDispose]());

    it('says at once what is wrong with its configuration', async () => {
      expect(await failure(openClient({ kubeconfig: '/nowhere', env: {} }))).toMatchObject({ code: code.tryAgain });
      expect((await failure(openClient({ env: {} }))).message).toMatch(/this is no pod/);
    });

    it('creates, updates, patches and deletes', async () => {
      const made = await client.create<ConfigMap>(inDefault(), configMap('one', { a: '1' }), soon());
      expect(made.data).toEqual({ a: '1' });
      expect(await failure(client.create(inDefault(), configMap('one'), soon()))).toMatchObject({
        status: 409,
        reason: 'AlreadyExists',
      });
      const changed = await client.update<ConfigMap>(inDefault('one'), { ...made, data: { a: '2' } }, soon());
      expect(changed.data).toEqual({ a: '2' });
      expect(await failure(client.update(inDefault('one'), { ...made, data: {} }, soon()))).toMatchObject({
        status: 409,
        reason: 'Conflict',
      });
      await client.patch(inDefault('one'), 'merge', { data: { b: '3' } }, soon());
      await client.patch(inDefault('one'), 'json', [{ op: 'replace', path: '/data/a', value: '4' }], soon());
      const applied = configMap('one', { c: '5' });
      expect((await client.patch<ConfigMap>(inDefault('one'), 'apply', applied, soon())).data).toEqual({
        a: '4',
        b: '3',
        c: '5',
      });
      const preconditions = { uid: 'another' };
      expect(await failure(client.delete(inDefault('one'), soon(), { preconditions }))).toMatchObject({ status: 409 });
      expect(await client.delete(inDefault('one'), soon(), { preconditions: { uid: made.metadata.uid } })).toBe(true);
      expect(await client.delete(inDefault('one'), soon())).toBe(false);
      expect(await client.get(inDefault('one'), soon())).toBeUndefined();
    });

    it('names the right that a write or a list lacks', async () => {
      await using eve = await openClient({ kubeconfig: plane.kubeconfig({ token: 'token-of-eve' }), env: {} });
      const told = async (promise: Promise<unknown>) => (await failure(promise)).message;
      expect(await told(eve.list(pathOf(pods), {}, soon()))).toMatch(/^list pods: .* the right "list" on "pods" \(/);
      const there = 'in namespace default';
      expect(await told(eve.create(inDefault(), configMap('x'), soon()))).toContain(
        `"create" on "configmaps" ${there}`,
      );
      expect(await told(eve.patch(inDefault('x'), 'merge', {}, soon()))).toContain(`"patch" on "configmaps" ${there}`);
      expect(await told(eve.delete(inDefault('x'), soon()))).toContain(`"delete" on "configmaps" ${there}`);
      const watching = eve.watch(pathOf(nodes), { resourceVersion: '1', timeoutSeconds: 5, silence: 5000 }, never);
      expect(await told(watching)).toMatch(/^watch nodes: .* the right "watch" on "nodes" \(/);
    });

    it('lists in pages, at one version', async () => {
      const names = Array.from({ length: 1100 }, (_, i) => `many-${String(i).padStart(4, '0')}`);
      for (let i = 0; i < names.length; i += 50) {
        await Promise.all(names.slice(i, i + 50).map(name => client.create(inDefault(), configMap(name), soon())));
      }
      proxy.seen.length = 0;
      const { items, resourceVersion } = await client.list<ConfigMap>(inDefault(), {}, soon());
      expect(items.map(item => item.metadata.name).filter(name => name.startsWith('many'))).toEqual(names);
      expect(resourceVersion).toMatch(/^\d+$/);
      expect(proxy.seen).toHaveLength(3);
      for (const { path } of proxy.seen) {
        expect(path).toContain('limit=500');
        // A version would allow the server to answer from a copy that is behind.
        expect(path).not.toContain('resourceVersion');
      }
      const selection = { labelSelector: 'a=b', fieldSelector: 'metadata.name=many-0001' };
      expect((await client.list(inDefault(), selection, soon())).items).toEqual([]);
      const { items: kept } = await client.list<ConfigMap, string>(
        inDefault(),
        { fieldSelector: 'metadata.name=many-0001' },
        soon(),
        object => object.metadata.name,
      );
      expect(kept).toEqual(['many-0001']);
    });

    it('lists again when the version of its pages is compacted away, and never gives a part of a list', async () => {
      const expired = JSON.stringify({ kind: 'Status', reason: 'Expired', message: 'too old', code: 410 });
      let answered = 0;
      proxy.damage = ({ path }) =>
        path.includes('continue=') && answered++ < 1 ? { answer: { status: 410, body: expired } } : undefined;
      expect((await client.list(inDefault(), {}, soon())).items.length).toBeGreaterThan(1000);
      expect(proxy.seen).toHaveLength(2 + 3);
      proxy.damage = ({ path }) =>
        path.includes('continue=') ? { answer: { status: 410, body: expired } } : undefined;
      expect(await failure(client.list(inDefault(), {}, soon()))).toMatchObject({ status: 410, reason: 'Expired' });
      proxy.damage = ({ path }) => (path.includes('continue=') ? { hangUp: true } : undefined);
      expect(await failure(client.list(inDefault(), {}, soon()))).toMatchObject({ code: code.tryAgain });
      const noList = '{"kind":"PodList","metadata":{"resourceVersion":"1"},"items":[{"metadata":{}}]}';
      proxy.damage = () => ({ answer: { status: 200, body: noList } });
      expect((await failure(client.list(inDefault(), {}, soon()))).message).toMatch(/things without names/);
    });

    it.each([429, 503])('%i with Retry-After: waits and asks again, whatever the verb', async status => {
      let refused = 0;
      const answer = { status, headers: { 'retry-after': '1' }, body: '{"kind":"Status","message":"wait"}' };
      proxy.damage = () => (refused++ < 1 ? { answer } : undefined);
      const began = performance.now();
      await client.create(inDefault(), configMap(`patient-${status}`), soon());
      expect(performance.now() - began).toBeGreaterThanOrEqual(990);
      expect(proxy.seen).toHaveLength(2);
    });

    it('Retry-After beyond the deadline is not waited for', async () => {
      const answer = { status: 429, headers: { 'retry-after': '60' }, body: '{"kind":"Status","message":"wait"}' };
      proxy.damage = () => ({ answer });
      const began = performance.now();
      expect(await failure(client.get(web0, soon()))).toMatchObject({ status: 429 });
      expect(performance.now() - began).toBeLessThan(10_000);
      expect(proxy.seen).toHaveLength(1);
    });

    it('a write whose connection breaks is not sent twice, unless it says the same twice', async () => {
      await client.get(kubeSystem, soon());
      proxy.seen.length = 0;
      let cut = 0;
      proxy.damage = () => (cut++ === 0 ? { hangUp: true } : undefined);
      expect(await failure(client.create(inDefault(), configMap('once'), soon()))).toMatchObject({
        name: 'UnansweredError',
      });
      expect(proxy.seen).toHaveLength(1);
      await client.get(kubeSystem, soon());
      cut = 0;
      expect(await client.delete(inDefault('once'), soon())).toBe(false);
    });

    it('a new token in a file is used as soon as the old one is refused', async () => {
      const tokenFile = join(plane.folder, 'renewed-token');
      writeFileSync(tokenFile, 'expired');
      await using client = await openClient({ kubeconfig: plane.kubeconfig({ tokenFile }), env: {} });
      expect(await failure(client.get(kubeSystem, soon()))).toMatchObject({ status: 401 });
      writeFileSync(`${tokenFile}.new`, plane.adminToken);
      renameSync(`${tokenFile}.new`, tokenFile);
      expect(await client.get(kubeSystem, soon())).toBeDefined();
      // A file that is just being replaced stops nothing.
      renameSync(tokenFile, `${tokenFile}.away`);
      await sleep(1500);
      expect(await client.get(kubeSystem, soon())).toBeDefined();
    });

    it('new certificates and a new kubeconfig are used from the next connection on', async () => {
      const whoAmI = async (client: Client) => {
        const review = { apiVersion: 'authentication.k8s.io/v1', kind: 'SelfSubjectReview' };
        const path = '/apis/authentication.k8s.io/v1/selfsubjectreviews';
        const answer = await client.create<{ status: { userInfo: { username: string } } }>(path, review, soon());
        return answer.status.userInfo.username;
      };
      const first = await plane.clientCertificate('first');
      const second = await plane.clientCertificate('second');
      const [cert, key] = [join(plane.folder, 'rotating.crt'), join(plane.folder, 'rotating.key')];
      const rotate = (from: { readonly cert: string; readonly key: string }) => {
        copyFileSync(from.cert, cert);
        copyFileSync(from.key, key);
      };
      rotate(first);
      const kubeconfig = plane.kubeconfig({ certificate: { cert, key } });
      await using client = await openClient({ kubeconfig, env: {} });
      expect(await whoAmI(client)).toBe('first');
      rotate(second);
      await expect.poll(() => whoAmI(client), { timeout: 30_000 }).toBe('second');
      writeFileSync(kubeconfig, readFileSync(plane.kubeconfig({ token: 'token-of-eve' })));
      await expect.poll(() => whoAmI(client), { timeout: 30_000 }).toBe('eve');
    });
  });
});

const never = new AbortController().signal;
