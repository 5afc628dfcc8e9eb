// Who may follow whom on a fixed address, and who may not: taken over in one commit from a dead holder, held after its
// release, and nobody else's until then (design section 7), with the API's truth from a real API server.
import { describe, expect, it, vi } from 'vitest';
import { deadlineIn } from '../../src/base/clock.ts';
import { parseIp } from '../../src/net/ip.ts';
import { clusterKey } from '../../src/store/keys.ts';
import { type PodOptions, type PodRef, replicaSet, statefulSet } from '../helpers/kubernetes/cluster.ts';
import { onCluster } from '../helpers/kubernetes/on-cluster.ts';
import type { Answer, Json } from '../helpers/plugin.ts';
import { run } from '../helpers/plugin-process.ts';

/** Six random addresses, .2 to .7, and a fixed span. IPv6 is given at random. */
const ipam = {
  ranges: [
    [{ subnet: '10.1.0.0/24', rangeEnd: '10.1.0.7', fixedStart: '10.1.0.200', fixedEnd: '10.1.0.210' }],
    [{ subnet: 'fd00::/64', rangeEnd: 'fd00::ff' }],
  ],
};
const spanInside = { subnet: '10.1.0.0/24', fixedStart: '10.1.0.7', fixedEnd: '10.1.0.9' };
const outside = '10.1.0.200';
const inside = '10.1.0.5';

onCluster(ipam, here => {
  const podFor = (ip: string, options: PodOptions = {}) =>
    here.cluster.pod({ ...options, annotations: { 'kube-ipam.ip': ip } });
  const added = async (pod: PodRef, sandbox = {}): Promise<Answer> => {
    const answer = await here.add(pod, sandbox);
    expect(answer.error?.msg).toBeUndefined();
    return answer;
  };
  const refused = (answer: Answer, words: RegExp | string = /./) =>
    expect(answer).toMatchObject({ exitCode: 1, error: { code: 11, msg: expect.stringMatching(words) } });
  const holderOf = async (ip: string) => (await here.holdings()).owners.get(ip);
  const recordOf = async (ip: string) =>
    (await here.site.entries()).find(({ key }) => key === here.site.keys.address(parseIp(ip)!))!;

  /** A holder in the state that a case asks for, and somebody who wants its address. */
  async function heirOf(holder: PodRef, ip = outside, options: PodOptions = {}): Promise<PodRef> {
    await added(holder);
    return podFor(ip, options);
  }

  /** One commit has rewritten the address, removed the holder's attachment and freed what else it had. */
  async function expectTakenOver(holder: PodRef, heir: PodRef, ip = outside): Promise<void> {
    const { owners, attachments } = await here.holdings();
    expect(owners.get(ip)).toMatchObject({ kind: 'fixed', pod: heir });
    expect([...attachments.keys()]).toEqual([`sandbox-${heir.uid}/eth0`]);
    expect(owners.size).toBe(2);
    const ours = (await here.site.entries()).filter(({ key }) => /\/(addresses|attachments)\//.test(key));
    expect(new Set(ours.map(({ revision }) => revision)).size).toBe(1);
    const before = await here.site.entries();
    expect((await here.del(holder)).exitCode).toBe(0);
    expect(await here.site.entries(), 'a late DEL frees nothing of the new owner').toEqual(before);
  }

  describe('taken over', () => {
    it('at once, by a new sandbox of the same pod', async () => {
      const pod = await podFor(outside);
      await added(pod);
      const second = { containerID: 'second' };
      expect((await added(pod, second)).addresses[0]).toBe(outside);
      const { attachments, owners } = await here.holdings();
      expect([...attachments.keys()]).toEqual(['second/eth0']);
      expect(owners.size).toBe(2);
      await here.del(pod);
      expect((await here.holdings()).owners.get(outside)).toMatchObject({ containerID: 'second' });
      await here.del(pod, second);
      expect(await here.site.remains()).toEqual([]);
    });

    it.each([
      ['is gone', (pod: PodRef) => here.cluster.remove(pod)],
      ['was replaced', (pod: PodRef) => here.cluster.replace(pod)],
      ['has succeeded', (pod: PodRef) => here.cluster.setPhase(pod, 'Succeeded')],
      ['has failed', (pod: PodRef) => here.cluster.setPhase(pod, 'Failed')],
    ])('from a holder whose pod %s', async (_, end) => {
      const holder = await podFor(outside);
      const heir = await heirOf(holder);
      await end(holder);
      expect((await added(heir)).addresses[0]).toBe(outside);
      await expectTakenOver(holder, heir);
    });

    it.each([
      ['absent', (node: string) => here.cluster.removeNode(node)],
      ['out of service', (node: string) => here.cluster.taint(node, 'node.kubernetes.io/out-of-service')],
      ['not ready for 400 s', (node: string) => here.cluster.setReady(node, 'False', 400)],
      ['silent for 400 s', (node: string) => here.cluster.setReady(node, 'Unknown', 400)],
    ])('from a pod that is being deleted while its node is %s', async (_, lose) => {
      const node = await here.cluster.node();
      const holder = await podFor(outside, { node });
      const heir = await heirOf(holder);
      await here.cluster.askDeletion(holder);
      refused(await here.add(heir), `pod default/${holder.name}`);
      await lose(node);
      await added(heir);
      await expectTakenOver(holder, heir);
    });

    it('by whoever asks by ips or IP=, of a pod that the API knows; without an API never', async () => {
      const holder = await podFor(outside);
      await added(holder);
      await here.cluster.remove(holder);
      const heir = await here.cluster.pod();
      const args = `;IP=${outside}`;
      refused(await here.add(heir, { args, ipam: { kubeConfig: '' } }));
      await added(heir, { args });
      await expectTakenOver(holder, heir);
    });

    it('two addresses from two dead holders in one commit', async () => {
      const [four, six] = [await podFor(outside), await podFor('fd00::6')];
      for (const pod of [four, six]) await added(pod);
      for (const pod of [four, six]) await here.cluster.remove(pod);
      const heir = await podFor(`${outside},fd00::6`);
      expect((await added(heir)).addresses).toEqual([outside, 'fd00::6']);
      await expectTakenOver(six, heir);
    });

    it('what the dead holder had fixed beside it is held for whoever names it', async () => {
      const holder = await podFor(`${outside},fd00::7`);
      const heir = await heirOf(holder);
      await here.cluster.remove(holder);
      await added(heir);
      expect((await here.holdings()).owners.get('fd00::7')).toMatchObject({ kind: 'held', byName: true });
    });
  });

  describe('not taken over', () => {
    it.each([
      ['lives', async () => {}],
      ['lives on a node that is gone', (_: PodRef, node: string) => here.cluster.removeNode(node)],
      ['is being deleted', (pod: PodRef) => here.cluster.askDeletion(pod)],
      [
        'is being deleted on a node that is not ready for 200 s',
        async (pod: PodRef, node: string) => {
          await here.cluster.askDeletion(pod);
          await here.cluster.setReady(node, 'Unknown', 200);
        },
      ],
      [
        'is being deleted on a node with another taint',
        async (pod: PodRef, node: string) => {
          await here.cluster.askDeletion(pod);
          await here.cluster.taint(node, 'node.kubernetes.io/unreachable');
        },
      ],
    ])('from a pod that %s', async (_, change: (pod: PodRef, node: string) => Promise<void>) => {
      const node = await here.cluster.node();
      const holder = await podFor(outside, { node });
      const heir = await heirOf(holder);
      await change(holder, node);
      const before = await here.site.entries();
      refused(
        await here.add(heir),
        new RegExp(`^address ${outside} of network net is held by pod default/${holder.name},`),
      );
      expect(await here.site.entries()).toEqual(before);
    });

    it('the node that counts is that of the pod, not that of the record', async () => {
      const [real, other] = [await here.cluster.node(), await here.cluster.node()];
      const holder = await podFor(outside, { node: real });
      const heir = await heirOf(holder);
      await here.cluster.askDeletion(holder);
      const record = await recordOf(outside);
      await here.site.put(record.key, record.value.replace(`"node":"${here.site.node}"`, `"node":"${other}"`));
      await here.cluster.removeNode(other);
      refused(await here.add(heir));
    });

    it.each([
      ['an hour fast', 3600, 200, 11],
      ['an hour slow', -3600, 400, undefined],
    ])(
      'a clock here that is %s changes nothing: both times are the API server’s',
      async (_, skew, silent, expected) => {
        const node = await here.cluster.node();
        const holder = await podFor(outside, { node });
        const heir = await heirOf(holder);
        await here.cluster.askDeletion(holder);
        await here.cluster.setReady(node, 'Unknown', silent);
        vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + skew * 1000 });
        try {
          expect((await here.add(heir)).error?.code).toBe(expected);
        } finally {
          vi.useRealTimers();
        }
      },
    );

    it('the message names holder, node and since when; without common owner no hint', async () => {
      const holder = await podFor(outside);
      const { error } = await here.add(await heirOf(holder));
      expect(error?.msg).toMatch(
        new RegExp(
          `^address ${outside} of network net is held by pod default/${holder.name}, container sandbox-.* on node ${here.site.node} since 20\\d\\d-\\d\\d-\\d\\dT[^ ]*Z; see "kube-ipam show ${outside}"$`,
        ),
      );
    });

    it('the old pod of a rollout: says how to roll out', async () => {
      const of = (hash: string) => ({ owner: replicaSet(`web-${hash}`), labels: { 'pod-template-hash': hash } });
      const hint = /the old pod of this rollout still holds it: use strategy Recreate or maxUnavailable 1/;
      const holder = await podFor(outside, of('aaa'));
      await added(holder);
      refused(await here.add(await podFor(outside, of('bbb'))), hint);
      refused(await here.add(await podFor(outside, of('aaa'))), hint);
      const stranger = { owner: replicaSet('shop-bbb'), labels: { 'pod-template-hash': 'bbb' } };
      expect((await here.add(await podFor(outside, stranger))).error?.msg).not.toMatch(hint);
      const namespace = await here.cluster.namespace();
      expect((await here.add(await podFor(outside, { ...of('bbb'), namespace }))).error?.msg).not.toMatch(hint);
    });

    it('a container that is no pod of a cluster holds what it has', async () => {
      const podman = { namespace: '', name: 'box', uid: 'u1' };
      await added(podman, { args: `;IP=${outside}`, containerID: 'box' });
      refused(await here.add(await podFor(outside)), /held by pod box, container box/);
    });

    it('a reservation, and an owner that this version does not know', async () => {
      const key = here.site.keys.address(parseIp(outside)!);
      for (const record of [{ kind: 'reserved', reason: 'printer' }, { kind: 'service' }, { kind: 'new' }, 'rubbish']) {
        await here.site.put(key, record);
        refused(await here.add(await podFor(outside)));
      }
    });

    it('a pod that is not proven by a uid gets no address from another node', async () => {
      // The old pod of a StatefulSet on a lost node, and the new one of its name elsewhere: only a uid tells them apart.
      const namespace = await here.cluster.namespace();
      const living = await podFor(outside, { name: 'db-0', namespace, owner: statefulSet('db') });
      await added(living);
      const record = await recordOf(outside);
      const attachment = (await here.site.entries()).find(({ key }) => key.includes('/attachments/'))!;
      const elsewhere = (text: string) =>
        text.replaceAll(here.site.node, 'node-b').replace(/"machine":"\w*"/, '"machine":"b"');
      await here.site.put(record.key, elsewhere(record.value));
      await here.site.put(attachment.key.replace(`/${here.site.node}/`, '/node-b/'), attachment.value);
      await here.site.remove(attachment.key);
      const old = { ...living, uid: '' };
      refused(await here.add(old, { containerID: 'old' }), `pod ${namespace}/db-0`);
      await added(living, { containerID: 'new' });
    });
  });

  describe('random allocation never touches a held fixed address', () => {
    it.each([inside, outside])('%s', async fixed => {
      await added(await podFor(fixed));
      const given = [];
      for (;;) {
        const { addresses, error } = await here.add(await here.cluster.pod());
        if (error !== undefined) {
          expect(error.code).toBe(100);
          break;
        }
        given.push(addresses[0]);
      }
      const all = [2, 3, 4, 5, 6, 7].map(last => `10.1.0.${last}`);
      expect(given.sort()).toEqual(all.filter(ip => ip !== fixed));
    });
  });

  describe('holds', () => {
    const held = (ip: string) => holderOf(ip);

    it('inside the random range: for whoever names it, never at random', async () => {
      const holder = await podFor(inside);
      await added(holder);
      await here.del(holder);
      const hold = await held(inside);
      expect(hold).toMatchObject({ kind: 'held', byName: true, pod: holder });
      expect(Date.parse(hold!.until!) - Date.parse(hold!.since)).toBe(3600_000);
      const before = await here.site.entries();
      await here.del(holder);
      expect(await here.site.entries(), 'DEL again does not make it longer').toEqual(before);
      for (let n = 0; n < 5; n++) expect((await added(await here.cluster.pod())).addresses[0]).not.toBe(inside);
      const full = await here.add(await here.cluster.pod());
      expect(full.error).toMatchObject({ code: 100, msg: expect.stringContaining(hold!.until!) });
      const stranger = await podFor(inside, { namespace: await here.cluster.namespace() });
      expect((await added(stranger)).addresses[0]).toBe(inside);
      expect(await held(inside)).toMatchObject({ kind: 'fixed', pod: stranger });
    });

    it('ends by its lease, with no agent', async () => {
      const short = { ipam: { fixedHold: 1 } };
      const holder = await podFor(inside);
      await added(holder, short);
      await here.del(holder, short);
      expect(await held(inside)).toMatchObject({ kind: 'held' });
      await expect.poll(() => here.site.remains(), { timeout: 20_000, interval: 100 }).toEqual([]);
    });

    it('taken again in time it has no end any more', async () => {
      const short = { ipam: { fixedHold: 1 } };
      const [first, second] = [await podFor(inside), await podFor(inside)];
      await added(first, short);
      await here.del(first, short);
      await added(second, short);
      await new Promise(resolve => setTimeout(resolve, 3000));
      expect(await held(inside)).toMatchObject({ kind: 'fixed', pod: second });
    });

    it.each([
      ['outside of the range', '10.1.0.99', {}],
      ['in a fixed span', outside, {}],
      ['in a fixed span inside the range', '10.1.0.7', { ranges: [[spanInside], ...ipam.ranges.slice(1)] }],
      ['with fixedHold 0', inside, { fixedHold: 0 }],
    ])('none %s, and no cooldown either', async (_, ip, more: Json) => {
      const sandbox = { ipam: { ...more, cooldown: 3600 } };
      const holder = await podFor(ip);
      const { addresses } = await added(holder, sandbox);
      await here.del(holder, sandbox);
      const { owners } = await here.holdings();
      expect(owners.get(ip)).toBeUndefined();
      for (const other of addresses.slice(1)) expect(owners.get(other)).toMatchObject({ kind: 'held', pod: holder });
    });

    it('a cooldown is kept for its former pod alone', async () => {
      const sandbox = { ipam: { cooldown: 3600 } };
      const former = await here.cluster.pod();
      const [random] = (await added(former, sandbox)).addresses;
      await here.del(former, sandbox);
      refused(await here.add(await podFor(random!), sandbox), 'for its former owner');
      await here.cluster.annotate(former, { 'kube-ipam.ip': random! });
      expect((await added(former, { ...sandbox, containerID: 'again' })).addresses[0]).toBe(random);
    });
  });

  describe('clusters on one store', () => {
    const named = (cluster: string) => ({ ipam: { cluster: `${cluster}-${here.site.keys.space}` } });
    const keyOf = (cluster: string) => clusterKey(named(cluster).ipam.cluster);
    const uidOf = async () => {
      const { metadata } = await here.plane.api<{ metadata: { uid: string } }>('GET', '/api/v1/namespaces/kube-system');
      return metadata.uid;
    };
    const read = async (key: string) => (await here.site.kv.read([{ key }], deadlineIn(9000))).answers[0]!.entries[0];

    it('the first ADD of a known pod records whose cluster it is, in its own commit', async () => {
      await added(await podFor(outside), named('east'));
      const entry = (await read(keyOf('east')))!;
      expect(JSON.parse(entry.value)).toEqual({ uid: await uidOf() });
      expect(entry.revision).toBe((await recordOf(outside)).revision);
      await added(await here.cluster.pod(), named('east'));
      expect((await read(keyOf('east')))!.revision).toBe(entry.revision);
    });

    it.each(['{"uid":"another"}', 'rubbish', '{}'])('%s under its name: code 7, and nothing is taken', async value => {
      await here.site.put(keyOf('taken'), value);
      for (const pod of [await podFor(outside), await here.cluster.pod()]) {
        const { error } = await here.add(pod, named('taken'));
        expect(error).toMatchObject({
          code: 7,
          msg: expect.stringContaining(`set "cluster": ${named('taken').ipam.cluster} belongs to another cluster`),
        });
      }
      expect(await here.site.remains()).toEqual([]);
    });

    it("another cluster's records and holds are never taken over", async () => {
      const [holder, former] = [await podFor(outside), await podFor(inside)];
      for (const pod of [holder, former]) await added(pod, named('east'));
      await here.del(former, named('east'));
      await here.cluster.remove(holder);
      refused(await here.add(await podFor(outside), named('west')), `in cluster ${named('east').ipam.cluster}`);
      refused(await here.add(await podFor(inside), named('west')), /hold until/);
      await added(await podFor(outside), named('east'));
      await added(await podFor(inside), named('east'));
    });
  });

  describe('races', () => {
    it('many pods for one address of a dead one, at once: exactly one wins, the others hear who', async () => {
      let holder = await podFor(outside);
      await added(holder);
      for (let round = 0; round < 25; round++) {
        const heirs = await Promise.all(Array.from({ length: 4 }, () => podFor(outside)));
        await here.cluster.remove(holder);
        const answers = await Promise.all(heirs.map(heir => here.add(heir)));
        const winners = heirs.filter((_, n) => answers[n]!.exitCode === 0);
        expect(winners, JSON.stringify(answers.map(({ error }) => error?.msg))).toHaveLength(1);
        for (const answer of answers) if (answer.error) refused(answer, `pod default/${winners[0]!.name}`);
        expect(await holderOf(outside)).toMatchObject({ pod: winners[0] });
        expect((await here.holdings()).attachments.size).toBe(1);
        holder = winners[0]!;
      }
    });

    it('a free address, and one on hold, wanted by many: one gets it', async () => {
      for (const ip of [outside, inside]) {
        for (let round = 0; round < 10; round++) {
          const heirs = await Promise.all(Array.from({ length: 4 }, () => podFor(ip)));
          const answers = await Promise.all(heirs.map(heir => here.add(heir)));
          expect(answers.filter(({ exitCode }) => exitCode === 0)).toHaveLength(1);
          expect((await here.holdings()).attachments.size).toBe(1);
          for (const heir of heirs) await here.del(heir);
        }
      }
    });

    it('pods that come, die and go all the time: an address that is in use is given to nobody else', async () => {
      /** Who was told that it has an address, and may use it: until just before its DEL, or its pod's end. */
      const users = new Map<string, PodRef>();
      const wanted = [inside, outside];
      let given = 0;
      const live = async (n: number) => {
        const ip = wanted[n % wanted.length]!;
        const pod = await podFor(ip);
        const stop = () => users.get(ip)?.uid === pod.uid && users.delete(ip);
        for (const containerID of ['first', 'second'].map(name => `${name}-${pod.uid}`)) {
          const { addresses, error } = await here.add(pod, { containerID });
          if (error !== undefined)
            expect(error).toMatchObject({ code: 11, msg: expect.stringContaining('is held by') });
          else {
            expect(addresses[0]).toBe(ip);
            expect([undefined, pod.uid]).toContain(users.get(ip)?.uid);
            users.set(ip, pod);
            given++;
          }
        }
        const ending = Math.random();
        stop();
        if (ending < 0.5) await here.cluster.remove(pod);
        else if (ending < 0.7) await here.cluster.setPhase(pod, 'Failed');
        // Its node hears of it, sooner or later, or never.
        const late = ['first', 'second'].map(name => here.del(pod, { containerID: `${name}-${pod.uid}` }));
        if (ending > 0.2) await Promise.all(late);
      };
      await Promise.all(
        Array.from({ length: 6 }, async (_, worker) => {
          for (let n = 0; n < 15; n++) await live(worker + n);
        }),
      );
      await here.holdings();
      expect(given).toBeGreaterThan(20);
    });

    it('processes of the executable: exactly one wins', async () => {
      const processes = { ipam: { timeout: 60 } };
      let holder = await podFor(outside);
      await added(holder);
      for (let round = 0; round < 6; round++) {
        const heirs = await Promise.all(Array.from({ length: 3 }, () => podFor(outside)));
        await here.cluster.remove(holder);
        const answers = await Promise.all(heirs.map(heir => run('ADD', here.callOf(heir, processes))));
        const winners = heirs.filter((_, n) => answers[n]!.exitCode === 0);
        expect(winners, JSON.stringify(answers.map(({ error }) => error?.msg))).toHaveLength(1);
        expect(answers.map(({ stderr }) => stderr).join('')).toBe('');
        for (const answer of answers) if (answer.error) refused(answer);
        expect((await here.holdings()).attachments.size).toBe(1);
        holder = winners[0]!;
      }
    });

    it('old sandbox and new sandbox of one pod, ADD and DEL at once: one of them has it, or nobody', async () => {
      const pod = await podFor(outside);
      for (let round = 0; round < 15; round++) {
        await Promise.all([
          here.add(pod, { containerID: 'old' }),
          here.add(pod, { containerID: 'new' }),
          here.del(pod, { containerID: 'old' }),
        ]);
        const { attachments } = await here.holdings();
        expect(attachments.size).toBeLessThanOrEqual(1);
        expect((await added(pod, { containerID: 'new' })).addresses[0]).toBe(outside);
        await here.del(pod, { containerID: 'old' });
        expect([...(await here.holdings()).attachments.keys()]).toEqual(['new/eth0']);
        await here.del(pod, { containerID: 'new' });
        expect(await here.site.remains()).toEqual([]);
      }
    });
  });
});
