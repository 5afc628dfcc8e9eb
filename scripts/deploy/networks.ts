// The network configurations below deploy/, made from the same templates as cni-conf/.
import { confFor, confText, exampleEtcd, shippedConfs } from '../../src/cli/conf-templates.ts';

/** Where the agent writes what the plugin asks the API server with. */
export const pluginKubeconfig = '/etc/cni/net.d/kube-ipam.d/kubeconfig';

/** Each file of deploy/ that is a network configuration, with its text; the example's is its reader's own. */
export function deployedConfs(): ReadonlyMap<string, string> {
  // Multus names two networks, which no value of the chart could tell apart.
  const charted = [...shippedConfs()].filter(([name]) => name.endsWith('-etcd.conflist') && !name.startsWith('multus'));
  return new Map([
    ...charted.map(([name, text]) => [`chart/files/${name}`, text] as const),
    ['base/network.conflist', confText(confFor('bridge', { etcd: exampleEtcd, kubeConfig: pluginKubeconfig }))],
  ]);
}
