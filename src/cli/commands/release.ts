// `kube-ipam release`: gives back what a container holds that will never ask for it itself.
import { describeOwner } from '../../ipam/describe.ts';
import { findHoldings, type Holding } from '../../ipam/service/holdings.ts';
import { prepareStore } from '../../ipam/service/patience.ts';
import { neverReleased, recordsToFree, type Verdict, verdictOn, withdraw } from '../../ipam/service/withdraw.ts';
import { formatIp } from '../../net/ip.ts';
import { confirmed } from '../ask.ts';
import { type Args, type Command, exit, given, required } from '../command.ts';
import { formatOf, isForPeople, outputFlags, plain, printValue } from '../output.ts';
import type { CliIo } from '../program.ts';
import { chooseStore, type OpenStore, openChosen, storeFlags } from '../store-access.ts';

export const command: Command = {
  verb: 'release',
  summary: 'give back what a dead container still holds',
  details:
    'Releases whole attachments: all addresses of an interface. It must be proven that the container is gone: its record ' +
    'was written by this machine before its last start, or its network namespace is no more. ' +
    'Records of other nodes cannot be proven from here: run the command there, or say --force if you know that the ' +
    'container is gone. An address that is released while a pod uses it is given to another pod.',
  positionals: [{ name: 'what', describe: 'an address, a pod, or a container ID', required: true }],
  flags: {
    yes: { type: 'boolean', short: 'y', describe: 'do not ask' },
    force: { type: 'boolean', describe: 'release also what cannot be proven dead' },
    'dry-run': { type: 'boolean', describe: 'only say what would be done' },
    ...outputFlags,
    ...storeFlags,
  },
  examples: [
    ['kube-ipam release 10.1.0.17', 'asks first'],
    ['kube-ipam release default/web-0 --yes', 'all attachments of a pod, where each is proven dead'],
    ['kube-ipam release 4f0c1a9be2d4 --yes --force', 'of a node that was thrown away'],
  ],
  async run(args, io) {
    const what = required(args, 'what');
    await using store = await openChosen(chooseStore(args));
    await prepareStore(store.around);
    const holdings = await findHoldings(store.around, what);
    if (holdings.length === 0) {
      io.writeStderr(
        plain(`${what}: nobody holds it in address space ${store.access.space}; nothing to release`).concat('\n'),
      );
      return exit.trouble;
    }
    const outcomes: Outcome[] = [];
    for (const holding of holdings) outcomes.push(await releaseOne(args, io, store, holding));
    const format = formatOf(args);
    if (!isForPeople(format)) printValue(io, format, outcomes);
    else for (const { text } of outcomes) io.writeStdout(`${plain(text)}\n`);
    return outcomes.every(({ released }) => released || given(args, 'dry-run')) ? exit.fine : exit.trouble;
  },
};

interface Outcome {
  readonly released: boolean;
  readonly addresses: readonly string[];
  readonly text: string;
}

async function releaseOne(args: Args, io: CliIo, store: OpenStore, holding: Holding): Promise<Outcome> {
  const addresses = recordsToFree(holding).map(({ ip }) => formatIp(ip));
  const named = addresses.length > 0 ? addresses.join(', ') : 'an attachment without addresses';
  const kept = (why: string): Outcome => ({ released: false, addresses: [], text: `${named}: not released: ${why}` });
  const never = neverReleased(holding);
  if (never !== undefined) return { released: false, addresses: [], text: `not released: ${never}` };
  const verdict = verdictOf(store, holding);
  const why = `${verdict.why} (${holder(holding)})`;
  if (!verdict.dead && !given(args, 'force')) return kept(`${why}; --force releases it all the same`);
  if (given(args, 'dry-run')) return kept(`dry run; it would be, as ${verdict.dead ? why : '--force was said'}`);
  const doubt = verdict.dead ? '' : ' It is not proven that nobody uses it!';
  if (!confirmed(args, io, `Release ${named}, ${holder(holding)}?${doubt}`)) return kept('as you said');
  const freed = await withdraw(store.around, holding);
  if (freed === undefined) return kept('its records changed just now, so somebody uses them; look again');
  return { released: true, addresses, text: `${named}: released: ${verdict.dead ? why : 'by force'}` };
}

/** The verdict on the attachment goes by its own records, all of which one ADD wrote. */
function verdictOf(store: OpenStore, holding: Holding): Verdict {
  const own = recordsToFree(holding);
  if (holding.id === undefined) return { dead: false, why: 'it is held for its former owner until its time is over' };
  if (own.length === 0) return { dead: false, why: 'no record says where its container lives' };
  const verdicts = own.map(({ owner }) => verdictOn(store.around, store.node, owner));
  return verdicts.find(({ dead }) => !dead) ?? verdicts[0]!;
}

function holder({ id, records }: Holding): string {
  const owner = records[0]?.owner;
  if (owner !== undefined) return describeOwner(owner);
  return id === undefined ? 'nobody' : `container ${id.containerID} ${id.ifname} on node ${id.node}`;
}
