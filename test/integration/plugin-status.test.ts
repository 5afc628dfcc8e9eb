// STATUS, on both stores: whether an ADD would be served, and what one node alone must not be blamed for (section 9).
import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parseIp } from '../../src/net/ip.ts';
import { onEachStore } from '../helpers/each-store.ts';
import { call, confOf, type Json } from '../helpers/plugin.ts';
import { run } from '../helpers/plugin-process.ts';

onEachStore(here => {
  const conf = (ipam: Json = {}, cniVersion = '1.1.0') =>
    confOf(here.site, { subnet: '10.1.0.0/29', timeout: 10, ...ipam }, { cniVersion });
  const status = (ipam: Json = {}, cniVersion?: string) => run('STATUS', { conf: conf(ipam, cniVersion) });
  const fill = async () => {
    for (let n = 0; n < 5; n++) {
      expect((await call('ADD', { conf: conf({ timeout: '1h' }), containerID: `c${n}` })).exitCode).toBe(0);
    }
  };

  it('9.1, 9.2 silent when an ADD would be served, and reserves nothing', async () => {
    expect(await status()).toMatchObject({ exitCode: 0, stdout: '', stderr: '' });
    expect(await status({ status: 'local' })).toMatchObject({ exitCode: 0, stdout: '' });
    expect(await here.site.entries()).toEqual([]);
  });

  it('9.2 an exhausted range: 50, naming range and holders; `local` does not blame the node for it', async () => {
    await fill();
    const full = await status();
    expect(full).toMatchObject({ exitCode: 1, error: { code: 50 }, stderr: '' });
    expect(full.error?.msg).toMatch(/10\.1\.0\.0\/29.*all 5 addresses are taken: 5 by pods/);
    expect(await status({ status: 'local' })).toMatchObject({ exitCode: 0, stdout: '' });
    await call('DEL', { conf: conf({ timeout: '1h' }), containerID: 'c3' });
    expect(await status()).toMatchObject({ exitCode: 0 });
  });

  it('after a reboot a full range is no reason to keep the ADD away that makes room', async () => {
    await fill();
    const key = here.site.keys.address(parseIp('10.1.0.4')!);
    const record = (await here.site.entries()).find(entry => entry.key === key)!;
    await here.site.put(key, { ...JSON.parse(record.value), boot: 'an-earlier-boot' });
    const before = await here.site.entries();
    expect(await status()).toMatchObject({ exitCode: 0, stdout: '' });
    expect(await here.site.entries()).toEqual(before);
    const added = await call('ADD', { conf: conf({ timeout: '1h' }), containerID: 'new' });
    expect(added.addresses).toEqual(['10.1.0.4']);
  });

  it('9.3 below 1.1.0: error 1; a bad configuration: 7', async () => {
    expect((await status({}, '1.0.0')).error?.code).toBe(1);
    expect((await status({ subnet: '10.1.0.0/31' })).error?.code).toBe(7);
  });

  describe.each(['full', 'local'])('status "%s" tells what no other node would have', mode => {
    it.each([
      ['a resolvConf that cannot be read', () => ({ resolvConf: join(here.site.folder, 'absent') })],
      ['a key that no ADD is served with', () => ({ nodeCIDR: true })],
      [
        'a state folder that is a file',
        () => {
          const file = join(mkdtempSync(join(here.ground.folder, 'file-')), 'file');
          writeFileSync(file, '');
          return { dataDir: file };
        },
      ],
    ])('%s', async (_, ipam) => {
      expect(await status({ status: mode, ...ipam() })).toMatchObject({ exitCode: 1, error: { code: 50 }, stderr: '' });
    });
  });

  it('a kubeconfig that the agent has not written yet', async () => {
    const kubeConfig = join(here.site.folder, 'to-come', 'kubeconfig');
    const told = await status({ status: 'local', kubeConfig });
    expect(told.error).toMatchObject({ code: 50, msg: expect.stringMatching(/to-come\/kubeconfig cannot be .*agent/) });
    mkdirSync(dirname(kubeConfig), { recursive: true });
    writeFileSync(kubeConfig, '{}');
    expect(await status({ status: 'local', kubeConfig })).toMatchObject({ exitCode: 0, stdout: '' });
  });

  it('certificates that cannot be read, with etcd', async () => {
    if (here.kind !== 'etcd') return;
    const etcdConfig = { ...(here.site.access.etcdConfig as Json), etcdTrustedCAFile: '/nonexistent/ca.pem' };
    const told = await status({ status: 'local', etcdConfig });
    expect(told.error).toMatchObject({ code: 50, msg: expect.stringContaining('/nonexistent/ca.pem') });
  });

  it('a newer format: 50', async () => {
    const formatKey = '/kube-ipam/v1/format';
    await here.site.put(formatKey, '{"format":9,"minReader":2}');
    try {
      expect((await status()).error).toMatchObject({ code: 50, msg: expect.stringContaining('newer') });
    } finally {
      await here.site.put(formatKey, '{"format":1,"minReader":1}');
    }
  });
});
