// The network configuration on stdin, as far as the protocol itself goes; `ipam` is read by the ipam room.
import { code, FailureError } from '../base/errors.ts';
import { isObject, show } from '../base/section.ts';
import type { ValidAttachment } from '../ipam/service/collect.ts';
import { parseIpWithPrefix } from '../net/cidr.ts';
import { type Ip, parseIp } from '../net/ip.ts';
import { namePattern } from '../store/keys.ts';
import type { Command } from './env.ts';

/** Every version of the specification that is spoken, oldest first. */
export const versions = ['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'] as const;
export type Version = (typeof versions)[number];
export const newestVersion: Version = '1.1.0';

const introduced: Partial<Readonly<Record<Command, Version>>> = { CHECK: '0.4.0', GC: '1.1.0', STATUS: '1.1.0' };

export interface NetConf {
  readonly version: Version;
  readonly conf: Readonly<Record<string, unknown>>;
}

/** Parses stdin: code 6 unless it is one JSON object. */
export function parseConf(bytes: Buffer): Readonly<Record<string, unknown>> {
  let value: unknown;
  try {
    value = JSON.parse(bytes.toString('utf8'));
  } catch (error) {
    throw new FailureError(code.decode, 'the network configuration on stdin is not JSON', { cause: error });
  }
  if (!isObject(value)) throw new FailureError(code.decode, 'the network configuration on stdin is not a JSON object');
  return value;
}

/** The version to answer in: as configured where it is spoken. */
export function spokenVersion(conf: Readonly<Record<string, unknown>>): Version | undefined {
  const { cniVersion } = conf;
  if (cniVersion === undefined || cniVersion === null || cniVersion === '') return '0.1.0';
  return versions.find(version => version === cniVersion);
}

/** Checks name (code 7) and version (code 1), in the reference's order. */
export function checkConf(conf: Readonly<Record<string, unknown>>, command: Command): NetConf {
  const { name } = conf;
  if (typeof name !== 'string' || !namePattern.test(name)) {
    throw new FailureError(
      code.config,
      `name ${name === undefined ? '(absent)' : show(name)}: a network name must start with a letter or digit and hold only letters, digits, "_", "." and "-"`,
    );
  }
  const version = spokenVersion(conf);
  if (version === undefined) {
    throw new FailureError(
      code.incompatibleVersion,
      `cniVersion ${show(conf.cniVersion)} is not supported; supported are ${versions.join(', ')}`,
    );
  }
  const since = introduced[command];
  if (since !== undefined && versions.indexOf(version) < versions.indexOf(since)) {
    throw new FailureError(
      code.incompatibleVersion,
      `${command} exists from cniVersion ${since} on, and the configuration says ${version}`,
    );
  }
  return { version, conf };
}

/**
 * GC's list of attachments. libcni sends `cni.dev/valid-attachments`, null for none; the first text of the
 * specification called it `cni.dev/attachments`. An absent or malformed list is refused, never guessed at.
 */
export function validAttachments(conf: Readonly<Record<string, unknown>>): ValidAttachment[] {
  const key = ['cni.dev/valid-attachments', 'cni.dev/attachments'].find(one => Object.hasOwn(conf, one));
  if (key === undefined) {
    throw new FailureError(code.config, 'GC needs cni.dev/valid-attachments; without it nothing is freed');
  }
  const list = conf[key] ?? [];
  const pairs = Array.isArray(list) ? list.map(asPair) : [undefined];
  if (pairs.includes(undefined)) {
    throw new FailureError(code.config, `${key} must be a list of {containerID, ifname}; nothing was freed`);
  }
  return pairs.filter(pair => pair !== undefined);
}

function asPair(item: unknown): ValidAttachment | undefined {
  if (!isObject(item)) return undefined;
  const { containerID, ifname } = item;
  return typeof containerID === 'string' && typeof ifname === 'string' && containerID !== '' && ifname !== ''
    ? { containerID, ifname }
    : undefined;
}

/** The addresses of `prevResult`, whatever else it holds. */
export function previousAddresses(conf: Readonly<Record<string, unknown>>): Ip[] {
  const ips = isObject(conf.prevResult) ? conf.prevResult.ips : undefined;
  if (!Array.isArray(ips)) return [];
  return ips.flatMap(item => {
    const address = isObject(item) ? item.address : undefined;
    if (typeof address !== 'string') return [];
    return parseIpWithPrefix(address)?.ip ?? parseIp(address) ?? [];
  });
}
