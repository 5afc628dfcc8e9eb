// The certificates of a target, read from their files.
import { readFileSync } from 'node:fs';
import { code, FailureError, messageOf, systemCode } from '../../base/errors.ts';
import type { EtcdTarget } from '../target.ts';

export interface TlsFiles {
  readonly ca?: Buffer;
  readonly cert?: Buffer;
  readonly key?: Buffer;
}

export function tlsFiles(target: EtcdTarget): TlsFiles {
  return {
    ...(target.caFile === undefined ? {} : { ca: readTls('etcdTrustedCAFile', target.caFile) }),
    ...(target.certFile === undefined ? {} : { cert: readTls('etcdCertFile', target.certFile) }),
    ...(target.keyFile === undefined ? {} : { key: readTls('etcdKeyFile', target.keyFile) }),
  };
}

/** TLS itself refuses what the files hold: no PEM, or a key that belongs to another certificate. */
export function unusableCertificates({ certFile, keyFile, caFile }: EtcdTarget, cause: unknown): FailureError {
  const files = [certFile, keyFile, caFile].filter(file => file !== undefined).join(', ');
  return new FailureError(
    code.config,
    `the certificates of etcdConfig (${files}) cannot be used: ${messageOf(cause)}`,
    { cause },
  );
}

function readTls(what: string, file: string): Buffer {
  try {
    return readFileSync(file);
  } catch (error) {
    throw new FailureError(code.config, `${what} ${file} cannot be read (${systemCode(error) ?? 'failed'})`);
  }
}
