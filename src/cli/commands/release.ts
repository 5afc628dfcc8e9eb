// `kube-ipam release`: gives back what a container holds that will never ask for it itself.
import { describeOwner, describeWorkload } from '../../ipam/describe.ts';
import { type Holder, type OwnerRecord, sameAttachment } from '../../ipam/model.ts';
import { type AddressRecord, findHoldings, type Holding, readRecords } from '../../ipam/service/holdings.ts';
import { takeFromWorkload } from '../../ipam/service/keeping.ts';
import { type PatientSurroundings, prepareStore } from '../../ipam/service/patience.ts';
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
    'container is gone. An address that is released while a pod uses it is given to another pod. ' +
    'What a StatefulSet or a VM keeps stays kept for its next pod; --workload takes it away for good once no pod uses it: ' +
    '"kube-ipam gc" does so by itself where the workload is gone from a cluster that can be asked.',
  positionals: [
    {
      name: 'what',
      describe: 'an address, a pod, a container ID, or the name of a StatefulSet pod or VM',
      required: true,
    },
  ],
  flags: {
    yes: { type: 'boolean', short: 'y', describe: 'do not ask' },
    force: { type: 'boolean', describe: 'release also what cannot be proven dead' },
    workload: { type: 'boolean', describe: 'take a sticky address from its workload too' },
    'dry-run': { type: 'boolean', describe: 'only say what would be done' },
    ...outputFlags,
    ...storeFlags,
  },
  examples: [
    ['kube-ipam release 10.1.0.17', 'asks first'],
    ['kube-ipam release default/web-0 --yes', 'all attachments of a pod, where each is proven dead'],
    ['kube-ipam release 4f0c1a9be2d4 --yes --force', 'of a node that was thrown away'],
    ['kube-ipam release default/web-0 --workload', 'of a StatefulSet whose cluster was thrown away'],
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
    for (const holding of holdings) outcomes.push(...(await releaseOne(args, io, store, holding)));
    if (given(args, 'workload')) outcomes.push(...(await takeKept(args, io, store, holdings)));
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

const notReleased = (named: string, why: string): Outcome => ({
  released: false,
  addresses: [],
  text: `${named}: not released: ${why}`,
});

/** One outcome; none for what a workload keeps and nobody uses, if that is to be taken from it. */
async function releaseOne(args: Args, io: CliIo, store: OpenStore, holding: Holding): Promise<Outcome[]> {
  const own = recordsToFree(holding);
  const named = own.length > 0 ? namesOf(own).join(', ') : 'an attachment without addresses';
  const kept = (why: string) => [notReleased(named, why)];
  const never = neverReleased(holding);
  if (never !== undefined) return [{ released: false, addresses: [], text: `not released: ${never}` }];
  if (holding.id === undefined && own.length === 0) {
    const why = `it is kept for ${holder(holding)}; --workload takes it away`;
    return given(args, 'workload') ? [] : [notReleased(namesOf(holding.records).join(', '), why)];
  }
  const verdict = verdictOf(store, holding);
  const why = `${verdict.why} (${holder(holding)})`;
  if (!verdict.dead && !given(args, 'force')) return kept(`${why}; --force releases it all the same`);
  if (given(args, 'dry-run')) return kept(`dry run; it would be, as ${verdict.dead ? why : '--force was said'}`);
  const doubt = verdict.dead ? '' : ' It is not proven that nobody uses it!';
  if (!confirmed(args, io, `Release ${named}, ${holder(holding)}?${doubt}`)) return kept('as you said');
  if ((await withdraw(store.around, holding)) === undefined)
    return kept('its records changed just now, so somebody uses them; look again');
  const stay = own.flatMap(({ ip, owner }) =>
    owner.workload === undefined ? [] : [`; ${formatIp(ip)} stays kept for ${describeWorkload(owner.workload)}`],
  );
  const addresses = namesOf(own.filter(({ owner }) => owner.kind !== 'sticky'));
  return [
    { released: true, addresses, text: `${named}: released: ${verdict.dead ? why : 'by force'}${stay.join('')}` },
  ];
}

/** Takes what the holdings' workloads keep from them, where no pod uses it any more. */
async function takeKept(
  args: Args,
  io: CliIo,
  { around }: OpenStore,
  holdings: readonly Holding[],
): Promise<Outcome[]> {
  const { keys } = around;
  const asked = holdings.flatMap(({ records }) => records).filter(({ owner }) => owner.workload !== undefined);
  // As they are now: their holders may have just gone.
  const records = await readRecords(around, [...new Map(asked.map(({ ip, entry }) => [entry.key, ip])).values()]);
  const sticky = records.filter(({ owner }) => owner.workload !== undefined);
  const keyOf = ({ owner: { cluster, network, workload, ifname } }: AddressRecord) =>
    keys.workload(cluster, network, workload!, ifname);
  const outcomes: Outcome[] = [];
  for (const [key, some] of Map.groupBy(sticky, keyOf)) outcomes.push(await takeFrom(args, io, around, key, some));
  return outcomes;
}

async function takeFrom(
  args: Args,
  io: CliIo,
  around: PatientSurroundings,
  key: string,
  records: readonly AddressRecord[],
): Promise<Outcome> {
  const addresses = namesOf(records);
  const named = addresses.join(', ');
  const workload = describeWorkload(records[0]!.owner.workload!);
  const used = records.find(({ owner }) => owner.holders.length > 0);
  if (given(args, 'dry-run')) {
    return notReleased(named, `dry run; it would be taken from ${workload}${used ? ' once no pod uses it' : ''}`);
  }
  if (used !== undefined) return notReleased(named, `it is in use by ${describeOwner(used.owner)}`);
  const question = `Take ${named} from ${workload}? Its next pod is given another address.`;
  if (!confirmed(args, io, question)) return notReleased(named, 'as you said');
  if (!(await takeFromWorkload(around, key, records)))
    return notReleased(named, 'its records changed just now, so somebody uses them; look again');
  around.log.info('released by hand', { workload, address: addresses });
  return { released: true, addresses, text: `${named}: taken from ${workload}` };
}

function namesOf(records: readonly AddressRecord[]): string[] {
  return records.map(({ ip }) => formatIp(ip));
}

/** The verdict on the attachment goes by its own records, all of which one ADD wrote. */
function verdictOf(store: OpenStore, holding: Holding): Verdict {
  const own = recordsToFree(holding);
  if (holding.id === undefined) return { dead: false, why: 'its time is not over' };
  if (own.length === 0) return { dead: false, why: 'no record says where its container lives' };
  const verdicts = own.map(({ owner }) => verdictOn(store.around, store.node, holderIn(holding, owner)));
  return verdicts.find(({ dead }) => !dead) ?? verdicts[0]!;
}

function holder(holding: Holding): string {
  const { id, records } = holding;
  const owner = records[0]?.owner;
  if (owner !== undefined)
    return describeOwner(id === undefined ? owner : { ...owner, holders: [holderIn(holding, owner)] });
  return id === undefined ? 'nobody' : `container ${id.containerID} ${id.ifname} on node ${id.node}`;
}

/** Two pods may hold the address of a VM, and only one of them is meant. */
function holderIn({ id }: Holding, owner: OwnerRecord): Holder {
  return owner.holders.find(one => id !== undefined && sameAttachment(one, id)) ?? owner;
}
