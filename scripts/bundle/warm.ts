// Exercises one part of the program as its users will and writes the code that V8 compiled for it: warm.ts PART SCRATCH.
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { join, resolve } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { Script } from 'node:vm';
import type { Parts } from '../../src/main/asset.ts';
import { wrap } from '../../src/main/wrap.ts';
import { serveWarmEtcd } from './warm-etcd.ts';

const [part, scratch] = process.argv.slice(2) as [keyof Parts, string];
const script = new Script(wrap(readFileSync(`${part}.js`, 'latin1')), { filename: `${part}.js` });

function evaluate<Name extends keyof Parts>(): Parts[Name] {
  const module = { exports: {} };
  script.runInThisContext()(module, module.exports, (id: string) => process.getBuiltinModule(id));
  return module.exports as Parts[Name];
}

type RunPlugin = Parts['plugin']['runPlugin'];

const attachment = { CNI_CONTAINERID: 'warm', CNI_NETNS: '/run/netns/warm', CNI_IFNAME: 'eth0' };

/** Every command of the plugin on one network; what fails here would fail the executable's tests with a better message. */
async function everyCommand(runPlugin: RunPlugin, store: object, pod = ''): Promise<void> {
  const dataDir = mkdtempSync(join(resolve(scratch), 'state-'));
  const ipam = {
    type: 'kube-ipam',
    ranges: [[{ subnet: '192.0.2.0/24' }]],
    dataDir,
    logFile: join(dataDir, 'log'),
    ...store,
  };
  const conf = { cniVersion: '1.1.0', name: 'warm', type: 'bridge', isGateway: true, ipam };
  for (const command of ['ADD', 'ADD', 'CHECK', 'STATUS', 'DEL', 'DEL', 'VERSION']) {
    let answer = '';
    const code = await runPlugin({
      env: { CNI_COMMAND: command, ...attachment, CNI_ARGS: pod },
      readStdin: () => Buffer.from(JSON.stringify(conf)),
      writeStdout: text => {
        answer += text;
      },
    });
    if (code !== 0 && pod === '' && command === 'ADD') throw new Error(`warm-up: ${command} failed: ${answer}`);
  }
}

async function warmPlugin(): Promise<void> {
  const { runPlugin } = evaluate<'plugin'>();
  const server = await serveWarmEtcd();
  const { port } = server.address() as AddressInfo;
  await everyCommand(runPlugin, {});
  await everyCommand(runPlugin, { etcdConfig: { etcdURL: `http://127.0.0.1:${port}` } });
  await everyCommand(runPlugin, { kubeConfig: kubeconfigToNowhere() }, 'K8S_POD_NAMESPACE=warm;K8S_POD_NAME=warm');
  server.close();
}

/** TLS takes a certificate, which is not made here: the way to the API is warm up to the connection. */
function kubeconfigToNowhere(): string {
  const file = join(resolve(scratch), 'kubeconfig');
  const config = {
    'current-context': 'warm',
    clusters: [{ name: 'warm', cluster: { server: 'https://127.0.0.1:1' } }],
    users: [{ name: 'warm', user: { token: 'warm' } }],
    contexts: [{ name: 'warm', context: { cluster: 'warm', user: 'warm' } }],
  };
  writeFileSync(file, JSON.stringify(config), { mode: 0o600 });
  return file;
}

/** Commands whose outcome does not matter, only that their code ran: a store may well be missing. */
async function warmApp(): Promise<void> {
  const app = evaluate<'app'>();
  for (const argv of [['version'], ['--help'], ['ls', '--data-dir', scratch], ['usage', '--data-dir', scratch]]) {
    await app.runCli(argv, {
      env: {},
      calledAs: 'kube-ipam',
      executable: process.execPath,
      readStdin: () => Buffer.alloc(0),
      writeStdout: () => {},
      writeStderr: () => {},
      isTerminal: false,
      columns: 80,
      monotonicNow: () => performance.now(),
      stopSignal: () => AbortSignal.abort(),
    });
  }
  // Most of etcd3 is the making of its protocol. Its calls are left out: their retries go by the clock, and two builds
  // would not compile the same functions.
  await app.loadGrpc();
  await app.runPlugin({ env: { CNI_COMMAND: 'VERSION' }, readStdin: () => Buffer.alloc(0), writeStdout: () => {} });
}

// V8 marks in the cache which functions its compilers have got to meanwhile, which differs from run to run, so they
// rest. Flags are part of what a cache is accepted by: they are set back before it is written.
const compilers = ['sparkplug', 'maglev', 'opt'];
for (const compiler of compilers) setFlagsFromString(`--no-${compiler}`);
await (part === 'plugin' ? warmPlugin() : warmApp());
for (const compiler of compilers) setFlagsFromString(`--${compiler}`);
writeFileSync(`${part}.cache`, script.createCachedData());
process.exit(0);
