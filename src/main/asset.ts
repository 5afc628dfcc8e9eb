// Evaluates the parts of the program that the executable carries as assets, each with the code that V8 compiled for it.
import { getRawAsset } from 'node:sea';
import { Script } from 'node:vm';
import { wrap } from './wrap.ts';

/** The plugin's fast path, and all the rest. */
export interface Parts {
  readonly plugin: typeof import('../cni/plugin.ts');
  readonly app: typeof import('../app.ts');
}

/**
 * The exports of a part. `builtin` gives Node's own modules; a part needs no others and reaches no file.
 * The code cache holds the functions that a run really uses, which saves a third of an ADD; one that V8 does not
 * accept costs time, nothing else.
 */
export function evaluate<Name extends keyof Parts>(name: Name, builtin: (id: string) => unknown): Parts[Name] {
  // latin1: the bundler writes ASCII, and decoding a large asset as UTF-8 takes milliseconds.
  const source = Buffer.from(getRawAsset(`${name}.js`)).toString('latin1');
  const cachedData = cachedCode(name);
  const script = new Script(wrap(source), { filename: `${name}.js`, ...(cachedData && { cachedData }) });
  const module = { exports: {} };
  script.runInThisContext()(module, module.exports, builtin);
  return module.exports as Parts[Name];
}

/** Absent where the executable was built on another architecture. */
function cachedCode(name: string): Buffer | undefined {
  try {
    return Buffer.from(getRawAsset(`${name}.cache`));
  } catch {
    return undefined;
  }
}
