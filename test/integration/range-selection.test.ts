// Which ranges serve a pod: selectors on the labels of namespace, node and pod, and the pod's own choice by name; those that
// refuse it are not there for it, and say why (design section 4). With pods of a real API server, on both stores.
import { beforeEach, describe, expect, it } from 'vitest';
import type { PodOptions, PodRef } from '../helpers/kubernetes/cluster.ts';
import { onCluster, type Sandbox } from '../helpers/kubernetes/on-cluster.ts';
import type { Json } from '../helpers/plugin.ts';

type Texts = Readonly<Record<string, string>>;

const labels = (matchLabels: Texts) => ({ matchLabels });
const range = (third: number, more: Json = {}) => ({ subnet: `10.1.${third}.0/24`, ...more });
const v6 = [{ subnet: 'fd00::/64' }];

onCluster({}, here => {
  let namespace: string;
  let node: string;
  beforeEach(async () => {
    namespace = await here.cluster.namespace({ team: 'shop', stage: 'live' });
    node = await here.cluster.node({ zone: 'a', disk: 'ssd' });
  });
  const pod = (options: PodOptions = {}) =>
    here.cluster.pod({ namespace, node, labels: { app: 'db', tier: 'back' }, ...options });
  const of = (...ranges: Json[][]): Sandbox => ({ ipam: { ranges } });
  const given = async (sandbox: Sandbox, options: PodOptions = {}) => {
    const answer = await here.add(await pod(options), sandbox);
    expect(answer.error?.msg).toBeUndefined();
    return answer.addresses;
  };
  const from = (third: number) => expect.stringMatching(`^10\\.1\\.${third}\\.`);
  const refusal = async (sandbox: Sandbox, options: PodOptions = {}) => {
    const { error } = await here.add(await pod(options), sandbox);
    expect(await here.site.remains()).toEqual([]);
    return error;
  };
  const choosing = (text: string, more: Texts = {}) => ({ annotations: { 'kube-ipam.range': text, ...more } });

  describe('selectors', () => {
    it.each<[string, Json]>([
      ['namespaces', labels({ team: 'shop' })],
      ['namespaces', { matchExpressions: [{ key: 'kubernetes.io/metadata.name', operator: 'Exists' }] }],
      ['nodes', labels({ zone: 'a', disk: 'ssd' })],
      ['nodes', { matchExpressions: [{ key: 'zone', operator: 'In', values: ['a', 'b'] }] }],
      ['pods', labels({ app: 'db' })],
      ['pods', { matchExpressions: [{ key: 'app', operator: 'NotIn', values: ['web'] }] }],
      ['pods', { matchExpressions: [{ key: 'legacy', operator: 'DoesNotExist' }] }],
      ['pods', {}],
    ])('%s %j accepts this pod', async (key, selector) => {
      expect(await given(of([range(1, { [key]: selector })]))).toEqual([from(1)]);
    });

    it.each<[string, Json, string]>([
      ['namespaces', labels({ team: 'bank' }), "the namespace's labels do not match team=bank"],
      ['nodes', labels({ zone: 'b' }), "the node's labels do not match zone=b"],
      ['pods', labels({ app: 'web' }), "the pod's labels do not match app=web"],
      ['pods', { matchExpressions: [{ key: 'app', operator: 'NotIn', values: ['db'] }] }, 'app'],
      ['pods', { matchExpressions: [{ key: 'legacy', operator: 'Exists' }] }, 'legacy'],
      ['pods', { matchExpressions: [{ key: 'tier', operator: 'DoesNotExist' }] }, 'tier'],
      [
        'pods',
        { matchLabels: { app: 'db' }, matchExpressions: [{ key: 'tier', operator: 'In', values: ['front'] }] },
        'tier',
      ],
    ])('%s %j refuses it', async (key, selector, words) => {
      const error = await refusal(of([range(1, { [key]: selector })]));
      expect(error).toMatchObject({ code: 103, msg: expect.stringContaining(words) });
    });

    it('all that are given must match; the message says what is lacking, for each range', async () => {
      const all = { namespaces: labels({ team: 'shop' }), nodes: labels({ zone: 'a' }), pods: labels({ app: 'db' }) };
      expect(await given(of([range(1, all)]))).toEqual([from(1)]);
      const ranges = of([
        range(1, { ...all, name: 'one', nodes: labels({ zone: 'b' }) }),
        range(2, { ...all, namespaces: labels({ team: 'bank' }), pods: labels({ app: 'web' }) }),
      ]);
      const { error } = await here.add(await pod(), ranges);
      expect(error).toMatchObject({
        code: 103,
        msg: expect.stringMatching(
          /no range accepts this pod: range one \(10\.1\.1\.0\/24\): the node's labels do not match zone=b; range 10\.1\.2\.0\/24: the namespace's labels do not match team=bank and the pod's labels do not match app=web/,
        ),
      });
    });

    it('a range that refuses is not there for this pod; the others of its set serve it', async () => {
      const set = [range(1, { pods: labels({ app: 'web' }) }), range(2, { pods: labels({ app: 'db' }) }), range(3)];
      for (let n = 0; n < 3; n++) expect(await given(of(set))).toEqual([from(2)]);
      expect(await given(of(set), { labels: { app: 'web' } })).toEqual([from(1)]);
      expect(await given(of(set), { labels: {} })).toEqual([from(3)]);
    });

    it('goes round the ranges that serve it, and is full when those are', async () => {
      const small = (third: number, more: Json = {}) => range(third, { rangeEnd: `10.1.${third}.3`, ...more });
      const set = of([small(1), small(2, { pods: labels({ app: 'web' }) }), small(3)]);
      const addresses = [];
      for (let n = 0; n < 4; n++) addresses.push(...(await given(set)));
      expect(addresses.sort()).toEqual(['10.1.1.2', '10.1.1.3', '10.1.3.2', '10.1.3.3']);
      const { error } = await here.add(await pod(), set);
      expect(error).toMatchObject({ code: 100, msg: expect.not.stringContaining('10.1.2.0') });
      expect(await given(set, { labels: { app: 'web' } })).toEqual(['10.1.2.2']);
    });

    it('one set that nobody serves refuses the pod, whatever the other sets would give', async () => {
      const error = await refusal(of([range(1)], [{ subnet: 'fd00::/64', pods: labels({ app: 'web' }) }]));
      expect(error).toMatchObject({ code: 103, msg: expect.stringContaining('range fd00::/64') });
      expect(error!.msg).not.toContain('10.1.1.0');
    });

    it('labels as they are now: a namespace that gets its label is served from the next try on', async () => {
      const sandbox = of([range(1, { namespaces: labels({ open: 'yes' }) })]);
      const waiting = await pod();
      expect((await here.add(waiting, sandbox)).error?.code).toBe(103);
      await here.plane.api(
        'PATCH',
        `/api/v1/namespaces/${namespace}`,
        { metadata: { labels: { open: 'yes' } } },
        {
          contentType: 'application/merge-patch+json',
        },
      );
      expect((await here.add(waiting, sandbox)).addresses).toEqual([from(1)]);
    });

    it('a pod that has an address keeps it for as long as its range serves it', async () => {
      const before = of([range(1), range(2)]);
      const one = await pod();
      expect((await here.add(one, before)).addresses).toEqual([from(1)]);
      expect((await here.add(one, of([range(1, { pods: labels({ app: 'db' }) }), range(2)]))).addresses).toEqual([
        from(1),
      ]);
      expect((await here.add(one, of([range(1, { pods: labels({ app: 'web' }) }), range(2)]))).addresses).toEqual([
        from(2),
      ]);
      expect((await here.holdings()).owners.size).toBe(1);
    });

    it('a node that the API does not know has no labels, not even for DoesNotExist', async () => {
      const lost = await pod();
      await here.cluster.removeNode(node);
      const selector = { matchExpressions: [{ key: 'zone', operator: 'DoesNotExist' }] };
      const { error } = await here.add(lost, of([range(1, { nodes: selector })]));
      expect(error).toMatchObject({ code: 103, msg: expect.stringContaining('the labels of its node are not known') });
    });

    it('a container that is no pod of a cluster is served by ranges without selectors only', async () => {
      const podman: PodRef = { namespace: '', name: 'box', uid: '' };
      const set = [range(1, { pods: {} }), range(2)];
      expect((await here.add(podman, { ...of(set), containerID: 'box' })).addresses).toEqual([from(2)]);
      const { error } = await here.add(podman, { ...of(set.slice(0, 1)), containerID: 'other' });
      expect(error).toMatchObject({ code: 103, msg: expect.stringContaining('this container is none') });
    });

    it('need kubeConfig: code 7', async () => {
      const { error } = await here.add(await pod(), { ipam: { kubeConfig: '', ranges: [[range(1, { pods: {} })]] } });
      expect(error).toMatchObject({ code: 7, msg: expect.stringContaining('kubeConfig') });
    });
  });

  describe('addresses asked for by name', () => {
    const set = of(
      [
        range(1, { name: 'web', pods: labels({ app: 'web' }), fixedStart: '10.1.1.200', fixedEnd: '10.1.1.210' }),
        range(2),
      ],
      v6,
    );
    const words = {
      code: 103,
      msg: expect.stringMatching(/range web \(10\.1\.1\.0\/24\) does not accept this pod: the pod's labels/),
    };

    it.each(['10.1.1.5', '10.1.1.200'])('a fixed one in a range that refuses the pod: %s', async ip => {
      const annotations = { 'kube-ipam.ip': ip };
      expect(await refusal(set, { annotations })).toMatchObject(words);
      expect(await given(set, { annotations, labels: { app: 'web' } })).toEqual([ip, expect.stringMatching(/^fd00/)]);
    });

    it('a requested one', async () => {
      const asked = { ...set, args: ';IP=10.1.1.5' };
      expect(await refusal(asked)).toMatchObject(words);
      expect((await given(asked, { labels: { app: 'web' } }))[0]).toBe('10.1.1.5');
    });

    it('a fixed one in the subnet of a range that refuses, outside of what it gives out', async () => {
      const narrow = of([range(1, { pods: labels({ app: 'web' }), rangeEnd: '10.1.1.9' }), range(2)]);
      const annotations = { 'kube-ipam.ip': '10.1.1.77' };
      expect(await refusal(narrow, { annotations })).toMatchObject({ code: 103 });
      expect(await given(narrow, { annotations, labels: { app: 'web' } })).toEqual(['10.1.1.77']);
    });

    it('is not taken over from a dead pod either', async () => {
      const annotations = { 'kube-ipam.ip': '10.1.1.5' };
      const holder = await pod({ annotations, labels: { app: 'web' } });
      await here.add(holder, set);
      await here.cluster.remove(holder);
      expect((await here.add(await pod({ annotations }), set)).error?.code).toBe(103);
      expect((await here.holdings()).owners.get('10.1.1.5')).toMatchObject({ pod: holder });
    });
  });

  describe('kube-ipam.range', () => {
    const named = (third: number, more: Json = {}) => range(third, { name: `r${third}`, ...more });
    const sets = of([named(1), named(2), named(3)], v6);

    it('names the ranges that may serve, in the set that has them; other sets give as ever', async () => {
      for (let n = 0; n < 2; n++)
        expect(await given(sets, choosing('r2'))).toEqual([from(2), expect.stringMatching(/^fd00/)]);
      expect((await given(sets, choosing(' r3 , r2 ')))[0]).toMatch(/^10\.1\.[23]\./);
      expect((await given(sets, choosing('')))[0]).toMatch(/^10\.1\.1\./);
    });

    it('a choice for one interface is not read for another', async () => {
      const several = { 'k8s.v1.cni.cncf.io/networks': 'other' };
      const one = await pod(choosing('net1=r3,eth0=r2', several));
      expect((await here.add(one, sets)).addresses[0]).toMatch(/^10\.1\.2\./);
      expect((await here.add(one, { ...sets, ifname: 'net1', more: { name: 'other' } })).addresses[0]).toMatch(
        /^10\.1\.3\./,
      );
    });

    it.each(['r9', 'r2,r9', 'eth0=r9', 'R2', '10.1.2.0/24'])('%s: a name that there is not, code 7', async text => {
      expect(await refusal(sets, choosing(text))).toMatchObject({
        code: 7,
        msg: expect.stringMatching(/annotation kube-ipam\.range: network net has no range .*: it has r1, r2, r3/),
      });
    });

    it('a bare name that there is not may be meant for another network of the pod', async () => {
      const several = { 'k8s.v1.cni.cncf.io/networks': 'other' };
      expect((await given(sets, choosing('r2,elsewhere', several)))[0]).toMatch(/^10\.1\.2\./);
      expect(await given(sets, choosing('elsewhere', several))).toHaveLength(2);
    });

    it('does not open a range whose selectors refuse: code 103, with both reasons', async () => {
      const guarded = of([named(1), named(2, { pods: labels({ app: 'web' }) })]);
      const error = await refusal(guarded, choosing('r2'));
      expect(error).toMatchObject({
        code: 103,
        msg: expect.stringMatching(
          /range r1 .*: annotation kube-ipam\.range names another; range r2 .*: the pod's labels do not match app=web/,
        ),
      });
      expect(await given(guarded, { ...choosing('r2'), labels: { app: 'web' } })).toEqual([from(2)]);
    });

    it('binds a fixed address too', async () => {
      const annotations = { 'kube-ipam.range': 'r2', 'kube-ipam.ip': '10.1.3.5' };
      expect(await refusal(sets, { annotations })).toMatchObject({
        code: 103,
        msg: expect.stringContaining('annotation kube-ipam.range names another'),
      });
      expect((await given(sets, { annotations: { ...annotations, 'kube-ipam.ip': '10.1.2.5' } }))[0]).toBe('10.1.2.5');
    });
  });
});
