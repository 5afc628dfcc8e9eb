// Where the executables of Kubernetes, its etcd and what tests use beside them lie: KUBEBUILDER_ASSETS, else the tools cache.
import { accessSync, constants, readdirSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { type Engine, engines, identify } from '../etcd.ts';
import { project } from '../project.ts';

const cache = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'kube-ipam/tools');
const assets = process.env.KUBEBUILDER_ASSETS;

/** Where scripts/tools.sh puts the programs of a tool; its version is in the name of the folder that pins it. */
export function toolFolder(tool: 'kubernetes' | 'helm' | 'cni-plugins'): string {
  const pinned = readdirSync(join(project, 'scripts/tools')).find(name => name.startsWith(`${tool}-`));
  return join(cache, pinned ?? tool);
}

/** The path of a program of Kubernetes; undefined when it is neither among the assets nor in the cache. */
export function kubernetesProgram(name: string): string | undefined {
  const folders = [...(assets ? [assets] : []), toolFolder('kubernetes')];
  return folders.map(folder => join(folder, name)).find(executable);
}

/** The etcd below the API server: that of the assets, else the newest of this machine. */
export function etcdOfKubernetes(): Engine | undefined {
  const asset = assets && join(assets, 'etcd');
  return asset && executable(asset) ? identify(asset) : engines().at(-1);
}

/** Why none of these programs can be started here; undefined when all are there. */
export function whyMissing(...programs: readonly string[]): string | undefined {
  const missing = programs.filter(name => kubernetesProgram(name) === undefined);
  return missing.length === 0
    ? undefined
    : `no ${missing.join(', ')} in KUBEBUILDER_ASSETS or ${toolFolder('kubernetes')}: run scripts/tools.sh kubernetes`;
}

function executable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
