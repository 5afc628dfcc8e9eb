// The files of cni-conf/ are what the templates say, each one a configuration that its main plugin can take.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Ajv } from 'ajv';
import { describe, expect, test } from 'vitest';
import {
  asSingleConf,
  type ConfList,
  confFor,
  confText,
  mainPlugins,
  shippedConfs,
} from '../../src/cli/conf-templates.ts';

const folder = join(import.meta.dirname, '..', '..', 'cni-conf');
const schema = JSON.parse(readFileSync(join(folder, '..', 'docs/config.schema.json'), 'utf8'));
const agrees = new Ajv({ allErrors: true, allowUnionTypes: true, strictTypes: false }).compile(schema);
const shipped = [...shippedConfs()];

describe('cni-conf', () => {
  test.each(shipped)('%s is what the template gives', (name, text) => {
    expect(readFileSync(join(folder, name), 'utf8')).toBe(text);
  });

  test('holds no other configuration', () => {
    const files = readdirSync(folder).filter(name => name !== 'README.md');
    expect(files.sort()).toEqual(shipped.map(([name]) => name).sort());
  });

  test('the README explains each file and each main plugin', () => {
    const readme = readFileSync(join(folder, 'README.md'), 'utf8');
    for (const [name] of shipped) expect(readme).toContain(name.replace(/-(embedded|etcd)\.conflist$/, ''));
    for (const plugin of mainPlugins) expect(readme).toContain(`## ${plugin}`);
  });

  test.each(shipped)('%s agrees with the JSON Schema of the documentation', (_name, text) => {
    const conf = JSON.parse(text);
    for (const network of [conf, ...delegates(conf)]) expect([agrees(network), agrees.errors]).toEqual([true, null]);
  });

  test('the JSON Schema would notice a mistake in any of them', () => {
    for (const [, text] of shipped) {
      const conf = JSON.parse(text.replaceAll('/16"', '/99"'));
      expect([conf, ...delegates(conf)].every(network => agrees(network))).toBe(false);
    }
  });

  test.each(shipped.filter(([name]) => name.includes('-etcd')))('%s keeps STATUS local', (_name, text) => {
    const ipams = ipamSections(JSON.parse(text));
    expect(ipams.length).toBeGreaterThan(0);
    for (const ipam of ipams) expect(ipam).toMatchObject({ type: 'kube-ipam', status: 'local' });
  });

  test.each(shipped.filter(([name]) => name.includes('-embedded')))('%s names no server', (_name, text) => {
    for (const ipam of ipamSections(JSON.parse(text))) expect(ipam).not.toHaveProperty('etcdConfig');
  });
});

describe('the templates', () => {
  test('flags replace what the examples show', () => {
    const list = confFor('macvlan', {
      name: 'lan',
      cniVersion: '1.1.0',
      master: 'bond0',
      mtu: 9000,
      ranges: [[{ subnet: '192.0.2.0/24' }], [{ subnet: '2001:db8::/64' }]],
      etcd: { urls: 'http://127.0.0.1:2379', username: 'ipam', passwordFile: '/etc/kube-ipam/password' },
    });
    expect(list).toEqual({
      cniVersion: '1.1.0',
      name: 'lan',
      plugins: [
        {
          type: 'macvlan',
          master: 'bond0',
          mode: 'bridge',
          mtu: 9000,
          ipam: {
            type: 'kube-ipam',
            etcdConfig: {
              etcdURL: 'http://127.0.0.1:2379',
              etcdUsername: 'ipam',
              etcdPasswordFile: '/etc/kube-ipam/password',
            },
            status: 'local',
            ranges: [[{ subnet: '192.0.2.0/24' }], [{ subnet: '2001:db8::/64' }]],
            routes: [{ dst: '0.0.0.0/0' }, { dst: '::/0' }],
          },
        },
      ],
    });
  });

  test('a one-plugin list can be written as .conf, a chain cannot', () => {
    const single = asSingleConf(confFor('bridge'));
    expect(Object.keys(single).slice(0, 3)).toEqual(['cniVersion', 'name', 'type']);
    expect(JSON.parse(confText(single))).toMatchObject({ name: 'pods', type: 'bridge', bridge: 'cni0' });
    expect(() => asSingleConf(confFor('calico'))).toThrow(/calico, portmap, bandwidth.*\.conflist/);
  });
});

/** The networks that multus carries inside its own configuration. */
function delegates(conf: ConfList): readonly object[] {
  return conf.plugins.flatMap(plugin => (Array.isArray(plugin.delegates) ? plugin.delegates : []));
}

/** Every `ipam` object, however deep: multus carries them in its delegates. */
function ipamSections(value: unknown): readonly object[] {
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value).flatMap(([key, each]) => (key === 'ipam' ? [each] : ipamSections(each)));
}
