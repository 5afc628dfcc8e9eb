// Kubeconfig files as people have them: with a token, a file of a token, or a client certificate.
import type { KeyPair } from '../certificates.ts';

export type Credential =
  | { readonly token: string }
  | { readonly tokenFile: string }
  | { readonly certificate: KeyPair };

/** The text of a kubeconfig file (JSON, which is YAML) for one cluster and one user. */
export function kubeconfigText(server: string, caFile: string, credential: Credential): string {
  const config = {
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: 'test', cluster: { server, 'certificate-authority': caFile } }],
    users: [{ name: 'test', user: userOf(credential) }],
    contexts: [{ name: 'test', context: { cluster: 'test', user: 'test' } }],
    'current-context': 'test',
  };
  return `${JSON.stringify(config, null, 2)}\n`;
}

function userOf(credential: Credential): Readonly<Record<string, string>> {
  if ('token' in credential) return { token: credential.token };
  if ('tokenFile' in credential) return { tokenFile: credential.tokenFile };
  const { cert, key } = credential.certificate;
  return { 'client-certificate': cert, 'client-key': key };
}
