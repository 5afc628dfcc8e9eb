// Holds the documentation against the program: keys, codes, commands, links, examples, and the JSON Schema.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { code } from '../../src/base/errors.ts';
import { versions } from '../../src/cni/netconf.ts';
import { readNetworkConfig } from '../../src/ipam/config.ts';
import { type CodeBlock, documents, read } from '../helpers/docs.ts';
import { keysRead, networksIn, readAsPlugin, schemaProblems, schemaProperties } from '../helpers/network-schema.ts';
import { project } from '../helpers/project.ts';

const pages = documents();
const reference = read(join(project, 'docs/reference.md'));
const defined = JSON.parse(readFileSync(join(project, 'docs/config.schema.json'), 'utf8')).definitions;

describe('the reference', () => {
  it('lists exactly the error codes that the program has', () => {
    const table = /### Error codes of the plugin\n([\s\S]*?)\n### /.exec(reference.text)![1]!;
    const listed = [...table.matchAll(/^\| `(\d+)` \|/gm)].map(match => Number(match[1]));
    expect(listed).toEqual(Object.values(code).sort((a, b) => a - b));
  });

  it('describes every key that the program reads, and every key of the schema', () => {
    const read = Object.values(keysRead()).flat();
    const inSchema = Object.values(schemaProperties()).flat();
    const spans = new Set(reference.codeSpans.flatMap(span => [span, ...span.split('.')]));
    for (const key of new Set([...read, ...inSchema])) expect(spans, `key ${key}`).toContain(key);
  });

  it('names every version of the CNI specification that is spoken', () => {
    for (const version of versions) expect(reference.codeSpans).toContain(version);
  });
});

describe('the schema', () => {
  it('knows the keys that the program reads, and only those', () => {
    const known = schemaProperties();
    // No reader looks at these: the main plugin does at `type`, nobody at the others (docs/reference.md says so).
    const unread = { ipam: ['type', 'name'], etcdConfig: [], range: [], route: [] };
    for (const [level, read] of Object.entries(keysRead())) {
      const idle = unread[level as keyof typeof unread];
      expect([...new Set([...read, ...idle])].sort(), level).toEqual([...known[level as keyof typeof known]].sort());
    }
  });

  it('gives the defaults that the program has', () => {
    const config = readNetworkConfig({ name: 'n', ipam: { type: 'kube-ipam', subnet: '10.1.0.0/24' } }, '1.0.0');
    const keys = defined.ipam.properties;
    const etcd = { etcdURL: 'http://h:1' };
    const { store } = readNetworkConfig({ name: 'n', ipam: { subnet: '10.1.0.0/24', etcdConfig: etcd } }, '1.0.0');
    expect({
      dataDir: keys.dataDir.default,
      space: keys.addressSpace.default,
      cluster: keys.cluster.default,
      cooldown: keys.cooldown.default,
      fixedHold: keys.fixedHold.default,
      timeout: keys.timeout.default * 1000,
      status: keys.status.default,
      log: [keys.logFile.default, keys.logLevel.default, Number.parseInt(keys.logMaxSize.default, 10) * 2 ** 20],
      dialTimeout: keys.etcdConfig.properties.dialTimeout.default * 1000,
      requestTimeout: keys.etcdConfig.properties.requestTimeout.default * 1000,
    }).toEqual({
      dataDir: config.store.dataDir,
      space: config.space,
      cluster: config.cluster,
      cooldown: config.cooldown,
      fixedHold: config.fixedHold,
      timeout: config.timeout,
      status: config.status,
      log: [config.log.file, config.log.level, config.log.maxSize],
      ...(store.kind === 'etcd' && { dialTimeout: store.dialTimeout, requestTimeout: store.requestTimeout }),
    });
  });
});

describe('every example', () => {
  it('of a JSON block parses, and every network in it satisfies the schema and the plugin', () => {
    let networks = 0;
    for (const page of pages) {
      for (const block of page.blocks) {
        const text = jsonOf(block);
        if (text === undefined) continue;
        const where = `${page.path}:${block.line}`;
        const value = parsed(text, where);
        for (const network of networksIn(value)) {
          networks++;
          expect(readAsPlugin(network), where).toBeUndefined();
        }
        if (networksIn(value).length > 0) expect(schemaProblems(value), where).toEqual([]);
      }
    }
    expect(networks).toBeGreaterThan(15);
  });

  it('of cni-conf satisfies the schema and the plugin', () => {
    const files = readdirSync(join(project, 'cni-conf')).filter(name => /\.conf(list)?$/.test(name));
    expect(files.length).toBeGreaterThan(10);
    for (const file of files) {
      const value = parsed(readFileSync(join(project, 'cni-conf', file), 'utf8'), file);
      expect(schemaProblems(value), file).toEqual([]);
      const networks = networksIn(value);
      expect(networks.length, file).toBeGreaterThan(0);
      for (const network of networks) expect(readAsPlugin(network), file).toBeUndefined();
    }
  });
});

describe('every link', () => {
  it('to a file or heading resolves', () => {
    const broken: string[] = [];
    for (const page of pages) {
      for (const link of page.links) {
        if (/^[a-z]+:/.test(link)) continue;
        const [path, anchor] = link.split('#');
        const target = path === '' ? join(project, page.path) : resolve(project, dirname(page.path), path!);
        if (!existsSync(target)) broken.push(`${page.path}: ${link}`);
        else if (anchor && !read(target).anchors.has(anchor)) broken.push(`${page.path}: ${link} (no such heading)`);
      }
    }
    expect(broken).toEqual([]);
  });
});

describe('every npm script', () => {
  it('that is mentioned exists, and every one that exists is mentioned', () => {
    const { scripts } = JSON.parse(readFileSync(join(project, 'package.json'), 'utf8'));
    const text = pages.map(page => page.text).join('\n');
    const mentioned = [...text.matchAll(/\bnpm run ([a-z:-]+)/g)].map(match => match[1]!);
    expect(mentioned.length).toBeGreaterThan(3);
    for (const name of mentioned) expect(Object.keys(scripts)).toContain(name);
    for (const name of Object.keys(scripts)) expect(['test', ...mentioned], name).toContain(name);
  });
});

describe('no page', () => {
  it('has a file without its first heading', () => {
    for (const page of pages) expect(page.text.startsWith('# '), page.path).toBe(true);
  });
});

/** The JSON of a block, or the one that a NetworkAttachmentDefinition carries. */
function jsonOf({ language, text }: CodeBlock): string | undefined {
  if (language === 'json') return text;
  return language === 'yaml' ? /^ +config: \|\n([\s\S]*)$/m.exec(text)?.[1] : undefined;
}

function parsed(text: string, where: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`${where} is not JSON: ${error instanceof Error ? error.message : error}`);
  }
}
