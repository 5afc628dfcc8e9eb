// `kube-ipam public-ip plan`: which node is to carry which address, as JSON, without anything being done.
import type { Survey } from '../../publicip/survey.ts';
import { type Command, exit, text } from '../command.ts';
import { printValue } from '../output.ts';
import { look, lookFlags } from './look.ts';

export const command: Command = {
  verb: 'plan',
  summary: 'print which node is to carry which address; nothing is done',
  details:
    'The plan that every node makes of what stands in the Kubernetes API and in etcd: for each address the agents that may ' +
    'carry it, the planned one first; what moves for balance; what nobody may carry, and why. Where the nodes run with ' +
    '--cidr-range, --allow-namespace or --rebalance, give them here too.',
  positionals: [],
  flags: {
    output: { type: 'string', short: 'o', choices: ['json', 'yaml'], describe: 'how to print the plan (json)' },
    ...lookFlags,
  },
  examples: [
    ['kube-ipam public-ip plan', ''],
    ['kube-ipam plan public-ip -o yaml', 'the same, for people'],
  ],
  async run(args, io) {
    printValue(io, text(args, 'output') === 'yaml' ? 'yaml' : 'json', planObject(await look(args, io)));
    return exit.fine;
  },
};

function planObject({ cluster, claims, members, plan, refusals }: Survey): object {
  const owners = [...claims.owners].map(([address, { id }]) => [address, id] as const);
  return {
    revision: claims.revision,
    cluster,
    agents: members.map(agent => ({ ...agent, refuses: [...agent.refuses] })),
    owners: Object.fromEntries(owners),
    lines: Object.fromEntries(plan.lines),
    moves: plan.moves,
    nobody: Object.fromEntries(plan.nobody),
    refusals,
  };
}
