// Every command of kube-ipam in the documentation is taken apart by the program's own parser, and etcd's are run on a real etcd.
import { execFile, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { withCommandLine } from '../../scripts/docs/command-line.ts';
import { type Face, faceOf } from '../../src/cli/face.ts';
import { parseArgs } from '../../src/cli/parse.ts';
import { withUsual } from '../../src/cli/program.ts';
import { publicIp } from '../../src/cli/public-ip/face.ts';
import { commands } from '../../src/cli/table.ts';
import { commandLines, documents, read } from '../helpers/docs.ts';
import { type EtcdCluster, engines, startEtcd } from '../helpers/etcd.ts';
import { project } from '../helpers/project.ts';

const pages = documents();
const guide = read(join(project, 'docs/guide.md'));

const words = '((?: +(?:"[^"]*"|[^\\s|>;&<]+))*)';
const programs = [
  { face: await faceOf('kube-ipam'), call: new RegExp(`^(?:sudo )?(?:[\\w./-]*/)?kube-ipam${words}`) },
  { face: await faceOf('kubectl-ipam'), call: new RegExp(`^kubectl ipam${words}`) },
  { face: await faceOf('kiwi'), call: new RegExp(`^(?:sudo )?(?:[\\w./-]*/)?kiwi${words}`) },
];

interface Call {
  readonly face: Face;
  /** With quotes taken away. */
  readonly argv: readonly string[];
}

/** The call of one of our programs in a line of shell; undefined for lines without one. */
function callIn(line: string): Call | undefined {
  for (const { face, call } of programs) {
    const found = call.exec(line);
    if (found === null) continue;
    const argv = [...found[1]!.matchAll(/"([^"]*)"|(\S+)/g)].map(match => match[1] ?? match[2]!);
    if (argv[0] !== 'public-ip') return { face, argv: withUsual(face, argv) };
    return { face: publicIp, argv: withUsual(publicIp, argv.slice(1)) };
  }
  return undefined;
}

describe('every command of kube-ipam', () => {
  it('in a code block is one that the program understands', async () => {
    const refused: string[] = [];
    let seen = 0;
    for (const page of pages) {
      for (const line of page.blocks.flatMap(commandLines)) {
        const { face, argv } = callIn(line) ?? {};
        if (face === undefined || argv?.[0]?.startsWith('-')) continue;
        seen++;
        const entry = face.commands.find(({ verb }) => verb === argv?.[0]);
        try {
          if (entry === undefined) throw new Error('no such command');
          await parseArgs(await entry.load(), argv!, 80, face);
        } catch (error) {
          refused.push(`${page.path}: ${line}: ${error instanceof Error ? error.message : error}`);
        }
      }
    }
    expect(refused).toEqual([]);
    expect(seen).toBeGreaterThan(20);
  });

  it('in running text exists, with the flags that it is shown with', async () => {
    const wrong: string[] = [];
    for (const page of pages) {
      for (const span of page.codeSpans) {
        const { face, argv } = callIn(span) ?? {};
        const verb = argv?.[0];
        // A word in capitals, or a flag of release 0.2, stands for no verb.
        if (face === undefined || verb === undefined || !/^[a-z]/.test(verb)) continue;
        if (verb === 'help') continue;
        const command = await face.commands.find(entry => entry.verb === verb)?.load();
        const flags = Object.keys({ ...command?.flags, ...face.flags, help: true });
        const unknown = argv!.filter(one => one.startsWith('--') && !flags.includes(one.slice(2).split('=')[0]!));
        if (command === undefined || unknown.length > 0) wrong.push(`${page.path}: ${span}`);
      }
    }
    expect(wrong).toEqual([]);
  });

  it('has its place in the reference, as the program describes it now', async () => {
    const { text } = read(join(project, 'docs/reference.md'));
    expect(await withCommandLine(text), 'run: node_modules/.bin/node scripts/write-reference.ts').toBe(text);
    for (const entry of commands) {
      expect(text).toContain(`### kube-ipam ${entry.verb}\n`);
      for (const flag of Object.keys((await entry.load()).flags)) expect(text).toContain(`\`--${flag}\``);
    }
  });
});

const run = promisify(execFile);

/** The etcdctl lines of a part of the guide, as argument lists. */
function etcdctlLines(heading: string): readonly (readonly string[])[] {
  const part = guide.text.split(new RegExp(`^### ${heading}$`, 'm'))[1]!.split(/^##/m)[0]!;
  const blocks = [...part.matchAll(/```sh\n([\s\S]*?)```/g)].flatMap(match => match[1]!.trim().split('\n'));
  return blocks.filter(line => line.startsWith('etcdctl ')).map(line => line.split(' ').slice(1));
}

async function etcdctl(cluster: EtcdCluster, argv: readonly string[], user?: string): Promise<string> {
  const flags = ['--endpoints', cluster.target().endpoints.join(','), ...(user === undefined ? [] : ['--user', user])];
  const { stdout } = await run(cluster.engine.etcdctl, [...flags, ...argv], {
    env: { ETCDCTL_API: '3' },
    timeout: 30_000,
  });
  return stdout;
}

/** One command of the plugin in a process of its own, with the keys of `etcdConfig` given. */
function plugin(command: string, folder: string, etcdConfig: Readonly<Record<string, string>>) {
  const ipam = {
    type: 'kube-ipam',
    subnet: '10.188.0.0/24',
    dataDir: folder,
    logFile: join(folder, 'log'),
    etcdConfig,
  };
  const { status, stdout } = spawnSync(process.execPath, [join(project, 'src/main.ts')], {
    env: { CNI_COMMAND: command, CNI_CONTAINERID: 'c1', CNI_NETNS: '/n', CNI_IFNAME: 'eth0' },
    input: JSON.stringify({ cniVersion: '1.0.0', name: 'pods', type: 'macvlan', ipam }),
    encoding: 'utf8',
    timeout: 60_000,
  });
  return { exitCode: status, stdout };
}

describe.each(engines().map(engine => [engine.version, engine] as const))(
  "the guide's commands for etcd %s",
  (_, engine) => {
    it('make a user with just the rights that kube-ipam needs', async () => {
      const folder = mkdtempSync(join(tmpdir(), 'kube-ipam-docs-'));
      try {
        await using cluster = await startEtcd(engine);
        const lines = etcdctlLines('A user with few rights');
        expect(lines.length).toBeGreaterThan(6);
        for (const line of lines) await etcdctl(cluster, line);
        const etcdPasswordFile = join(folder, 'password');
        writeFileSync(etcdPasswordFile, 'PASSWORD\n', { mode: 0o600 });
        const etcdURL = cluster.target().endpoints.join(',');
        const etcdConfig = { etcdURL, etcdUsername: 'kube-ipam', etcdPasswordFile };
        expect(plugin('ADD', folder, etcdConfig)).toMatchObject({
          exitCode: 0,
          stdout: expect.stringContaining('10.188.0.2/24'),
        });
        expect(plugin('DEL', folder, etcdConfig)).toEqual({ exitCode: 0, stdout: '' });
        const withoutUser = plugin('ADD', folder, { etcdURL });
        expect(withoutUser).toMatchObject({ exitCode: 1, stdout: expect.stringContaining('etcdUsername') });
        await etcdctl(cluster, ['put', '/kiwi/publicips/192.0.2.1', 'x'], 'kube-ipam:PASSWORD');
        await expect(etcdctl(cluster, ['put', '/registry/pods/x', 'x'], 'kube-ipam:PASSWORD')).rejects.toThrow(
          'permission denied',
        );
        await expect(etcdctl(cluster, ['get', '--prefix', '/'], 'kube-ipam:PASSWORD')).rejects.toThrow(
          'permission denied',
        );
      } finally {
        rmSync(folder, { recursive: true, force: true });
      }
    });

    it('bring a full etcd back', async () => {
      const folder = mkdtempSync(join(tmpdir(), 'kube-ipam-docs-'));
      try {
        await using cluster = await startEtcd(engine, { flags: ['--quota-backend-bytes=4194304'] });
        const etcdConfig = { etcdURL: cluster.target().endpoints.join(',') };
        const large = 'x'.repeat(100_000);
        const fill = async () => {
          for (let i = 0; i < 100; i++) await etcdctl(cluster, ['put', '/filling', large]);
        };
        await expect(fill()).rejects.toThrow('database space exceeded');
        expect(plugin('ADD', folder, etcdConfig)).toMatchObject({
          exitCode: 1,
          stdout: expect.stringContaining('"code":104'),
        });
        const lines = etcdctlLines('Out of space: code 104');
        expect(lines.map(line => line[0])).toEqual(['compact', 'defrag', 'alarm']);
        const status = await etcdctl(cluster, ['endpoint', 'status', '--write-out=json']);
        const revision = /"revision":(\d+)/.exec(status)![1]!;
        for (const line of lines)
          await etcdctl(
            cluster,
            line.map(word => word.replace('"$rev"', revision)),
          );
        expect(plugin('ADD', folder, etcdConfig)).toMatchObject({ exitCode: 0 });
      } finally {
        rmSync(folder, { recursive: true, force: true });
      }
    });
  },
);
