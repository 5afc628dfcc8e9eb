// Reads what the source files import, and what of Node's global `process` they touch.
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join, posix } from 'node:path';
import { transformSync } from 'esbuild';
import { project } from './project.ts';

export interface SourceFile {
  /** From the project's root, `src/net/ip.ts`. */
  readonly path: string;
  readonly text: string;
  readonly imports: readonly Import[];
}

export interface Import {
  /** A path of the project, a package, or `node:...`. */
  readonly target: string;
  /** Only types: gone when the program runs. */
  readonly typeOnly: boolean;
  /** By `import()`: evaluated when that line is reached. */
  readonly lazy: boolean;
}

/** All TypeScript files below a folder of the project, without the tests. */
export function sourceFiles(folder: string): SourceFile[] {
  return filesBelow(folder)
    .filter(path => path.endsWith('.ts') && !path.endsWith('.test.ts'))
    .map(path => {
      const text = readFileSync(join(project, path), 'utf8');
      return { path, text, imports: importsOf(path, text) };
    });
}

function filesBelow(folder: string): string[] {
  return readdirSync(join(project, folder)).flatMap(name => {
    const path = `${folder}/${name}`;
    return statSync(join(project, path)).isDirectory() ? filesBelow(path) : [path];
  });
}

/** Static imports and re-exports, `import()` of a literal, and types named by `import('...')`. */
export function importsOf(path: string, text: string): Import[] {
  const code = text.replace(/^\s*(\/\/|\*|\/\*).*$/gm, '');
  const found: Import[] = [];
  const resolved = (target: string): string =>
    target.startsWith('.') ? posix.join(posix.dirname(path), target) : target;
  for (const [, kind, target] of code.matchAll(/^\s*(?:import|export)\b(\s+type\b)?[^;'"]*?from\s*'([^']+)'/gm))
    found.push({ target: resolved(target!), typeOnly: kind !== undefined, lazy: false });
  for (const [, target] of code.matchAll(/^\s*import\s*'([^']+)'/gm))
    found.push({ target: resolved(target!), typeOnly: false, lazy: false });
  for (const [, type, target] of code.matchAll(/(typeof\s+)?\bimport\(\s*'([^']+)'\s*\)/g))
    found.push({ target: resolved(target!), typeOnly: type !== undefined, lazy: true });
  return found;
}

/** The properties of Node's global `process` that the code uses (`env`, `pid`, ...); `*` for the object as such. */
export function usesOfProcess(text: string): string[] {
  // The bundler knows which `process` is the global one and which a variable or a word in a string.
  const { code } = transformSync(text, { loader: 'ts', define: { process: '__globalProcess' } });
  return [...code.matchAll(/__globalProcess(?:\.(\w+))?/g)].map(([, property]) => property ?? '*');
}

/** Every file that is evaluated along with `from`; lazy imports only if asked for. */
export function closure(files: readonly SourceFile[], from: string, lazy: boolean): SourceFile[] {
  const byPath = new Map(files.map(file => [file.path, file]));
  const found = new Set<SourceFile>();
  const follow = (path: string): void => {
    const file = byPath.get(path);
    if (file === undefined || found.has(file)) return;
    found.add(file);
    for (const entry of file.imports) if (!entry.typeOnly && (lazy || !entry.lazy)) follow(entry.target);
  };
  follow(from);
  return [...found];
}
