// Names fit into what the kernel has room for.
import { expect, it } from 'vitest';
import { labelOn } from './numbers.ts';

it('an address is labelled by its interface, unless that name is too long for it', () => {
  expect(labelOn('em1')).toBe('em1:kube');
  expect(labelOn('abcdefghij')).toBe('abcdefghij:kube');
  expect(labelOn('enp175s0f0np0')).toBe('kube');
});
