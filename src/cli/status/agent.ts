// Whether the agent of this node does a network's work, found out as a plugin would: by a STATUS through its socket.
import { statSync } from 'node:fs';
import { deadlineIn } from '../../base/clock.ts';
import { nodeNameOf } from '../../base/node-name.ts';
import { isObject } from '../../base/section.ts';
import { newestVersion } from '../../cni/netconf.ts';
import { defaultAgentSocket } from '../../ipam/defaults.ts';
import { askAgent } from '../../ipc/client.ts';
import { protocolVersion } from '../../ipc/protocol.ts';
import { plain } from '../output.ts';
import type { CliIo } from '../program.ts';
import { type Diagnosis, diagnosis } from './diagnosis.ts';

/** As long as a STATUS may take, in milliseconds. */
const timeout = 3000;

/**
 * Nothing for a network whose plugins ask no agent.
 * @param conf as the runtime gives it to a plugin
 * @param isOfPods whether pods of Kubernetes are looked up
 */
export async function examineAgent(
  conf: Readonly<Record<string, unknown>>,
  isOfPods: boolean,
  io: CliIo,
): Promise<Diagnosis[]> {
  const { agentSocket } = isObject(conf.ipam) ? conf.ipam : {};
  const socket = typeof agentSocket === 'string' ? agentSocket : defaultAgentSocket;
  if (socket === '') return [];
  const found = statSync(socket, { throwIfNoEntry: false });
  if (found === undefined) {
    if (!isOfPods) return [diagnosis('agent', socket, 'fine', 'no agent runs on this node: plugins work alone')];
    const text = 'no agent runs on this node: plugins work alone, and what ends without a DEL stays taken';
    return [
      diagnosis('agent', socket, 'advice', text, { advice: 'run "kube-ipam agent", or "kube-ipam gc" at times' }),
    ];
  }
  const started = io.monotonicNow();
  const request = {
    v: protocolVersion,
    env: { CNI_COMMAND: 'STATUS' },
    conf: JSON.stringify({ ...conf, cniVersion: newestVersion }),
    started,
    deadline: started + timeout,
    node: nodeNameOf(undefined),
    files: [],
  } as const;
  const outcome = await askAgent(socket, request, deadlineIn(timeout));
  const ms = Math.round(io.monotonicNow() - started);
  const network = String(conf.name ?? '');
  if (typeof outcome === 'object') {
    const { exitCode, stdout } = outcome.answer;
    if (exitCode === 0) return [diagnosis('agent', socket, 'fine', `serves network ${network}`, { figures: { ms } })];
    return [diagnosis('agent', socket, 'wrong', `cannot serve network ${network}: ${plain(messageIn(stdout))}`)];
  }
  const text =
    outcome === 'self'
      ? `no agent answers there for network ${network}: plugins do its work themselves`
      : `the agent did not answer in time for network ${network}`;
  return [diagnosis('agent', socket, 'warning', text, { advice: "look at the agent's log" })];
}

function messageIn(answer: string): string {
  try {
    const error: unknown = JSON.parse(answer);
    return isObject(error) ? String(error.msg) : answer;
  } catch {
    return answer;
  }
}
