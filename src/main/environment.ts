// Takes back what environment variables have told Node: its TLS checks must be ours, and it writes no files of its own.

type Builtin = <Id extends 'node:tls' | 'node:v8'>(
  id: Id,
) => Id extends 'node:tls' ? typeof import('node:tls') : typeof import('node:v8');

/**
 * Removes every NODE_ variable, for this process and its children. Node has already acted on some when the program
 * begins; those are undone, and only then is a module loaded for it.
 */
export function disarm(env: NodeJS.ProcessEnv, builtin: Builtin): void {
  const found = Object.keys(env).filter(name => name.startsWith('NODE_'));
  for (const name of found) delete env[name];
  if (found.includes('NODE_EXTRA_CA_CERTS') || found.includes('NODE_USE_SYSTEM_CA')) {
    const tls = builtin('node:tls');
    tls.setDefaultCACertificates(tls.getCACertificates('bundled'));
  }
  if (found.includes('NODE_V8_COVERAGE')) builtin('node:v8').stopCoverage();
}
