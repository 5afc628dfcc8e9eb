// Finds kube-ipam's networks in configuration files: plain ones, lists, and the delegates of Multus.
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { code, FailureError, messageOf, systemCode } from '../base/errors.ts';
import { isObject } from '../base/section.ts';
import { findFault } from './json-fault.ts';
import { readNamedFile } from './read-file.ts';

export const defaultConfDir = '/etc/cni/net.d';

type Conf = Readonly<Record<string, unknown>>;

/** One network whose addresses come from kube-ipam. */
export interface FoundNetwork {
  readonly file: string;
  /** Where in the file: `plugins[0]`, `plugins[0].delegates[1]`, or "" for all of it. */
  readonly place: string;
  readonly name: string;
  /** What the plugin gets on stdin, but for what the runtime adds. */
  readonly conf: Conf;
}

/** Reads a configuration. Throws a FailureError that names file, line and column where it is not JSON. */
export function readConfFile(file: string): Conf {
  return parseConfText(readNamedFile(file).toString(), file);
}

export function parseConfText(text: string, file: string): Conf {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new FailureError(code.decode, describeFault(text, file), { cause: error });
  }
  if (isObject(value)) return value;
  throw new FailureError(code.decode, `${file}: a network configuration must be a JSON object`);
}

function describeFault(text: string, file: string): string {
  const fault = findFault(text);
  if (fault === undefined) return `${file} is not JSON`;
  // A long line is cut, so that its mark can still be seen.
  const from = Math.max(0, fault.column - 100);
  const shown = fault.text.slice(from, from + 140).replace(/[\p{Cc}]/gu, ' ');
  const number = String(fault.line);
  const margin = ' '.repeat(number.length);
  const mark = ' '.repeat(fault.column - 1 - from);
  return [
    `${file}:${fault.line}:${fault.column}: not JSON: ${fault.what} (line ${fault.line}, column ${fault.column})`,
    `  ${number} | ${shown}`,
    `  ${margin} | ${mark}^`,
  ].join('\n');
}

/** The networks of kube-ipam in a configuration, in the order of the file. */
export function networksIn(conf: Conf, file: string): FoundNetwork[] {
  const inherited = { name: conf.name, cniVersion: conf.cniVersion };
  if (Array.isArray(conf.plugins)) return fromPlugins(conf, file, '');
  return fromPlugin(conf, file, '', inherited);
}

function fromPlugins(list: Conf, file: string, place: string): FoundNetwork[] {
  const inherited = { name: list.name, cniVersion: list.cniVersion };
  const plugins: readonly unknown[] = Array.isArray(list.plugins) ? list.plugins : [];
  return plugins.flatMap((plugin, i) =>
    isObject(plugin) ? fromPlugin(plugin, file, `${place}${place && '.'}plugins[${i}]`, inherited) : [],
  );
}

interface Inherited {
  readonly name: unknown;
  readonly cniVersion: unknown;
}

/** A runtime gives each plugin of a list the list's name and version; Multus gives a delegate its own. */
function fromPlugin(plugin: Conf, file: string, place: string, inherited: Inherited): FoundNetwork[] {
  const own =
    isObject(plugin.ipam) && plugin.ipam.type === 'kube-ipam'
      ? [{ file, place, name: String(inherited.name ?? ''), conf: { ...plugin, ...inherited } }]
      : [];
  const delegates: readonly unknown[] = Array.isArray(plugin.delegates) ? plugin.delegates : [];
  const delegated = delegates.flatMap((delegate, i) => {
    if (!isObject(delegate)) return [];
    const at = `${place}${place && '.'}delegates[${i}]`;
    if (Array.isArray(delegate.plugins)) return fromPlugins(delegate, file, at);
    const { name = inherited.name, cniVersion = inherited.cniVersion } = delegate;
    return fromPlugin(delegate, file, at, { name, cniVersion });
  });
  return [...own, ...delegated];
}

/** The files of a folder that runtimes read, in their order. Empty when there is no such folder. */
export function confFilesOf(folder: string): string[] {
  let names: string[];
  try {
    names = readdirSync(folder);
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes(systemCode(error) ?? '')) return [];
    throw new FailureError(code.io, `${folder} cannot be read: ${messageOf(error)}`, { cause: error });
  }
  return names
    .filter(name => /\.(conf|conflist|json)$/.test(name))
    .sort()
    .map(name => join(folder, name));
}

export interface ConfFolder {
  readonly files: readonly string[];
  readonly networks: readonly FoundNetwork[];
  /** Files that cannot be read as configurations. */
  readonly broken: readonly { readonly file: string; readonly reason: string }[];
}

export function readConfFolder(folder: string): ConfFolder {
  const files = confFilesOf(folder);
  const networks: FoundNetwork[] = [];
  const broken: { file: string; reason: string }[] = [];
  for (const file of files) {
    try {
      networks.push(...networksIn(readConfFile(file), file));
    } catch (error) {
      if (!(error instanceof FailureError)) throw error;
      broken.push({ file, reason: error.message });
    }
  }
  return { files, networks, broken };
}
