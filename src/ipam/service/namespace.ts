// Whether a container's network namespace is gone, and whether this process stands where it can tell.
import { existsSync, readFileSync, readlinkSync, realpathSync, statfsSync } from 'node:fs';
import { dirname } from 'node:path';
import { systemCode } from '../../base/errors.ts';
import type { Machine } from '../../base/node.ts';
import { holdersOf, isOfEarlierBoot, type Subject } from '../gc.ts';

/** Type of the file system that network namespaces are bound from (statfs(2)). */
const nsfs = 0x6e736673;

/** Where runtimes bind the network namespaces of their sandboxes. */
const namespaceFolder = '/run/netns';

/** The kernel's number of the first PID namespace (PROC_PID_INIT_INO): only the host itself lives in it. */
const hostPids = 'pid:[4026531836]';

export interface Sight {
  readonly gone: boolean;
  readonly why: string;
}

/**
 * Whether a network namespace is bound to this name now. What a process's number leads to does not count: numbers come
 * again, and the names that runtimes make do not.
 */
export function isBound(path: string): boolean {
  if (!path.startsWith('/') || path.startsWith('/proc/')) return false;
  try {
    return statfsSync(path).type === nsfs;
  } catch {
    return false;
  }
}

/**
 * Whether a boot of this machine has ended the attachment. A namespace that is there refutes the boot IDs: a machine that
 * is itself a container of LXC or systemd-nspawn has one of its own, which what runs in its containers does not see.
 */
export function endedWithBoot(subject: Subject, machine: Machine): boolean {
  return isOfEarlierBoot(subject, machine) && !holdersOf(subject).some(({ netns }) => isBound(netns));
}

export function lookAtNamespace(path: string): Sight {
  let gone: string;
  try {
    if (statfsSync(path).type === nsfs) return { gone: false, why: `its network namespace ${path} is there` };
    gone = `${path} is no network namespace any more`;
  } catch (error) {
    const reason = systemCode(error) ?? '';
    if (!['ENOENT', 'ENOTDIR'].includes(reason)) return { gone: false, why: `${path} cannot be looked at (${reason})` };
    gone = `its network namespace ${path} is gone`;
  }
  if (seesWhatTheHostSees(path)) return { gone: true, why: gone };
  return { gone: false, why: `${path} is not seen from here, where the host's mounts do not arrive: ask on the host` };
}

/**
 * Why this process cannot tell whether the containers of this node are gone; undefined when it can: it is the host, or a
 * container in which the host's network namespaces arrive.
 */
export function whyBlind(): string | undefined {
  // Before the first container the folder is not there, and arrives where its parent does.
  let folder = namespaceFolder;
  while (!existsSync(folder)) folder = dirname(folder);
  if (hasMountsOfHost() || receivesMountsIn(folder)) return undefined;
  return `${namespaceFolder} of the host is not mounted here so that new network namespaces arrive (mountPropagation HostToContainer)`;
}

/** In a container a path may be missing only because the host's mounts and processes are not shown there. */
function seesWhatTheHostSees(path: string): boolean {
  return hasMountsOfHost() || (!path.startsWith('/proc/') && receivesMountsIn(dirname(path)));
}

/** A service of the host may have mounts of its own, and not be allowed to look at those of the first process. */
function hasMountsOfHost(): boolean {
  try {
    if (readlinkSync('/proc/self/ns/pid') !== hostPids) return false;
    return shareMounts(readFileSync('/proc/self/mountinfo', 'utf8'), readFileSync('/proc/1/mountinfo', 'utf8'));
  } catch {
    return false;
  }
}

function receivesMountsIn(folder: string): boolean {
  try {
    return receivesMounts(readFileSync('/proc/self/mountinfo', 'utf8'), realpathSync(folder));
  } catch {
    return false;
  }
}

/** Whether two lists are of one mount namespace: a mount has a number that no other one has, nor its copy elsewhere. */
function shareMounts(a: string, b: string): boolean {
  const numbers = (mountinfo: string) => mountinfo.split('\n').flatMap(line => line.split(' ', 1).filter(Boolean));
  const ours = new Set(numbers(a));
  return numbers(b).some(number => ours.has(number));
}

interface Mount {
  readonly id: string;
  readonly parent: string;
  readonly point: string;
  readonly receives: boolean;
}

function mountOf(line: string): Mount {
  const [id = '', parent = '', , , point = '', , ...rest] = line.split(' ');
  return {
    id,
    parent,
    point: point.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8))),
    receives: rest.slice(0, rest.indexOf('-')).some(tag => /^(shared|master):/.test(tag)),
  };
}

/** Whether mounts that others make in the folder arrive in this mount namespace (mount_namespaces(7), proc_pid_mountinfo(5)). */
export function receivesMounts(mountinfo: string, folder: string): boolean {
  const mounts = mountinfo.split('\n').filter(Boolean).map(mountOf);
  const ids = new Set(mounts.map(({ id }) => id));
  const onTheWay = mounts.filter(({ point }) => point === '/' || folder === point || folder.startsWith(`${point}/`));
  // As the kernel looks a path up: what is mounted over a folder hides the mounts below it, though they are listed.
  const nearest = (some: readonly Mount[]) => some.toSorted((a, b) => a.point.length - b.point.length)[0];
  let last: Mount | undefined;
  let next = nearest(onTheWay.filter(({ id, parent }) => parent === id || !ids.has(parent)));
  while (next !== undefined) {
    const { id } = next;
    last = next;
    next = nearest(onTheWay.filter(mount => mount.parent === id && mount.id !== id));
  }
  return last?.receives ?? false;
}
