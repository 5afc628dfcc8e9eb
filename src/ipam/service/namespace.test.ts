// A namespace counts as gone only where that can be seen.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { isBound, lookAtNamespace, receivesMounts, whyBlind } from './namespace.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'kube-ipam-namespace-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

it('one that is there is there, wherever this runs', () => {
  expect(lookAtNamespace('/proc/self/ns/net')).toEqual({
    gone: false,
    why: 'its network namespace /proc/self/ns/net is there',
  });
});

it('is bound where a name leads to it, and not where a number does, nor where there is something else', () => {
  const place = join(folder, 'cni-1');
  writeFileSync(place, '');
  const paths = [place, folder, join(folder, 'absent'), '/proc/self/ns/net', 'cni-1', ''];
  expect(paths.filter(isBound)).toEqual([]);
  const program = `import { isBound } from ${JSON.stringify(join(import.meta.dirname, 'namespace.ts'))};
    console.log(isBound(process.argv[1]));`;
  const node = [process.execPath, '--input-type=module', '-e', program, '--', place];
  const script = 'mount --bind /proc/self/ns/net "$0" && exec "$@"';
  const argv = ['--mount', '--net', 'sh', '-c', script, place, ...node];
  expect(execFileSync('unshare', argv, { encoding: 'utf8' })).toBe('true\n');
});

describe('whoever judges the containers of this node', () => {
  const program = `import { whyBlind } from ${JSON.stringify(join(import.meta.dirname, 'namespace.ts'))};
    console.log(whyBlind() ?? 'sees');`;
  /** `script` prepares a mount namespace below whatever the host's mounts are; `powers`: behind it. */
  const blind = (script: string, ...powers: readonly string[]): string => {
    const node = [process.execPath, '--input-type=module', '-e', program];
    const argv = ['--mount', '--propagation', 'slave', 'sh', '-c', `${script}; exec "$@"`, 'sh', ...powers, ...node];
    return execFileSync('unshare', argv, { encoding: 'utf8' }).trim();
  };
  const hostRun = 'mount -t tmpfs host /run && mount --make-shared /run && mount --make-slave /run';
  const powerless = ['setpriv', '--bounding-set=-all', '--inh-caps=-all', '--no-new-privs'];

  it('sees as the host itself', () => {
    expect(whyBlind()).toBeUndefined();
  });

  it('is blind without the host’s folder of namespaces', () => {
    for (const hidden of ['/run', '/run/netns']) {
      expect(blind(`mkdir -p /run/netns; mount -t tmpfs none ${hidden}`)).toMatch('HostToContainer');
    }
  });

  it('sees where they arrive, without any power over the processes of the host', () => {
    const arrive = 'mount --bind /run/netns /run/netns; mount --make-shared /run/netns';
    expect(blind(`mkdir -p /run/netns; ${arrive}`)).toBe('sees');
    expect(blind(`mkdir -p /run/netns; ${arrive}`, ...powerless)).toBe('sees');
  });

  it('sees where the folder will arrive that no container has made yet', () => {
    expect(blind(hostRun)).toMatch('HostToContainer');
    expect(blind('mount -t tmpfs host /run && mount --make-shared /run')).toBe('sees');
  });
});

describe('in a mount namespace of its own, as in a container', () => {
  const program = `import { lookAtNamespace } from ${JSON.stringify(join(import.meta.dirname, 'namespace.ts'))};
    console.log(JSON.stringify(process.argv.slice(1).map(path => lookAtNamespace(path).gone)));`;
  const gone = (propagation: string, ...paths: readonly string[]): unknown => {
    const node = [process.execPath, '--input-type=module', '-e', program, '--', ...paths];
    const argv = ['--mount', '--propagation', propagation, 'sh', '-c'];
    // The folder becomes a mount point, as /run/netns is on every host that has named namespaces.
    const script =
      'mount --bind "$0" "$0" && if [ "$1" != private ]; then mount --make-shared "$0"; fi && shift && exec "$@"';
    return JSON.parse(execFileSync('unshare', [...argv, script, folder, propagation, ...node], { encoding: 'utf8' }));
  };

  it('nothing is gone that may only be hidden', () => {
    writeFileSync(join(folder, 'hidden'), '');
    const paths = [join(folder, 'hidden'), join(folder, 'absent'), join(folder, 'no/folder'), '/proc/999999999/ns/net'];
    expect(gone('private', ...paths)).toEqual([false, false, false, false]);
  });

  it('what is missing where the host’s mounts arrive is gone, but for processes', () => {
    writeFileSync(join(folder, 'unmounted'), '');
    const paths = [
      join(folder, 'unmounted'),
      join(folder, 'absent'),
      join(folder, 'no/folder'),
      '/proc/999999999/ns/net',
    ];
    expect(gone('unchanged', ...paths)).toEqual([true, true, false, false]);
  });
});

it.each<[string, string, boolean]>([
  ['/run/netns', '29 28 0:25 /netns /run/netns rw shared:6 - tmpfs tmpfs rw', true],
  ['/run/netns', '29 28 0:25 /netns /run/netns rw master:6 - tmpfs tmpfs rw', true],
  ['/run/netns', '29 28 0:25 /netns /run/netns rw - tmpfs tmpfs rw', false],
  ['/run/netns', '28 1 8:1 / / rw shared:1 - ext4 /dev/a rw\n29 28 0:25 / /run rw - tmpfs tmpfs rw', false],
  ['/run/netns', '28 1 8:1 / / rw - ext4 /dev/a rw\n29 28 0:25 / /run rw shared:2 - tmpfs tmpfs rw', true],
  ['/run/netns', '28 1 8:1 / / rw shared:1 - ext4 /dev/a rw\n29 28 0:25 / /run/net rw - tmpfs tmpfs rw', true],
  ['/a b/c', '28 1 8:1 / / rw - ext4 a rw\n29 28 0:25 / /a\\040b rw shared:1 - tmpfs tmpfs rw', true],
  ['/run/netns', '28 1 8:1 / / rw - ext4 shared:1 rw', false],
  // Below something that was mounted over its parent later.
  [
    '/run/netns',
    '28 1 8:1 / / rw - ext4 a rw\n29 28 0:25 / /run/netns rw shared:1 - tmpfs t rw\n30 28 0:26 / /run rw - tmpfs t rw',
    false,
  ],
  // One over the other.
  [
    '/run',
    '28 28 8:1 / / rw - ext4 a rw\n29 28 0:25 / /run rw - tmpfs t rw\n30 29 0:26 / /run rw master:1 - tmpfs t rw',
    true,
  ],
  ['/run/netns', '', false],
])('%s in %j: mounts arrive: %s', (path, mountinfo, arrive) => {
  expect(receivesMounts(mountinfo, path)).toBe(arrive);
});
