// Whether a node may own addresses, and why not.
import { expect, it } from 'vitest';
import { drainAnnotation, excludeLabel, type FitnessInput, fitnessOf } from './fitness.ts';

const link = { index: 2, name: 'em1', up: true, carrier: true, addresses: [] };
const fit: FitnessInput = {
  dev: 'em1',
  link,
  carrierSince: 0,
  node: { labels: {}, annotations: {} },
  isSelected: true,
  now: 1000,
};

it('is fit, also where the Node object is not known', () => {
  expect(fitnessOf(fit)).toEqual({ why: undefined });
  expect(fitnessOf({ ...fit, node: undefined })).toEqual({ why: undefined });
});

it.each<[string, Partial<FitnessInput>]>([
  ['there is no interface em1', { link: undefined }],
  ['interface em1 is down', { link: { ...link, up: false, carrier: false } }],
  ['interface em1 has no carrier', { link: { ...link, carrier: false }, carrierSince: undefined }],
  ['the node is drained', { node: { labels: {}, annotations: { [drainAnnotation]: 'true' } } }],
  ['the node has the label', { node: { labels: { [excludeLabel]: '' }, annotations: {} } }],
  ['the node does not have the labels', { isSelected: false }],
])('%s', (why, changes) => {
  expect(fitnessOf({ ...fit, ...changes }).why).toContain(why);
});

it('is not drained by any other value, as Kubernetes reads such annotations', () => {
  const node = { labels: {}, annotations: { [drainAnnotation]: 'false' } };
  expect(fitnessOf({ ...fit, node })).toEqual({ why: undefined });
});

it('waits until the carrier has stood for a second, and says how long', () => {
  expect(fitnessOf({ ...fit, carrierSince: 700 })).toMatchObject({
    after: 700,
    why: expect.stringContaining('second'),
  });
});
