// The manifests of deploy/ as objects: what kustomize and Helm make of them.
import { spawnSync } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { basename, join } from 'node:path';
import { parseAllDocuments } from 'yaml';
import { kubernetesProgram, toolFolder } from './kubernetes/tools.ts';
import type { Json } from './plugin.ts';
import { project } from './project.ts';

export const deploy = join(project, 'deploy');
export const chart = join(deploy, 'chart');
export const helm = join(toolFolder('helm'), 'helm');

/** Helm has none of its own when it asks no cluster. */
const kubernetesVersion = basename(toolFolder('kubernetes')).replace(/^kubernetes-/, '');

/** Why the manifests cannot be rendered here; undefined when they can. */
export function whyNoManifests(): string | undefined {
  if (kubernetesProgram('kubectl') === undefined) return 'no kubectl here: run scripts/tools.sh kubernetes';
  try {
    accessSync(helm, constants.X_OK);
    return undefined;
  } catch {
    return `no helm in ${toolFolder('helm')}: run scripts/tools.sh helm`;
  }
}

export interface Rendered {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string };
  readonly [key: string]: unknown;
}

/** A folder as `kubectl apply -k` would send it. */
export function kustomized(folder: string): Rendered[] {
  return objects(must(kubernetesProgram('kubectl')!, ['kustomize', folder]));
}

/** The chart as `helm install` would send it into kube-system; `values` go over the defaults. Throws with what Helm says. */
export function charted(values: Json = {}): Rendered[] {
  const argv = ['template', 'kube-ipam', chart, '--namespace', 'kube-system', '--values', '-'];
  return objects(must(helm, [...argv, '--kube-version', kubernetesVersion], JSON.stringify(values)));
}

export function must(program: string, argv: readonly string[], input = ''): string {
  const { status, stdout, stderr } = spawnSync(program, argv, { encoding: 'utf8', input, timeout: 60_000 });
  if (status !== 0) throw new Error(`${program} ${argv.join(' ')}: ${stderr}${stdout}`);
  return stdout;
}

/** YAML 1.1, as Kubernetes' own tools read it: there, 0400 is a number of eights. */
function objects(text: string): Rendered[] {
  return parseAllDocuments(text, { version: '1.1' })
    .map(document => document.toJS() as Rendered | null)
    .filter(object => object !== null);
}
