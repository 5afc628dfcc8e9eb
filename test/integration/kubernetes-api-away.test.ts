// The API server as a pod's ADD meets it on bad days: away, slow, refusing, talking nonsense. Whatever it does not say is
// never guessed: code 11 or 7, and nothing is taken (design sections 7 and 9). On good days, what an ADD costs it.
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import type { PodRef } from '../helpers/kubernetes/cluster.ts';
import { type Damage, DamagingProxy } from '../helpers/kubernetes/damaging-proxy.ts';
import { onCluster } from '../helpers/kubernetes/on-cluster.ts';
import { run } from '../helpers/plugin-process.ts';

const fixed = '10.1.0.200';
const range = { subnet: '10.1.0.0/24', rangeEnd: '10.1.0.7' };
const ipam = { ranges: [[range]] };
const users = ['nobody', 'no-nodes', 'all'].map(name => ({ name, token: `token-of-${name}` }));

/** A command's time, which counts from the start of this process. */
const soon = (ms: number) => `${Math.round(performance.now()) + ms}ms`;

const status = (code: number, reason: string) => ({
  answer: { status: code, body: JSON.stringify({ kind: 'Status', apiVersion: 'v1', status: 'Failure', reason, code }) },
});
const damages: Readonly<Record<string, Damage>> = {
  'too many requests': { answer: { ...status(429, 'TooManyRequests').answer, headers: { 'retry-after': '1' } } },
  'trouble of its own': status(500, 'InternalError'),
  'an etcd that is away': status(503, 'ServiceUnavailable'),
  'a gateway before it that waits in vain': { answer: { status: 504, body: '<html>Gateway Timeout</html>' } },
  'a page in place of an object': { answer: { status: 200, body: '<html>Log in</html>' } },
  'nothing in place of an object': { answer: { status: 200, body: '' } },
  'a list in place of an object': { answer: { status: 200, body: '{"kind":"PodList","metadata":{},"items":[]}' } },
  'another object': { answer: { status: 200, body: '{"kind":"Pod","metadata":{"name":"other","uid":"u"}}' } },
  'half an object': { alter: () => undefined },
  '404 for the whole API': { answer: { status: 404, body: '404 page not found\n' } },
  '404 about another object': status(404, 'NotFound'),
  'a redirection': { answer: { status: 302, headers: { location: 'https://127.0.0.1:1/' }, body: '' } },
  'no HTTP': { raw: 'SSH-2.0-OpenSSH_9.2\r\n' },
  'a closed connection': { hangUp: true },
};

onCluster(
  ipam,
  here => {
    let proxy: DamagingProxy;
    let kubeConfig: string;
    beforeAll(async () => {
      proxy = await DamagingProxy.start(here.plane);
      kubeConfig = here.plane.kubeconfig({ token: here.plane.adminToken }, proxy.url);
    });
    beforeEach(() => {
      proxy.damage = () => undefined;
      proxy.seen.length = 0;
    });
    afterAll(() => proxy?.[Symbol.asyncDispose]());

    const podFor = (ip: string) => here.cluster.pod({ annotations: { 'kube-ipam.ip': ip } });
    const through = (more = {}) => ({ ipam: { kubeConfig, timeout: soon(20_000), ...more } });
    const as = (token: string) => ({ ipam: { kubeConfig: here.plane.kubeconfig({ token }) } });
    const spoil = (path: string | RegExp, damage: Damage) => {
      proxy.damage = request => (new RegExp(path).test(request.path) ? damage : undefined);
    };

    describe("the pod's own look-up", () => {
      it.each(Object.entries(damages))('%s: code 11, and nothing is taken', async (_, damage) => {
        const pod = await podFor(fixed);
        for (const path of [`/pods/${pod.name}$`, '/namespaces/kube-system$']) {
          spoil(path, damage);
          const { error } = await here.add(pod, through());
          expect(error, path).toMatchObject({ code: 11, msg: expect.stringMatching(/^get (pods|namespaces)\//) });
          expect(await here.site.remains()).toEqual([]);
        }
        proxy.damage = () => undefined;
        expect((await here.add(pod, through())).addresses).toEqual([fixed]);
      });

      it('no answer: code 11 when the time is over, naming server and kubeconfig', async () => {
        const pod = await podFor(fixed);
        spoil('', { silent: true });
        const begun = performance.now();
        const { error } = await here.add(pod, through({ timeout: soon(700) }));
        expect(performance.now() - begun).toBeLessThan(5000);
        expect(error).toMatchObject({ code: 11, msg: expect.stringMatching(`${proxy.url}.*${kubeConfig}.*in time`) });
        expect(await here.site.remains()).toEqual([]);
      });

      it('away: code 11; what the pod has already is untouched, and DEL never asks', async () => {
        const pod = await podFor(fixed);
        await here.add(pod);
        const before = await here.site.entries();
        const away = { ipam: { kubeConfig: here.plane.kubeconfig({ token: 't' }, 'https://127.0.0.1:1') } };
        const { error } = await here.add(pod, away);
        expect(error).toMatchObject({ code: 11, msg: expect.stringContaining('connection refused') });
        expect(await here.site.entries()).toEqual(before);
        expect((await here.check(pod, away)).exitCode).toBe(0);
        expect((await here.del(pod, away)).exitCode).toBe(0);
        expect(await here.site.remains()).toEqual([]);
      });

      it('the real server stopped, killed and started again', async () => {
        const pod = await podFor(fixed);
        await here.plane.apiServer.stop();
        expect((await here.add(pod, { ipam: { timeout: soon(700) } })).error?.code).toBe(11);
        here.plane.apiServer.cont();
        await here.plane.apiServer.kill();
        expect((await here.add(pod)).error?.code).toBe(11);
        expect(await here.site.remains()).toEqual([]);
        await here.plane.apiServer.restart();
        expect((await here.add(pod)).addresses).toEqual([fixed]);
      });

      it('a pod that the API does not know: code 11', async () => {
        const pod = await podFor(fixed);
        await here.cluster.remove(pod);
        const { error } = await here.add(pod);
        expect(error).toMatchObject({
          code: 11,
          msg: expect.stringMatching(`pod default/${pod.name}: the Kubernetes API does not know it`),
        });
        expect(await here.site.remains()).toEqual([]);
      });

      it('a pod of another uid: code 11; that sandbox is gone', async () => {
        const pod = await podFor(fixed);
        const successor = await here.cluster.replace(pod, { annotations: { 'kube-ipam.ip': fixed } });
        const { error } = await here.add(pod);
        expect(error).toMatchObject({ code: 11, msg: expect.stringMatching(`uid ${pod.uid}\\) is gone`) });
        expect(await here.site.remains()).toEqual([]);
        expect((await here.add(successor)).addresses).toEqual([fixed]);
      });

      it('a static pod is known by its mirror, and a runtime that sends no uid by its name', async () => {
        const annotations = { 'kubernetes.io/config.mirror': 'static-uid', 'kube-ipam.ip': fixed };
        const mirror = await here.cluster.pod({ annotations });
        expect((await here.add({ ...mirror, uid: 'static-uid' })).addresses).toEqual([fixed]);
        expect((await here.holdings()).owners.get(fixed)?.pod?.uid).toBe('static-uid');
        expect((await here.add({ ...mirror, uid: 'another' })).error?.code).toBe(11);

        const nameless = await podFor('10.1.0.201');
        const args = { ...nameless, uid: '' };
        expect((await here.add(args, { containerID: 'c' })).addresses).toEqual(['10.1.0.201']);
        expect((await here.holdings()).owners.get('10.1.0.201')?.pod).toEqual(nameless);
      });

      it('a container of podman, and one without a name, are not looked up', async () => {
        const podman = { namespace: '', name: 'box', uid: '' };
        expect((await here.add(podman, { ...through(), containerID: 'box' })).addresses).toEqual(['10.1.0.2']);
        const nobody = { namespace: 'default', name: '', uid: '' };
        expect((await here.add(nobody, { ...through(), containerID: 'nobody' })).addresses).toEqual(['10.1.0.3']);
        expect(proxy.seen).toEqual([]);
      });
    });

    describe('credentials', () => {
      beforeAll(async () => {
        const rules = (...resources: string[]) => [{ apiGroups: [''], resources, verbs: ['get'] }];
        for (const [name, resources] of [
          ['no-nodes', ['pods', 'namespaces']],
          ['all', ['pods', 'namespaces', 'nodes']],
        ] as const) {
          const roleRef = { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name };
          const subjects = [{ kind: 'User', name }];
          for (const [kind, rest] of [
            ['clusterroles', { rules: rules(...resources) }],
            ['clusterrolebindings', { roleRef, subjects }],
          ] as const) {
            const path = `/apis/rbac.authorization.k8s.io/v1/${kind}`;
            await here.plane.api('POST', path, { metadata: { name }, ...rest }).catch(error => {
              expect(error).toMatchObject({ status: 409 });
            });
          }
          const path = '/api/v1/namespaces/kube-system';
          const allowed = () => here.plane.api('GET', path, undefined, { token: `token-of-${name}` });
          await vi.waitFor(allowed, { timeout: 30_000, interval: 50 });
        }
      });

      it('none that the server knows: code 11, which says what to renew', async () => {
        const { error } = await here.add(await podFor(fixed), as('token-of-a-thief'));
        expect(error).toMatchObject({
          code: 11,
          msg: expect.stringMatching(/credentials of kubeconfig .*expired.*renew/),
        });
        expect(error!.msg).not.toContain('token-of-a-thief');
        expect(await here.site.remains()).toEqual([]);
      });

      it('a token that was valid until now', async () => {
        const accounts = '/api/v1/namespaces/default/serviceaccounts';
        const name = `bound-${here.site.keys.space}-${here.site.kind}`;
        await here.plane.api('POST', accounts, { metadata: { name } });
        const { status: issued } = await here.plane.api<{ status: { token: string } }>(
          'POST',
          `${accounts}/${name}/token`,
          {
            apiVersion: 'authentication.k8s.io/v1',
            kind: 'TokenRequest',
            spec: { expirationSeconds: 600 },
          },
        );
        const tokenFile = join(here.plane.folder, name);
        writeFileSync(tokenFile, issued.token);
        const sandbox = { ipam: { kubeConfig: here.plane.kubeconfig({ tokenFile }) } };
        const pod = await podFor(fixed);
        const messages = async () => (await here.add(pod, sandbox)).error?.msg ?? '';
        expect(await messages()).toContain('give the account');
        await here.plane.api('DELETE', `${accounts}/${name}`);
        await expect.poll(messages, { timeout: 60_000, interval: 200 }).toContain('renew it');
        // The file is read by each command: what renews the token need not tell anybody.
        writeFileSync(tokenFile, 'token-of-all');
        expect((await here.add(pod, sandbox)).addresses).toEqual([fixed]);
      });

      it('without a right: code 11, which names verb and resource', async () => {
        const pod = await podFor(fixed);
        const { error } = await here.add(pod, as('token-of-nobody'));
        expect(error).toMatchObject({
          code: 11,
          msg: expect.stringMatching(/^get pods\/.*the right "get" on "pods" in namespace default .*User "nobody"/),
        });
        const nodes = { matchLabels: { zone: 'a' } };
        const ranges = { ranges: [[{ ...range, nodes }]] };
        const selecting = { ipam: { ...as('token-of-no-nodes').ipam, ...ranges } };
        expect((await here.add(pod, selecting)).error).toMatchObject({
          code: 11,
          msg: expect.stringMatching(/^get nodes\/node-a: .*the right "get" on "nodes"/),
        });
        expect(await here.site.remains()).toEqual([]);
      });

      it('without the right to look at nodes: a holder counts as alive where its node would decide', async () => {
        const node = await here.cluster.node();
        const annotations = { 'kube-ipam.ip': fixed };
        const holder = await here.cluster.pod({ node, annotations });
        await here.add(holder);
        await here.cluster.askDeletion(holder);
        await here.cluster.removeNode(node);
        const heir = await podFor(fixed);
        expect((await here.add(heir, as('token-of-no-nodes'))).error).toMatchObject({
          code: 11,
          msg: expect.stringMatching(
            new RegExp(`held by pod default/${holder.name}.*could not be asked: get nodes/${node}: .*"get" on "nodes"`),
          ),
        });
        expect((await here.add(heir, as('token-of-all'))).addresses).toEqual([fixed]);
      });
    });

    describe('the look at a holder that is dead', () => {
      const deadHolder = async (): Promise<PodRef> => {
        const holder = await podFor(fixed);
        await here.add(holder);
        await here.cluster.remove(holder);
        return holder;
      };

      it.each(Object.entries(damages))('%s: nothing is taken over', async (_, damage) => {
        const holder = await deadHolder();
        const heir = await podFor(fixed);
        spoil(`/pods/${holder.name}$`, damage);
        const before = await here.site.entries();
        const { error } = await here.add(heir, through());
        expect(error).toMatchObject({
          code: 11,
          msg: expect.stringMatching(`held by pod default/${holder.name}.*could not be asked: get pods/`),
        });
        expect(await here.site.entries()).toEqual(before);
        proxy.damage = () => undefined;
        expect((await here.add(heir, through())).addresses).toEqual([fixed]);
      });

      it('no answer: nothing is taken over, and when the time is over it is told who holds the address', async () => {
        const holder = await deadHolder();
        spoil(`/pods/${holder.name}$`, { silent: true });
        const before = await here.site.entries();
        const begun = performance.now();
        const { error } = await here.add(await podFor(fixed), through({ timeout: soon(1500) }));
        expect(performance.now() - begun).toBeLessThan(8000);
        expect(error).toMatchObject({ code: 11, msg: expect.stringContaining(`held by pod default/${holder.name}`) });
        expect(await here.site.entries()).toEqual(before);
      });

      it('a slow answer does not drag cursors back to where they were when it was asked for', async () => {
        const two = { ranges: [[range], [{ subnet: 'fd00::/64' }]] };
        const holder = await podFor(fixed);
        await here.add(holder);
        await here.cluster.remove(holder);
        const heir = await podFor(fixed);
        const asked = () => proxy.seen.some(({ path }) => path.endsWith(holder.name));
        const answered = Promise.withResolvers<void>();
        spoil(`/pods/${holder.name}$`, { after: answered.promise });
        const slow = here.add(heir, through({ ...two, timeout: soon(30_000) }));
        await vi.waitFor(() => expect(asked()).toBe(true), { timeout: 20_000, interval: 10 });
        const passing = { ipam: { ...two, kubeConfig: '' } };
        const pods = ['a', 'b'].map(name => ({ namespace: 'default', name, uid: name }));
        const given = [];
        for (const pod of pods) given.push((await here.add(pod, passing)).addresses[1]);
        expect(given).toEqual(['fd00::2', 'fd00::3']);
        for (const pod of pods) await here.del(pod, passing);
        await sleep(2500);
        answered.resolve();
        expect((await slow).addresses).toEqual([fixed, 'fd00::2']);
        expect((await here.add(pods[0]!, passing)).addresses[1]).toBe('fd00::4');
      });
    });

    describe('the kubeconfig', () => {
      const adds = async (path: string) =>
        run('ADD', here.callOf(await podFor(fixed), { ipam: { kubeConfig: path, timeout: 60 } }));
      const file = (name: string, text: string) => {
        const path = join(here.site.folder, name);
        mkdirSync(here.site.folder, { recursive: true });
        writeFileSync(path, text, { mode: 0o600 });
        return path;
      };
      const yaml = (user: string) => `apiVersion: v1
kind: Config
current-context: it
clusters: [{name: it, cluster: {server: "${here.plane.url}", certificate-authority: "${here.plane.caFile}"}}]
contexts: [{name: it, context: {cluster: it, user: it}}]
users:
- name: it
  user: ${user}
`;

      it('in YAML, as everybody writes it', async () => {
        const answer = await adds(file('yaml', yaml(`{token: ${here.plane.adminToken}}`)));
        expect(answer).toMatchObject({ exitCode: 0, addresses: [fixed], stderr: '' });
      });

      it.each([
        ['a folder', () => here.plane.folder, /cannot be used: EISDIR/],
        ['neither JSON nor YAML', () => file('broken', '{{{ secret'), /neither JSON nor YAML/],
        [
          'an exec plugin',
          () => file('exec', yaml('{exec: {command: /bin/sh, args: [-c, "touch /tmp/x"]}}')),
          /exec: a program/,
        ],
      ])('%s: code 7, nothing is taken, and nothing secret is told', async (_, path, words) => {
        const answer = await adds(path());
        expect(answer).toMatchObject({
          exitCode: 1,
          error: { code: 7, msg: expect.stringMatching(words) },
          stderr: '',
        });
        expect(answer.stdout).not.toMatch(/secret|touch/);
        expect(await here.site.remains()).toEqual([]);
      });

      it('not written yet: code 11, and the next try finds it', async () => {
        const path = join(here.site.folder, 'to-come');
        const call = here.callOf(await podFor(fixed), { ipam: { kubeConfig: path, timeout: 60 } });
        expect(await run('ADD', call)).toMatchObject({
          exitCode: 1,
          error: { code: 11, msg: expect.stringMatching(/to-come cannot be used: there is no such file; .*agent/) },
          stderr: '',
        });
        expect(await here.site.remains()).toEqual([]);
        file('to-come', yaml(`{token: ${here.plane.adminToken}}`));
        expect((await run('ADD', call)).addresses).toEqual([fixed]);
      });

      it('gone after the ADD: DEL frees as ever', async () => {
        const path = file('soon-gone', yaml(`{token: ${here.plane.adminToken}}`));
        const call = here.callOf(await podFor(fixed), { ipam: { kubeConfig: path, timeout: 60 } });
        expect((await run('ADD', call)).exitCode).toBe(0);
        rmSync(path);
        expect(await run('DEL', call)).toMatchObject({ exitCode: 0, stdout: '', stderr: '' });
        expect(await here.site.remains()).toEqual([]);
      });
    });

    describe('what an ADD costs', () => {
      const asked = () => proxy.seen.splice(0).map(({ method, path }) => `${method} ${path.replace('/api/v1', '')}`);

      it('two GETs over one connection; one more for each holder that is in its way', async () => {
        const pod = await podFor(fixed);
        const own = (name: string) => [`GET /namespaces/default/pods/${name}`, 'GET /namespaces/kube-system'];
        const before = proxy.connections;
        await here.add(pod, through());
        expect(asked()).toEqual(own(pod.name));
        expect(proxy.connections).toBe(before + 1);
        await here.cluster.remove(pod);
        const heir = await podFor(fixed);
        await here.add(heir, through());
        expect(asked()).toEqual([...own(heir.name), `GET /namespaces/default/pods/${pod.name}`]);
        expect(proxy.connections).toBe(before + 2);
        for (const command of [here.check, here.del]) await command(heir, through());
        expect(asked()).toEqual([]);
      });

      if (here.kind !== 'etcd') return;

      it('three calls to the store and one write, two where it names all that it wants', async () => {
        const counters = async () => {
          const text = await (await fetch(new URL('/metrics', here.etcd!.endpoints[0]))).text();
          const unary = [...text.matchAll(/^grpc_server_handled_total\{.*grpc_type="unary".*\} (\S+)$/gm)];
          const revision = /^etcd_debugging_mvcc_current_revision (\S+)$/m.exec(text)![1];
          return { calls: unary.reduce((sum, [, count]) => sum + Number(count), 0), revision: Number(revision) };
        };
        const costs = async (work: () => Promise<unknown>) => {
          const before = await counters();
          await work();
          const after = await counters();
          return [after.calls - before.calls, after.revision - before.revision];
        };
        const name = 'costly-0';
        const owner = { apiVersion: 'apps/v1', kind: 'StatefulSet', name: 'costly', uid: 'u' };
        const namespace = await here.cluster.namespace();
        const [pod, member] = [await podFor(fixed), await here.cluster.pod({ name, namespace, owner })];
        const sticky = { ipam: { sticky: true } };
        expect(await costs(() => here.add(pod))).toEqual([2, 1]);
        expect(await costs(() => here.add(member, sticky))).toEqual([3, 1]);
        expect(await costs(() => here.del(member, sticky))).toEqual([3, 1]);
        expect(await costs(() => here.add(member, { ...sticky, containerID: 'next' }))).toEqual([3, 1]);
        expect(await costs(() => here.del(pod))).toEqual([2, 1]);
      });
    });
  },
  { users },
);
