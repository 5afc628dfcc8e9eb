// `kube-ipam public-ip move`: has the owner of an address hand it to another node, in order, and waits until that has it.
import { deadlineIn, pause } from '../../base/clock.ts';
import { formatIp, parseIp } from '../../net/ip.ts';
import { Claims, type ClaimsView } from '../../publicip/claims.ts';
import { openGrpc } from '../../store/etcd/grpc.ts';
import { type Command, durationOf, exit, required, text, UsageError } from '../command.ts';
import { plain } from '../output.ts';
import { timeoutOf } from '../store-access.ts';
import { accessFlags, readConfig } from './flags.ts';

/** Milliseconds for one call, where --timeout says nothing else; and for the hand-over. */
const callTime = 10_000;
const usualWait = 10_000;

export const command: Command = {
  verb: 'move',
  summary: 'have an address handed over to another node',
  details:
    'Asks the node that carries the address to hand it over, to the node that is named or to the next in line, and waits ' +
    'until another has claimed it. This is the safe way: whoever deletes the claim, or revokes the lease, leaves two nodes ' +
    'that may both believe to have the address. A node that may not carry the address is not asked. Exit code 1 when the ' +
    'address stays where it is.',
  positionals: [
    { name: 'address', describe: 'a public address', required: true },
    { name: 'node', describe: 'name of the node that shall have it (the next in line)', required: false },
  ],
  flags: {
    wait: { type: 'string', value: 'TIME', describe: 'how long to wait, 0 for not at all (10s)' },
    ...accessFlags,
  },
  examples: [
    ['kube-ipam public-ip move 192.168.1.41', 'to whichever node is next'],
    ['kube-ipam public-ip move 192.168.1.41 worker-2', 'to this one'],
  ],
  async run(args, io) {
    const ip = parseIp(required(args, 'address'));
    if (ip === undefined) throw new UsageError(`${JSON.stringify(required(args, 'address'))} is no address`);
    const address = formatIp(ip);
    const { etcd, prefix, ttl } = readConfig(args, io);
    const timeout = timeoutOf(args) ?? callTime;
    const until = deadlineIn(durationOf(args, 'wait') ?? usualWait);
    await using kv = openGrpc(etcd);
    await using claims = await Claims.open(kv, { prefix, id: '', ttl }, deadlineIn(timeout));
    const before = claims.view();
    const owner = before.owners.get(address);
    const say = (words: string, code: number) => {
      (code === exit.fine ? io.writeStdout : io.writeStderr)(plain(words).concat('\n'));
      return code;
    };
    if (owner === undefined) return say(`${address}: no node has claimed it`, exit.trouble);
    const node = text(args, 'node');
    const to = node === undefined ? undefined : agentOn(before, node);
    if (node !== undefined && to === undefined) return say(`${node}: no agent runs there`, exit.trouble);
    if (owner.id === to) return say(`${node} has ${address} already`, exit.fine);
    await claims.askToMove(address, to, deadlineIn(timeout));
    if (until.passed) return say(`${nodeOf(before, owner.id)} is asked to hand ${address} over`, exit.fine);
    const next = await nextOwner(claims, address, owner.id, until);
    if (next !== undefined) return say(`${address} is on ${nodeOf(claims.view(), next)} now`, exit.fine);
    const why = '"kube-ipam public-ip why ADDRESS" says who may carry it';
    return say(`${address} is still on ${nodeOf(before, owner.id)}; ${why}`, exit.trouble);
  },
};

function agentOn({ agents }: ClaimsView, node: string): string | undefined {
  return [...agents].find(([, agent]) => agent.node === node)?.[0];
}

function nodeOf({ agents }: ClaimsView, id: string): string {
  return agents.get(id)?.node ?? id;
}

/** The id of the agent that has it instead; undefined when none has by then. */
async function nextOwner(claims: Claims, address: string, former: string, until: ReturnType<typeof deadlineIn>) {
  for (;;) {
    const owner = claims.view().owners.get(address)?.id;
    if ((owner !== undefined && owner !== former) || until.passed) return owner === former ? undefined : owner;
    await pause(50, until);
  }
}
