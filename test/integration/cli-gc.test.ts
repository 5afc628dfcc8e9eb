// `kube-ipam gc` as an administrator runs it: a process of its own, a real API server, and both stores.
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { readMachine } from '../../src/base/node.ts';
import { parseIp } from '../../src/net/ip.ts';
import { Desk, type RunOptions, runProcess, sources } from '../helpers/command-line.ts';
import { onCluster } from '../helpers/kubernetes/on-cluster.ts';
import type { Json } from '../helpers/plugin.ts';

const ranges = [[{ subnet: '10.1.0.0/24', rangeStart: '10.1.0.10' }]];

interface Report {
  readonly dryRun: boolean;
  readonly freed: number;
  readonly kept: number;
  readonly findings: readonly {
    readonly outcome: string;
    readonly addresses: readonly string[];
    readonly node: string;
    readonly containerID: string;
    readonly pod?: { readonly name: string };
    readonly why: string;
    readonly deadForSeconds: number;
  }[];
}

onCluster(
  { ranges },
  here => {
    let desk: Desk;
    beforeEach(() => {
      desk = new Desk();
      network({ kubeConfig: here.plane.adminKubeconfig });
    });
    afterEach(() => desk[Symbol.dispose]());

    const network = (ipam: Json) => desk.network('net', { ...here.site.access, ranges, ...ipam });
    const run = (argv: readonly string[], options: RunOptions = {}) =>
      runProcess(sources[0], [sources[1], 'gc', ...argv, '--conf-dir', desk.confDir], options);
    const report = async (...argv: readonly string[]): Promise<Report> => {
      const { stdout, stderr } = await run([...argv, '-o', 'json', '--grace', '100ms']);
      try {
        return JSON.parse(stdout) as Report;
      } catch (cause) {
        throw new Error(`no JSON: ${stdout}${stderr}`, { cause });
      }
    };
    const dead = async () => {
      const pod = await here.cluster.pod();
      const { addresses } = await here.add(pod);
      await here.cluster.remove(pod);
      return { pod, ip: addresses[0]! };
    };
    const owners = async () => [...(await here.holdings()).owners.keys()];

    it('--dry-run shows what would go, and why; then it goes; then there is nothing to do', async () => {
      const alive = await here.cluster.pod();
      const { addresses } = await here.add(alive);
      const { pod, ip } = await dead();
      const { findings, ...counts } = await report('--dry-run');
      expect(counts).toEqual({ dryRun: true, freed: 0, kept: 0 });
      expect(findings).toMatchObject([
        { outcome: 'dead', addresses: [ip], node: here.site.node, pod: { name: pod.name }, why: 'its pod is gone' },
      ]);
      const { code, stdout } = await run(['--grace', '0.1']);
      expect(stdout).toMatch(
        new RegExp(
          `^RESULT +ADDRESS +NODE +OWNER.*\nfreed +${ip} +${here.site.node} +default/${pod.name} .*its pod is gone\n1 attachment or workload freed\n$`,
        ),
      );
      expect(code).toBe(0);
      expect(await owners()).toEqual(addresses);
      expect(await run(['--grace', '1h'])).toMatchObject({ code: 0, stdout: '0 attachments or workloads freed\n' });
    });

    it('--local frees what earlier boots left, and asks no API', async () => {
      network({ kubeConfig: '' });
      const id = { node: here.site.node, network: 'net', containerID: 'before', ifname: 'eth0' };
      const owner = {
        kind: 'dynamic',
        cluster: 'default',
        ...id,
        machine: readMachine().machine,
        boot: 'earlier',
        netns: '',
      };
      await here.site.put(here.site.keys.address(parseIp('10.1.0.77')!), owner);
      await here.site.put(here.site.keys.attachment(id), { addresses: ['10.1.0.77'] });
      const gone = await dead();
      expect(await report('--local', '--dry-run').catch(String)).toMatch('--grace');
      const dry = await run(['--local', '--dry-run']);
      expect(dry).toMatchObject({ code: 0, stdout: expect.stringMatching(/would be freed +10\.1\.0\.77/) });
      expect(await run(['--local'])).toMatchObject({
        code: 0,
        stdout: expect.stringMatching(/freed +10\.1\.0\.77.*\n1 attachment/),
      });
      expect(await owners()).toEqual([gone.ip]);
    });

    it('what may live is shown as kept', async () => {
      const pod = await here.cluster.pod();
      const conf = here.callOf(pod);
      const { call } = await import('../helpers/plugin.ts');
      const { addresses } = await call('ADD', { ...conf, netns: `/proc/${process.pid}/ns/net` });
      await here.cluster.remove(pod);
      const { findings, kept, freed } = await report();
      expect({ kept, freed }).toEqual({ kept: 1, freed: 0 });
      expect(findings).toMatchObject([
        { outcome: 'orphan', addresses, why: expect.stringContaining('network namespace') },
      ]);
      expect(findings[0]!.deadForSeconds).toBeGreaterThanOrEqual(0);
    });

    describe('needs', () => {
      it('a kubeconfig, or --local: exit code 3', async () => {
        network({ kubeConfig: '' });
        expect(await run([])).toMatchObject({ code: 3, stderr: expect.stringMatching(/--kubeconfig.*--local/) });
        const { ip } = await dead();
        const { stdout } = await run(['--kubeconfig', here.plane.adminKubeconfig, '--grace', '0.1']);
        expect(stdout).toMatch(`freed   ${ip}`);
      });

      it('an API that answers: exit code 3, and nothing is freed', async () => {
        const { ip } = await dead();
        const kubeconfig = here.plane.kubeconfig({ token: 'x' }, 'https://127.0.0.1:1');
        const said = await run(['--kubeconfig', kubeconfig, '--timeout', '1s']);
        expect(said).toMatchObject({ code: 3, stderr: expect.stringContaining('connection refused') });
        expect(await owners()).toEqual([ip]);
      });

      it('the right to ask: exit code 1, with verb and resource', async () => {
        const said = await run(['--kubeconfig', here.plane.kubeconfig({ token: 'token-of-nobody' })]);
        expect(said).toMatchObject({ code: 1, stderr: expect.stringContaining('"get" on "namespaces"') });
      });

      it('the cluster that the store belongs to', async () => {
        const cluster = `other-${here.site.kind}`;
        network({ kubeConfig: here.plane.adminKubeconfig, cluster });
        const key = `/kube-ipam/v1/clusters/${cluster}`;
        await here.site.put(key, { uid: 'somebody-else' });
        expect(await run([])).toMatchObject({
          code: 1,
          stderr: expect.stringContaining(`${cluster} belongs to another cluster`),
        });
        await here.site.remove(key);
      });

      it('a record of whose store it is, where flags name the store', async () => {
        if (here.site.kind === 'embedded') await dead();
        const { dataDir, addressSpace, etcdConfig } = here.site.access;
        const { etcdURL } = (etcdConfig ?? {}) as { readonly etcdURL?: string };
        const store = etcdURL === undefined ? ['--data-dir', String(dataDir)] : ['--etcd-url', etcdURL];
        const argv = [...store, '--space', String(addressSpace), '--kubeconfig', here.plane.adminKubeconfig];
        const unknown = await run([...argv, '--cluster', `mistyped-${here.site.kind}`]);
        expect(unknown).toMatchObject({
          code: 1,
          stderr: expect.stringContaining('no record of this store says which cluster'),
        });
        const { ip } = await dead();
        const known = await run([...argv, '--node-name', 'node-a', '--grace', '0.1']);
        expect(known.stdout).toMatch(new RegExp(`freed +${ip}`));
      });

      it.each([
        [['--grace', 'soon'], '--grace'],
        [['--grace', '25h'], '--grace'],
        [['--node-grace=-1'], '--node-grace'],
        [['--local', '--kubeconfig', '/x'], 'leave out --kubeconfig'],
      ])('sense: %j', async (argv, words) => {
        expect(await run(argv)).toMatchObject({ code: 2, stderr: expect.stringContaining(words) });
      });
    });
  },
  { users: [{ name: 'nobody', token: 'token-of-nobody' }] },
);
