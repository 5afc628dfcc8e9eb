// What the records of a store say together: who holds which address, after a check that they all agree (I1, I2).
import { expect } from 'vitest';
import { type OwnerRecord, parseAttachment, parseOwner } from '../../src/ipam/model.ts';
import { formatIp } from '../../src/net/ip.ts';
import { parseKey } from '../../src/store/keys.ts';
import type { Site } from './plugin.ts';

export interface Holdings {
  /** Owner records by their address. */
  readonly owners: ReadonlyMap<string, OwnerRecord>;
  /** Addresses of each attachment, by `containerID/ifname`. */
  readonly attachments: ReadonlyMap<string, readonly string[]>;
  /** Addresses of each workload, by `namespace/kind/name/ifname`. */
  readonly workloads: ReadonlyMap<string, readonly string[]>;
}

/** Throws unless each holder has its attachment, each attachment its records, and each workload its addresses. */
export async function holdings(site: Pick<Site, 'entries'>): Promise<Holdings> {
  const owners = new Map<string, OwnerRecord>();
  const attachments = new Map<string, readonly string[]>();
  const workloads = new Map<string, readonly string[]>();
  for (const { key, value } of await site.entries()) {
    const parsed = parseKey(key);
    if (parsed?.type === 'address') owners.set(formatIp(parsed.ip), parseOwner(value));
    const addresses = parseAttachment(value).map(formatIp);
    if (parsed?.type === 'attachment') attachments.set(`${parsed.id.containerID}/${parsed.id.ifname}`, addresses);
    if (parsed?.type === 'workload') {
      const { namespace, kind, name } = parsed.workload;
      workloads.set(`${namespace}/${kind}/${name}/${parsed.ifname}`, addresses);
    }
  }
  const named = [...owners].flatMap(([ip, { holders }]) =>
    holders.map(({ containerID, ifname }) => `${ip} ${containerID}/${ifname}`),
  );
  const listed = [...attachments].flatMap(([id, ips]) => ips.map(ip => `${ip} ${id}`));
  expect(listed.sort(), 'records and attachments agree').toEqual(named.sort());
  const kept = [...owners].flatMap(([ip, { workload, raw }]) =>
    workload ? [`${ip} ${workload.namespace}/${workload.kind}/${workload.name}/${raw.ifname}`] : [],
  );
  const keeping = [...workloads].flatMap(([id, ips]) => ips.map(ip => `${ip} ${id}`));
  expect(keeping.sort(), 'records and workloads agree').toEqual(kept.sort());
  return { owners, attachments, workloads };
}
