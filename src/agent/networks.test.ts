// Which networks the agent knows: what is configured now, and what it has served, across restarts and without secrets.
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { Log } from '../base/log.ts';
import { type Conf, Networks } from './networks.ts';

let folder = '';
let file = '';
let configured: Conf[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'kube-ipam-networks-'));
  file = join(folder, 'state', 'networks.json');
  configured = [];
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const silent = new Log({ file: '/dev/null', level: 'off', maxSize: 1 });
const open = () => new Networks({ configured: () => configured, file, log: silent });
const names = (networks: Networks) => networks.all().map(({ network }) => network);
const conf = (name: string, ipam: Conf = {}): Conf => ({
  name,
  type: 'bridge',
  ipam: { type: 'kube-ipam', subnet: '10.0.0.0/8', ...ipam },
});

it('those of the folder, as they are now, and those that were served, each once', () => {
  configured = [conf('a'), conf('b')];
  const networks = open();
  expect(names(networks)).toEqual(['a', 'b']);
  networks.served(conf('b'));
  networks.served(conf('c'));
  networks.served(conf('c', { subnet: '10.1.0.0/16' }));
  configured = [conf('a')];
  expect(names(networks).sort()).toEqual(['a', 'b', 'c']);
});

it('what is configured now counts, whatever was served', () => {
  configured = [conf('a', { cooldown: 60, cluster: 'new' })];
  const networks = open();
  networks.served(conf('a', { cooldown: 10, cluster: 'old' }));
  expect(networks.all()).toMatchObject([{ network: 'a', cooldown: 60, cluster: 'new' }]);
});

it('remembers what was served: names and paths for root alone, nothing else', () => {
  const etcdConfig = { etcdURL: 'https://10.0.0.1:2379', etcdUsername: 'u', etcdPasswordFile: '/etc/kube-ipam/pw' };
  const served = { ...conf('c', { etcdConfig, addressSpace: 's' }), args: { cni: { secret: 'x' } } };
  open().served(served);
  expect(open().all()).toMatchObject([{ network: 'c', space: 's', store: { passwordFile: '/etc/kube-ipam/pw' } }]);
  expect(statSync(file).mode & 0o777).toBe(0o600);
  expect(readFileSync(file, 'utf8')).not.toMatch(/secret|subnet/);
});

it('forgets what nobody has asked for in a month', () => {
  const day = Math.floor(Date.now() / 86_400_000);
  const networks = open();
  networks.served(conf('now'));
  const list = JSON.parse(readFileSync(file, 'utf8'));
  writeFileSync(file, JSON.stringify([...list, { ...list[0], conf: conf('old'), day: day - 31 }]));
  const later = open();
  later.served(conf('new'));
  expect(names(open())).toEqual(['now', 'new']);
});

it('lives with a broken file, a broken configuration and a folder that cannot be read', () => {
  open().served(conf('a'));
  for (const text of ['', '{', '{}', '[1, {"conf": 7}]', '[{"conf": {"name": 3}, "day": 1}]']) {
    writeFileSync(file, text);
    expect(names(open())).toEqual([]);
  }
  const failing = () => {
    throw new Error('EACCES');
  };
  expect(new Networks({ configured: failing, file, log: silent }).all()).toEqual([]);
  configured = [conf('bad', { dataDir: 'relative' }), conf('good')];
  expect(names(open())).toEqual(['good']);
});
