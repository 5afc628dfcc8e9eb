// Hands a plugin's command to the agent of this node, before anything that the agent makes needless is loaded.
import { statSync } from 'node:fs';
import { type Deadline, deadlineSinceStart } from '../base/clock.ts';
import { parseDeadline } from '../base/duration.ts';
import { appendLines } from '../base/log.ts';
import { nodeNameOf } from '../base/node-name.ts';
import { defaultAgentSocket, defaultDataDir, defaultTimeout } from '../ipam/defaults.ts';
import { askAgent, type Outcome } from '../ipc/client.ts';
import { protocolVersion, type Request, type SameFile } from '../ipc/protocol.ts';

/** VERSION is answered sooner than an agent can be asked. */
const commands = ['ADD', 'DEL', 'CHECK', 'GC', 'STATUS'];

/** A STATUS must be quicker than other commands, with or without agent. */
const statusTimeout = 3000;

const variables = ['CNI_COMMAND', 'CNI_CONTAINERID', 'CNI_NETNS', 'CNI_IFNAME', 'CNI_ARGS'];

interface Prepared {
  readonly socket: string;
  readonly request: Request;
  readonly deadline: Deadline;
}

export interface AgentIo {
  readonly env: Readonly<Record<string, string | undefined>>;
  readStdin(): Buffer;
  /** CLOCK_MONOTONIC in milliseconds. */
  monotonicNow(): number;
}

/** The agent's answer; else what the plugin must know when it does the work itself. */
export async function throughAgent(io: AgentIo): Promise<Outcome> {
  const prepared = prepare(io);
  if (prepared === undefined) return 'self';
  const { socket, request, deadline } = prepared;
  const outcome = await askAgent(socket, request, deadline);
  if (typeof outcome === 'object' && outcome.answer.log) appendLines(outcome.answer.log, outcome.answer.log.text);
  return outcome;
}

/** Undefined where there is no agent to ask. What is wrong with the command is for the plugin to say. */
function prepare(io: AgentIo): Prepared | undefined {
  try {
    const command = io.env.CNI_COMMAND ?? '';
    if (!commands.includes(command)) return undefined;
    const conf = String(io.readStdin());
    const { ipam } = JSON.parse(conf);
    const socket = ipam.agentSocket ?? defaultAgentSocket;
    const folder = sameFile(ipam.dataDir || defaultDataDir);
    if (!isSocket(socket) || folder.ino === 0) return undefined;
    const budget = parseDeadline(ipam.timeout) ?? defaultTimeout;
    const deadline = deadlineSinceStart(command === 'STATUS' ? Math.min(budget, statusTimeout) : budget);
    const now = io.monotonicNow();
    const request: Request = {
      v: protocolVersion,
      env: Object.fromEntries(variables.flatMap(name => (io.env[name] === undefined ? [] : [[name, io.env[name]]]))),
      conf,
      started: now - performance.now(),
      deadline: now + deadline.left(),
      node: nodeNameOf(undefined),
      // What would be something else in a container that lacks a mount.
      files: [folder, ...(ipam.resolvConf ? [sameFile(ipam.resolvConf)] : []), sameFile('/etc/machine-id')],
    };
    return { socket, request, deadline };
  } catch {
    return undefined;
  }
}

/** Most machines without an agent have no such file: then the code for sockets is not even loaded. */
function isSocket(path: string): boolean {
  return path.startsWith('/') && statSync(path, { throwIfNoEntry: false })?.isSocket() === true;
}

function sameFile(path: string): SameFile {
  const { dev = 0, ino = 0 } = statSync(path, { throwIfNoEntry: false }) ?? {};
  return { path, dev, ino };
}
