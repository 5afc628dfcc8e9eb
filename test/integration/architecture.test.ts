// The rooms of src and the directions between them: each ban with its reason (docs/architecture.md has the picture).
import { build } from 'esbuild';
import { describe, expect, it } from 'vitest';
import { bundleApp, bundleMain, bundlePlugin } from '../../scripts/bundle/javascript.ts';
import { closure, importsOf, type SourceFile, sourceFiles, usesOfProcess } from '../helpers/imports.ts';
import { project } from '../helpers/project.ts';

/** From the bottom up. A room imports from the steps below its own, and from itself. */
const steps: readonly (readonly string[])[] = [
  ['base'],
  ['net'],
  ['store', 'kube', 'host', 'ipc'],
  ['bgp'],
  ['ipam'],
  ['publicip', 'eip', 'router', 'cni'],
  ['agent'],
  ['cli'],
  ['main'],
];

const features = ['publicip', 'eip', 'router'];

/** `src/net/ip.ts` lies in net; main.ts, app.ts and the folder main are one room. */
function roomOf(path: string): string {
  const [, room, rest] = path.split('/');
  return rest === undefined ? 'main' : room!;
}

function stepOf(room: string): number {
  return steps.findIndex(rooms => rooms.includes(room));
}

/** Why this import must not be; undefined when it may. */
function objection(from: string, to: string): string | undefined {
  if (!to.startsWith('src/')) return undefined;
  const [here, there] = [roomOf(from), roomOf(to)];
  if (here === there) return undefined;
  if (features.includes(here) && there === 'ipam' && !/^src\/ipam\/(model|records|service\b.*|pool)/.test(to))
    return 'ipam owns the addresses: a feature sees its model, records, service and pool, and cannot depend on how it decides';
  if (stepOf(there) < stepOf(here)) return undefined;
  if (stepOf(there) === stepOf(here))
    return `${here} and ${there} stand side by side: what one needs from the other comes in from above, or each drags the other along`;
  return `${there} stands above ${here}: a lower room must be understood, tested and changed without it`;
}

const files = sourceFiles('src');

function violations(check: (file: SourceFile) => readonly string[]): string[] {
  return files.flatMap(file => check(file).map(complaint => `${file.path}: ${complaint}`));
}

describe('rooms', () => {
  it('are all known', () => {
    expect(files.length).toBeGreaterThan(20);
    expect(
      violations(file => (stepOf(roomOf(file.path)) < 0 ? [`no room "${roomOf(file.path)}" in the plan`] : [])),
    ).toEqual([]);
  });

  it('import downwards only', () => {
    const upwards = violations(({ path, imports }) =>
      imports.flatMap(({ target }) => {
        const reason = objection(path, target);
        return reason === undefined ? [] : [`imports ${target}; ${reason}`];
      }),
    );
    expect(upwards).toEqual([]);
  });

  it('are told apart by this very test', () => {
    expect(objection('src/net/ip.ts', 'src/base/errors.ts')).toBeUndefined();
    expect(objection('src/net/ip.ts', 'src/store/keys.ts')).toMatch(/above/);
    expect(objection('src/store/open.ts', 'src/host/exec.ts')).toMatch(/side by side/);
    expect(objection('src/eip/plan.ts', 'src/publicip/model.ts')).toMatch(/side by side/);
    expect(objection('src/eip/plan.ts', 'src/ipam/candidates.ts')).toMatch(/owns the addresses/);
    expect(objection('src/eip/plan.ts', 'src/ipam/records.ts')).toBeUndefined();
    const text =
      "import type { A } from './a.ts';\nexport { b } from '../b.ts';\nconst c = await import('node:c');\n// import './d.ts'";
    expect(importsOf('src/x/y.ts', text)).toEqual([
      { target: 'src/x/a.ts', typeOnly: true, lazy: false },
      { target: 'src/b.ts', typeOnly: false, lazy: false },
      { target: 'node:c', typeOnly: false, lazy: true },
    ]);
    expect(usesOfProcess("const a = process.env; let s = 'process.exit'; f(process)")).toEqual(['env', '*']);
    expect(usesOfProcess('function f(process: string) { return process.length }')).toEqual([]);
  });
});

describe('effects', () => {
  it('child processes are started by src/host/exec.ts alone: one place knows deadlines, locale and argument lists', () => {
    const starters = violations(({ path, imports }) =>
      path === 'src/host/exec.ts'
        ? []
        : imports
            .filter(({ target }) => /^(node:)?(child_process|cluster)$/.test(target))
            .map(({ target }) => `imports ${target}`),
    );
    expect(starters).toEqual([]);
  });

  it('process is touched by src/main.ts alone: every face gets environment, streams and exit code from one place', () => {
    // The process id is a harmless ingredient of names for temporary files.
    const everywhere = ['pid'];
    const exceptions: Readonly<Record<string, string>> = {
      // Cheaper than node:net by a tenth of an ADD (decision 31).
      'src/ipc/pipe.ts': 'binding',
      // Node binds a socket with the mode that the mask leaves; what comes after leaves it open for an instant.
      'src/ipc/server.ts': 'umask',
    };
    const touched = violations(({ path, text }) =>
      path === 'src/main.ts'
        ? []
        : usesOfProcess(text)
            .filter(property => !everywhere.includes(property) && property !== exceptions[path])
            .map(property => `uses process.${property}`),
    );
    expect(touched).toEqual([]);
    const imported = violations(({ imports }) =>
      imports.filter(({ target }) => /^(node:)?process$/.test(target)).map(() => 'imports it'),
    );
    expect(imported).toEqual([]);
  });

  it('plan, candidates, gc, render and records are pure: no clock, no I/O, no store', () => {
    const names =
      'plan|candidates|gc|render|records|wishes|serving|workload|fixed|named|balance|forbidden|readiness|standing|steps|fitness';
    // A command has the name of its verb, whatever it does.
    const pure = files.filter(({ path }) => new RegExp(`^src/(?!cli/)[^/]+/(.*/)?(${names})\\.ts$`).test(path));
    expect(pure.map(({ path }) => path)).toContain('src/ipam/candidates.ts');
    // Keys are built and parsed by a pure file, which happens to stand in the store's room.
    const impure = (path: string): boolean =>
      /^src\/(store|kube|host|ipc|bgp)\//.test(path) && path !== 'src/store/keys.ts' && path !== 'src/store/target.ts';
    const complaints = pure.flatMap(({ path }) =>
      closure(files, path, true).flatMap(file => [
        ...(impure(file.path) ? [`${path} reaches ${file.path}`] : []),
        ...file.imports
          .filter(({ target, typeOnly }) => target.startsWith('node:') && !typeOnly)
          .map(({ target }) => `${path} reaches ${target} through ${file.path}`),
        ...(/\b(Date\.now|new Date\(\)|performance\.now|setTimeout|fetch)\b/.test(file.text)
          ? [`${path} reaches a clock or a timer in ${file.path}`]
          : []),
      ]),
    );
    expect(complaints).toEqual([]);
  });
});

describe('what a pod waits for', () => {
  const identity = { version: '0', commit: '0', node: '0' };

  it('the small main holds neither of its parts, only what asks the agent', async () => {
    const { metafile } = await bundleMain(identity);
    const inputs = Object.keys(metafile.inputs);
    const small = /^src\/(main\.ts$|main\/|base\/|ipc\/(client|pipe|protocol)\.ts$|ipam\/defaults\.ts$)/;
    expect(inputs.filter(path => !small.test(path))).toEqual([]);
  });

  it('the plugin evaluates base, net, store with the gateway, ipc, ipam, cni and one GET, and no package but ip-address', async () => {
    const { metafile } = await bundlePlugin(identity);
    const inputs = Object.keys(metafile.inputs);
    const rooms =
      /^src\/(base|net|ipc|ipam|cni)\/|^src\/store\/(keys|kv|open|target)\.ts$|^src\/store\/(embedded|etcd)\/|^src\/kube\/(light|config|answer|failure|resources)\.ts$/;
    expect(inputs.filter(path => !rooms.test(path) && !path.startsWith('node_modules/ip-address/'))).toEqual([]);
    // gRPC takes five times as long to load as the whole command.
    expect(
      inputs.filter(path => /^src\/store\/etcd\/(grpc|channel|watch|lease|streams|doctor)\.ts$/.test(path)),
    ).toEqual([]);
    expect(inputs).toContain('src/store/etcd/gateway.ts');
  });

  it('etcd3 is at hand in the asset', async () => {
    const { metafile } = await bundleApp(identity);
    expect(Object.keys(metafile.inputs)).toContain('src/store/etcd/grpc.ts');
  });

  it('nothing in src is dead: the program or a script reaches it', async () => {
    const { metafile } = await build({
      absWorkingDir: project,
      entryPoints: ['src/main.ts'],
      bundle: true,
      write: false,
      metafile: true,
      platform: 'node',
      packages: 'external',
      format: 'esm',
      logLevel: 'silent',
    });
    // Scripts that write documentation out of the program use parts of it that the program itself does not.
    const byScripts = sourceFiles('scripts').flatMap(({ imports }) => imports.map(({ target }) => target));
    const used = new Set([...Object.keys(metafile.inputs), ...byScripts]);
    const typesOnly = ({ text }: SourceFile): boolean =>
      !/^export (async )?(function|const|class|default|\{)/m.test(text);
    expect(files.filter(file => !used.has(file.path) && !typesOnly(file)).map(({ path }) => path)).toEqual([]);
  });
});

describe('every file', () => {
  it('opens with one sentence that says what it is for', () => {
    const all = [...files, ...sourceFiles('scripts'), ...sourceFiles('test'), ...sourceFiles('bench')];
    const silent = all.filter(({ text }) => !/^(#!.*\n)?\/\/ \S.{10,}/.test(text)).map(({ path }) => path);
    expect(silent).toEqual([]);
  });

  it('starts no shell: a name from a cluster is an argument, never a line to be parsed', () => {
    const shells = /\bshell:\s*(true|['"`])|['"`](\/bin\/)?(ba)?sh['"`]|\bexecSync\b/;
    expect(violations(({ text }) => (shells.test(text) ? ['starts a shell'] : []))).toEqual([]);
  });
});
