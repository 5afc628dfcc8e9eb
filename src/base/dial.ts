// Opens a connection, plain or with TLS, within a time, and has words for people about one that could not be had.
import { connect, isIP, type Socket } from 'node:net';
import { systemCode } from './errors.ts';
import { HttpConnection } from './http1.ts';

const systemReasons: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'connection refused',
  ECONNRESET: 'connection closed',
  EPIPE: 'connection closed',
  ERR_STREAM_PREMATURE_CLOSE: 'connection closed',
  ENOTFOUND: 'host name not found',
  EAI_AGAIN: 'host name could not be looked up',
  EHOSTUNREACH: 'no route to host',
  ENETUNREACH: 'network unreachable',
  ETIMEDOUT: 'connection timed out',
  EPROTO: 'no TLS on that port',
  ERR_SSL_WRONG_VERSION_NUMBER: 'no TLS on that port',
  ERR_SSL_PACKET_LENGTH_TOO_LONG: 'no TLS on that port',
  SELF_SIGNED_CERT_IN_CHAIN: 'certificate not signed by the trusted CA',
  DEPTH_ZERO_SELF_SIGNED_CERT: 'certificate not signed by the trusted CA',
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: 'certificate not signed by the trusted CA',
  UNABLE_TO_GET_ISSUER_CERT: 'certificate not signed by the trusted CA',
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: 'certificate not signed by the trusted CA',
  CERT_SIGNATURE_FAILURE: 'certificate not signed by the trusted CA',
  CERT_HAS_EXPIRED: 'certificate has expired (or the clock here is wrong)',
  CERT_NOT_YET_VALID: 'certificate is not valid yet (or the clock here is wrong)',
  ERR_TLS_CERT_ALTNAME_INVALID: 'certificate does not name this host or address',
  ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED: 'it asks for a client certificate',
  ERR_SSL_SSLV3_ALERT_BAD_CERTIFICATE: 'it refuses our client certificate, or asks for one',
  'ERR_SSL_SSL/TLS_ALERT_BAD_CERTIFICATE': 'it refuses our client certificate, or asks for one',
  ERR_SSL_TLSV1_ALERT_UNKNOWN_CA: 'it does not know the CA of our client certificate',
};

/** A word for people about a failed connection; the system's code where no better word is known. */
export function connectionReason(systemCode: string | undefined): string {
  if (systemCode === undefined) return 'connection failed';
  if (systemCode.startsWith('HPE_')) return 'an answer that is not HTTP';
  return systemReasons[systemCode] ?? `connection failed (${systemCode})`;
}

/** With TLS 1.3 a refused client certificate shows only after the request was written; the server has read none of it. */
export function isTlsAlert(systemCode: string | undefined): boolean {
  return systemCode?.startsWith('ERR_SSL_') === true && systemCode.includes('_ALERT_');
}

export interface TlsSettings {
  readonly ca?: Buffer | undefined;
  readonly cert?: Buffer | undefined;
  readonly key?: Buffer | undefined;
  /** The name (no address) that the server's certificate must carry, where it is not the host's. */
  readonly serverName?: string | undefined;
  /** Takes any certificate for the server's. */
  readonly insecure?: boolean;
}

/**
 * A connection or, as text, why there is none within `ms` milliseconds; plain without settings for TLS. Throws what TLS
 * itself says of certificates that cannot be used.
 */
export async function dial(
  host: string,
  port: number,
  settings: TlsSettings | undefined,
  ms: number,
): Promise<HttpConnection | string> {
  const socket = settings === undefined ? connect(port, host) : await secureSocket(host, port, settings);
  return standing(socket, settings === undefined ? 'connect' : 'secureConnect', ms);
}

/** node:tls and what it brings cost 5 to 10 ms to load, so they are loaded only for endpoints that need them. */
async function secureSocket(host: string, port: number, settings: TlsSettings): Promise<Socket> {
  const tls = await import('node:tls');
  return tls.connect({ host, port, ...tlsOptions(host, settings) });
}

/** What node:tls and node:https are to be told. */
export function tlsOptions(host: string, { ca, cert, key, serverName, insecure }: TlsSettings) {
  // A name is sent along for the server to choose its certificate by; TLS has no such field for an address.
  const servername = serverName ?? (isIP(host) ? '' : host);
  return { ca, cert, key, minVersion: 'TLSv1.2' as const, rejectUnauthorized: insecure !== true, servername };
}

/** Waits until the connection stands, TLS included. */
function standing(socket: Socket, event: 'connect' | 'secureConnect', ms: number): Promise<HttpConnection | string> {
  return new Promise(resolve => {
    const timer = setTimeout(() => fail('no connection in time'), ms);
    const onError = (error: Error) => fail(connectionReason(systemCode(error)));
    const fail = (reason: string) => {
      clearTimeout(timer);
      socket.off('error', onError).on('error', () => {});
      socket.destroy();
      resolve(reason);
    };
    socket.on('error', onError);
    socket.once(event, () => {
      clearTimeout(timer);
      const connection = new HttpConnection(socket);
      socket.off('error', onError);
      resolve(connection);
    });
  });
}
