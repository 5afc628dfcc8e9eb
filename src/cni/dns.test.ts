// resolv.conf as host-local reads it (contract 5.11).
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { parseResolvConf, readDns } from './dns.ts';

it('5.11 nameserver repeats, the last domain wins, search and options add up, comments and short lines do not count', () => {
  const text = [
    '# nameserver 1.1.1.1',
    ';nameserver 2.2.2.2',
    '  nameserver 192.0.2.1',
    'nameserver\t192.0.2.2 trailing',
    'domain a.example',
    'domain b.example',
    'search one two',
    'search three',
    'options ndots:5 timeout:1',
    'options rotate',
    'nameserver',
    'domain',
    'sortlist 1.2.3.4',
    '',
  ].join('\n');
  expect(parseResolvConf(text)).toEqual({
    nameservers: ['192.0.2.1', '192.0.2.2'],
    domain: 'b.example',
    search: ['one', 'two', 'three'],
    options: ['ndots:5', 'timeout:1', 'rotate'],
  });
});

it.each(['', '\n\n', '# nothing', 'nameserver\n', '\0\0'])('%j says nothing, and nothing is absent, not null', text => {
  expect(parseResolvConf(text)).toEqual({});
});

it('lines may end in CR LF', () => {
  expect(parseResolvConf('nameserver 192.0.2.1\r\nsearch a\r\n')).toEqual({
    nameservers: ['192.0.2.1'],
    search: ['a'],
  });
});

it('any text is read', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 200 }), text => {
      parseResolvConf(text);
    }),
  );
});

it('a file that cannot be read: code 5, naming it', () => {
  const folder = mkdtempSync(join(tmpdir(), 'kube-ipam-dns-'));
  try {
    writeFileSync(join(folder, 'resolv.conf'), 'nameserver 192.0.2.9\n');
    expect(readDns(join(folder, 'resolv.conf'))).toEqual({ nameservers: ['192.0.2.9'] });
    for (const path of [join(folder, 'absent'), folder]) {
      expect(() => readDns(path)).toThrow(expect.objectContaining({ code: 5, message: expect.stringContaining(path) }));
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
});
