// Makes the single executable out of Node, the small main, and the two parts with their warm code caches.
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import type { Arch, Identity } from './identity.ts';
import { bundleApp, bundleMain, bundlePlugin, project } from './javascript.ts';
import { nativeArch, strippedNode } from './node.ts';
import { run } from './run.ts';

/** The folder beside the executable that holds its libraries; a name that says whose it is in a shared CNI folder. */
export const libraryFolder = 'kube-ipam.lib';

/**
 * What Node is started with, whatever the environment says. The semi-space sizes make etcd3's start faster and cost
 * the plugin nothing; a larger maximum would cost the agent up to 48 MB. Never --random-seed here: every process would draw the same "random" addresses.
 */
const execArgv = [
  '--disable-sigusr1',
  '--no-warnings',
  '--openssl-config=/dev/null',
  '--min-semi-space-size=16',
  '--max-semi-space-size=16',
  // No threads for V8: a process that lives 30 ms has nothing for them to do, and making them costs a crowd of ADDs 4 %.
  '--v8-pool-size=0',
];

/** A fixed seed makes V8's code caches, and so the executable, the same in every build. */
const reproducible = ['--random-seed=42'];

/** Writes the executable to `<folder>/kube-ipam`, and returns the folders of the npm packages inside. */
export async function makeExecutable(folder: string, identity: Identity, arch: Arch): Promise<readonly string[]> {
  const [main, plugin, app] = await Promise.all([bundleMain(identity), bundlePlugin(identity), bundleApp(identity)]);
  writeFileSync(join(folder, 'main.js'), main.text);
  writeFileSync(join(folder, 'plugin.js'), plugin.text);
  writeFileSync(join(folder, 'app.js'), app.text);
  const isNative = arch === nativeArch;
  // V8 refuses another architecture's cache; without one the program is just slower to start.
  const assets = isNative ? ['plugin.js', 'plugin.cache', 'app.js', 'app.cache'] : ['plugin.js', 'app.js'];
  if (isNative) {
    warm(folder, 'plugin');
    warm(folder, 'app');
  }
  assemble(folder, identity, arch, assets);
  return packagesIn(main.metafile.inputs, plugin.metafile.inputs, app.metafile.inputs);
}

/** Puts `<folder>/main.js` and the assets, files of the same folder, into a stripped Node: `<folder>/kube-ipam`. */
export function assemble(folder: string, identity: Identity, arch: Arch, assets: readonly string[]): void {
  const config = {
    main: 'main.js',
    output: 'kube-ipam.unlinked',
    executable: relative(folder, strippedNode(project, arch, identity.node)),
    mainFormat: 'commonjs',
    useCodeCache: arch === nativeArch,
    disableExperimentalSEAWarning: true,
    execArgv,
    execArgvExtension: 'none',
    assets: Object.fromEntries(assets.map(name => [name, name])),
  };
  writeFileSync(join(folder, 'sea.json'), JSON.stringify(config));
  run(process.execPath, [...reproducible, '--build-sea', 'sea.json'], { cwd: folder, env: {} });
  link(folder);
}

/** Evaluates and exercises a part in a process of its own, which keeps the code that V8 compiled. */
function warm(folder: string, part: 'plugin' | 'app'): void {
  mkdirSync(join(folder, 'scratch'), { recursive: true });
  const flags = execArgv.filter(flag => !flag.startsWith('--openssl'));
  const program = join(project, 'scripts/bundle/warm.ts');
  run(process.execPath, [...flags, ...reproducible, program, part, 'scratch'], { cwd: folder, env: {} });
}

/**
 * RPATH and not RUNPATH: it counts before LD_LIBRARY_PATH, and $ORIGIN is where the executable really lies, through
 * any symbolic link. Only now: a changed dynamic section does not survive --build-sea.
 */
function link(folder: string): void {
  const unlinked = join(folder, 'kube-ipam.unlinked');
  run('patchelf', ['--force-rpath', '--set-rpath', `$ORIGIN/${libraryFolder}`, unlinked], {
    hint: 'bash scripts/setup.sh build installs it',
  });
  renameSync(unlinked, join(folder, 'kube-ipam'));
  // ELF magic and 64 bit: patchelf has been known to write rubbish without a word.
  if (readFileSync(join(folder, 'kube-ipam')).toString('latin1', 0, 5) !== '\x7fELF\x02')
    throw new Error('not an executable');
}

function packagesIn(...inputs: readonly Record<string, unknown>[]): string[] {
  const packages = inputs
    .flatMap(Object.keys)
    .flatMap(path => /^(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1] ?? []);
  return [...new Set(packages)].sort();
}
