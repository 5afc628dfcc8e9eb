// Where an installation lies on a host, and the flags that put it elsewhere.
import { join } from 'node:path';
import { type Args, type Flags, text, UsageError } from '../command.ts';
import { defaultConfDir } from '../networks.ts';

export const placeFlags: Flags = {
  'bin-dir': { type: 'string', value: 'DIR', describe: "the runtime's plugin folder (/opt/cni/bin)" },
  'conf-dir': { type: 'string', value: 'DIR', describe: `the runtime's folder of configurations (${defaultConfDir})` },
  'conf-name': { type: 'string', value: 'NAME', describe: 'name of the configuration (1-kube-ipam.conf or .conflist)' },
  'dry-run': { type: 'boolean', describe: 'only say what would be done' },
};

/** Where the file system of the host lies, for a container that has mounted parts of it. */
export const rootFlag: Flags = {
  root: { type: 'string', value: 'DIR', describe: "the host's root folder, where a container has mounted it (/)" },
};

export interface Places {
  /** Of the host; the other two lie below it. */
  readonly root: string;
  readonly binDir: string;
  readonly confDir: string;
}

export function placesOf(args: Args): Places {
  const root = absolute(args, 'root', '/');
  const folder = (name: string, usual: string) => join(root, absolute(args, name, usual));
  return { root, binDir: folder('bin-dir', '/opt/cni/bin'), confDir: folder('conf-dir', defaultConfDir) };
}

/** The value of a flag that names a folder or file. */
export function absolute(args: Args, name: string, usual: string): string {
  const value = text(args, name) ?? usual;
  if (!value.startsWith('/')) throw new UsageError(`--${name} ${value}: must be an absolute path`);
  return value;
}
