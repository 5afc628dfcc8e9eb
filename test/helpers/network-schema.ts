// The JSON Schema of a network configuration, and the plugin's own reading of one, for tests that hold both together.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Ajv } from 'ajv';
import { FailureError } from '../../src/base/errors.ts';
import { isObject } from '../../src/base/section.ts';
import { checkConf } from '../../src/cni/netconf.ts';
import { readNetworkConfig } from '../../src/ipam/config.ts';
import { planSets } from '../../src/ipam/service/plan.ts';
import { everyRange } from '../../src/ipam/serving.ts';
import { Keys } from '../../src/store/keys.ts';
import { project } from './project.ts';

type Conf = Readonly<Record<string, unknown>>;

const schema = JSON.parse(readFileSync(join(project, 'docs/config.schema.json'), 'utf8'));
const validate = new Ajv({
  allErrors: true,
  strict: true,
  allowUnionTypes: true,
  strictRequired: false,
  strictTypes: false,
}).compile(schema);

/** What the schema says against a configuration file's content. */
export function schemaProblems(value: unknown): readonly string[] {
  if (validate(value)) return [];
  return validate.errors!.map(({ instancePath, message }) => `${instancePath} ${message}`);
}

/** What the plugin says against a network as an ADD of a container that is no pod; undefined when it would serve it. */
export function readAsPlugin(conf: Conf): string | undefined {
  try {
    const { version } = checkConf(conf, 'ADD');
    const config = readNetworkConfig(conf, version);
    void new Keys(config.space);
    planSets(config, everyRange(config), []);
    return config.unsupportedKeys.length > 0 ? `refused: ${config.unsupportedKeys.join(', ')}` : undefined;
  } catch (error) {
    if (error instanceof FailureError) return error.message;
    throw error;
  }
}

/** Each network of kube-ipam in a .conf or .conflist, delegates of Multus included, as the plugin gets it on stdin. */
export function networksIn(value: unknown): readonly Conf[] {
  if (!isObject(value)) return [];
  const inherited = { cniVersion: value.cniVersion, name: value.name };
  const own = isObject(value.ipam) && value.ipam.type === 'kube-ipam' ? [value] : [];
  const inner = [value.plugins, value.delegates].flatMap(list => (Array.isArray(list) ? list : []));
  return [...own, ...inner.flatMap(item => (isObject(item) ? networksIn({ ...inherited, ...item }) : []))];
}

/** The keys that the schema has at each level. */
export function schemaProperties() {
  const { ipam, range, route } = schema.definitions;
  return {
    ipam: Object.keys(ipam.properties),
    etcdConfig: Object.keys(ipam.properties.etcdConfig.properties),
    range: Object.keys(range.properties),
    route: Object.keys(route.properties),
  };
}

/** The keys that the program asks for at each level, seen by watching it read. */
export function keysRead() {
  const asked = {
    ipam: new Set<string>(),
    etcdConfig: new Set<string>(),
    range: new Set<string>(),
    route: new Set<string>(),
  };
  const watched = (level: keyof typeof asked, object: Conf): Conf =>
    new Proxy(object, {
      getOwnPropertyDescriptor(target, key) {
        asked[level].add(String(key));
        return Reflect.getOwnPropertyDescriptor(target, key);
      },
      get(target, key) {
        asked[level].add(String(key));
        return Reflect.get(target, key);
      },
    });
  const etcdConfig = watched('etcdConfig', { etcdURL: 'http://127.0.0.1:2379' });
  const range = watched('range', { subnet: '10.2.0.0/24' });
  const route = watched('route', { dst: '0.0.0.0/0' });
  const ipam = watched('ipam', { subnet: '10.1.0.0/24', ranges: [[range]], routes: [route], etcdConfig });
  readNetworkConfig({ name: 'n', ipam }, '1.1.0');
  const { ipam: a, etcdConfig: b, range: c, route: d } = asked;
  return { ipam: [...a], etcdConfig: [...b], range: [...c], route: [...d] };
}
