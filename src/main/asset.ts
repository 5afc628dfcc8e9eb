// Evaluates the program's second part (app.ts), which the executable carries as an asset with a warm code cache.
import { getRawAsset } from 'node:sea';
import { Script } from 'node:vm';
import { wrap } from './wrap.ts';

type App = typeof import('../app.ts');

/**
 * The exports of app.ts. `builtin` gives Node's own modules; the asset needs no others and reaches no file.
 * A cache that V8 does not accept costs time, nothing else.
 */
export function evaluateApp(builtin: (id: string) => unknown): App {
  // latin1: the bundler writes ASCII, and decoding a large asset as UTF-8 takes milliseconds.
  const source = Buffer.from(getRawAsset('app.js')).toString('latin1');
  const cachedData = cachedCode();
  const script = new Script(wrap(source), { filename: 'app.js', ...(cachedData && { cachedData }) });
  const module = { exports: {} };
  script.runInThisContext()(module, module.exports, builtin);
  return module.exports as App;
}

/** Absent where the executable was built for another architecture than the builder's. */
function cachedCode(): Buffer | undefined {
  try {
    return Buffer.from(getRawAsset('app.cache'));
  } catch {
    return undefined;
  }
}
