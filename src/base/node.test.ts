// This machine's name and marks, as the store knows them.
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { expect, it } from 'vitest';
import { machineOf, readMachine } from './node.ts';
import { nodeNameOf } from './node-name.ts';

it('the machine is a hash of its machine-id, and the boot is the kernel’s', () => {
  const id = existsSync('/etc/machine-id') ? readFileSync('/etc/machine-id', 'utf8').trim() : '';
  const { machine, boot } = readMachine();
  expect(machine).toBe(id === '' ? '' : createHash('sha256').update(id).digest('hex').slice(0, 16));
  expect(boot).toBe(readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim());
});

it.each(['', 'uninitialized', '0123', 'localhost', `${'0'.repeat(32)}x`])('%j marks no machine', id => {
  expect(machineOf(id)).toBe('');
});

it('the name is the configured one, else the file’s, else the host name in lower case', () => {
  const file = '/etc/kube-ipam/node';
  expect(nodeNameOf('Node-7')).toBe('Node-7');
  const wanted = existsSync(file) ? readFileSync(file, 'utf8').split('\n')[0]!.trim() : hostname().toLowerCase();
  expect(nodeNameOf(undefined)).toBe(wanted);
});
