// Validates the networks of a configuration file, as `check --conf` and `install` do before anything uses it.
import { accessSync, constants } from 'node:fs';
import { FailureError } from '../base/errors.ts';
import { checkConf } from '../cni/netconf.ts';
import { type NetworkConfig, readNetworkConfig } from '../ipam/config.ts';
import { unknownKeys } from './known-keys.ts';
import type { FoundNetwork } from './networks.ts';

export interface ConfReport {
  readonly network: string;
  readonly place: string;
  readonly problems: readonly string[];
  readonly warnings: readonly string[];
  /** Absent when there are problems. */
  readonly config?: NetworkConfig;
}

/** Everything that is wrong with one network, and what is merely odd. */
export function examineConf({ name, place, conf }: FoundNetwork): ConfReport {
  const warnings = unknownKeys(conf);
  try {
    const { version } = checkConf(conf, 'ADD');
    const config = readNetworkConfig(conf, version);
    return { network: name, place, problems: refused(config), warnings: [...warnings, ...unreadable(config)], config };
  } catch (error) {
    if (!(error instanceof FailureError)) throw error;
    return { network: name, place, problems: [error.message], warnings };
  }
}

/** Runtimes go by the name: only a .conflist may hold a list, and it must. Empty when name and content agree. */
export function misnamed({ file, place }: FoundNetwork): string[] {
  const isList = place.startsWith('plugins[');
  if (/\.conflist$/.test(file)) {
    return isList ? [] : ['a .conflist file must hold a list of "plugins": runtimes refuse this one; name it .conf'];
  }
  if (!isList || !/\.(conf|json)$/.test(file)) return [];
  return ['a list of "plugins" must be in a .conflist file: runtimes refuse this one; name it .conflist'];
}

/** Keys with which every ADD is refused by this version. */
function refused({ unsupportedKeys }: NetworkConfig): string[] {
  return unsupportedKeys.map(key => `${key}: this version of kube-ipam cannot honour it and refuses every ADD`);
}

function unreadable({ store, resolvConf, kubeConfig }: NetworkConfig): string[] {
  const files = store.kind === 'etcd' ? [store.certFile, store.keyFile, store.caFile, store.passwordFile] : [];
  return [...files, resolvConf, kubeConfig].flatMap(file => {
    if (file === undefined) return [];
    try {
      accessSync(file, constants.R_OK);
      return [];
    } catch {
      return [`${file} cannot be read on this machine`];
    }
  });
}
