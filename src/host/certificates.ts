// The certificates, keys and passwords of a mounted Secret, as plugins find them on the node.
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { code, FailureError, messageOf } from '../base/errors.ts';

/** Node name, certificates. */
export const nodeFolder = '/etc/kube-ipam';
export const nodeFile = `${nodeFolder}/node`;

/** For root alone. */
export const certificateMode = 0o600;

/** More than any certificate or key has; whatever is larger is a mistake. */
const largest = 2 ** 20;

/** The files of a folder, by the paths that they have on the node. Hidden ones are how a kubelet swaps a Secret's content. */
export function certificatesIn(folder: string): ReadonlyMap<string, Buffer> {
  try {
    const names = readdirSync(folder).filter(name => !name.startsWith('.'));
    return new Map(names.sort().map(name => [join(nodeFolder, name), certificate(join(folder, name))]));
  } catch (error) {
    if (error instanceof FailureError) throw error;
    throw new FailureError(code.io, `${folder} cannot be read: ${messageOf(error)}`, { cause: error });
  }
}

function certificate(path: string): Buffer {
  if (basename(path) === basename(nodeFile)) {
    throw new FailureError(code.config, `${path}: ${nodeFile} holds the name of the node; give that file another name`);
  }
  const { size } = statSync(path);
  if (size > largest) throw new FailureError(code.config, `${path}: ${size} bytes are no certificate, key or password`);
  return readFileSync(path);
}
