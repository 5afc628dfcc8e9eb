// `kube-ipam public-ip drain`: has a node give its public addresses to the others, and waits until it has.
import { type Deadline, deadlineIn, pause } from '../../base/clock.ts';
import { openClient } from '../../kube/client.ts';
import { nodes, pathOf } from '../../kube/resources.ts';
import { Claims } from '../../publicip/claims.ts';
import type { Config } from '../../publicip/config.ts';
import { drainAnnotation } from '../../publicip/fitness.ts';
import { openGrpc } from '../../store/etcd/grpc.ts';
import { type Command, durationOf, exit, given, required } from '../command.ts';
import { counted, plain } from '../output.ts';
import { timeoutOf } from '../store-access.ts';
import { accessFlags, readConfig } from './flags.ts';

/** Milliseconds for one call, where --timeout says nothing else. */
const callTime = 10_000;
const usualWait = 30_000;

export const command: Command = {
  verb: 'drain',
  summary: 'have a node give its public addresses to the others',
  details:
    `Sets the annotation ${drainAnnotation} on the Node: each feature of kube-ipam on it gives away what it carries, in ` +
    'order, and takes nothing more until --undo. Waits until the node has claimed no public address any more; exit code 1 ' +
    'when it still has some by then.',
  positionals: [{ name: 'node', describe: 'name of the node in Kubernetes', required: true }],
  flags: {
    undo: { type: 'boolean', describe: 'let it carry addresses again' },
    wait: { type: 'string', value: 'TIME', describe: 'how long to wait, 0 for not at all (30s)' },
    ...accessFlags,
  },
  examples: [
    ['kube-ipam public-ip drain worker-1', 'before it is repaired'],
    ['kube-ipam public-ip drain worker-1 --undo', 'and after'],
  ],
  async run(args, io) {
    const node = required(args, 'node');
    const config = readConfig(args, io);
    const timeout = timeoutOf(args) ?? callTime;
    const wait = durationOf(args, 'wait') ?? usualWait;
    const isUndo = given(args, 'undo');
    await using client = await openClient(config.kubernetes);
    const annotations = { [drainAnnotation]: isUndo ? null : 'true' };
    await client.patch(pathOf(nodes, { name: node }), 'merge', { metadata: { annotations } }, deadlineIn(timeout));
    if (isUndo || wait === 0) {
      io.writeStdout(
        plain(isUndo ? `${node} may carry public addresses again` : `${node} is to carry none`).concat('\n'),
      );
      return exit.fine;
    }
    const left = await leftOn(node, config, deadlineIn(timeout), deadlineIn(wait));
    if (left.length === 0) {
      io.writeStdout(plain(`${node} carries no public address`).concat('\n'));
      return exit.fine;
    }
    const still = `${node} still has ${counted(left.length, 'address', 'addresses')}: ${left.join(', ')}`;
    io.writeStderr(plain(`${still}; "kube-ipam public-ip why ADDRESS" says why`).concat('\n'));
    return exit.trouble;
  },
};

/** The addresses that the node's agents have claimed, once there are none or the time is over. */
async function leftOn(node: string, config: Config, reading: Deadline, until: Deadline): Promise<string[]> {
  await using kv = openGrpc(config.etcd);
  await using claims = await Claims.open(kv, { prefix: config.prefix, id: '', ttl: config.ttl }, reading);
  for (;;) {
    const { owners, agents } = claims.view();
    const left = [...owners].filter(([, { id }]) => agents.get(id)?.node === node).map(([address]) => address);
    if (left.length === 0 || until.passed) return left;
    await pause(100, until);
  }
}
