// The control groups of a test's machine: one parent for all that runtimes make there, so that they can be removed.
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const root = '/sys/fs/cgroup';

/** Makes this group in every tree; a kubelet wants to find it. */
export function makeControlGroups(name: string): void {
  if (isUnified()) {
    // Children have the controllers that their parent hands down.
    const controllers = readFileSync(join(root, 'cgroup.controllers'), 'utf8').trim().split(' ').filter(Boolean);
    writeFileSync(join(root, 'cgroup.subtree_control'), controllers.map(each => `+${each}`).join(' '));
  }
  for (const tree of trees()) mkdirSync(join(tree, name), { recursive: true });
}

/** Removes this group from every tree, and those below it: the kernel keeps them when their processes end. */
export function removeControlGroups(name: string): void {
  for (const tree of trees()) removeBelow(join(tree, name));
}

function removeBelow(group: string): void {
  if (!existsSync(group)) return;
  for (const entry of readdirSync(group, { withFileTypes: true })) {
    if (entry.isDirectory()) removeBelow(join(group, entry.name));
  }
  // The files in it go with it.
  rmdirSync(group);
}

/** Why groups cannot be made here; undefined when they can. */
export function whyNoControlGroups(): string | undefined {
  if (trees().length === 0) return `no control groups at ${root}`;
  const probe = `kube-ipam-probe-${process.pid}`;
  try {
    makeControlGroups(probe);
    return undefined;
  } catch (error) {
    return `control groups cannot be made here: ${error instanceof Error ? error.message : error}`;
  } finally {
    removeControlGroups(probe);
  }
}

function isUnified(): boolean {
  return existsSync(join(root, 'cgroup.controllers'));
}

/** One tree in version 2; in version 1 one for each controller, and perhaps a unified one beside them. */
function trees(): readonly string[] {
  if (isUnified()) return [root];
  if (!existsSync(root)) return [];
  const found = readdirSync(root).map(name => join(root, name));
  return found.filter(tree => existsSync(join(tree, 'cgroup.procs')));
}
