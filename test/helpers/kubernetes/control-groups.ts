// The control groups of a test's node: a parent for all of its pods, which the kubelet wants to find.
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const root = '/sys/fs/cgroup';

/** Makes this group in every tree; whoever made the machine removes it, and what pods have made below it. */
export function makeControlGroups(name: string): void {
  if (isUnified()) {
    // Children have the controllers that their parent hands down.
    const controllers = readFileSync(join(root, 'cgroup.controllers'), 'utf8').trim().split(' ').filter(Boolean);
    writeFileSync(join(root, 'cgroup.subtree_control'), controllers.map(each => `+${each}`).join(' '));
  }
  for (const tree of trees()) mkdirSync(join(tree, name), { recursive: true });
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
    for (const group of trees().map(tree => join(tree, probe))) if (existsSync(group)) rmdirSync(group);
  }
}

function isUnified(): boolean {
  return existsSync(join(root, 'cgroup.controllers'));
}

/** One tree in version 2; one for each controller in version 1, where a machine leaves out the unified one beside them. */
function trees(): readonly string[] {
  if (isUnified()) return [root];
  if (!existsSync(root)) return [];
  const found = readdirSync(root).map(name => join(root, name));
  return found.filter(tree => !tree.endsWith('/unified') && existsSync(join(tree, 'cgroup.procs')));
}
