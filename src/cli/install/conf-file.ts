// The network configuration that `install` writes and `uninstall` removes again.
import { existsSync } from 'node:fs';
import { basename, join } from 'node:path';
import { code, FailureError } from '../../base/errors.ts';
import { isObject } from '../../base/section.ts';
import { type ConfReport, examineConf } from '../check-conf.ts';
import { type Args, text, UsageError } from '../command.ts';
import { confOf, mainPluginOf } from '../conf-flags.ts';
import { confText } from '../conf-templates.ts';
import { networksIn, parseConfText } from '../networks.ts';
import { readNamedFile } from '../read-file.ts';

/** Without an ending: a configuration of one plugin is a .conf file, a list a .conflist file. */
const defaultName = '1-kube-ipam';

export interface NewConf {
  /** Name of the file in the folder of configurations. */
  readonly name: string;
  readonly text: string;
  /** Names of the plugins that it calls, kube-ipam aside. */
  readonly plugins: readonly string[];
  readonly reports: readonly ConfReport[];
}

/** What shall be written: a given file as it is, or what the flags describe. Undefined when neither was given. */
export function newConf(args: Args): NewConf | undefined {
  const file = text(args, 'conf');
  const plugin = mainPluginOf(args);
  if (file !== undefined && plugin !== undefined)
    throw new UsageError('give either --conf FILE or a main plugin, not both');
  if (plugin !== undefined) {
    const list = confOf(plugin, { ...args, single: false });
    const isOne = Array.isArray(list.plugins) && list.plugins.length === 1;
    return examined(confText(isOne ? confOf(plugin, { ...args, single: true }) : list), `flags of ${plugin}`, args);
  }
  return file === undefined ? undefined : examined(readNamedFile(file).toString(), file, args);
}

function examined(content: string, from: string, args: Args): NewConf {
  const conf = parseConfText(content, from);
  const reports = networksIn(conf, from).map(examineConf);
  if (reports.length === 0) throw new FailureError(code.config, `${from} names no kube-ipam (ipam.type "kube-ipam")`);
  const problems = reports.flatMap(report => report.problems);
  if (problems.length > 0) throw new FailureError(code.config, `${from} cannot be installed: ${problems.join('; ')}`);
  const isList = Array.isArray(conf.plugins);
  return { name: confName(args, isList), text: content, plugins: pluginTypes(conf), reports };
}

function confName(args: Args, isList: boolean): string {
  const ending = isList ? '.conflist' : '.conf';
  const name = text(args, 'conf-name') ?? defaultName + ending;
  if (basename(name) !== name || name.startsWith('.'))
    throw new UsageError(`--conf-name ${name}: must be a file name without folder`);
  const isRight = isList ? name.endsWith('.conflist') : /\.(conf|json)$/.test(name);
  if (!isRight) throw new UsageError(`--conf-name ${name}: must end in ${ending}, or runtimes will not read it`);
  return name;
}

/** The types of all plugins, those of Multus' delegates too. */
export function pluginTypes(conf: Readonly<Record<string, unknown>>): string[] {
  const own = typeof conf.type === 'string' ? [conf.type] : [];
  const below = [conf.plugins, conf.delegates].flatMap(list => (Array.isArray(list) ? list.filter(isObject) : []));
  return [...new Set([...own, ...below.flatMap(pluginTypes)])];
}

/** Files of the default name, in either form, or the one that --conf-name names. */
export function ownConfFiles(args: Args, folder: string): string[] {
  const named = text(args, 'conf-name');
  const names = named === undefined ? ['.conf', '.conflist'].map(ending => defaultName + ending) : [named];
  return names.map(name => join(folder, name)).filter(path => existsSync(path));
}

/** The same network in its other form, which a runtime would read before or beside the new one. */
export function otherForm(folder: string, name: string): string | undefined {
  if (!name.startsWith(`${defaultName}.`)) return undefined;
  const other = join(folder, defaultName + (name.endsWith('.conflist') ? '.conf' : '.conflist'));
  return existsSync(other) ? other : undefined;
}
