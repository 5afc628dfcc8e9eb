// The two stores as a node of a test has them: what to write into the network configuration, and which keys are there.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { deadlineIn } from '../../src/base/clock.ts';
import type { EtcdConf } from '../../src/cli/conf-templates.ts';
import { openEmbedded } from '../../src/store/embedded/embedded.ts';
import type { Daemon, Machine } from './machine.ts';

export const storeKinds = ['embedded', 'etcd'] as const;
export type StoreKind = (typeof storeKinds)[number];

export interface NodeStore extends AsyncDisposable {
  readonly kind: StoreKind;
  /** For `confFor`; absent: the embedded store in its default folder. */
  readonly etcd?: EtcdConf;
  /** All keys of kube-ipam. */
  keys(): Promise<readonly string[]>;
}

/** The store of a machine: the embedded one in its own /var/lib, or a real etcd that is started there. */
export function startStore(machine: Machine, kind: StoreKind): Promise<NodeStore> {
  return kind === 'etcd' ? startEtcd(machine) : Promise.resolve(embeddedIn(machine));
}

function embeddedIn(machine: Machine): NodeStore {
  const dataDir = join(machine.folder, 'lib/cni/kube-ipam');
  return {
    kind: 'embedded',
    async keys() {
      if (!existsSync(join(dataDir, 'store.db'))) return [];
      await using store = await openEmbedded(dataDir);
      const keys: string[] = [];
      for await (const page of store.scan('/kube-ipam/', '/kube-ipam0', deadlineIn(5_000))) {
        keys.push(...page.entries.map(entry => entry.key));
      }
      return keys;
    },
    async [Symbol.asyncDispose]() {},
  };
}

/** One etcd member in the machine, on its loopback and on `address` when other machines shall reach it. */
export async function startEtcd(machine: Machine, address?: string): Promise<NodeStore> {
  const local = 'http://127.0.0.1:2379';
  const urls = address === undefined ? [local] : [local, `http://${address}:2379`];
  const member = await machine.spawn([
    'etcd',
    ...['--name', 'm1', '--data-dir', join(machine.folder, 'etcd')],
    ...['--listen-client-urls', urls.join(','), '--advertise-client-urls', urls.join(',')],
    ...['--listen-peer-urls', 'http://127.0.0.1:2380', '--initial-advertise-peer-urls', 'http://127.0.0.1:2380'],
    ...['--initial-cluster', 'm1=http://127.0.0.1:2380', '--logger', 'zap', '--log-level', 'error'],
  ]);
  await untilHealthy(machine, member);
  return {
    kind: 'etcd',
    etcd: { urls: urls.at(-1)! },
    async keys() {
      const text = await etcdctl(machine, ['get', '--prefix', '/kube-ipam/', '--keys-only']);
      return text.split('\n').filter(Boolean);
    },
    [Symbol.asyncDispose]: () => member.end('SIGTERM'),
  };
}

/** etcd's own client, in the machine. */
export function etcdctl(machine: Machine, argv: readonly string[]): Promise<string> {
  return machine.must(['etcdctl', '--endpoints', 'http://127.0.0.1:2379', ...argv], {
    env: { ...machine.environment(), ETCDCTL_API: '3' },
  });
}

async function untilHealthy(machine: Machine, member: Daemon): Promise<void> {
  let last: unknown;
  for (const started = performance.now(); performance.now() - started < 20_000; await sleep(100)) {
    try {
      await etcdctl(machine, ['endpoint', 'health', '--command-timeout', '1s']);
      return;
    } catch (error) {
      last = error;
    }
  }
  throw new Error(`etcd did not become healthy: ${member.log()}`, { cause: last });
}

/** The keys that may stay when every pod is gone: where the next lap goes on, what people and tools read. */
export function isLasting(key: string): boolean {
  return /^\/kube-ipam\/v1\/([^/]+\/(cursors|networks)\/|format$)/.test(key);
}
