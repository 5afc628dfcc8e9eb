// How an API server is reached and what proves who we are: read from a kubeconfig, or from what every pod is given.
import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { dirname, join, resolve } from 'node:path';
import type { TlsSettings } from '../base/dial.ts';
import { code, FailureError, messageOf, systemCode } from '../base/errors.ts';
import { isObject, Problems, Section } from '../base/section.ts';
import { type StampedFile, stampOf } from '../base/stamp.ts';

/** Holds secrets: never for a log or a message, save `source` and `server`. */
export interface ApiTarget {
  /** What it was read from, in words for messages. */
  readonly source: string;
  /** `https://host:port`, or `http://host:port` where that was asked for by name. */
  readonly server: string;
  readonly host: string;
  readonly port: number;
  /** What stands before each path, where a server lies behind a common entrance; "" otherwise. */
  readonly basePath: string;
  readonly tls: TlsSettings;
  /** The bearer token. */
  readonly token?: string | undefined;
  /** The namespace for commands that name none. */
  readonly namespace: string;
  /** Every file it was read from: when one changes, it has to be read again. */
  readonly files: readonly StampedFile[];
}

/** The kubeconfig is no JSON, and what reads YAML is in another part of the program: run there again. */
export class NeedsAssetError extends Error {
  override name = 'NeedsAssetError';
}

export type ParseYaml = (text: string) => unknown;

export interface KubeconfigOptions {
  /** Without it, NeedsAssetError for a file that is no JSON. */
  readonly parseYaml?: ParseYaml | undefined;
  /** Instead of the file's current-context. */
  readonly context?: string | undefined;
}

/**
 * Throws code 7 that names file, key and rule, every problem at once and never the value of a secret; code 11 while there
 * is no such file, which whoever keeps it may have yet to write.
 */
export function readKubeconfig(path: string, options: KubeconfigOptions = {}): ApiTarget {
  const source = `kubeconfig ${path}`;
  const own = { path, stamp: stampOf(path) };
  const content = parse(source, text(source, path), options.parseYaml);
  const problems = new Problems();
  const files = new Files(dirname(path), problems);
  const target = readContext(new Section(content, '', problems), files, options.context);
  if (target === undefined || problems.lines.length > 0) throw unusable(source, problems.lines.join('; '));
  return { source, ...target, files: [own, ...files.read] };
}

const accountFolder = '/var/run/secrets/kubernetes.io/serviceaccount';

/** For a process inside a pod, by the pod's environment and the files of its service account. Throws code 7. */
export function inClusterTarget(
  env: Readonly<Record<string, string | undefined>>,
  folder: string = accountFolder,
): ApiTarget {
  const source = 'in-cluster configuration';
  const { KUBERNETES_SERVICE_HOST: host, KUBERNETES_SERVICE_PORT: port } = env;
  if (!host || !port) {
    throw unusable(
      source,
      'KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set: this is no pod; name a kubeconfig instead',
    );
  }
  const problems = new Problems();
  const files = new Files(folder, problems);
  const url = serverUrl(`https://${host.includes(':') ? `[${host}]` : host}:${port}`);
  if (url === undefined) problems.add('KUBERNETES_SERVICE_HOST', `${host}:${port}`, 'must be a host, and a port');
  const ca = files.content('ca.crt', 'ca.crt');
  const token = bearer(files.content('token', 'token'), 'token', problems);
  if (url === undefined || problems.lines.length > 0) throw unusable(source, problems.lines.join('; '));
  const namespace = namespaceIn(folder);
  return { source, ...url, tls: { ca }, token, namespace, files: files.read };
}

/**
 * An API server by its URL alone, without credentials: what `kubectl proxy` offers, or one that was started with plain
 * HTTP. Throws code 7.
 */
export function endpointTarget(endpoint: string): ApiTarget {
  const url = serverUrl(endpoint, ['http:', 'https:']);
  const source = 'API endpoint';
  if (url === undefined)
    throw unusable(source, 'its URL must be http://HOST:PORT or https://HOST:PORT, without user and password');
  return { source, ...url, tls: {}, namespace: 'default', files: [] };
}

function namespaceIn(folder: string): string {
  try {
    return readFileSync(join(folder, 'namespace'), 'utf8').trim() || 'default';
  } catch {
    return 'default';
  }
}

function unusable(source: string, problem: string, failureCode: number = code.config): FailureError {
  return new FailureError(failureCode, `${source} cannot be used: ${problem}`);
}

function text(source: string, path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw unusable(source, messageOf(error));
    const rule = 'there is no such file; where an agent keeps it, look whether that runs, and at its /readyz';
    throw unusable(source, rule, code.tryAgain);
  }
}

/** Parsers quote the text at fault, which may be a secret: of their complaints only the place is told. */
function parse(source: string, content: string, parseYaml: ParseYaml | undefined): Readonly<Record<string, unknown>> {
  let value: unknown;
  try {
    value = JSON.parse(content);
  } catch {
    if (parseYaml === undefined) throw new NeedsAssetError(`${source} is no JSON`);
    value = parsedYaml(source, content, parseYaml);
  }
  if (isObject(value)) return value;
  throw unusable(source, 'it is no kubeconfig: an object with clusters, users and contexts is expected');
}

function parsedYaml(source: string, content: string, parseYaml: ParseYaml): unknown {
  try {
    return parseYaml(content);
  } catch (error) {
    const line = (error as { linePos?: readonly { line: number }[] }).linePos?.[0]?.line;
    throw unusable(source, `neither JSON nor YAML${line === undefined ? '' : ` (line ${line})`}`);
  }
}

/** The files that a configuration names, relative to its own folder. */
class Files {
  readonly read: StampedFile[] = [];
  readonly #folder: string;
  readonly #problems: Problems;

  constructor(folder: string, problems: Problems) {
    this.#folder = folder;
    this.#problems = problems;
  }

  /** Undefined, and a problem under that key, when it cannot be read. */
  content(file: string, key: string): Buffer | undefined {
    const path = resolve(this.#folder, file);
    this.read.push({ path, stamp: stampOf(path) });
    try {
      return readFileSync(path);
    } catch (error) {
      this.#problems.add(key, undefined, `${path} cannot be read (${systemCode(error) ?? 'failed'})`);
      return undefined;
    }
  }
}

type Context = Omit<ApiTarget, 'source' | 'files'>;

function readContext(root: Section, files: Files, wanted: string | undefined): Context | undefined {
  const name = wanted ?? root.filledText('current-context');
  if (name === undefined) {
    root.problems.add('current-context', undefined, 'is missing: name the context to be used');
    return undefined;
  }
  const context = named(root, 'contexts', name, 'context');
  const clusterName = context?.filledText('cluster');
  const userName = context?.filledText('user');
  if (context === undefined) return undefined;
  const cluster =
    clusterName === undefined
      ? context.wrong('cluster', 'is missing')
      : named(root, 'clusters', clusterName, 'cluster');
  const user = userName === undefined ? context.wrong('user', 'is missing') : named(root, 'users', userName, 'user');
  if (cluster === undefined || user === undefined) return undefined;
  const server = readServer(cluster);
  const trust = readTrust(cluster, files);
  const { cert, key, token } = readUser(user, files);
  if (server === undefined) return undefined;
  return { ...server, tls: { ...trust, cert, key }, token, namespace: context.filledText('namespace') ?? 'default' };
}

/** kubeconfig keeps its objects in lists of `{name, <kind>: {...}}`. */
function named(root: Section, list: string, name: string, kind: string): Section | undefined {
  const entry = root.sectionList(list).find(section => section.text('name') === name);
  if (entry === undefined) root.problems.add(list, undefined, `none has the name ${JSON.stringify(name)}`);
  else if (!entry.has(kind)) entry.wrong(kind, 'is missing');
  return entry?.section(kind);
}

type Server = Pick<ApiTarget, 'server' | 'host' | 'port' | 'basePath'>;

function readServer(cluster: Section): Server | undefined {
  if (cluster.has('proxy-url'))
    cluster.wrong('proxy-url', 'proxies are not supported: the server must be reached directly');
  const value = cluster.filledText('server');
  const rule = 'must be https://HOST:PORT, without user and password: an API server is asked over TLS only';
  return (value && serverUrl(value)) || cluster.wrong('server', rule);
}

function serverUrl(value: string, protocols: readonly string[] = ['https:']): Server | undefined {
  const url = URL.parse(value);
  if (url === null || !protocols.includes(url.protocol) || url.username !== '' || url.password !== '') return undefined;
  const { origin, protocol, hostname, pathname } = url;
  const host = hostname.replace(/^\[|\]$/g, '');
  const port = Number(url.port) || (protocol === 'https:' ? 443 : 80);
  return { server: origin, host, port, basePath: pathname.replace(/\/+$/, '') };
}

function readTrust(cluster: Section, files: Files): TlsSettings {
  const ca = pem(cluster, 'certificate-authority', files);
  const insecure = cluster.get('insecure-skip-tls-verify');
  if (insecure !== undefined && typeof insecure !== 'boolean') {
    cluster.wrong('insecure-skip-tls-verify', 'must be true or false');
  }
  if (insecure === true && ca !== undefined) {
    cluster.wrong('insecure-skip-tls-verify', 'contradicts certificate-authority: remove one of them');
  }
  const serverName = cluster.filledText('tls-server-name');
  if (serverName !== undefined && isIP(serverName)) cluster.wrong('tls-server-name', 'must be a name, not an address');
  return { ca, serverName, insecure: insecure === true };
}

/** What would have to be asked of another program, or would change who we are, and why it is not honoured. */
const refusedOfUsers: Readonly<Record<string, string>> = {
  exec: 'a program that fetches credentials would be run by root for every pod: use a token, tokenFile or a client certificate',
  'auth-provider': 'is not supported: use a token, tokenFile or a client certificate',
  username: 'API servers take no passwords any more: use a token, tokenFile or a client certificate',
  password: 'API servers take no passwords any more: use a token, tokenFile or a client certificate',
  as: 'impersonation is not supported: use the credentials of that user',
  'as-uid': 'impersonation is not supported: use the credentials of that user',
  'as-groups': 'impersonation is not supported: use the credentials of that user',
  'as-user-extra': 'impersonation is not supported: use the credentials of that user',
};

function readUser(user: Section, files: Files): Pick<TlsSettings, 'cert' | 'key'> & { token: string | undefined } {
  for (const [key, rule] of Object.entries(refusedOfUsers)) if (user.has(key)) secretly(user, key, rule);
  const cert = pem(user, 'client-certificate', files);
  const key = pem(user, 'client-key', files);
  if (cert !== undefined && key === undefined) secretly(user, 'client-key', 'is missing beside client-certificate');
  if (key !== undefined && cert === undefined) secretly(user, 'client-certificate', 'is missing beside client-key');
  const tokenFile = user.filledText('tokenFile');
  const token = tokenFile === undefined ? user.filledText('token') : files.content(tokenFile, user.pathOf('tokenFile'));
  return {
    cert,
    key,
    token: bearer(token, user.pathOf(tokenFile === undefined ? 'token' : 'tokenFile'), user.problems),
  };
}

/** Notes a problem without the value. */
function secretly(section: Section, key: string, rule: string): undefined {
  section.problems.add(section.pathOf(key), undefined, rule);
  return undefined;
}

/** PEM from `<key>-data` in base64, which wins as in kubectl, or else from the file that `<key>` names. */
function pem(section: Section, key: string, files: Files): Buffer | undefined {
  const data = section.get(`${key}-data`);
  if (data !== undefined && data !== '') return asPem(section, `${key}-data`, decoded(data), 'must be PEM in base64');
  const file = section.filledText(key);
  if (file === undefined) return undefined;
  return asPem(section, key, files.content(file, section.pathOf(key)), `${file} holds no PEM`);
}

function decoded(data: unknown): Buffer {
  const base64 = typeof data === 'string' ? data.replace(/\s+/g, '') : '';
  return Buffer.from(/^[A-Za-z0-9+/]+={0,2}$/.test(base64) ? base64 : '', 'base64');
}

function asPem(section: Section, key: string, found: Buffer | undefined, rule: string): Buffer | undefined {
  if (found !== undefined && !found.includes('-----BEGIN ')) secretly(section, key, rule);
  return found;
}

/** What can stand in a header, and nothing that would end it. */
function bearer(token: Buffer | string | undefined, key: string, problems: Problems): string | undefined {
  if (token === undefined) return undefined;
  const trimmed = token.toString().trim();
  if (/^[\x21-\x7e]+$/.test(trimmed)) return trimmed;
  problems.add(key, undefined, trimmed === '' ? 'the token is empty' : 'is no token: one word is expected');
  return undefined;
}
