// Exercises the asset as its users will and writes the code that V8 has compiled by then: warm.ts APP CACHE SCRATCH.
import { readFileSync, writeFileSync } from 'node:fs';
import { Script } from 'node:vm';
import { wrap } from '../../src/main/wrap.ts';

type App = typeof import('../../src/app.ts');

const [appPath, cachePath, scratch] = process.argv.slice(2) as [string, string, string];
const script = new Script(wrap(readFileSync(appPath, 'latin1')), { filename: 'app.js' });
const module = { exports: {} };
script.runInThisContext()(module, module.exports, (id: string) => process.getBuiltinModule(id));
const app = module.exports as App;

/** The result does not matter, only that the code ran: a command may well say that a store is not there. */
async function command(...argv: string[]): Promise<void> {
  await app.runCli(argv, {
    env: {},
    executable: process.execPath,
    readStdin: () => Buffer.alloc(0),
    writeStdout: () => {},
    writeStderr: () => {},
    isTerminal: false,
    columns: 80,
  });
}

/** One plugin call whose etcd gateway is refused, on a port where nobody listens. */
async function plugin(env: Record<string, string>, configuration: unknown): Promise<void> {
  await app.runPlugin({ env, readStdin: () => Buffer.from(JSON.stringify(configuration)), writeStdout: () => {} });
}

await command('version');
await command('--help');
await command('ls', '--data-dir', scratch);
const attachment = { CNI_CONTAINERID: 'warm', CNI_NETNS: '/run/netns/warm', CNI_IFNAME: 'eth0' };
await plugin(
  { CNI_COMMAND: 'ADD', ...attachment },
  {
    cniVersion: '1.1.0',
    name: 'warm',
    ipam: { type: 'kube-ipam', ranges: [[{ subnet: '192.0.2.0/24' }]], dataDir: scratch },
  },
);
writeFileSync(cachePath, script.createCachedData());
process.exit(0);
