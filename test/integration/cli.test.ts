// The command line from outside: what it understands, what it refuses, and how it says so.
import { chmodSync, existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { Face } from '../../src/cli/face.ts';
import { commands } from '../../src/cli/table.ts';
import { Desk, kubeIpam, runProcess } from '../helpers/command-line.ts';
import type { Json } from '../helpers/plugin.ts';
import { program } from '../helpers/plugin-process.ts';
import { project } from '../helpers/project.ts';

/** No stack trace, one line: what happened and what to do. */
function expectPlainError(stderr: string): void {
  expect(stderr).toMatch(/^kube-ipam: .+\n$/);
  expect(stderr).not.toMatch(/\n\s+at |Error:|node:internal|\.ts:\d/);
}

describe('without the right words', () => {
  it('nothing at all prints help and is a usage error', async () => {
    const { code, stdout, stderr } = await kubeIpam([]);
    expect(code).toBe(2);
    expect(stdout).toBe('');
    expect(stderr).toContain('gives every address in a Kubernetes cluster exactly one owner');
  });

  it.each([
    [['lss'], 'did you mean "ls"?'],
    [['usge', '--conf', 'x'], 'did you mean "usage"?'],
    [['--conf', 'x', 'ls'], 'a command must come first'],
    [['ls', '--nod', 'a'], 'did you mean "--node"?'],
    [['ls', '-x'], 'knows no flag -x'],
    [['ls', 'extra'], 'does not know what to do with "extra"'],
    [['ls', '--kind', 'dynamik'], '--kind "dynamik" is not known; did you mean "dynamic"?; known are dynamic, '],
    [['ls', '--output', 'xml'], '--output "xml" is not known; known are table, wide, json, yaml'],
    [['usage', '-o', 'xml'], '--output "xml" is not known'],
    [['ls', '--output', ''], '--output "" is not known'],
    [['ls', '--node'], 'node'],
    [['ls', '--node', 'a', '--node', 'b'], '--node is given 2 times'],
    [['ls', '--timeout', 'soon', '--data-dir', '/nowhere'], '--timeout "soon"'],
    [['ls', '--etcd-ca', '/x'], 'need --etcd-url'],
    [['ls', '--etcd-url', 'https://u:secret@h:1'], 'etcdURL'],
    [['ls', '--data-dir', '/x', '--conf', '/y'], 'either --conf or the store itself'],
    [['status', '--data-dir', '/x', '--conf', '/y'], 'either --conf or the store itself'],
    [['status', '--data-dir', '/x', '--network', 'n'], 'either --network'],
    [['status', '--etcd-ca', '/x'], 'need --etcd-url'],
    [['show'], 'needs <what>'],
    [['conf', 'bridg'], 'did you mean "bridge"?'],
    [['conf', 'bridge', '--subnet', '10.1.0.1/24'], 'write 10.1.0.0/24'],
    [['conf', 'bridge', '--range-start', '10.1.0.9'], 'need --subnet'],
    [['reserve', '10.1.0.0/24'], 'needs --reason'],
    [['reserve', '10.1.0.1/24', '--reason', 'x'], 'its subnet is 10.1.0.0/24'],
    [['reserve', '10.0.0.0/8', '--reason', 'x'], '"exclude"'],
    [
      ['reserve', '10.1.0.9-10.1.0.1', '--reason', 'x'],
      'is reversed, its end before its start: write 10.1.0.1-10.1.0.9',
    ],
    [['reserve', '10.1.0.9-', '--reason', 'x'], 'is no address'],
    [['reserve', '10.1.0.9-fd00::1', '--reason', 'x'], 'is no address'],
    [['install', 'bridge', '--bin-dir', 'relative'], 'must be an absolute path'],
    [['install', 'bridge', '--conf', '/x'], 'not both'],
    [['import', '/dev/null', '--rename-node', 'a'], 'empty'],
    [['import', 'nofile'], 'nofile cannot be read: there is no such file\n'],
    [['completion', 'tcsh'], 'known are bash, zsh, fish'],
  ])('%j is refused in one line', async (argv, words) => {
    const { code, stdout, stderr } = await kubeIpam(argv);
    expect(stdout).toBe('');
    expect(stderr).toContain(words);
    expect(stderr).not.toContain('secret');
    expectPlainError(stderr);
    expect(code).toBe(argv[0] === 'import' ? 1 : 2);
  });

  it('without any configuration it says how to name a store', async () => {
    using desk = new Desk();
    const { code, stderr } = await desk.run(['ls']);
    expect(code).toBe(3);
    expect(stderr).toContain('--etcd-url or --data-dir');
    expectPlainError(stderr);
  });

  it('certificates that are none are named', async () => {
    using desk = new Desk();
    const files = ['client.crt', 'client.key'].map(name => desk.write(name, 'not PEM\n'));
    const flags = ['--etcd-url', 'https://127.0.0.1:1', '--etcd-cert', files[0]!, '--etcd-key', files[1]!];
    const { code, stderr } = await kubeIpam(['ls', ...flags]);
    expect(code).toBe(1);
    for (const file of files) expect(stderr).toContain(file);
    expectPlainError(stderr);
  });

  it('an embedded store that is not there is not made by looking', async () => {
    using desk = new Desk();
    const { code, stderr } = await kubeIpam(['ls', '--data-dir', desk.dataDir]);
    expect(code).toBe(3);
    expect(stderr).toContain(`there is no store ${desk.dataDir}/store.db`);
    expect(() => readFileSync(desk.dataDir)).toThrow('ENOENT');
  });

  it('status of a folder looks at the store in it, and at nothing else', async () => {
    using desk = new Desk();
    const named = ['status', '--data-dir', desk.dataDir, '-o', 'json'];
    const none = await kubeIpam(named);
    expect({ code: none.code, ...(JSON.parse(none.stdout) as Json) }).toMatchObject({ code: 3, worst: 'unreachable' });
    expect(none.stdout).toContain(`there is no store ${desk.dataDir}/store.db`);
    expect(existsSync(desk.dataDir)).toBe(false);
    const reserved = await kubeIpam(['reserve', '10.1.0.9', '--reason', 'x', '--data-dir', desk.dataDir]);
    expect(reserved).toMatchObject({ code: 0, stderr: expect.stringMatching(/^note: 1 address lies in no range/) });
    const there = await kubeIpam(named);
    expect(there.code).toBe(0);
    const { diagnoses } = JSON.parse(there.stdout) as { diagnoses: Json[] };
    expect(diagnoses.map(({ area, level }) => [area, level])).toEqual([
      ['dataDir', 'fine'],
      ['store', 'fine'],
    ]);
  });

  it('somebody else than root is told to be root, not that there is no store', async () => {
    using desk = new Desk();
    chmodSync(desk.folder, 0o755);
    const file = desk.network('n', { subnet: '10.1.0.0/24', dataDir: desk.dataDir });
    const env = { CNI_COMMAND: 'ADD', CNI_CONTAINERID: 'c', CNI_NETNS: '/run/netns/c', CNI_IFNAME: 'eth0' };
    expect(await runProcess(program, [], { env, input: readFileSync(file, 'utf8') })).toMatchObject({ code: 0 });
    const nobody = ['--reuid', '65534', '--regid', '65534', '--clear-groups', program];
    const { code, stderr } = await runProcess('setpriv', [...nobody, 'ls', '--data-dir', desk.dataDir]);
    expect(code).toBe(3);
    expect(stderr).toContain('permission denied');
    expect(stderr).toContain('run this command as root');
    expectPlainError(stderr);
  });
});

describe('help and version', () => {
  it.each([['help'], ['--help'], ['-help'], ['-h']])('%s explains the program to a newcomer', async word => {
    const { code, stdout } = await kubeIpam([word]);
    expect(code).toBe(0);
    expect(stdout).toContain('Common tasks:');
    for (const { verb, summary } of commands) expect(stdout).toMatch(new RegExp(`  ${verb} +${literal(summary)}`));
  });

  it.each([['version'], ['--version'], ['-version']])('%s names version, commit and Node', async word => {
    const { code, stdout, stderr } = await kubeIpam([word]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const { version } = JSON.parse(readFileSync(join(project, 'package.json'), 'utf8')) as { version: string };
    expect(stdout).toMatch(new RegExp(`^kube-ipam ${literal(version)} \\(commit \\S+, Node 26\\.\\d+\\.\\d+\\)\n$`));
  });

  it('each command explains itself, with examples, and the two ways of asking agree', async () => {
    for (const { verb, load, tool } of commands) {
      const [behind, before] = await Promise.all([kubeIpam([verb, '--help']), kubeIpam(['help', verb])]);
      expect(behind, verb).toEqual(before);
      expect(behind.code, verb).toBe(0);
      if (tool !== undefined) {
        await explainThemselves(verb, await tool());
        continue;
      }
      expect(behind.stdout, verb).toContain('Examples:');
      for (const flag of Object.keys((await load()).flags)) expect(behind.stdout, verb).toContain(`--${flag}`);
    }
  });
});

/** The commands of a tool, which its own help lists. */
async function explainThemselves(name: string, face: Face): Promise<void> {
  const { stdout } = await kubeIpam([name, '--help']);
  for (const { verb, load } of face.commands) {
    expect(stdout).toContain(`  ${verb}`);
    const [behind, before] = await Promise.all([kubeIpam([name, verb, '--help']), kubeIpam([name, 'help', verb])]);
    expect(behind, verb).toEqual(before);
    expect(behind.code, verb).toBe(0);
    for (const flag of Object.keys((await load()).flags)) expect(behind.stdout, verb).toContain(`--${flag}`);
  }
}

function literal(text: string): string {
  return text.replace(/[().]/g, '\\$&');
}

describe('completion', () => {
  it.each(['bash', 'zsh'])('%s: offers commands, their flags and values', async shell => {
    const { code, stdout } = await kubeIpam(['completion', shell]);
    expect(code).toBe(0);
    const script = stdout.replace(/^autoload.*$/gm, '');
    const complete = (words: readonly string[]) => {
      const setUp = `COMP_WORDS=(${words.map(word => `'${word}'`).join(' ')}); COMP_CWORD=${words.length - 1}; _kube_ipam; printf '%s\\n' "\${COMPREPLY[@]}"`;
      return runProcess('bash', ['--norc', '-euc', `${script}\n${setUp}`]);
    };
    expect((await complete(['kube-ipam', 'un'])).stdout.split('\n').filter(Boolean)).toEqual([
      'unreserve',
      'uninstall',
    ]);
    expect((await complete(['kube-ipam', 'ls', '--all'])).stdout).toBe('--all-spaces\n');
    expect((await complete(['kube-ipam', 'ls', '-o', 'y'])).stdout).toBe('yaml\n');
    expect((await complete(['kube-ipam', 'conf', 'kube'])).stdout).toBe('kube-router\n');
  });

  it('fish: has a line for each flag of each command', async () => {
    const { stdout } = await kubeIpam(['completion', 'fish']);
    const lines = stdout.split('\n').filter(line => line.startsWith('complete -c kube-ipam '));
    for (const { verb, load } of commands) {
      for (const flag of Object.keys((await load()).flags)) {
        expect(lines.some(line => line.includes(`subcommand_from ${verb}'`) && line.includes(`-l ${flag}`))).toBe(true);
      }
    }
  });
});

describe('conf', () => {
  const plugins = ['macvlan', 'ipvlan', 'bridge', 'ptp', 'kube-router', 'calico', 'multus'];

  it.each(plugins)('%s: prints JSON that check finds fine, on both stores', async plugin => {
    using desk = new Desk();
    for (const store of [[], ['--etcd-url', 'http://192.0.2.1:2379']]) {
      const { code, stdout } = await kubeIpam(['conf', plugin, '--name', 'lan', '--exclude', '10.188.0.77', ...store]);
      expect(code).toBe(0);
      const conf = JSON.parse(stdout) as { name: string };
      expect(conf.name).toBe('lan');
      expect(stdout.match(/"10\.188\.0\.77"/g)).toHaveLength(plugin === 'multus' ? 2 : 1);
      const checked = await kubeIpam(['check', '--conf', desk.write('x.conflist', stdout)]);
      expect(checked).toMatchObject({ code: 0, stderr: '' });
    }
  });

  it('takes every flag of a network', async () => {
    const { stdout } = await kubeIpam([
      ...['conf', 'macvlan', '--name', 'lan', '--master', 'bond0', '--mtu', '9000', '--cni-version', '1.1.0'],
      ...['--subnet', '10.1.0.0/24', '--range-start', '10.1.0.10', '--range-end', '10.1.0.99', '--gateway', '10.1.0.9'],
      ...['--range', 'fd00:1::/64', '--range', '10.2.0.0/24,10.2.0.5-10.2.0.9,gateway=10.2.0.254'],
      ...['--exclude', '10.1.0.50', '--exclude', '10.1.0.60-10.1.0.63', '--route', '10.9.0.0/16,10.1.0.9'],
      ...['--etcd-url', 'https://a:2379,https://b:2379', '--etcd-ca', '/ca', '--etcd-cert', '/c', '--etcd-key', '/k'],
      ...['--etcd-user', 'ipam', '--etcd-password-file', '/p', '--single'],
      ...['--kubeconfig', '/pods', '--sticky', 'statefulset'],
    ]);
    expect(JSON.parse(stdout)).toMatchObject({
      cniVersion: '1.1.0',
      name: 'lan',
      type: 'macvlan',
      master: 'bond0',
      mtu: 9000,
      ipam: {
        etcdConfig: {
          etcdURL: 'https://a:2379,https://b:2379',
          etcdCertFile: '/c',
          etcdKeyFile: '/k',
          etcdTrustedCAFileFile: '/ca',
          etcdUsername: 'ipam',
          etcdPasswordFile: '/p',
        },
        ranges: [
          [{ subnet: '10.1.0.0/24', rangeStart: '10.1.0.10', rangeEnd: '10.1.0.99', gateway: '10.1.0.9' }],
          [{ subnet: 'fd00:1::/64' }],
          [{ subnet: '10.2.0.0/24', rangeStart: '10.2.0.5', rangeEnd: '10.2.0.9', gateway: '10.2.0.254' }],
        ],
        exclude: ['10.1.0.50', '10.1.0.60-10.1.0.63'],
        routes: [{ dst: '10.9.0.0/16', gw: '10.1.0.9' }],
        kubeConfig: '/pods',
        sticky: 'statefulset',
      },
    });
  });

  it('tells the kubeconfig for pods from that of the main plugin, and asks for one where it is needed', async () => {
    const flags = ['--kubeconfig', '/pods', '--kube-config', '/main', '--sticky', 'all'];
    const { plugins } = JSON.parse((await kubeIpam(['conf', 'calico', ...flags])).stdout);
    expect(plugins[0]).toMatchObject({
      kubernetes: { kubeconfig: '/main' },
      ipam: { kubeConfig: '/pods', sticky: true },
    });
    const refused = await kubeIpam(['conf', 'bridge', '--sticky', 'vm']);
    expect(refused).toMatchObject({ code: 2, stderr: expect.stringContaining('ipam.sticky "vm": needs kubeConfig') });
  });

  it.each([[['-outputconf', 'macvlan']], [['--outputconf=macvlan']], [['-outputconf=macvlan']]])(
    'release 0.2 wrote %j, and still gets one plugin',
    async argv => {
      const { code, stdout } = await kubeIpam(argv);
      expect(code).toBe(0);
      expect(JSON.parse(stdout)).toMatchObject({ type: 'macvlan', ipam: { type: 'kube-ipam' } });
    },
  );

  it.each(plugins)('-outputconf %s prints a usable network', async plugin => {
    using desk = new Desk();
    const { code, stdout } = await kubeIpam(['-outputconf', plugin]);
    expect(code).toBe(0);
    const name = plugin === 'calico' ? 'x.conflist' : 'x.conf';
    const checked = await kubeIpam(['check', '--conf', desk.write(name, stdout)]);
    expect(checked).toMatchObject({ code: 0, stderr: '' });
  });

  it('refuses a version of the specification that the plugin does not speak', async () => {
    const { code, stdout, stderr } = await kubeIpam(['conf', 'bridge', '--cni-version', '0.9']);
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    expect(stderr).toMatch(/0\.9.*1\.1\.0/);
  });
});

describe('check --conf', () => {
  const lines = [
    '{',
    '        "cniVersion":"0.3.1",',
    '        "name": "k8snetwork",',
    '        "type": "macvlan",',
    '        "master": "eth0",',
    '        "ipam": {',
    '                "name": "kube-subnet",',
    '                "type": "kube-ipam",',
    '                "kubeConfig": "/etc/kubernetes/pki/kubectl.kubeconfig"',
    '                "etcdConfig": {',
    '                        "etcdURL": "https://192.168.1.50:2379"',
    '                },',
    '                "subnet": "10.188.0.0/16"',
    '        }',
    '}',
  ];

  it("names line and column of the comma that release 0.2's sample lacks, and shows the line", async () => {
    using desk = new Desk();
    const file = desk.write('old.conf', lines.join('\n'));
    const { code, stdout, stderr } = await kubeIpam(['check', '--conf', file]);
    expect(code).toBe(1);
    expect(stdout).toBe('');
    const column = lines[8]!.length + 1;
    expect(stderr).toContain(`${file}:9:${column}: not JSON: a comma is missing after this value`);
    expect(stderr).toContain(`9 | ${lines[8]}`);
    expect(stderr.split('\n')[2]!.indexOf('^')).toBe('  9 | '.length + column - 1);
  });

  it('names every problem, and what this version cannot honour, and typing errors with the right key', async () => {
    using desk = new Desk();
    const file = desk.network('bad', { subnet: '10.1.0.1/24', exclude: ['x'], cooldown: -1 });
    const bad = await kubeIpam(['check', '--conf', file]);
    expect(bad.code).toBe(1);
    for (const key of ['subnet', 'exclude[0]', 'cooldown']) expect(bad.stdout).toContain(`ipam.${key}`);
    const odd = desk.network('odd', {
      ...{ subnet: '10.1.0.0/24', gatway: '10.1.0.1', kubeConfig: '/absent/kubeconfig', nodeCIDR: true },
      etcdConfig: { etcdURL: 'http://h:1', etcdCaFile: '/x' },
      ranges: [[{ subnet: '10.2.0.0/24', rangestart: '10.2.0.9' }]],
    });
    const { code, stdout } = await kubeIpam(['check', '--conf', odd, '-o', 'json']);
    const report = JSON.parse(stdout) as { networks: { problems: string[]; warnings: string[] }[] };
    expect(code).toBe(1);
    expect(report.networks[0]!.problems).toEqual([expect.stringContaining('ipam.nodeCIDR: this version')]);
    expect(report.networks[0]!.warnings).toEqual([
      'ipam.gatway: kube-ipam knows no such key and ignores it; did you mean "gateway"?',
      expect.stringContaining('ipam.etcdConfig.etcdCaFile: kube-ipam knows no such key'),
      'ipam.ranges[0][0].rangestart: kube-ipam knows no such key and ignores it; did you mean "rangeStart"?',
      '/absent/kubeconfig cannot be read on this machine',
    ]);
  });

  it('tells a file whose name does not fit what it holds, as runtimes refuse it; so does status', async () => {
    using desk = new Desk();
    const ipam = { type: 'kube-ipam', subnet: '10.1.0.0/24', dataDir: desk.dataDir, logLevel: 'off' };
    const head = { cniVersion: '1.0.0', name: 'n' };
    const one = { ...head, type: 'bridge', ipam };
    const list = { ...head, plugins: [{ type: 'bridge', ipam }] };
    const check = async (name: string, conf: Json) => {
      const { code, stdout } = await kubeIpam(['check', '--conf', desk.write(name, conf)]);
      return [code, /name it \.conf(list)?/.exec(stdout)?.[0]];
    };
    expect(await check('a.conf', one)).toEqual([0, undefined]);
    expect(await check('a.conflist', list)).toEqual([0, undefined]);
    expect(await check('a.conflist', one)).toEqual([1, 'name it .conf']);
    expect(await check('a.conf', list)).toEqual([1, 'name it .conflist']);
    desk.write('net.d/1.conflist', one);
    const { code, stdout } = await desk.run(['status']);
    expect(code).toBe(1);
    expect(stdout).toMatch(/wrong +network n: a \.conflist file must hold a list/);
  });

  it('finds networks in lists and behind Multus, and says when there is none', async () => {
    using desk = new Desk();
    const ipam = { type: 'kube-ipam', subnet: '10.1.0.0/24' };
    const delegates = [
      { name: 'a', type: 'bridge', ipam },
      { name: 'b', plugins: [{ type: 'macvlan', ipam: { ...ipam, subnet: '10.2.0.0/24', bogus: 1 } }] },
    ];
    const list = desk.write('m.conflist', { cniVersion: '1.0.0', name: 'm', plugins: [{ type: 'multus', delegates }] });
    const { code, stdout } = await kubeIpam(['check', '--conf', list, '-o', 'json']);
    expect(code).toBe(0);
    const { networks } = JSON.parse(stdout) as { networks: Json[] };
    expect(networks.map(({ network, place }) => [network, place])).toEqual([
      ['a', 'plugins[0].delegates[0]'],
      ['b', 'plugins[0].delegates[1].plugins[0]'],
    ]);
    const other = desk.write('o.conf', {
      cniVersion: '1.0.0',
      name: 'o',
      type: 'bridge',
      ipam: { type: 'host-local' },
    });
    expect(await kubeIpam(['check', '--conf', other])).toMatchObject({ code: 1 });
    expect(await kubeIpam(['check', '--conf', join(desk.folder, 'absent')])).toMatchObject({ code: 1, stdout: '' });
  });
});
