// The environment that a runtime hands to the plugin (contracts: CNI specification, "Parameters"; libcni's checks).
import { code, FailureError } from '../base/errors.ts';
import { namePattern } from '../store/keys.ts';

export const commands = ['ADD', 'DEL', 'CHECK', 'GC', 'STATUS', 'VERSION'] as const;
export type Command = (typeof commands)[number];

export interface CniEnv {
  readonly command: Command;
  readonly containerID: string;
  readonly netns: string;
  readonly ifname: string;
  readonly args: string;
}

export type Environment = Readonly<Record<string, string | undefined>>;

const required: Readonly<Record<Command, readonly string[]>> = {
  ADD: ['CNI_CONTAINERID', 'CNI_NETNS', 'CNI_IFNAME'],
  CHECK: ['CNI_CONTAINERID', 'CNI_NETNS', 'CNI_IFNAME'],
  DEL: ['CNI_CONTAINERID', 'CNI_IFNAME'],
  GC: [],
  STATUS: [],
  VERSION: [],
};

/** Reads and checks the variables. Throws code 4, naming all that are missing or the one that is wrong. */
export function readEnv(env: Environment): CniEnv {
  const value = (name: string) => env[name] ?? '';
  const command = commands.find(one => one === value('CNI_COMMAND'));
  if (command === undefined) {
    throw new FailureError(
      code.environment,
      `unknown CNI_COMMAND: ${JSON.stringify(value('CNI_COMMAND').slice(0, 40))}; it must be one of ${commands.join(', ')}`,
    );
  }
  const missing = required[command].filter(name => value(name) === '');
  if (missing.length > 0) {
    throw new FailureError(code.environment, `${command} needs the environment variables ${missing.join(', ')}`);
  }
  if (required[command].includes('CNI_CONTAINERID')) {
    checkContainerID(value('CNI_CONTAINERID'));
    checkIfname(value('CNI_IFNAME'));
  }
  return {
    command,
    containerID: value('CNI_CONTAINERID'),
    netns: value('CNI_NETNS'),
    ifname: value('CNI_IFNAME'),
    args: value('CNI_ARGS'),
  };
}

function checkContainerID(id: string): void {
  if (namePattern.test(id)) return;
  throw new FailureError(
    code.environment,
    `CNI_CONTAINERID ${JSON.stringify(id.slice(0, 80))} must start with a letter or digit and hold only letters, digits, "_", "." and "-"`,
  );
}

function checkIfname(name: string): void {
  // U+0085 is white space to Unicode and Go, though not to \s. U+FFFD stands for bytes that are no UTF-8: two such
  // names could not be told apart.
  const bad = Buffer.byteLength(name) > 15 || name === '.' || name === '..' || /[/:\s\u0085\ufffd\0]/u.test(name);
  if (!bad) return;
  throw new FailureError(
    code.environment,
    `CNI_IFNAME ${JSON.stringify(name.slice(0, 40))} must be 1 to 15 bytes without "/", ":" and white space`,
  );
}
