// The demo's stage: namespaces of its own, so that nothing of this machine is touched and nothing stays behind.
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';

const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/**
 * Runs `script` again as the first process of new namespaces (mounts, network, host name, processes), with a scratch
 * folder as its argument, and gives its exit code. When it ends, or a signal comes, or this process dies, the kernel
 * takes every process, interface, mount and rule of the stage away.
 */
export async function playOn(script: string): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), 'kube-ipam-demo-'));
  const flags = ['--mount', '--net', '--uts', '--ipc', '--pid', '--fork', '--kill-child', '--mount-proc'];
  const argv = [...flags, process.execPath, '--no-warnings', script, '--on-stage', folder];
  // The pipe is never written to: its end tells the stage that this process is gone, however it went.
  const stage = spawn('unshare', argv, { stdio: ['pipe', 'inherit', 'inherit'] });
  let signalled: (typeof signals)[number] | undefined;
  for (const signal of signals) {
    process.on(signal, () => {
      signalled = signal;
      stage.kill('SIGKILL');
    });
  }
  try {
    const code = await ended(stage);
    if (signalled === undefined) return code;
    process.stderr.write('\ndemo: interrupted; its namespaces and files are removed\n');
    return 128 + constants.signals[signalled];
  } finally {
    rmSync(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
  }
}

/** Called on the stage: ends it when the process that opened it is gone, which then can no longer remove the folder. */
export function leaveWithTheAudience(folder: string): void {
  process.stdin.on('end', () => {
    rmSync(folder, { recursive: true, force: true });
    process.exit(1);
  });
  process.stdin.resume();
  process.stdin.unref?.();
}

function ended(stage: ChildProcess): Promise<number> {
  return new Promise((resolve, reject) => {
    stage.on('error', cause => reject(new Error('unshare (package util-linux) could not be started', { cause })));
    stage.on('close', code => resolve(code ?? 1));
  });
}
