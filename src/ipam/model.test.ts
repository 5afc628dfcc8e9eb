// The store's values: what cannot be understood is taken, and nothing of a later version is lost.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { formatIp, parseIp } from '../net/ip.ts';
import {
  isPlainAttachment,
  kinds,
  namesAttachment,
  parseAttachment,
  parseFormat,
  parseOwner,
  renderAttachment,
} from './model.ts';

const id = { node: 'n', network: 'w', containerID: 'c', ifname: 'eth0' };

describe('an owner record', () => {
  it.each([
    '',
    'x',
    '[]',
    'null',
    '5',
    '{}',
    '{"kind":5}',
    '{"kind":"newer"}',
    '{"kind":"Dynamic"}',
    '{"kind":"toString"}',
  ])('%s is an owner of unknown kind, whom no attachment owns', value => {
    const owner = parseOwner(value);
    expect(owner.kind).toBe('unknown');
    expect(namesAttachment(owner, id)).toBe(false);
  });

  it('any text is read', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.json()), text => {
        expect([...kinds, 'unknown']).toContain(parseOwner(text).kind);
      }),
      { numRuns: 1000 },
    );
  });

  it.each(['dynamic', 'fixed'] as const)('%s belongs to the attachment that it names in all four parts', kind => {
    expect(namesAttachment(parseOwner(JSON.stringify({ kind, ...id })), id)).toBe(true);
    for (const part of ['node', 'network', 'containerID', 'ifname'] as const) {
      expect(namesAttachment(parseOwner(JSON.stringify({ kind, ...id, [part]: 'x' })), id)).toBe(false);
      const { [part]: _, ...less } = id;
      expect(namesAttachment(parseOwner(JSON.stringify({ kind, ...less })), id)).toBe(false);
    }
  });

  it.each(['held', 'reserved', 'service', 'sticky', 'newer'])(
    '%s belongs to no attachment, whatever it names',
    kind => {
      expect(namesAttachment(parseOwner(JSON.stringify({ kind, ...id })), id)).toBe(false);
    },
  );

  it('of a workload belongs to each of its holders, on its one network and interface', () => {
    const holders = [
      { node: 'n', containerID: 'c', pod: { namespace: 'd', name: 'web-0', uid: 'u' } },
      { node: 'n2', containerID: 'c2' },
    ];
    const workload = { namespace: 'd', kind: 'StatefulSet', name: 'web-0' };
    const owner = parseOwner(JSON.stringify({ kind: 'sticky', network: 'w', ifname: 'eth0', workload, holders }));
    expect(owner).toMatchObject({ workload, node: 'n', pod: { name: 'web-0' } });
    expect(namesAttachment(owner, id)).toBe(true);
    expect(namesAttachment(owner, { ...id, node: 'n2', containerID: 'c2' })).toBe(true);
    expect(namesAttachment(owner, { ...id, containerID: 'c2' })).toBe(false);
    expect(namesAttachment(owner, { ...id, network: 'x' })).toBe(false);
    expect(namesAttachment(owner, { ...id, ifname: 'net1' })).toBe(false);
  });

  it('a workload of a kind that is not known is none', () => {
    const owner = parseOwner('{"kind":"sticky","workload":{"namespace":"d","kind":"DaemonSet","name":"x"}}');
    expect(owner).not.toHaveProperty('workload');
    expect(owner.holders).toEqual([]);
  });

  it('a pod without its parts is read as far as it goes', () => {
    expect(parseOwner('{"kind":"dynamic","pod":{"name":"p","uid":5}}').pod).toEqual({ namespace: '', name: 'p' });
    expect(parseOwner('{"kind":"dynamic","pod":"p"}')).not.toHaveProperty('pod');
  });
});

describe('an attachment', () => {
  it('is read back in order, and keeps what a later version added', () => {
    const addresses = ['10.1.0.2', 'fd00::2'].map(text => parseIp(text)!);
    const text = renderAttachment(addresses, false, '{"addresses":["10.9.9.9"],"later":{"a":1}}');
    expect(parseAttachment(text)).toEqual(addresses);
    expect(JSON.parse(text)).toEqual({ addresses: ['10.1.0.2', 'fd00::2'], later: { a: 1 } });
  });

  it('that keeps an address says so, and no longer than it does', () => {
    const address = [parseIp('10.1.0.2')!];
    const kept = renderAttachment(address, true);
    expect(isPlainAttachment(kept)).toBe(false);
    expect(isPlainAttachment(renderAttachment(address, false, kept))).toBe(true);
  });

  it.each(['', 'x', '[]', '{}', '{"addresses":5}', '{"addresses":[5,null,"x"]}'])('%s names no address', text => {
    expect(parseAttachment(text)).toEqual([]);
    expect(parseAttachment(renderAttachment([parseIp('10.1.0.2')!], false, text)).map(formatIp)).toEqual(['10.1.0.2']);
  });
});

it('a format that cannot be understood is none', () => {
  expect(parseFormat('{"format":2,"minReader":1,"more":0}')).toEqual({ format: 2, minReader: 1 });
  for (const text of ['', 'x', '[]', '{}', '{"format":1}', '{"format":"1","minReader":"1"}']) {
    expect(parseFormat(text)).toBeUndefined();
  }
});
