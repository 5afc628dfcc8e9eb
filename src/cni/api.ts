// The Kubernetes API as the plugin alone reaches it: over one connection, opened by the first question.
import { GetApi } from '../ipam/api.ts';
import type { Api } from '../ipam/ports.ts';
import type { ParseYaml } from '../kube/config.ts';
import { openReader } from '../kube/light.ts';

/** `parseYaml`: for a kubeconfig that is no JSON; without it such a one is NeedsAssetError. */
export function openApi(kubeConfig: string, parseYaml?: ParseYaml): Api {
  return new GetApi(openReader(kubeConfig, parseYaml));
}
