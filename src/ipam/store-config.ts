// Where the addresses are kept: etcd when `etcdConfig` is given, else the embedded store.
import { deadlineRule, parseDeadline } from '../base/duration.ts';
import type { Problems, Section } from '../base/section.ts';
import type { EtcdTarget, StoreTarget } from '../store/target.ts';

/** Problems with what only tunes the work are noted in `tuningProblems`. */
export function readStoreTarget(ipam: Section, dataDir: string, tuningProblems: Problems): StoreTarget {
  const etcd = ipam.section('etcdConfig');
  if (etcd !== undefined) return readEtcdTarget(etcd, dataDir, etcd.reporting(tuningProblems));
  // An etcdConfig that cannot be read must never turn into a store of this node alone.
  return ipam.has('etcdConfig') ? etcdWithout(dataDir) : { kind: 'embedded', dataDir };
}

function etcdWithout(dataDir: string): EtcdTarget {
  return { kind: 'etcd', endpoints: [], dialTimeout: 1000, requestTimeout: 3000, dataDir };
}

function readEtcdTarget(etcd: Section, dataDir: string, tuning: Section): EtcdTarget {
  const file = (key: string) => etcd.parsed(key, asPath, 'must be an absolute path') || undefined;
  const certFile = file('etcdCertFile');
  const keyFile = file('etcdKeyFile');
  if ((certFile === undefined) !== (keyFile === undefined)) {
    etcd.wrong(certFile === undefined ? 'etcdKeyFile' : 'etcdCertFile', 'needs both etcdCertFile and etcdKeyFile');
  }
  // The odd spelling is the wire name of the first releases; the straight one is accepted too.
  const caFile = file('etcdTrustedCAFileFile') ?? file('etcdTrustedCAFile');
  const username = etcd.filledText('etcdUsername');
  const passwordFile = file('etcdPasswordFile');
  if ((username === undefined) !== (passwordFile === undefined)) {
    etcd.wrong(
      username === undefined ? 'etcdPasswordFile' : 'etcdUsername',
      'needs both etcdUsername and etcdPasswordFile',
    );
  }
  const duration = (key: string) => tuning.parsed(key, parseDeadline, deadlineRule);
  return {
    ...etcdWithout(dataDir),
    endpoints: readEndpoints(etcd),
    dialTimeout: duration('dialTimeout') ?? 1000,
    requestTimeout: duration('requestTimeout') ?? 3000,
    ...(certFile && keyFile && { certFile, keyFile }),
    ...(caFile && { caFile }),
    ...(username && passwordFile && { username, passwordFile }),
  };
}

function asPath(value: unknown): string | undefined {
  return typeof value === 'string' && (value === '' || value.startsWith('/')) ? value : undefined;
}

function readEndpoints(etcd: Section): string[] {
  const text = etcd.filledText('etcdURL');
  if (text === undefined) {
    if (!etcd.has('etcdURL') || etcd.get('etcdURL') === '')
      etcd.wrong('etcdURL', 'is missing: give at least one endpoint');
    return [];
  }
  const endpoints = text
    .split(',')
    .map(part => part.trim())
    .filter(part => part !== '');
  const good = endpoints.flatMap(endpoint => asEndpoint(endpoint) ?? []);
  if (good.length < endpoints.length || good.length === 0) {
    etcd.wrong(
      'etcdURL',
      'must be a comma list of endpoints like "https://10.0.0.1:2379", without user, path or query',
    );
  }
  return [...new Set(good)];
}

/** `http(s)://host:port`; a bare `host:port` means http, as in etcdctl. */
function asEndpoint(text: string): string | undefined {
  const url = URL.parse(/^[a-z]+:\/\//i.test(text) ? text : `http://${text}`);
  if (url === null || !['http:', 'https:'].includes(url.protocol) || url.hostname === '') return undefined;
  if (url.username || url.password || url.search || url.hash || url.pathname !== '/') return undefined;
  // A URL object hides the default port of its scheme, which is not etcd's.
  const port = /:(\d+)\/?$/.exec(text)?.[1] ?? '2379';
  return `${url.protocol}//${url.hostname}:${port}`;
}
