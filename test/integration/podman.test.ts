// podman as a client: containers get, keep and give back their addresses, and a person sees our message when none is left.
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { type ConfList, confFor, type RangeConf } from '../../src/cli/conf-templates.ts';
import { type Finished, Machine, whyNoMachine } from '../helpers/machine.ts';
import { pluginFolder, stockPlugins, type Traces, traces } from '../helpers/netns.ts';
import { isLasting, type NodeStore, startStore, storeKinds } from '../helpers/node-store.ts';
import { Podman, whyNoPodman } from '../helpers/podman.ts';

const timeout = 60_000;
const obstacle =
  (await whyNoMachine()) ??
  (await whyNoPodman()) ??
  (stockPlugins() === undefined ? 'no stock CNI plugins here' : undefined);

if (obstacle !== undefined) test('podman', ({ skip }) => skip(obstacle));

describe.each(obstacle === undefined ? storeKinds : [])('podman on the %s store', kind => {
  let machine: Machine;
  let store: NodeStore;
  let podman: Podman;
  let before: Traces;

  beforeAll(async () => {
    machine = await Machine.start();
    store = await startStore(machine, kind);
    podman = await Podman.prepare(machine, await pluginFolder(machine), [
      network('pods', 'pods0', { subnet: '10.202.2.0/24' }),
      network('other', 'other0', { subnet: '10.202.3.0/24' }),
      network('tiny', 'tiny0', { subnet: '10.202.4.0/24', rangeStart: '10.202.4.2', rangeEnd: '10.202.4.3' }),
    ]);
    // The first container makes what the networks keep: bridges, and the chains of the firewall plugin.
    for (const name of ['pods', 'other', 'tiny']) expectRan(await podman.once(['--network', name], ['true']));
    before = await traces(machine);
  }, timeout);

  afterAll(async () => {
    await machine?.[Symbol.asyncDispose]();
  });

  afterEach(async () => {
    await podman.removeAll();
    // conmon and the clean-up it starts end a moment after podman has answered.
    await expect.poll(() => traces(machine), { timeout: 20_000 }).toEqual(before);
    expect((await store.keys()).filter(key => !isLasting(key))).toEqual([]);
  }, timeout);

  /** A network as podman users write it: the bridge, then what publishes ports and opens the firewall. */
  function network(name: string, bridge: string, range: RangeConf): ConfList {
    const list = confFor('bridge', { name, bridge, ranges: [[range]], ...(store.etcd ? { etcd: store.etcd } : {}) });
    return {
      ...list,
      plugins: [
        { ...list.plugins[0]!, isGateway: true, ipMasq: true },
        { type: 'portmap', capabilities: { portMappings: true } },
        { type: 'firewall', backend: 'iptables' },
        { type: 'tuning' },
      ],
    };
  }

  test('two containers ping each other, one with the address it asked for', { timeout }, async () => {
    await podman.start('k1', ['--network', 'pods']);
    await podman.start('k2', ['--network', 'pods', '--ip', '10.202.2.50']);
    expect(await podman.address('k2', 'pods')).toBe('10.202.2.50');
    const first = await podman.address('k1', 'pods');
    expect(await podman.pings('k1', '10.202.2.50')).toBe(true);
    expect(await podman.pings('k2', first)).toBe(true);
    const taken = await podman.once(['--network', 'pods', '--ip', '10.202.2.50'], ['true']);
    expect(taken.code).not.toBe(0);
    expect(taken.stderr).toContain('10.202.2.50');
    expect(await podman.pings('k1', '10.202.2.50')).toBe(true);
  });

  test('stop gives the address back, start takes one again for the same container', { timeout }, async () => {
    const id = await podman.start('k1', ['--network', 'pods']);
    await podman.start('k2', ['--network', 'pods']);
    await podman.must(['stop', '--time', '0', 'k1']);
    expect(await attachmentsOf(id)).toEqual([]);
    await podman.must(['start', 'k1']);
    expect(await attachmentsOf(id)).toHaveLength(1);
    expect(await podman.address('k1', 'pods')).not.toBe(await podman.address('k2', 'pods'));
    expect(await podman.pings('k1', await podman.address('k2', 'pods'))).toBe(true);
  });

  test('one container in two networks', { timeout }, async () => {
    const id = await podman.start('k1', ['--network', 'pods', '--network', 'other']);
    expect(await attachmentsOf(id)).toHaveLength(2);
    expect(await podman.address('k1', 'pods')).toMatch(/^10\.202\.2\./);
    expect(await podman.address('k1', 'other')).toMatch(/^10\.202\.3\./);
    await podman.must(['network', 'disconnect', 'other', 'k1']);
    expect(await attachmentsOf(id)).toHaveLength(1);
  });

  test('eight at once get eight addresses', { timeout }, async () => {
    const show = ['ip', '-4', '-o', 'address', 'show', 'dev', 'eth0'];
    const eight = await Promise.all(Array.from({ length: 8 }, () => podman.once(['--network', 'pods'], show)));
    for (const ended of eight) expectRan(ended);
    const addresses = eight.map(ended => /inet (\S+)/.exec(ended.stdout)?.[1]);
    expect(new Set(addresses).size).toBe(8);
    expect(addresses.every(address => address?.startsWith('10.202.2.'))).toBe(true);
  });

  test('a killed container gives its address back', { timeout }, async () => {
    const id = await podman.start('k1', ['--network', 'pods']);
    await podman.must(['kill', '--signal', 'KILL', 'k1']);
    // conmon's clean-up runs by itself, after podman has answered.
    await expect.poll(() => attachmentsOf(id), { timeout: 20_000 }).toEqual([]);
  });

  test('a full range is told to the person who starts a container', { timeout }, async () => {
    for (const name of ['k1', 'k2']) await podman.start(name, ['--network', 'tiny']);
    const refused = await podman.once(['--network', 'tiny'], ['true']);
    expect(refused.code).toBe(126);
    expect(refused.stderr).toContain('10.202.4.2-10.202.4.3');
    await podman.must(['rm', '--force', '--time', '0', 'k1']);
    expectRan(await podman.once(['--network', 'tiny'], ['true']));
  });

  test('the gateway is refused, with the reason', { timeout }, async () => {
    const refused = await podman.once(['--network', 'pods', '--ip', '10.202.2.1'], ['true']);
    expect(refused.code).toBe(126);
    expect(refused.stderr).toMatch(/10\.202\.2\.1\b.*gateway|gateway.*10\.202\.2\.1\b/);
  });

  test('restart of the runtime', ({ skip }) => {
    skip('podman has no daemon: nothing runs that could be restarted');
  });

  async function attachmentsOf(id: string): Promise<readonly string[]> {
    return (await store.keys()).filter(key => key.includes('/attachments/') && key.includes(`/${id}/`));
  }
});

/** Fails with podman's own words, which are worth more than an exit code. */
function expectRan(ended: Finished): void {
  if (ended.code !== 0) expect.fail(`exit ${ended.code}: ${ended.stderr}`);
}
