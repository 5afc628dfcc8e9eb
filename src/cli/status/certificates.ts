// Tells when certificates end: those of the files that a configuration names, and those that etcd's endpoints show.
import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { connect, type TLSSocket } from 'node:tls';
import type { Deadline } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import type { EtcdTarget } from '../../store/target.ts';
import { counted } from '../output.ts';
import { type Diagnosis, diagnosis } from './diagnosis.ts';

const day = 86_400_000;
/** Days before its end from which on a certificate is warned of. */
const soon = 30;

export async function examineCertificates(target: EtcdTarget, now: number, deadline: Deadline): Promise<Diagnosis[]> {
  const files = [
    [target.certFile, 'client certificate'],
    [target.caFile, 'authority of etcd'],
  ] as const;
  const ofFiles = files.flatMap(([file, what]) => (file === undefined ? [] : examineFile(file, what, now)));
  const secure = target.endpoints.filter(endpoint => endpoint.startsWith('https:'));
  const ofServers = await Promise.all(secure.map(endpoint => examineServer(endpoint, target, now, deadline)));
  return [...ofFiles, ...ofServers.flat()];
}

function examineFile(file: string, what: string, now: number): Diagnosis[] {
  let pem: string;
  try {
    pem = readFileSync(file, 'utf8');
  } catch (error) {
    return [diagnosis('certificate', file, 'wrong', `cannot be read: ${messageOf(error)}`)];
  }
  const parts = pem.match(/-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/g) ?? [];
  if (parts.length === 0) return [diagnosis('certificate', file, 'wrong', 'holds no certificate in PEM form')];
  return parts.map(part => {
    try {
      return judge(file, what, new X509Certificate(part), now);
    } catch (error) {
      return diagnosis('certificate', file, 'wrong', `holds a certificate that cannot be read: ${messageOf(error)}`);
    }
  });
}

function judge(subject: string, what: string, certificate: X509Certificate, now: number): Diagnosis {
  const { validFromDate, validToDate } = certificate;
  const until = validToDate.toISOString().slice(0, 10);
  const days = Math.floor((validToDate.getTime() - now) / day);
  const figures = { until: validToDate.toISOString(), days };
  const advice = 'renew it; kube-ipam reads the new file by itself';
  if (validToDate.getTime() <= now)
    return diagnosis('certificate', subject, 'wrong', `${what} ended on ${until}`, { advice, figures });
  if (validFromDate.getTime() > now) {
    const text = `${what} is not valid before ${validFromDate.toISOString()}`;
    return diagnosis('certificate', subject, 'wrong', text, { advice: 'check the clock of this machine', figures });
  }
  const text = `${what} is valid until ${until}, ${counted(days, 'day')}`;
  return days < soon
    ? diagnosis('certificate', subject, 'warning', text, { advice, figures })
    : diagnosis('certificate', subject, 'fine', text, { figures });
}

/** Only shakes hands: the certificate is looked at whether or not it can be trusted, and nothing is sent. */
async function examineServer(
  endpoint: string,
  target: EtcdTarget,
  now: number,
  deadline: Deadline,
): Promise<Diagnosis[]> {
  const url = new URL(endpoint);
  const host = url.hostname.replace(/^\[|\]$/g, '');
  const read = (file: string | undefined) => (file === undefined ? undefined : readFileSync(file));
  let socket: TLSSocket | undefined;
  try {
    const [cert, key] = [read(target.certFile), read(target.keyFile)];
    socket = connect({
      host,
      port: Number(url.port || 443),
      rejectUnauthorized: false,
      ...(isIP(host) === 0 && { servername: host }),
      ...(cert && key && { cert, key }),
    });
    const certificate = await shown(socket, deadline.within(target.dialTimeout));
    return certificate === undefined ? [] : [judge(endpoint, 'server certificate', certificate, now)];
  } catch {
    // The store's own examination says why the endpoint, or a file, cannot be used.
    return [];
  } finally {
    socket?.destroy();
  }
}

function shown(socket: TLSSocket, deadline: Deadline): Promise<X509Certificate | undefined> {
  return new Promise(resolve => {
    const timer = setTimeout(() => resolve(undefined), deadline.left());
    const done = (certificate: X509Certificate | undefined) => {
      clearTimeout(timer);
      resolve(certificate);
    };
    socket.once('secureConnect', () => done(socket.getPeerX509Certificate()));
    socket.once('error', () => done(undefined));
  });
}
