// npm run demo: two pods get addresses from kube-ipam and reach each other, first on the embedded store, then on etcd.
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Narrator, StepError } from './demo/narrator.ts';
import { leaveWithTheAudience, playOn } from './demo/stage.ts';

const tree = join(import.meta.dirname, `../dist/linux-${process.arch}`);
const stockPlugins = ['/usr/lib/cni', '/opt/cni/bin'].find(folder => existsSync(join(folder, 'bridge')));
const pods = ['pod-1', 'pod-2'] as const;
const narrator = new Narrator(process.stdout);
// Who reads only the first lines (| head) ends the demo, and need not read of a broken pipe.
process.stdout.on('error', () => process.exit(1));

process.exitCode = process.argv[2] === '--on-stage' ? await tellAll(process.argv[3] ?? '') : await open();

/** Outside: says what is missing before anything is made, then plays on a stage of its own. */
async function open(): Promise<number> {
  const missing = [
    process.getuid?.() === 0 ? '' : 'root: it makes network namespaces',
    existsSync(join(tree, 'kube-ipam')) ? '' : `${tree}/kube-ipam: run npm run build`,
    stockPlugins === undefined ? 'the bridge plugin: install containernetworking-plugins' : '',
  ].filter(Boolean);
  for (const each of missing) process.stderr.write(`demo: needs ${each}\n`);
  if (missing.length > 0) return 3;
  return playOn(import.meta.filename);
}

async function tellAll(folder: string): Promise<number> {
  leaveWithTheAudience(folder);
  process.chdir(folder);
  const started = performance.now();
  try {
    await prepare();
    narrator.part('kube-ipam: every address has exactly one owner');
    narrator.say('Two pods, one bridge, a fresh machine made of namespaces: nothing of yours is touched.');
    narrator.part('Part one: one machine, the embedded store');
    await story('embedded', []);
    narrator.part('Part two: the same network, its addresses in etcd');
    await using etcd = await startEtcd();
    await story('etcd', ['--etcd-url', etcd.url]);
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    narrator.part(`That was all, in ${seconds} s; the namespaces go now, and everything in them.`);
    return 0;
  } catch (error) {
    if (!(error instanceof StepError)) throw error;
    process.stderr.write(`\ndemo: this step failed:\n${error.message}\n`);
    return 1;
  }
}

/** Own places for what programs write by default: their files vanish with the stage. */
async function prepare(): Promise<void> {
  process.env.PATH = `${tree}:/usr/local/sbin:/usr/sbin:/sbin:${process.env.PATH}`;
  const quiet = new Narrator(Object.assign(Object.create(process.stdout), { write: () => true }));
  for (const place of ['/run', '/var/lib', '/var/log']) await quiet.run(['mount', '-t', 'tmpfs', 'tmpfs', place]);
  await quiet.run(['hostname', 'demo-node']);
  await quiet.run(['ip', 'link', 'set', 'lo', 'up']);
}

/** One life of a network: written, used by two pods, looked at, empty again. */
async function story(name: string, store: readonly string[]): Promise<void> {
  const conflist = `${name}.conflist`;
  narrator.step('A network configuration for the bridge plugin');
  const flags = ['--name', 'demo', '--subnet', '10.188.0.0/24', '--bridge', `demo-${name}`, ...store];
  const text = await narrator.run(['kube-ipam', 'conf', 'bridge', ...flags], { shown: `> ${conflist}` });
  writeFileSync(conflist, text);
  writeFileSync(`${name}.json`, firstPlugin(text));
  narrator.say(`A runtime hands each plugin its own part of that list: here ${name}.json.`);

  narrator.step('Two pods: each is a network namespace');
  for (const pod of pods) await narrator.run(['ip', 'netns', 'add', pod]);
  narrator.step('The bridge plugin attaches them; kube-ipam gives each an address');
  const [first, second] = [await add(`${name}.json`, pods[0]), await add(`${name}.json`, pods[1])];
  narrator.step('They reach each other');
  await ping(pods[0], second);
  await ping(pods[1], first);
  narrator.step('Who has which address, and how full the range is');
  await list(conflist, [first, second], []);
  await narrator.run(['kube-ipam', 'usage', '--conf', conflist], { tell: true });

  narrator.step('The pods end: DEL gives the addresses back');
  for (const pod of pods) {
    await callBridge('DEL', `${name}.json`, pod);
    await narrator.run(['ip', 'netns', 'del', pod]);
  }
  await list(conflist, [], [first, second]);
}

/** Shows what is held, and fails unless `held` is there and `free` is not. */
async function list(conflist: string, held: readonly string[], free: readonly string[]): Promise<void> {
  const text = await narrator.run(['kube-ipam', 'ls', '--conf', conflist]);
  narrator.say(text.trim() === '' ? '(none: all addresses are free again)' : text);
  const words = text.split(/[\s/]+/);
  for (const address of held)
    if (!words.includes(address)) throw new StepError(`kube-ipam ls does not show ${address}`);
  for (const address of free) if (words.includes(address)) throw new StepError(`kube-ipam ls still shows ${address}`);
}

/** What a runtime hands to the first plugin of a list (CNI specification, "Lifecycle and ordering"). */
function firstPlugin(text: string): string {
  const conf = JSON.parse(text) as { cniVersion: string; name: string; plugins: readonly object[] };
  return JSON.stringify({ ...conf.plugins[0], cniVersion: conf.cniVersion, name: conf.name });
}

async function callBridge(command: 'ADD' | 'DEL', file: string, pod: string): Promise<string> {
  const env = {
    CNI_COMMAND: command,
    CNI_CONTAINERID: pod,
    CNI_NETNS: `/run/netns/${pod}`,
    CNI_IFNAME: 'eth0',
    CNI_PATH: `${stockPlugins}:${tree}`,
  };
  return narrator.run([`${stockPlugins}/bridge`], { env, input: readFileSync(file, 'utf8'), shown: `< ${file}` });
}

async function add(file: string, pod: string): Promise<string> {
  const result = JSON.parse(await callBridge('ADD', file, pod)) as { ips: readonly { address: string }[] };
  const address = result.ips[0]?.address ?? '';
  narrator.result(`${pod} has ${address}`);
  return address.replace(/\/.*/, '');
}

async function ping(pod: string, address: string): Promise<void> {
  const argv = ['ip', 'netns', 'exec', pod, 'busybox', 'ping', '-c', '1', '-W', '3', address];
  const output = await narrator.run(argv);
  narrator.result(/^.*bytes from.*$/m.exec(output)?.[0] ?? 'an answer came');
}

interface RunningEtcd extends AsyncDisposable {
  readonly url: string;
}

async function startEtcd(): Promise<RunningEtcd> {
  narrator.step('A real etcd, on the loopback of this stage');
  const [url, peer] = [`http://127.0.0.1:${await freePort()}`, `http://127.0.0.1:${await freePort()}`];
  const argv = [
    ...['--name', 'demo', '--data-dir', 'etcd', '--log-level', 'error'],
    ...['--listen-client-urls', url, '--advertise-client-urls', url],
    ...['--listen-peer-urls', peer, '--initial-advertise-peer-urls', peer, '--initial-cluster', `demo=${peer}`],
  ];
  narrator.say(`$ etcd ${argv.slice(0, 4).join(' ')} --listen-client-urls ${url} ...`);
  const member = spawn('etcd', argv, { stdio: 'ignore' });
  // Without a listener, an executable that is missing would end the demo with a stack trace.
  member.on('error', () => {});
  await untilHealthy(url, member);
  narrator.result('healthy');
  return {
    url,
    async [Symbol.asyncDispose]() {
      member.kill('SIGTERM');
      while (member.exitCode === null && member.signalCode === null) await sleep(10);
    },
  };
}

async function untilHealthy(url: string, member: ChildProcess): Promise<void> {
  for (const started = performance.now(); performance.now() - started < 20_000; await sleep(100)) {
    if (member.pid === undefined) throw new StepError('etcd could not be started: install etcd-server');
    if (member.exitCode !== null) throw new StepError(`etcd ended with ${member.exitCode}`);
    const answer = await fetch(`${url}/health`, { signal: AbortSignal.timeout(2_000) }).catch(() => undefined);
    if (answer?.ok === true) return;
  }
  throw new StepError(`etcd at ${url} was not healthy within 20 s`);
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      const port = typeof address === 'object' && address !== null ? address.port : 0;
      server.close(() => resolve(port));
    });
  });
}
