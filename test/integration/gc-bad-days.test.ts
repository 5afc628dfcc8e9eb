// gc on its bad days: an API that is away, refuses or lies, pods that come and go under a scan, another cluster's API, a thousand dead.
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { GcApi } from '../../src/ipam/ports.ts';
import { clusterKey } from '../../src/store/keys.ts';
import type { PodRef } from '../helpers/kubernetes/cluster.ts';
import { type Damage, DamagingProxy, type Seen } from '../helpers/kubernetes/damaging-proxy.ts';
import { onCluster, type Sandbox } from '../helpers/kubernetes/on-cluster.ts';
import { Scanner } from '../helpers/kubernetes/scanner.ts';

const ranges = [[{ subnet: '10.1.0.0/16', rangeStart: '10.1.0.10', rangeEnd: '10.1.250.200' }]];

onCluster(
  { ranges },
  here => {
    const added = async (pod: PodRef, sandbox?: Sandbox): Promise<string> => {
      const { addresses, stdout } = await here.add(pod, sandbox);
      expect(addresses, stdout).toHaveLength(1);
      return addresses[0]!;
    };
    const manyDead = async (count: number): Promise<string[]> => {
      const ips: string[] = [];
      for (let i = 0; i < count; i++) {
        const pod = await here.cluster.pod();
        ips.push(await added(pod));
        await here.cluster.remove(pod);
      }
      return ips;
    };
    const freed = (ips: readonly string[]) => ips.map(ip => `freed ${ip}`).sort();
    const owners = async () => [...(await here.holdings()).owners.keys()];

    describe('the API', () => {
      let proxy: DamagingProxy;
      let scanner: Scanner;
      beforeEach(async () => {
        proxy = await DamagingProxy.start(here.plane);
        scanner = await Scanner.open(here.site, here.plane.kubeconfig({ token: 'admin-token' }, proxy.url));
      });
      afterEach(async () => {
        await scanner[Symbol.asyncDispose]();
        await proxy[Symbol.asyncDispose]();
      });

      const status = (code: number, reason: string): Damage => ({
        answer: {
          status: code,
          body: JSON.stringify({ kind: 'Status', status: 'Failure', code, reason, message: 'so it is' }),
        },
      });
      const isPod = ({ path }: Seen) => /\/namespaces\/default\/pods\//.test(path);
      const isList = ({ path }: Seen) => /\/api\/v1\/pods\?/.test(path);
      const isUid = ({ path }: Seen) => path.endsWith('/namespaces/kube-system');
      const ways: readonly (readonly [string, Damage])[] = [
        ['is away', { hangUp: true }],
        ['says 500', status(500, 'InternalError')],
        ['says 403', status(403, 'Forbidden')],
        ['says 401', status(401, 'Unauthorized')],
        ['says 410', status(410, 'Expired')],
        ['says 429 for ever', { ...status(429, 'TooManyRequests') }],
        ['says 404 without naming a pod', { answer: { status: 404, body: '404 page not found' } }],
        ['says 404 of something else', status(404, 'NotFound')],
        ['speaks garbage', { answer: { status: 200, body: '{"kind":"Pod","metadata"' } }],
        [
          'answers with another object',
          { answer: { status: 200, body: '{"kind":"Pod","metadata":{"name":"x","uid":"y"}}' } },
        ],
        ['is no HTTP server', { raw: 'SSH-2.0-OpenSSH_9.9\r\n' }],
      ];

      it.each(ways)(
        '%s in the middle of the second scan: nothing is freed, and all of it once it is back',
        async (_, damage) => {
          const ips = await manyDead(8);
          expect(await scanner.scan()).toHaveLength(8);
          for (const isHurt of [isUid, isList, isPod]) {
            let passed = isHurt === isPod ? 5 : 0;
            proxy.damage = seen => (isHurt(seen) && passed-- <= 0 ? damage : undefined);
            await expect(scanner.scan()).rejects.toMatchObject({ code: 11 });
            expect(await owners()).toEqual(ips);
          }
          proxy.damage = () => undefined;
          expect(await scanner.scan()).toEqual(freed(ips));
        },
      );

      it('is asked for what is true now: by quorum, from no memory of its own', async () => {
        const ips = await manyDead(8);
        expect(await scanner.twice({ reach: 'all' })).toEqual(freed(ips));
        expect(proxy.seen.filter(isList)).toHaveLength(2);
        expect(proxy.seen.filter(isPod)).toHaveLength(8);
        expect(proxy.seen.filter(({ path }) => /resourceVersion|watch=/.test(path))).toEqual([]);
      });

      it('is silent: the scan ends by its deadline', async () => {
        const ips = await manyDead(1);
        await scanner.scan();
        proxy.damage = seen => (isPod(seen) ? { silent: true } : undefined);
        const { renewableDeadline } = await import('../../src/base/clock.ts');
        const begun = performance.now();
        await expect(scanner.scan({ around: { deadline: renewableDeadline(300) } })).rejects.toMatchObject({
          code: 11,
        });
        expect(performance.now() - begun).toBeLessThan(5000);
        expect(await owners()).toEqual(ips);
      });

      it('ends a list in the middle: the pods that were not told are not dead', async () => {
        const pods = await Promise.all(Array.from({ length: 8 }, () => here.cluster.pod()));
        for (const pod of pods) await added(pod);
        let pieces = 0;
        const alter = (piece: Buffer) => (pieces++ === 0 ? piece.subarray(0, piece.length / 2) : undefined);
        proxy.damage = seen => (isList(seen) ? { alter } : undefined);
        await expect(scanner.scan()).rejects.toMatchObject({ code: 11 });
        // Even a list that is whole and says nothing kills nobody.
        const body = '{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[]}';
        proxy.damage = seen => (isList(seen) ? { answer: { status: 200, body } } : undefined);
        expect(await scanner.scan()).toHaveLength(8);
        expect(await scanner.scan()).toEqual([]);
        expect(await owners()).toHaveLength(8);
      });

      it('denies a right: verb and resource are named', async () => {
        const ips = await manyDead(8);
        await using poor = await Scanner.open(here.site, here.plane.kubeconfig({ token: 'token-of-nobody' }));
        await expect(poor.scan()).rejects.toMatchObject({
          code: 11,
          message: expect.stringContaining('"get" on "namespaces"'),
        });
        expect(await owners()).toEqual(ips);
      });
    });

    describe('another cluster', () => {
      it('that has this name in the store: nothing is judged, and it is said clearly', async () => {
        const cluster = `stolen-${here.site.kind}`;
        const ips: string[] = [];
        for (const pod of [await here.cluster.pod(), await here.cluster.pod()]) {
          ips.push(await added(pod, { ipam: { cluster, kubeConfig: '' } }));
          await here.cluster.remove(pod);
        }
        await here.site.put(clusterKey(cluster), { uid: 'of-the-other-one' });
        await using scanner = await Scanner.open(here.site, here.plane.adminKubeconfig, { cluster, reach: 'all' });
        for (let scan = 0; scan < 2; scan++) {
          await expect(scanner.scan()).rejects.toMatchObject({
            code: 7,
            message: expect.stringMatching(`set "cluster": ${cluster} belongs to another cluster.*of-the-other-one`),
          });
        }
        await here.site.put(clusterKey(cluster), 'not even JSON');
        await expect(scanner.scan()).rejects.toMatchObject({ code: 7 });
        expect(await owners()).toEqual(ips);
        await here.site.remove(clusterKey(cluster));
        await expect(scanner.scan({ mayClaim: false })).rejects.toMatchObject({
          code: 7,
          message: expect.stringContaining('no record'),
        });
        // Nobody has the name: it is ours from the first scan on.
        expect(await scanner.twice()).toEqual(freed(ips));
        const { answers } = await here.site.kv.read(
          [{ key: clusterKey(cluster) }],
          (await import('../../src/base/clock.ts')).deadlineIn(5000),
        );
        expect(JSON.parse(answers[0]!.entries[0]!.value)).toEqual({ uid: expect.stringMatching(/^[0-9a-f-]{36}$/) });
        await here.site.remove(clusterKey(cluster));
      });
    });

    describe('under a scan', () => {
      let scanner: Scanner;
      beforeEach(async () => {
        scanner = await Scanner.open(here.site, here.plane.adminKubeconfig);
      });
      afterEach(() => scanner[Symbol.asyncDispose]());
      /** Does something at the first question about a pod or a node's pods. */
      const disturbed =
        (disturb: () => Promise<unknown>) =>
        (api: GcApi): GcApi => {
          let done: Promise<unknown> | undefined;
          const first = async () => {
            done ??= disturb();
            await done;
          };
          return {
            clusterUid: deadline => api.clusterUid(deadline),
            node: (...of) => api.node(...of),
            nodes: () => api.nodes(),
            statefulSet: (...of) => api.statefulSet(...of),
            hasVm: (...of) => api.hasVm(...of),
            podsOn: async node => first().then(() => api.podsOn(node)),
            pod: async (...of) => first().then(() => api.pod(...of)),
          };
        };

      it('a pod is created: it lives', async () => {
        const [dead] = await manyDead(1);
        let ip = '';
        const between = disturbed(async () => {
          ip = await added(await here.cluster.pod());
        });
        expect(await scanner.scan({ between })).toEqual([`suspect ${dead}`]);
        expect(await scanner.scan()).toEqual([`freed ${dead}`]);
        expect(await owners()).toEqual([ip]);
      });

      it('a pod is created behind the list of pods: its record came later than those that were read', async () => {
        const dead = await manyDead(6);
        const late = (api: GcApi): GcApi => ({
          ...disturbed(async () => {})(api),
          podsOn: async node => {
            const pods = await api.podsOn(node);
            await added(await here.cluster.pod());
            return pods;
          },
        });
        expect(await scanner.scan({ between: late })).toEqual(dead.map(ip => `suspect ${ip}`).sort());
      });

      it('the address passes to another pod: its new owner keeps it', async () => {
        const pod = await here.cluster.pod();
        const ip = await added(pod);
        await here.cluster.remove(pod);
        await scanner.scan();
        const heir = await here.cluster.pod();
        const between = disturbed(async () => {
          await here.del(pod);
          expect(await added(heir, { args: `;IP=${ip}` })).toBe(ip);
        });
        expect(await scanner.scan({ between })).toEqual([`changed ${ip}`]);
        expect((await here.check(heir)).exitCode).toBe(0);
        expect(await scanner.twice()).toEqual([]);
      });

      it('the same container asks again: it keeps its address', async () => {
        const mirror = await here.cluster.pod({ annotations: { 'kubernetes.io/config.mirror': 'hash' } });
        const asStatic = { ...mirror, uid: 'hash' };
        const ip = await added(asStatic);
        await here.cluster.remove(mirror);
        await scanner.scan();
        // The mirror of a static pod was deleted, and comes back while the scan asks for it.
        const between = disturbed(async () => {
          await here.cluster.pod({ name: mirror.name, annotations: { 'kubernetes.io/config.mirror': 'hash' } });
        });
        expect(await scanner.scan({ between })).toEqual([]);
        expect(await owners()).toEqual([ip]);
      });

      it('pods come and go by the dozen: no living one ever loses its address, no dead one keeps it', async () => {
        const living = new Set<PodRef>();
        let stopped = false;
        const churn = async () => {
          while (!stopped) {
            const pod = await here.cluster.pod();
            await added(pod);
            living.add(pod);
            if (living.size < 6) continue;
            const [oldest] = living;
            living.delete(oldest!);
            await here.cluster.remove(oldest!);
            // Every second DEL is lost, as on a node whose runtime forgot its sandboxes.
            if (Math.random() < 0.5) await here.del(oldest!);
          }
        };
        const runs = [churn(), churn(), churn()];
        let freedInAll = 0;
        for (const begun = performance.now(); performance.now() - begun < 3000; ) {
          freedInAll += (await scanner.scan()).filter(text => text.startsWith('freed')).length;
          await sleep(20);
        }
        stopped = true;
        await Promise.all(runs);
        await scanner.scan();
        await scanner.scan();
        expect(freedInAll).toBeGreaterThan(3);
        const { attachments } = await here.holdings();
        expect([...attachments.keys()].toSorted()).toEqual([...living].map(({ uid }) => `sandbox-${uid}/eth0`).sort());
      });
    });

    it('a thousand pods deleted at once go in one scan, and pods that come meanwhile do not wait', async ({ skip }) => {
      if (here.site.kind === 'embedded') skip('one node has not so many');
      const pods: PodRef[] = [];
      for (let done = 0; done < 1000; done += 50) {
        const some = await Promise.all(Array.from({ length: 50 }, () => here.cluster.pod()));
        await Promise.all(some.map(pod => added(pod)));
        pods.push(...some);
      }
      for (let done = 0; done < 1000; done += 50) {
        await Promise.all(pods.slice(done, done + 50).map(pod => here.cluster.remove(pod)));
      }
      await using scanner = await Scanner.open(here.site, here.plane.adminKubeconfig);
      expect(await scanner.scan()).toHaveLength(1000);
      let done = false;
      const scan = scanner.scan().finally(() => {
        done = true;
      });
      const waits: number[] = [];
      while (!done) {
        const pod = await here.cluster.pod();
        const begun = performance.now();
        await added(pod);
        waits.push(performance.now() - begun);
      }
      expect((await scan).filter(text => text.startsWith('freed'))).toHaveLength(1000);
      expect(await owners()).toHaveLength(waits.length);
      expect(waits.length).toBeGreaterThan(3);
      expect(Math.max(...waits)).toBeLessThan(5000);
    }, 120_000);
  },
  { users: [{ name: 'nobody', token: 'token-of-nobody' }] },
);
