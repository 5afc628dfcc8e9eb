// Brings an etcd with a small quota to the point where it refuses every put, and back.
import { expect } from 'vitest';
import type { EtcdCluster } from './etcd.ts';
import type { Site } from './plugin.ts';

/** Few megabytes: the smallest that etcd can start with. */
export const smallQuota = ['--quota-backend-bytes', String(4 * 2 ** 20)];

const filler = (site: Site, n: number) => `${site.keys.prefix}filler/${n}`;

/** Until it is out of space. */
export async function fillUp(site: Site): Promise<void> {
  for (let n = 0; n < 200; n++) {
    try {
      await site.put(filler(site, n), 'x'.repeat(500_000));
    } catch (error) {
      expect(error).toMatchObject({ code: 104 });
      return;
    }
  }
  throw new Error('etcd did not fill up');
}

/** As an administrator would: what is not needed goes, and the alarm with it. */
export async function freeUp(site: Site, cluster: EtcdCluster): Promise<void> {
  await site.remove(...Array.from({ length: 60 }, (_, n) => filler(site, n)));
  const status = JSON.parse(await cluster.ctl('endpoint', 'status', '-w', 'json'));
  await cluster.ctl('compact', String(status[0].Status.header.revision));
  await cluster.ctl('defrag');
  await cluster.ctl('alarm', 'disarm');
}
