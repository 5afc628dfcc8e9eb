// The certificates of a target, read from their files.
import { readFileSync } from 'node:fs';
import { code, FailureError, systemCode } from '../../base/errors.ts';
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

function readTls(what: string, file: string): Buffer {
  try {
    return readFileSync(file);
  } catch (error) {
    throw new FailureError(code.config, `${what} ${file} cannot be read (${systemCode(error) ?? 'failed'})`);
  }
}
