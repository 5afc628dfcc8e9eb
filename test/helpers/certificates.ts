// A certificate authority of a test's own, made by openssl: a server for 127.0.0.1, clients with and without a name.
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

export interface Certificates {
  readonly ca: string;
  /** Another authority, which has signed nothing. */
  readonly otherCa: string;
  readonly server: KeyPair;
  readonly namedClient: KeyPair;
  readonly namelessClient: KeyPair;
}

const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'];

/** Makes `name.crt` and `name.key` of an authority; gives the path of the certificate. */
export async function authority(folder: string, name: string): Promise<string> {
  const files = ['-keyout', join(folder, `${name}.key`), '-out', join(folder, `${name}.crt`)];
  await run('openssl', ['req', '-x509', ...newKey, ...files, '-subj', `/O=${name}/CN=${name}`]);
  return join(folder, `${name}.crt`);
}

export interface KeyPair {
  readonly cert: string;
  readonly key: string;
}

/** Makes `name.crt` and `name.key` for this subject, signed by the folder's authority `ca`. */
export async function leaf(
  folder: string,
  name: string,
  subject: string,
  extensions: readonly string[],
): Promise<KeyPair> {
  const cert = join(folder, `${name}.crt`);
  const key = join(folder, `${name}.key`);
  const signer = ['-CA', join(folder, 'ca.crt'), '-CAkey', join(folder, 'ca.key')];
  const added = extensions.flatMap(extension => ['-addext', extension]);
  const plain = ['-addext', 'basicConstraints=critical,CA:FALSE'];
  await run('openssl', [
    'req',
    '-x509',
    ...newKey,
    ...signer,
    '-keyout',
    key,
    '-out',
    cert,
    '-subj',
    subject,
    ...plain,
    ...added,
  ]);
  return { cert, key };
}

/** @param commonName the name of the named client, which etcd takes for its user. */
export async function makeCertificates(folder: string, commonName: string): Promise<Certificates> {
  const ca = await authority(folder, 'ca');
  const otherCa = await authority(folder, 'other-ca');
  const names = ['subjectAltName=IP:127.0.0.1,DNS:localhost', 'extendedKeyUsage=serverAuth,clientAuth'];
  const client = ['extendedKeyUsage=clientAuth'];
  return {
    ca,
    otherCa,
    server: await leaf(folder, 'server', '/O=test', names),
    namedClient: await leaf(folder, 'named', `/O=test/CN=${commonName}`, client),
    namelessClient: await leaf(folder, 'nameless', '/O=test', client),
  };
}
