// With and without agent the answer is the same: every command, every kind of outcome, on both stores, down to the log.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { Agent } from '../helpers/agent.ts';
import { onEachStore } from '../helpers/each-store.ts';
import { type Call, type Command, confOf, type Json, type Site } from '../helpers/plugin.ts';
import { run } from '../helpers/plugin-process.ts';

interface Step {
  readonly what: string;
  readonly command: Command;
  readonly ipam?: Json;
  readonly more?: Json;
  readonly call?: Omit<Call, 'conf'>;
  /** The agent cannot know, or need not: the plugin does it itself. */
  readonly self?: boolean;
}

const add = (what: string, containerID: string, step: Partial<Step> = {}): Step => ({
  what,
  command: 'ADD',
  ...step,
  call: { containerID, ...step.call },
});

const steps: readonly Step[] = [
  add('an address of each family', 'a'),
  add('the same again', 'a'),
  add('a pod', 'b', { call: { args: 'IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=p;K8S_POD_UID=u-1' } }),
  add('an address by CNI_ARGS', 'c', { call: { args: 'IP=10.1.0.77' } }),
  add('one that is held', 'd', { call: { args: 'IP=10.1.0.77' } }),
  add('one outside of the ranges', 'd', { call: { args: 'IP=192.0.2.1' } }),
  add('one by runtimeConfig', 'e', { more: { runtimeConfig: { ips: ['10.1.0.99'] } } }),
  add('routes and the newest version', 'f', {
    more: { cniVersion: '1.1.0' },
    ipam: { routes: [{ dst: '0.0.0.0/0' }] },
  }),
  add('the old shape', 'g', { more: { cniVersion: '0.2.0' } }),
  add('a second interface', 'a', { call: { ifname: 'net1' } }),
  add('an exhausted range', 'h', { ipam: { ranges: [[{ subnet: '10.7.0.0/30' }]] } }),
  add('an exhausted range, in truth', 'i', { ipam: { ranges: [[{ subnet: '10.7.0.0/30' }]] } }),
  add('an unknown version', 'j', { more: { cniVersion: '7.0.0' } }),
  add('a configuration with two faults', 'j', { ipam: { ranges: [[{ subnet: 'x' }], [{ subnet: '10.1.0.0/33' }]] } }),
  add('a container ID that cannot be', 'j', { call: { containerID: 'a/b' } }),
  add('a kubeconfig that is not there', 'k', { ipam: { kubeConfig: '/nowhere/kubeconfig' }, self: true }),
  add('a container without a namespace', 'l', { call: { args: 'K8S_POD_NAME=p' } }),
  { what: 'CHECK of what is there', command: 'CHECK', call: { containerID: 'a' } },
  { what: 'CHECK of what is not', command: 'CHECK', call: { containerID: 'z' } },
  { what: 'STATUS', command: 'STATUS', more: { cniVersion: '1.1.0' } },
  {
    what: 'STATUS of a full range',
    command: 'STATUS',
    more: { cniVersion: '1.1.0' },
    ipam: { ranges: [[{ subnet: '10.7.0.0/30' }]] },
  },
  { what: 'VERSION', command: 'VERSION', self: true },
  { what: 'DEL', command: 'DEL', call: { containerID: 'a' } },
  { what: 'DEL again', command: 'DEL', call: { containerID: 'a' } },
  { what: 'DEL with a broken range', command: 'DEL', call: { containerID: 'b' }, ipam: { ranges: 'x' } },
  { what: 'GC without a list', command: 'GC', more: { cniVersion: '1.1.0' } },
  {
    what: 'GC',
    command: 'GC',
    more: { cniVersion: '1.1.0', 'cni.dev/valid-attachments': [{ containerID: 'c', ifname: 'eth0' }] },
  },
];

/** What stands in both answers and differs only because each site has its own place. */
/** Without what cannot be the same: the place, and the second in which it was done. */
function comparable(site: Site, text: string): string {
  const placeless = text.replaceAll(site.folder, 'FOLDER').replaceAll(site.keys.space, 'SPACE');
  return placeless.replace(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ/g, 'TIME');
}

function events(site: Site): Json[] {
  return site.events().map(({ time: _, ms, ...event }) => {
    expect(ms === undefined || (ms as number) >= 0).toBe(true);
    return JSON.parse(comparable(site, JSON.stringify(event)));
  });
}

async function play(site: Site, agentSocket: string, step: Step) {
  const ranges = [[{ subnet: '10.1.0.0/24' }], [{ subnet: 'fd00::/64' }]];
  const timeout = 30;
  const { ipam, more = {}, call = {} } = step;
  const isOld = more.cniVersion === '0.2.0';
  const conf = confOf(site, { ranges: isOld ? ranges.slice(0, 1) : ranges, timeout, agentSocket, ...ipam }, more);
  const { exitCode, stdout, stderr } = await run(step.command, { conf, ...call });
  expect(stderr).toBe('');
  return { exitCode, stdout: comparable(site, stdout) };
}

onEachStore(here => {
  let agent: Agent;
  beforeEach(async () => {
    agent = await Agent.start({ dataDir: here.site.folder });
  });
  afterEach(() => agent[Symbol.asyncDispose]());

  it('every step, one after the other', async () => {
    const alone = await here.ground.site();
    mkdirSync(alone.folder, { recursive: true });
    let taken = 0;
    for (const step of steps) {
      const [withAgent, without] = [await play(here.site, agent.socket, step), await play(alone, '', step)];
      expect({ step: step.what, ...withAgent }).toEqual({ step: step.what, ...without });
      taken += step.self ? 0 : 1;
    }
    expect(events(here.site)).toEqual(events(alone));
    const keysOf = async (site: Site) => (await site.entries()).map(({ key }) => comparable(site, key));
    expect(await keysOf(here.site)).toEqual(await keysOf(alone));
    const { body } = await agent.page('/metrics');
    const counts = [...body.matchAll(/^kube_ipam_agent_requests_total\{.*\} (\d+)$/gm)].map(([, n]) => Number(n));
    expect(counts.reduce((sum, n) => sum + n, 0)).toBe(taken);
  });

  it('the records say the same of machine, boot and netns', async () => {
    const ipam = { ranges: [[{ subnet: '10.1.0.0/24' }]], timeout: 30 };
    const netns = '/run/netns/here';
    const byAgent = confOf(here.site, { ...ipam, agentSocket: agent.socket });
    const alone = confOf(here.site, { ...ipam, agentSocket: '' });
    expect((await run('ADD', { conf: byAgent, containerID: 'a', netns })).exitCode).toBe(0);
    expect((await run('ADD', { conf: alone, containerID: 'b', netns })).exitCode).toBe(0);
    const [a, b] = (await here.site.entries())
      .filter(({ key }) => key.includes('/addresses/'))
      .map(({ value }) => ({ ...JSON.parse(value), since: '', containerID: '' }));
    expect(a).toEqual(b);
    expect(await agent.metric('kube_ipam_agent_requests_total{command="ADD",code="0"}')).toBe(1);
  });

  it('DNS of a resolvConf that both see', async () => {
    const resolvConf = join(here.ground.folder, 'resolv.conf');
    writeFileSync(resolvConf, 'nameserver 192.0.2.53\nsearch example.org\n');
    const ipam = { ranges: [[{ subnet: '10.1.0.0/24' }]], timeout: 30, resolvConf };
    const { result } = await run('ADD', { conf: confOf(here.site, { ...ipam, agentSocket: agent.socket }) });
    expect(result).toMatchObject({ dns: { nameservers: ['192.0.2.53'], search: ['example.org'] } });
    expect(await agent.metric('kube_ipam_agent_requests_total{command="ADD",code="0"}')).toBe(1);
  });
});

onEachStore(here => {
  it('an agent in a container that lacks a mount leaves the work to the plugin', async () => {
    const empty = join(here.ground.folder, `empty-${here.kind}`);
    mkdirSync(empty);
    const { site } = here;
    mkdirSync(site.folder, { recursive: true });
    // The agent sees another folder under the same name, as in a container without that mount.
    const wrapper = ['unshare', '--mount', '--propagation', 'private', 'busybox', 'sh', '-c'];
    const script = 'mount -o bind "$1" "$2" && shift 2 && exec "$@"';
    await using agent = await Agent.start({
      dataDir: site.folder,
      wrapper: [...wrapper, script, 'sh', empty, site.folder],
    });
    const conf = confOf(site, { ranges: [[{ subnet: '10.1.0.0/24' }]], timeout: 30, agentSocket: agent.socket });
    expect((await run('ADD', { conf })).addresses).toEqual(['10.1.0.2']);
    expect(agent.log).toContain('is not what the plugin sees there');
    expect(await agent.metric('kube_ipam_agent_requests_left_total')).toBe(1);
    expect((await site.entries()).some(({ key }) => key.includes('/attachments/'))).toBe(true);
    expect(site.events().map(({ event }) => event)).toEqual(['add']);
  });
});
