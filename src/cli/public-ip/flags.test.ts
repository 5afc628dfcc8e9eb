// The flags of public-ip and kiwi as a user types them, and what a node's own network adds.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { formatCidr } from '../../net/cidr.ts';
import type { Config } from '../../publicip/config.ts';
import { UsageError } from '../command.ts';
import { parseArgs } from '../parse.ts';
import { kiwi, publicIp } from './face.ts';
import { readConfig } from './flags.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'kube-ipam-flags-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** What `kiwi run` or `kube-ipam public-ip run` makes of a command line. */
async function configOf(argv: readonly string[], calledAs = 'kube-ipam'): Promise<Config> {
  const face = calledAs === 'kiwi' ? kiwi : publicIp;
  const command = await face.commands.find(({ verb }) => verb === 'run')!.load();
  const parsed = await parseArgs(command, ['run', ...argv, '--conf-dir', folder, '--node', 'worker-1'], 80, face);
  if ('help' in parsed) throw new Error('asked for help');
  return readConfig(parsed.args, { env: {}, calledAs });
}

async function complaintOf(argv: readonly string[]): Promise<string> {
  const error = await configOf(argv).catch(error => error);
  expect(error).toBeInstanceOf(UsageError);
  return error.message;
}

function network(ipam: object): void {
  const conf = { cniVersion: '1.0.0', name: 'pods', type: 'bridge', ipam: { type: 'kube-ipam', ...ipam } };
  writeFileSync(join(folder, '10-pods.conf'), JSON.stringify(conf));
}

describe('the command line of kiwi', () => {
  it('of its README works', async () => {
    const config = await configOf(
      ['--interface', 'em1', '--cidr-range', '192.168.0.0/16', '--kube-endpoint', 'http://localhost:8080'].concat([
        ...['--etcd-endpoint', 'http://localhost:2379', '--verbose'],
      ]),
      'kiwi',
    );
    expect(config).toMatchObject({
      interface: 'em1',
      kubernetes: { endpoint: 'http://localhost:8080' },
      etcd: { endpoints: ['http://localhost:2379'] },
      log: { file: '/var/log/kiwi/kiwi.log', level: 'debug' },
    });
    expect(config.ranges.map(formatCidr)).toEqual(['192.168.0.0/16']);
  });

  it('has its short flags, and ranges again and again', async () => {
    const argv =
      '-i em1 -k http://a:8080 -s http://b:2379 -p /k -r 10.0.0.0/8 -r 192.168.0.0/16 -n -v -d --debug-requests';
    const config = await configOf(argv.split(' '), 'kiwi');
    expect(config).toMatchObject({ interface: 'em1', prefix: '/k/', drives: false, log: { level: 'debug' } });
    expect(config.ranges.map(formatCidr)).toEqual(['10.0.0.0/8', '192.168.0.0/16']);
  });
});

describe('which etcd holds the claims', () => {
  it('the flags’, else that of this node’s network, else where etcd listens by itself', async () => {
    expect((await configOf([])).etcd.endpoints).toEqual(['http://localhost:2379']);
    network({ cluster: 'east', etcdConfig: { etcdURL: 'http://10.0.0.1:2379,http://10.0.0.2:2379' } });
    const config = await configOf([]);
    expect(config).toMatchObject({ cluster: 'east', id: 'east.worker-1', store: undefined });
    expect(config.etcd.endpoints).toEqual(['http://10.0.0.1:2379', 'http://10.0.0.2:2379']);
    expect((await configOf(['-s', '10.0.0.2:2379'])).store).toBeUndefined();
    const other = await configOf(['-s', 'http://10.9.9.9:2379']);
    expect(other.etcd.endpoints).toEqual(['http://10.9.9.9:2379']);
    expect(other.store?.endpoints).toEqual(['http://10.0.0.1:2379', 'http://10.0.0.2:2379']);
  });

  it('a network that is kept in a file says nothing of it', async () => {
    network({ dataDir: '/var/lib/cni/kube-ipam' });
    expect(await configOf([])).toMatchObject({ etcd: { endpoints: ['http://localhost:2379'] }, store: undefined });
  });

  it('certificates and user of the flags go with it; what is learnt of it stays in a folder of its own', async () => {
    const files = ['--etcd-cert', '/c', '--etcd-key', '/k', '--etcd-cacert', '/a', '--etcd-user', 'u'];
    const config = await configOf(['-s', 'https://b', ...files, '--etcd-password-file', '/p', '--state-dir', '/s']);
    expect(config.etcd).toMatchObject({
      endpoints: ['https://b:2379'],
      certFile: '/c',
      keyFile: '/k',
      caFile: '/a',
      username: 'u',
      passwordFile: '/p',
      dataDir: '/s/public-ip',
    });
  });
});

describe('what is wrong', () => {
  it('is told all at once, in the words of the flags', async () => {
    expect(await complaintOf(['-s', 'http://b:2379/x', '--etcd-cert', 'c.pem', '--ttl', '1', '-r', 'x'])).toBe(
      '--etcd-cert "c.pem": must be an absolute path; ' +
        '--etcd-endpoint "http://b:2379/x": must be a comma list of endpoints like "https://10.0.0.1:2379", without user, path or query; ' +
        '--ttl "1": must be a number of seconds or a duration like "10s", from 5 s to an hour; ' +
        '--cidr-range "x": must be a range like 192.168.0.0/16',
    );
  });

  it('half of a pair', async () => {
    expect(await complaintOf(['-s', 'https://b', '--etcd-cert', '/c'])).toBe(
      '--etcd-cert "/c": needs both --etcd-cert and --etcd-key',
    );
  });

  it('without a password that somebody wrote into a URL', async () => {
    expect(await complaintOf(['-s', 'http://root:hunter2@b:2379'])).not.toContain('hunter2');
  });

  it('files for an etcd that is not named', async () => {
    expect(await complaintOf(['--etcd-cacert', '/a'])).toBe(
      '--etcd-cacert needs --etcd-endpoint, the etcd that it is for',
    );
  });

  it('a network of this node whose etcd cannot be made out', async () => {
    network({ etcdConfig: {} });
    expect(await complaintOf([])).toMatch(/^network "pods": .*etcdURL.* is missing/);
  });
});
