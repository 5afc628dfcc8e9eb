// The manifests: kustomize and chart are one, ask for no more than they need, and do on a node what they say.

import { spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { identityOf } from '../../scripts/bundle/identity.ts';
import { deployedConfs } from '../../scripts/deploy/networks.ts';
import { faceOf } from '../../src/cli/face.ts';
import { parseArgs } from '../../src/cli/parse.ts';
import { withUsual } from '../../src/cli/program.ts';
import { buildImages, reference, whyNoImages } from '../helpers/images.ts';
import { type ControlPlane, startControlPlane, whyNoControlPlane } from '../helpers/kubernetes/control-plane.ts';
import { Machine, whyNoMachine } from '../helpers/machine.ts';
import { chart, charted, deploy, helm, kustomized, must, type Rendered, whyNoManifests } from '../helpers/manifests.ts';
import { readAsPlugin, schemaProblems } from '../helpers/network-schema.ts';
import { Podman, whyNoPodman } from '../helpers/podman.ts';
import { project } from '../helpers/project.ts';

const { version } = identityOf(project);
const obstacle = whyNoManifests();

interface Container {
  readonly name: string;
  readonly image: string;
  readonly args: readonly string[];
  readonly env?: readonly { readonly name: string; readonly value?: string }[];
  readonly securityContext: { readonly capabilities: { readonly add?: readonly string[] } };
  readonly volumeMounts: readonly {
    readonly name: string;
    readonly mountPath: string;
    readonly readOnly?: boolean;
    readonly mountPropagation?: string;
  }[];
}

interface PodSpec {
  readonly initContainers: readonly Container[];
  readonly containers: readonly Container[];
  readonly volumes: readonly { readonly name: string; readonly hostPath?: { readonly path: string } }[];
}

function podSpec(objects: readonly Rendered[]): PodSpec {
  const sets = objects.filter(({ kind }) => kind === 'DaemonSet');
  expect(sets).toHaveLength(1);
  return (sets[0]!.spec as { template: { spec: PodSpec } }).template.spec;
}

/** The network configuration that the objects bring to a node. */
function conflist(objects: readonly Rendered[]): Record<string, unknown> {
  const map = objects.find(({ kind }) => kind === 'ConfigMap')!;
  return JSON.parse((map.data as Record<string, string>)['network.conflist']!);
}

/** Less what differs by how each of them rolls the pods after a change of the network; the configuration parsed. */
function comparable(objects: readonly Rendered[]) {
  const text = JSON.stringify(objects, (key, value) => {
    if (key === 'annotations') return undefined;
    return key === 'network.conflist' ? JSON.parse(value) : value;
  });
  const named = JSON.parse(text.replaceAll(/kube-ipam-network-[a-z0-9]{10}/g, 'kube-ipam-network')) as Rendered[];
  return Object.fromEntries(named.map(object => [`${object.kind} ${object.metadata.name}`, object]));
}

describe('kustomize and chart', () => {
  it.for([
    ['base', {}],
    ['uninstall', { uninstall: true }],
  ] as const)('are the same objects: %s', ([folder, values], { skip }) => {
    if (obstacle !== undefined) skip(obstacle);
    const plain = comparable(kustomized(join(deploy, folder)));
    expect(Object.keys(plain).length).toBe(folder === 'base' ? 11 : 1);
    expect(comparable(charted(values))).toEqual(plain);
  });

  it('are the same objects: base with the allocator', ({ skip }) => {
    if (obstacle !== undefined) skip(obstacle);
    const folder = mkdtempSync(join(tmpdir(), 'kube-ipam-deploy-'));
    try {
      cpSync(deploy, folder, { recursive: true });
      const overlay = join(folder, 'base-and-allocator');
      mkdirSync(overlay);
      const lines = [
        'kind: Kustomization',
        'namespace: kube-system',
        'resources: [../base]',
        'components: [../allocator]',
      ];
      writeFileSync(join(overlay, 'kustomization.yaml'), `${lines.join('\n')}\n`);
      const plain = comparable(kustomized(overlay));
      expect(Object.keys(plain).length).toBe(11 + 6);
      expect(comparable(charted({ allocator: { enabled: true } }))).toEqual(plain);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });

  it('have the version of the program', ({ skip }) => {
    if (obstacle !== undefined) skip(obstacle);
    for (const objects of [kustomized(join(deploy, 'base')), kustomized(join(deploy, 'uninstall')), charted()]) {
      const { initContainers, containers } = podSpec(objects);
      for (const { image } of [...initContainers, ...containers]) expect(image).toBe(reference('kube-ipam'));
    }
    expect(must(helm, ['show', 'chart', chart])).toContain(`appVersion: ${version}\n`);
  });

  it('carry networks that the templates give', () => {
    for (const [file, text] of deployedConfs()) expect(readFileSync(join(deploy, file), 'utf8'), file).toBe(text);
    expect(readdirSync(join(chart, 'files'))).toHaveLength(
      [...deployedConfs().keys()].filter(one => /^chart/.test(one)).length,
    );
  });

  it('roll the pods when the network changes', ({ skip }) => {
    if (obstacle !== undefined) skip(obstacle);
    const checksum = (values: Parameters<typeof charted>[0]) => {
      const template = JSON.stringify(charted(values).find(({ kind }) => kind === 'DaemonSet'));
      return /"checksum\/network":"([0-9a-f]{64})"/.exec(template)?.[1];
    };
    expect(checksum({ network: { name: 'other' } })).not.toBe(checksum({}));
    expect(checksum({ network: { install: false } })).toBeUndefined();
    const folder = mkdtempSync(join(tmpdir(), 'kube-ipam-deploy-'));
    try {
      cpSync(deploy, folder, { recursive: true });
      const name = () => kustomized(join(folder, 'example')).find(({ kind }) => kind === 'ConfigMap')!.metadata.name;
      const before = name();
      const file = join(folder, 'example/network.conflist');
      writeFileSync(file, readFileSync(file, 'utf8').replace('eth1', 'eth2'));
      expect(name()).toMatch(/^kube-ipam-network-/);
      expect(name()).not.toBe(before);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
});

describe('what a pod may do on its node', () => {
  const hostPaths = (spec: PodSpec) => spec.volumes.flatMap(({ hostPath }) => (hostPath ? [hostPath.path] : [])).sort();

  it('is as little as it needs', ({ skip }) => {
    if (obstacle !== undefined) skip(obstacle);
    const spec = podSpec(kustomized(join(deploy, 'base')));
    // What the agent's design names, and the plugin folder for the installation.
    const named = ['/etc/cni/net.d', '/etc/kube-ipam', '/etc/machine-id', '/run/kube-ipam', '/run/netns'];
    const state = ['/var/lib/cni/kube-ipam', '/var/lib/kube-ipam', '/var/run/netns'];
    expect(hostPaths(spec)).toEqual([...named, '/opt/cni/bin', ...state].sort());
    const [agent] = spec.containers;
    const source = (name: string) => spec.volumes.find(volume => volume.name === name)?.hostPath?.path;
    // The agent finds everything where the host has it.
    for (const { name, mountPath } of agent!.volumeMounts) expect(source(name) ?? '/certificates').toBe(mountPath);
    expect(agent!.volumeMounts.map(({ mountPath }) => mountPath)).not.toContain('/opt/cni/bin');
    for (const mount of agent!.volumeMounts.filter(({ name }) => name.endsWith('netns')))
      expect(mount).toMatchObject({ readOnly: true, mountPropagation: 'HostToContainer' });
  });

  it.for(['base', 'uninstall'])('takes no capability and no way to get one: %s', (folder, { skip }) => {
    if (obstacle !== undefined) skip(obstacle);
    const spec = podSpec(kustomized(join(deploy, folder)));
    expect(spec).toMatchObject({ hostNetwork: true, securityContext: { seccompProfile: { type: 'RuntimeDefault' } } });
    expect(spec).not.toHaveProperty('hostPID');
    for (const { securityContext } of [...spec.initContainers, ...spec.containers])
      expect(securityContext).toEqual({
        privileged: false,
        allowPrivilegeEscalation: false,
        readOnlyRootFilesystem: true,
        capabilities: { drop: ['ALL'] },
      });
  });

  it.for(['base', 'uninstall'])(
    'comes to every node, before everything else, and is the last to go: %s',
    (folder, { skip }) => {
      if (obstacle !== undefined) skip(obstacle);
      expect(podSpec(kustomized(join(deploy, folder)))).toMatchObject({
        priorityClassName: 'system-node-critical',
        tolerations: [{ operator: 'Exists' }],
        nodeSelector: { 'kubernetes.io/os': 'linux' },
        hostNetwork: true,
      });
    },
  );

  it('grows by two capabilities, in the agent, only with the image that programs the host', ({ skip }) => {
    if (obstacle !== undefined) skip(obstacle);
    const { initContainers, containers } = podSpec(charted({ image: { variant: 'net' } }));
    expect([...initContainers, ...containers].map(({ image }) => image)).toEqual(
      Array(2).fill(reference('kube-ipam-net')),
    );
    expect(initContainers[0]!.securityContext.capabilities).toEqual({ drop: ['ALL'] });
    expect(containers[0]!.securityContext.capabilities).toEqual({ drop: ['ALL'], add: ['NET_ADMIN', 'NET_RAW'] });
  });
});

describe('the chart', () => {
  it('is one that Helm has nothing to say against', ({ skip }) => {
    if (obstacle !== undefined) skip(obstacle);
    expect(must(helm, ['lint', '--strict', chart])).toContain('0 chart(s) failed');
  });

  it.for(['bridge', 'macvlan', 'ipvlan', 'ptp', 'kube-router', 'calico'])(
    'makes a network for %s',
    (plugin, { skip }) => {
      if (obstacle !== undefined) skip(obstacle);
      const values = {
        network: {
          plugin,
          name: 'lan',
          main: { mtu: 1400 },
          ipam: { ranges: [[{ subnet: '10.9.0.0/16' }]], sticky: true, etcdConfig: { dialTimeout: 2 } },
        },
        etcd: { endpoints: ['https://etcd-0:2379', 'https://etcd-1:2379'] },
      };
      const conf = conflist(charted(values)) as { name: string; plugins: { ipam: Record<string, unknown> }[] };
      const [main] = conf.plugins;
      expect(schemaProblems(conf)).toEqual([]);
      expect(readAsPlugin({ ...main, name: conf.name, cniVersion: '1.0.0' })).toBeUndefined();
      expect(conf.name).toBe('lan');
      expect(main).toMatchObject({
        type: plugin === 'kube-router' ? 'bridge' : plugin,
        mtu: 1400,
        ipam: {
          type: 'kube-ipam',
          ranges: [[{ subnet: '10.9.0.0/16' }]],
          sticky: true,
          kubeConfig: '/etc/cni/net.d/kube-ipam.d/kubeconfig',
          etcdConfig: {
            etcdURL: 'https://etcd-0:2379,https://etcd-1:2379',
            etcdCertFile: '/etc/kube-ipam/etcd-client.crt',
            dialTimeout: 2,
          },
        },
      });
      expect(conf.plugins).toHaveLength(plugin === 'calico' ? 3 : 1);
    },
  );

  it('leaves certificates out where etcd has no TLS, and the whole network where it is given or not wanted', ({
    skip,
  }) => {
    if (obstacle !== undefined) skip(obstacle);
    const endpoints = ['http://10.0.0.1:2379'];
    const bare = conflist(charted({ etcd: { tls: false, endpoints } })) as { plugins: { ipam: object }[] };
    expect(bare.plugins[0]!.ipam).toHaveProperty('etcdConfig', { etcdURL: endpoints[0] });
    const own = { cniVersion: '1.1.0', name: 'mine', plugins: [{ type: 'ptp', ipam: { type: 'kube-ipam' } }] };
    expect(conflist(charted({ network: { conflist: own } }))).toEqual(own);
    const none = charted({ network: { install: false } });
    expect(none.filter(({ kind }) => kind === 'ConfigMap')).toEqual([]);
    expect(podSpec(none).initContainers[0]!.args.filter(arg => /^--(conf|need-store|conf-name=)/.test(arg))).toEqual([
      '--conf-dir=/etc/cni/net.d',
    ]);
  });

  it('takes the API server, the folders of the runtime, the port and more flags from its values', ({ skip }) => {
    if (obstacle !== undefined) skip(obstacle);
    const cni = { binDir: '/var/lib/rancher/k3s/data/cni', confDir: '/var/lib/rancher/k3s/agent/etc/cni/net.d' };
    const values = {
      k8sServiceHost: 'api.example',
      k8sServicePort: 6443,
      cni,
      agent: { port: 9999, extraArgs: ['--gc-interval=2m'] },
    };
    const spec = podSpec(charted(values));
    const [agent] = spec.containers;
    expect(agent!.env).toEqual([
      expect.objectContaining({ name: 'NAMESPACE' }),
      { name: 'KUBERNETES_SERVICE_HOST', value: 'api.example' },
      { name: 'KUBERNETES_SERVICE_PORT', value: '6443' },
    ]);
    expect(agent!.args).toEqual([
      'agent',
      '--listen=:9999',
      `--conf-dir=${cni.confDir}`,
      '--certificates=/certificates',
      '--plugin-account=$(NAMESPACE)/kube-ipam-plugin',
      `--plugin-kubeconfig=${cni.confDir}/kube-ipam.d/kubeconfig`,
      '--gc-interval=2m',
    ]);
    const local = podSpec(charted({ agent: { localOnly: true } })).containers[0]!;
    expect(local.args).toContain('--listen=127.0.0.1:20244');
    expect(spec.initContainers[0]!.args).toEqual(
      expect.arrayContaining([`--bin-dir=${cni.binDir}`, `--conf-dir=${cni.confDir}`]),
    );
    const removal = podSpec(charted({ ...values, uninstall: true }));
    expect(removal.initContainers[0]!.volumeMounts).toContainEqual({
      name: 'plugins',
      mountPath: `/host${cni.binDir}`,
    });
    expect(JSON.stringify(conflist(charted(values)))).toContain(`"${cni.confDir}/kube-ipam.d/kubeconfig"`);
  });

  it('has its values described, with their defaults', () => {
    const defaults = parse(readFileSync(join(chart, 'values.yaml'), 'utf8')) as Record<string, unknown>;
    const names = Object.entries(defaults).flatMap(([name, value]) =>
      ['image', 'network', 'etcd', 'cni', 'agent', 'allocator'].includes(name)
        ? Object.keys(value as object).map(key => `${name}.${key}`)
        : [name],
    );
    const page = readFileSync(join(project, 'docs/deploy.md'), 'utf8');
    const table = page.split('| value | default | meaning |')[1]!.split('\n\n')[0]!;
    const described = [...table.matchAll(/^\| ([^|]+) \|/gm)].flatMap(([, cell]) => [...cell!.matchAll(/`([\w.]+)`/g)]);
    expect(described.map(([, name]) => name).sort()).toEqual(names.sort());
    const schema = JSON.parse(readFileSync(join(chart, 'values.schema.json'), 'utf8'));
    expect(Object.keys(schema.properties).filter(name => name !== 'global')).toEqual(Object.keys(defaults));
  });

  it('refuses values that it does not know', ({ skip }) => {
    if (obstacle !== undefined) skip(obstacle);
    expect(() => charted({ nettwork: {} })).toThrow(/nettwork/);
    expect(() => charted({ network: { plugin: 'flannel' } })).toThrow(/plugin/);
    expect(() => charted({ etcd: { endpoints: [] } })).toThrow(/endpoints/);
  });
});

describe('a real API server', () => {
  const missing = obstacle ?? whyNoControlPlane();
  let plane: ControlPlane;

  beforeAll(async () => {
    if (missing !== undefined) return;
    plane = await startControlPlane();
    await plane.kubectl(['apply', '-k', join(deploy, 'base')]);
  });
  afterAll(async () => {
    await plane?.[Symbol.asyncDispose]();
  });

  it.for(['base', 'uninstall', 'example'])('takes %s, strictly', async (folder, { skip }) => {
    if (missing !== undefined) skip(missing);
    const argv = ['apply', '--dry-run=server', '--validate=strict', '-k', join(deploy, folder)];
    expect(await plane.kubectl(argv)).toMatch(/^daemonset\.apps\/kube-ipam(-uninstall)? /m);
  });

  it('takes the chart, and gives it back whole', async ({ skip }) => {
    if (missing !== undefined) skip(missing);
    const env = { PATH: process.env.PATH, HOME: plane.folder, KUBECONFIG: plane.adminKubeconfig };
    const run = (...argv: readonly string[]) =>
      spawnSync(helm, [...argv, '--namespace', 'helm-test'], { env, encoding: 'utf8', timeout: 60_000 });
    await plane.kubectl(['delete', '-k', join(deploy, 'base')]);
    await plane.kubectl(['create', 'namespace', 'helm-test']);
    try {
      expect(run('install', 'kube-ipam', chart)).toMatchObject({
        status: 0,
        stdout: expect.stringContaining('rollout status'),
      });
      const upgraded = run('upgrade', 'kube-ipam', chart, '--set', 'uninstall=true');
      expect(upgraded).toMatchObject({ status: 0, stdout: expect.stringContaining('all nodes are clean') });
      const sets = await plane.kubectl(['get', 'daemonsets', '-n', 'helm-test', '-o', 'name']);
      expect(sets).toBe('daemonset.apps/kube-ipam-uninstall\n');
      expect(run('uninstall', 'kube-ipam')).toMatchObject({ status: 0 });
      expect(await plane.kubectl(['get', 'daemonsets,clusterroles', '-A', '-o', 'name'])).not.toContain('kube-ipam');
    } finally {
      await plane.kubectl(['apply', '-k', join(deploy, 'base')]);
    }
  });

  const agent = 'kube-ipam-agent';
  const plugin = 'kube-ipam-plugin';

  /** As `kubectl auth can-i` asks: a verb, a resource with group and subresource, and an object of a namespace. */
  async function may(account: string, verb: string, what: string, object: string): Promise<boolean> {
    const [, resource, group = '', subresource = ''] = /^([a-z]+)(?:\.([^/]+))?(?:\/(.+))?$/.exec(what)!;
    const [namespace = '', name = ''] = object.split('/');
    const spec = {
      user: `system:serviceaccount:kube-system:${account}`,
      groups: ['system:serviceaccounts', 'system:serviceaccounts:kube-system', 'system:authenticated'],
      resourceAttributes: { verb, resource, group, subresource, namespace, name },
    };
    const review = { apiVersion: 'authorization.k8s.io/v1', kind: 'SubjectAccessReview', spec };
    const path = '/apis/authorization.k8s.io/v1/subjectaccessreviews';
    const { status } = await plane.api<{ status: { allowed: boolean } }>('POST', path, review);
    return status.allowed;
  }

  it.for([
    ...['get', 'list', 'watch'].map(verb => [agent, verb, 'pods', 'default'] as const),
    ...['get', 'list'].map(verb => [agent, verb, 'nodes', ''] as const),
    [agent, 'get', 'namespaces', '/kube-system'],
    [agent, 'get', 'statefulsets.apps', 'default/one'],
    [agent, 'get', 'virtualmachines.kubevirt.io', 'default/vm'],
    [agent, 'get', 'virtualmachineinstances.kubevirt.io', 'default/vm'],
    [agent, 'get', 'customresourcedefinitions.apiextensions.k8s.io', '/virtualmachines.kubevirt.io'],
    [agent, 'create', 'events', 'default'],
    [agent, 'patch', 'events', 'default/one'],
    [agent, 'create', 'leases.coordination.k8s.io', 'kube-system'],
    [agent, 'get', 'leases.coordination.k8s.io', 'kube-system/kube-ipam-gc'],
    [agent, 'update', 'leases.coordination.k8s.io', 'kube-system/kube-ipam-gc'],
    [agent, 'create', 'serviceaccounts/token', 'kube-system/kube-ipam-plugin'],
    ...['pods', 'nodes', 'namespaces'].map(kind => [plugin, 'get', kind, 'default/one'] as const),
  ])('allows %s to %s %s in %s', async ([account, verb, what, object], { skip }) => {
    if (missing !== undefined) skip(missing);
    expect(await may(account, verb, what, object)).toBe(true);
  });

  it.for([
    [agent, 'create', 'serviceaccounts/token', 'kube-system/kube-ipam-agent'],
    [agent, 'create', 'serviceaccounts/token', 'kube-system/default'],
    [agent, 'create', 'serviceaccounts/token', 'default/kube-ipam-plugin'],
    [agent, 'update', 'leases.coordination.k8s.io', 'kube-system/other'],
    [agent, 'create', 'leases.coordination.k8s.io', 'default'],
    [agent, 'watch', 'nodes', ''],
    [agent, 'list', 'namespaces', ''],
    [agent, 'list', 'statefulsets.apps', 'default'],
    [agent, 'list', 'virtualmachines.kubevirt.io', 'default'],
    [agent, 'list', 'events', 'default'],
    [agent, 'get', 'customresourcedefinitions.apiextensions.k8s.io', '/others.example'],
    [agent, 'get', 'secrets', 'kube-system/kube-ipam-etcd'],
    [agent, 'list', 'secrets', 'kube-system'],
    [agent, 'get', 'configmaps', 'kube-system/kube-ipam-network'],
    [agent, 'delete', 'pods', 'default/one'],
    [agent, 'patch', 'pods', 'default/one'],
    [agent, 'create', 'pods', 'kube-system'],
    [agent, 'create', 'pods/exec', 'default/one'],
    [agent, 'patch', 'nodes', '/worker-1'],
    [agent, 'delete', 'events', 'default/one'],
    [agent, 'impersonate', 'users', '/admin'],
    ...['pods', 'nodes', 'namespaces'].flatMap(kind =>
      ['list', 'watch', 'patch'].map(verb => [plugin, verb, kind, 'default'] as const),
    ),
    [plugin, 'get', 'secrets', 'kube-system/kube-ipam-etcd'],
    [plugin, 'get', 'statefulsets.apps', 'default/one'],
    [plugin, 'create', 'events', 'default'],
    [plugin, 'create', 'serviceaccounts/token', 'kube-system/kube-ipam-plugin'],
    [plugin, 'get', 'leases.coordination.k8s.io', 'kube-system/kube-ipam-gc'],
  ])('does not allow %s to %s %s in %s', async ([account, verb, what, object], { skip }) => {
    if (missing !== undefined) skip(missing);
    expect(await may(account, verb, what, object)).toBe(false);
  });
});

describe('the containers on a node', () => {
  let why: string | undefined;
  let machine: Machine;
  let podman: Podman;
  let host = '';

  beforeAll(async () => {
    why = obstacle ?? (await whyNoMachine()) ?? (await whyNoPodman()) ?? whyNoImages();
    if (why !== undefined) return;
    const { archive } = buildImages(process.arch as 'x64' | 'arm64');
    machine = await Machine.start();
    podman = await Podman.prepare(machine, '/usr/lib/cni', []);
    await podman.must(['load', '--quiet', '--input', archive('kube-ipam')]);
    host = join(machine.folder, 'host');
    for (const folder of ['etc', 'run/netns', 'var/lib', 'var/run/netns'])
      mkdirSync(join(host, folder), { recursive: true });
    // As systemd leaves a host's root.
    await machine.must(['mount', '--bind', host, host]);
    await machine.must(['mount', '--make-shared', host]);
    writeFileSync(join(host, 'etc/machine-id'), '0123456789abcdef0123456789abcdef\n');
  });
  afterAll(async () => {
    await machine?.[Symbol.asyncDispose]();
  });

  /** podman's arguments for a container of the manifests, with their mounts and rights; hostPaths lie below `host`. */
  function argv(spec: PodSpec, { args, image, volumeMounts }: Container, inputs: Readonly<Record<string, string>>) {
    const mounts = volumeMounts.flatMap(({ name, mountPath, readOnly, mountPropagation }) => {
      const path = spec.volumes.find(volume => volume.name === name)?.hostPath?.path;
      const source = path === undefined ? inputs[name]! : join(host, path);
      // As a kubelet does for DirectoryOrCreate.
      if (!existsSync(source)) mkdirSync(source, { recursive: true, mode: 0o755 });
      const propagation = mountPropagation === 'HostToContainer' ? ',rslave' : '';
      return ['--volume', `${source}:${mountPath}:${readOnly ? 'ro' : 'rw'}${propagation}`];
    });
    const strict = ['--network', 'host', '--read-only', '--cap-drop', 'all', '--security-opt', 'no-new-privileges'];
    const command = args.map(arg => arg.replace('$(NODE_NAME)', 'worker-1').replace('$(NAMESPACE)', 'kube-system'));
    return ['--cgroup-parent', machine.cgroup, ...strict, ...mounts, image, ...command];
  }

  function runContainer(...what: Parameters<typeof argv>) {
    return podman.run(['run', '--rm', ...argv(...what)]);
  }

  async function page(path: string): Promise<string> {
    return (await machine.run(['busybox', 'wget', '-q', '-O', '-', `http://127.0.0.1:20244${path}`])).stdout;
  }

  function filesOf(folder: string): string[] {
    return (readdirSync(folder, { recursive: true }) as string[]).sort();
  }

  it('install, run the agent, and are taken back without a trace', { timeout: 280_000 }, async ({ skip }) => {
    if (why !== undefined) skip(why);
    const untouched = filesOf(host);
    const inputs = { network: join(machine.folder, 'config'), certificates: join(machine.folder, 'secret') };
    for (const folder of Object.values(inputs)) mkdirSync(folder);
    const ipam = { type: 'kube-ipam', subnet: '10.9.0.0/24' };
    const conf = { cniVersion: '1.0.0', name: 'pods', plugins: [{ type: 'bridge', ipam }] };
    writeFileSync(join(inputs.network, 'network.conflist'), JSON.stringify(conf));
    writeFileSync(join(inputs.certificates, 'etcd-client.key'), 'key');
    const spec = podSpec(kustomized(join(deploy, 'base')));
    const removal = podSpec(kustomized(join(deploy, 'uninstall')));
    const [install] = spec.initContainers;
    const first = await runContainer(spec, install!, inputs);
    expect(first).toMatchObject({ code: 0, stdout: expect.stringContaining('write /etc/kube-ipam/node: worker-1') });
    const mode = (path: string) => (statSync(join(host, path)).mode & 0o777).toString(8);
    expect(mode('opt/cni/bin/kube-ipam')).toBe('755');
    expect(mode('etc/kube-ipam/etcd-client.key')).toBe('600');
    expect(mode('var/lib/cni/kube-ipam')).toBe('700');
    expect(readFileSync(join(host, 'etc/cni/net.d/1-kube-ipam.conflist'), 'utf8')).toBe(JSON.stringify(conf));
    expect(readFileSync(join(host, 'etc/kube-ipam/node'), 'utf8')).toBe('worker-1\n');
    // The plugin runs on the host, with the host's libraries.
    const env = { CNI_COMMAND: 'VERSION' };
    const answer = spawnSync(join(host, 'opt/cni/bin/kube-ipam'), { env, input: '{}', encoding: 'utf8' });
    expect(answer).toMatchObject({ status: 0, stdout: expect.stringContaining('supportedVersions') });
    const again = await runContainer(spec, install!, inputs);
    expect(again.code).toBe(0);
    expect(again.stdout).not.toMatch(/^(copy|write)/m);

    await podman.must(['run', '--detach', '--name', 'agent', ...argv(spec, spec.containers[0]!, inputs)]);
    await expect.poll(() => page('/healthz'), { timeout: 60_000 }).not.toBe('');
    expect(await page('/readyz')).toContain('1 files of /certificates');
    expect(await page('/metrics')).toContain('kube_ipam_build_info{');
    // The kubelet made its folder; who may not write to the socket cannot connect.
    expect(mode('run/kube-ipam/agent.sock')).toBe('600');
    writeFileSync(join(inputs.certificates, 'etcd-client.key'), 'renewed');
    const key = () => readFileSync(join(host, 'etc/kube-ipam/etcd-client.key'), 'utf8');
    await expect.poll(key, { timeout: 60_000, interval: 200 }).toBe('renewed');
    expect(mode('etc/kube-ipam/etcd-client.key')).toBe('600');
    const tooEarly = await runContainer(removal, removal.initContainers[0]!, {});
    expect(tooEarly).toMatchObject({ code: 4, stderr: expect.stringContaining('the agent of this node is running') });
    await podman.must(['stop', '--time', '30', 'agent']);
    expect(await podman.must(['inspect', 'agent', '--format', '{{.State.ExitCode}}'])).toBe('0');

    mkdirSync(join(host, 'etc/cni/net.d/kube-ipam.d'));
    writeFileSync(join(host, 'etc/cni/net.d/kube-ipam.d/kubeconfig'), '{}');
    const gone = await runContainer(removal, removal.initContainers[0]!, {});
    expect(gone).toMatchObject({ code: 0, stdout: expect.stringContaining('removed /host/etc/kube-ipam') });
    const left = filesOf(host).filter(path => !untouched.includes(path));
    // Folders that other plugins have too.
    expect(left).toEqual(['etc/cni', 'etc/cni/net.d', 'opt', 'opt/cni', 'opt/cni/bin', 'var/lib/cni']);
    const already = await runContainer(removal, removal.initContainers[0]!, {});
    expect(already).toMatchObject({ code: 0, stdout: expect.stringContaining('nothing to remove') });
  });

  it('write nothing while the store of the network is away', { timeout: 60_000 }, async ({ skip }) => {
    if (why !== undefined) skip(why);
    const config = join(machine.folder, 'shipped');
    mkdirSync(config);
    // As it is shipped, with endpoints that nobody has.
    const objects = kustomized(join(deploy, 'base'));
    writeFileSync(join(config, 'network.conflist'), JSON.stringify(conflist(objects)));
    const spec = podSpec(objects);
    const secret = join(machine.folder, 'no-secret');
    const said = await runContainer(spec, spec.initContainers[0]!, { network: config, certificates: secret });
    expect(said.code).not.toBe(0);
    expect(said.stderr).toContain('1-kube-ipam.conflist is not written before the store of its network answers');
    expect(readdirSync(join(host, 'etc/cni/net.d'))).toEqual([]);
  });
});

describe.each([
  // The exposure that systemd sees, from 0 to 100: who programs a network needs more than who writes files.
  ['kube-ipam-agent', '/opt/cni/bin/kube-ipam', 20],
  ['kiwi', '/usr/sbin/kiwi', 46],
])('the systemd unit %s', (name, program, exposure) => {
  const text = readFileSync(join(deploy, `systemd/${name}.service`), 'utf8');

  it('is understood by systemd, and closed', ({ skip }) => {
    if (spawnSync('systemd-analyze', ['--version']).error) skip('systemd-analyze is not installed');
    const folder = mkdtempSync(join(tmpdir(), 'kube-ipam-unit-'));
    try {
      // Its program need not be installed here.
      const unit = join(folder, `${name}.service`);
      writeFileSync(unit, text.replace(program, '/bin/true'));
      expect(spawnSync('systemd-analyze', ['verify', unit], { encoding: 'utf8' })).toMatchObject({
        status: 0,
        stderr: '',
      });
      const rated = spawnSync('systemd-analyze', ['security', '--offline=true', `--threshold=${exposure}`, unit], {
        encoding: 'utf8',
      });
      expect(rated).toMatchObject({ status: 0, stdout: expect.stringContaining('Overall exposure level') });
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });

  it('starts the program with flags that it has', async () => {
    const conf = join(deploy, `systemd/${name}.conf`);
    const settings = existsSync(conf) ? readFileSync(conf, 'utf8').matchAll(/^(\w+)=(.*)$/gm) : [];
    const values = new Map([...settings].map(([, key, value]) => [key!, value!]));
    const [, line = ''] = /^ExecStart=(.*)$/m.exec(text)!;
    const expanded = line.replace(/\$\{?(\w+)\}?/g, (_, key: string) => values.get(key)!);
    const face = await faceOf(name === 'kiwi' ? 'kiwi' : 'kube-ipam');
    const argv = withUsual(face, expanded.split(' ').slice(1).filter(Boolean));
    const command = await face.commands.find(({ verb }) => verb === argv[0])!.load();
    expect(await parseArgs(command, argv, 80, face)).toHaveProperty('args');
    expect(expanded).not.toContain('undefined');
  });
});
