// Where an installation lies on a host, and the flags that put it elsewhere.
import { type Args, type Flags, text, UsageError } from '../command.ts';
import { defaultConfDir } from '../networks.ts';

export const nodeFile = '/etc/kube-ipam/node';

export const placeFlags: Flags = {
  'bin-dir': { type: 'string', value: 'DIR', describe: "the runtime's plugin folder (/opt/cni/bin)" },
  'conf-dir': { type: 'string', value: 'DIR', describe: `the runtime's folder of configurations (${defaultConfDir})` },
  'conf-name': { type: 'string', value: 'NAME', describe: 'name of the configuration (1-kube-ipam.conf or .conflist)' },
  'dry-run': { type: 'boolean', describe: 'only say what would be done' },
};

export interface Places {
  readonly binDir: string;
  readonly confDir: string;
}

export function placesOf(args: Args): Places {
  const folder = (name: string, usual: string) => {
    const value = text(args, name) ?? usual;
    if (!value.startsWith('/')) throw new UsageError(`--${name} ${value}: must be an absolute path`);
    return value;
  };
  return { binDir: folder('bin-dir', '/opt/cni/bin'), confDir: folder('conf-dir', defaultConfDir) };
}
