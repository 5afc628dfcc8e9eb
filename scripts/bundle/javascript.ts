// Bundles the sources into CommonJS files: main.js (chooses the face), plugin.js (its fast path), app.js (everything else).
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { type BuildOptions, build, type Metafile, type Plugin } from 'esbuild';
import type { Identity } from './identity.ts';

export const project = resolve(import.meta.dirname, '../..');

export interface Bundled {
  readonly text: string;
  readonly metafile: Metafile;
}

function common(identity: Identity): BuildOptions {
  return {
    absWorkingDir: project,
    bundle: true,
    platform: 'node',
    format: 'cjs',
    target: 'node26',
    write: false,
    metafile: true,
    legalComments: 'none',
    // A short text parses a little faster; names stay, so that an error can be understood.
    minifyWhitespace: true,
    minifySyntax: true,
    // Inside the executable there is no module loader behind import(): only require of Node's own modules.
    supported: { 'dynamic-import': false },
    define: {
      KUBE_IPAM_VERSION: JSON.stringify(identity.version),
      KUBE_IPAM_COMMIT: JSON.stringify(identity.commit),
      KUBE_IPAM_NODE: JSON.stringify(identity.node),
      // yargs looks for itself by this; the executable has no files.
      'import.meta.url': '"file:///kube-ipam/app.js"',
    },
    logLevel: 'silent',
  };
}

/** What every process evaluates: the other two are its assets, so they must not be inside it. */
export async function bundleMain(identity: Identity): Promise<Bundled> {
  return bundle({ ...common(identity), entryPoints: ['src/main.ts'] });
}

/** What an ADD or DEL evaluates, less etcd3. */
export async function bundlePlugin(identity: Identity): Promise<Bundled> {
  return bundle({ ...common(identity), entryPoints: ['src/cni/plugin.ts'] });
}

/** The asset: command line, etcd3 and all that is evaluated on demand. */
export async function bundleApp(identity: Identity): Promise<Bundled> {
  return bundle({
    ...common(identity),
    entryPoints: ['src/app.ts'],
    // grpc-js brings a second copy of the proto loader, for features that kube-ipam does not use.
    alias: { '@grpc/proto-loader': join(project, 'node_modules/@grpc/proto-loader') },
    plugins: [inlineEtcdProtocol],
  });
}

async function bundle(options: BuildOptions): Promise<Bundled> {
  const result = await build({ ...options, write: false, metafile: true });
  // The asset is read as latin1, which is the same text only as long as it is ASCII. esbuild escapes all but regular expressions.
  const text = result.outputFiles![0]!.text.replace(
    /[\u0080-\uffff]/g,
    character => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
  return { text, metafile: result.metafile! };
}

const etcdLoad = 'loadSync)(`$' + '{__dirname}/../proto/rpc.proto`,';

/** etcd3 reads its .proto files at run time; the executable has none, so their parsed form goes into the bundle. */
const inlineEtcdProtocol: Plugin = {
  name: 'inline-etcd-protocol',
  setup(build) {
    build.onLoad({ filter: /etcd3[/\\]lib[/\\]connection-pool\.js$/ }, args => {
      const text = readFileSync(args.path, 'utf8');
      if (!text.includes(etcdLoad)) throw new Error(`${args.path} no longer loads its protocol as expected`);
      const protocol = parsedProtocol(join(dirname(args.path), '../proto/rpc.proto'));
      return { contents: text.replace(etcdLoad, () => `fromJSON)(${protocol},`), loader: 'js' };
    });
  },
};

function parsedProtocol(path: string): string {
  const require = createRequire(join(project, 'node_modules/@grpc/proto-loader/package.json'));
  const protobuf = require('protobufjs') as { Root: new () => ProtocolRoot };
  const root = new protobuf.Root();
  root.loadSync(path, { keepCase: true });
  root.resolveAll();
  return JSON.stringify(root.toJSON());
}

interface ProtocolRoot {
  loadSync(path: string, options: { keepCase: boolean }): void;
  resolveAll(): void;
  toJSON(): unknown;
}
