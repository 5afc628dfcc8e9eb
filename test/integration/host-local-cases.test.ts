// What host-local's users rely on: its recorded cases, replayed on both stores.
//
// One case a line: `config` (type host-local stands for kube-ipam), `args` (CNI_ARGS), `prior` (addresses already held, a
// number of ADDs, or a list of operations), `last` (the cursor of a set), `resolv` (content of the file that "@resolv"
// stands for), `expect` (ips, gateway, routes, dns; or `error`: any error object will do). Two differences are wanted: the
// same ADD twice gives the same addresses, and a failed ADD leaves nothing, the cursor included.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readNetworkConfig } from '../../src/ipam/config.ts';
import { endsOf } from '../../src/ipam/records.ts';
import { type Answer, call, Ground, type Json, type Site, storeKinds } from '../helpers/plugin.ts';

interface Operation {
  readonly op: 'ADD' | 'DEL';
  readonly id: string;
  readonly ifname: string;
  readonly args?: string;
  readonly expectFail?: boolean;
}

interface Case {
  readonly id: string;
  readonly config: Json & { readonly ipam: Json };
  readonly args: string;
  readonly prior: readonly string[] | number | readonly Operation[];
  readonly last?: Readonly<Record<string, string>>;
  readonly resolv?: string;
  readonly containerID?: string;
  readonly ifname?: string;
  readonly expect: {
    readonly ips?: readonly string[];
    readonly gateway?: readonly string[];
    readonly routes?: readonly Json[];
    readonly dns?: Json;
    readonly error?: string;
  };
}

const fixture = join(import.meta.dirname, '../fixtures/host-local.jsonl');
const cases: readonly Case[] = readFileSync(fixture, 'utf8')
  .trim()
  .split('\n')
  .map(line => JSON.parse(line));

/** Where kube-ipam differs on purpose: what it answers instead. */
const wanted: Readonly<Record<string, Case['expect']>> = {
  'hl-repeat-add': { ips: ['10.1.2.2/24'], gateway: ['10.1.2.1'] },
  'hl-custom-unused-rollback': { ips: ['10.1.2.2/24', '10.1.3.2/24'], gateway: ['10.1.2.1', '10.1.3.1'] },
};

/** The case's configuration, leading to the site. */
function confFor(site: Site, one: Case): Json {
  const ipam: Json = { ...one.config.ipam, type: 'kube-ipam', ...site.access };
  if (one.resolv !== undefined) {
    ipam.resolvConf = join(site.folder, '..', `resolv-${one.id}`);
    writeFileSync(String(ipam.resolvConf), one.resolv);
  }
  return { ...one.config, ipam };
}

async function prepare(one: Case, conf: Json): Promise<void> {
  const { prior } = one;
  if (typeof prior === 'number') {
    for (let n = 0; n < prior; n++)
      expect(await call('ADD', { conf, containerID: `prior-${n}` })).toMatchObject({ exitCode: 0 });
    return;
  }
  for (const [n, item] of prior.entries()) {
    if (typeof item === 'string') {
      const added = await call('ADD', { conf, containerID: `prior-${n}`, args: `IP=${item}` });
      expect(added.addresses).toContain(item);
    } else {
      const done = await call(item.op, { conf, containerID: item.id, ifname: item.ifname, args: item.args ?? '' });
      expect(done.exitCode === 0).toBe(item.expectFail !== true);
    }
  }
}

/** Puts the cursors where the case wants them; ADDs with addresses have moved them. */
async function setCursors(site: Site, one: Case, conf: Json): Promise<void> {
  const moved = typeof one.prior !== 'number' && one.prior.length > 0 && typeof one.prior[0] === 'string';
  if (!moved && one.last === undefined) return;
  const { sets } = readNetworkConfig(conf, String(conf.cniVersion));
  for (const [n, set] of sets.entries()) {
    const { first, last } = endsOf(set);
    const key = site.keys.cursor(String(conf.name), first, last);
    const at = one.last?.[String(n)];
    if (at === undefined) await site.remove(key);
    else await site.put(key, at);
  }
}

function compare(answer: Answer, wish: Case['expect']): void {
  if (wish.error !== undefined) {
    expect(answer.error, answer.stdout).toMatchObject({ code: expect.any(Number), msg: expect.stringMatching(/./) });
    return;
  }
  const { ips, ip4, ip6, routes, dns } = (answer.result ?? {}) as {
    ips?: { address: string; gateway: string }[];
    ip4?: { ip: string; gateway: string; routes?: Json[] };
    ip6?: { ip: string; gateway: string; routes?: Json[] };
    routes?: Json[];
    dns?: Json;
  };
  const old = [ip4, ip6].flatMap(part => part ?? []);
  const shown = ips ?? old.map(({ ip, gateway }) => ({ address: ip, gateway }));
  expect(
    shown.map(({ address }) => address),
    answer.stdout,
  ).toEqual(wish.ips);
  if (wish.gateway !== undefined) expect(shown.map(({ gateway }) => gateway)).toEqual(wish.gateway);
  if (wish.dns !== undefined) expect(dns).toEqual(wish.dns);
  if (wish.routes === undefined) return;
  const byDst = (list: readonly Json[]) => [...list].sort((a, b) => String(a.dst).localeCompare(String(b.dst)));
  if (old.length === 0) expect(routes).toEqual(wish.routes);
  else expect(byDst(old.flatMap(part => part.routes ?? []))).toEqual(byDst(wish.routes));
}

describe.each(storeKinds)('%s', kind => {
  let ground: Ground;
  beforeAll(async () => {
    ground = await Ground.make(kind);
  });
  afterAll(() => ground?.[Symbol.asyncDispose]());

  it('all cases are here', () => expect(cases).toHaveLength(62));

  it.each(cases.map(one => [one.id, one] as const))('%s', async (id, one) => {
    const site = await ground.site();
    const conf = confFor(site, one);
    await prepare(one, conf);
    await setCursors(site, one, conf);
    const before = await site.entries();
    const { containerID = 'the-pod', ifname = 'eth0', args } = one;
    const answer = await call('ADD', { conf, containerID, ifname, args });
    compare(answer, wanted[id] ?? one.expect);
    // 5.13, 11.3: a failed ADD leaves nothing and touches nobody.
    if (answer.error !== undefined) expect(await site.entries()).toEqual(before);
  });
});
