// Reads YAML, for kubeconfig files: imported only where one is not JSON, because what reads it is a large package.
import { parse } from 'yaml';

/** Throws what names the place of the fault in `linePos`. Never prints a warning. */
export function parseYaml(text: string): unknown {
  return parse(text, { logLevel: 'error' });
}
