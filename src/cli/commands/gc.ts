// `kube-ipam gc`: frees what died without saying so, by what the Kubernetes API says of its pods.
import { setTimeout as sleep } from 'node:timers/promises';
import { ClientGcApi } from '../../agent/gc-api.ts';
import { FailureError } from '../../base/errors.ts';
import { nodeNameOf } from '../../base/node-name.ts';
import { readAccessConfig, readNetworkConfig } from '../../ipam/config.ts';
import { describeAddresses, describePod } from '../../ipam/describe.ts';
import { defaultGrace, defaultNodeGrace } from '../../ipam/gc.ts';
import { prepareStore } from '../../ipam/service/patience.ts';
import { type Finding, type Outcome, type SweepOptions, sweepEarlierBoots } from '../../ipam/service/sweep.ts';
import { Sweeper } from '../../ipam/service/sweeper.ts';
import { type Client, openClient } from '../../kube/client.ts';
import { formatIp } from '../../net/ip.ts';
import { type Args, type Command, durationOf, exit, given, text, UsageError } from '../command.ts';
import { defaultConfDir, readConfFolder } from '../networks.ts';
import { counted, formatOf, isForPeople, outputFlags, painter, printValue, progressOf, Table } from '../output.ts';
import type { CliIo } from '../program.ts';
import {
  chooseStore,
  NotConfiguredError,
  type OpenStore,
  openChosen,
  type StoreChoice,
  storeFlags,
} from '../store-access.ts';

export const command: Command = {
  verb: 'gc',
  summary: 'free what died without saying so',
  details:
    'Looks twice, --grace apart. What the Kubernetes API both times calls dead (its pod is absent, ended, replaced by ' +
    'another one of its name, or has a newer sandbox), and what nobody touched in between, is freed once its network ' +
    'namespace is gone from this node, or its own node from the cluster; so is what a StatefulSet or a VM keeps that is ' +
    'there no more. What earlier boots of this machine left is freed at once, and is all that --local looks for. ' +
    'Reservations, holds, Services, containers that are no pods, and records of other clusters are never touched. ' +
    'The agent does the same every minute.',
  positionals: [],
  flags: {
    local: { type: 'boolean', describe: 'only what earlier boots of this machine left; no Kubernetes API is asked' },
    'dry-run': { type: 'boolean', describe: 'only say what would be freed, and why' },
    grace: { type: 'string', value: 'TIME', describe: 'time between the two looks (30s)' },
    'node-grace': {
      type: 'string',
      value: 'TIME',
      describe: 'how long a node may be not ready before what ran there counts as lost (5m)',
    },
    kubeconfig: {
      type: 'string',
      value: 'FILE',
      describe: "how to reach the Kubernetes API (this pod's service account, or kubeConfig of the network)",
    },
    context: { type: 'string', value: 'NAME', describe: 'context of the kubeconfig (its current one)' },
    cluster: {
      type: 'string',
      value: 'NAME',
      describe: "the cluster's name in the store (the network's own, or default)",
    },
    ...outputFlags,
    ...storeFlags,
  },
  examples: [
    ['kube-ipam gc --dry-run', 'what would go, what would stay, and why'],
    ['kube-ipam gc --kubeconfig /etc/kubernetes/admin.conf', ''],
    ['kube-ipam gc --local', 'after a restart of the machine, without Kubernetes'],
  ],
  async run(args, io) {
    const choice = chooseStore(args);
    const options = optionsOf(args, choice);
    const isLocal = given(args, 'local');
    if (isLocal) refuseWithLocal(args);
    await using client = isLocal ? undefined : await openClient({ ...sourceOf(args, io, choice), env: io.env });
    await using store = await openChosen(choice);
    if (!options.dryRun) await prepareStore(store.around);
    const local = sweepEarlierBoots(store.around, store.node, options);
    const findings = client === undefined ? await collected(local) : await lookTwice(io, store, client, options);
    print(args, io, findings, options.dryRun);
    return findings.some(({ outcome }) => outcome === 'unanswered') ? exit.trouble : exit.fine;
  },
};

function refuseWithLocal(args: Args): void {
  const asking = ['kubeconfig', 'context', 'grace', 'node-grace'].find(name => args[name] !== undefined);
  if (asking !== undefined) throw new UsageError(`gc --local asks no Kubernetes API: leave out --${asking}`);
}

function optionsOf(args: Args, { access, network: found }: StoreChoice): SweepOptions {
  const cooldowns = cooldownsIn(text(args, 'conf-dir') ?? defaultConfDir);
  return {
    cluster: text(args, 'cluster') ?? access.cluster,
    // Flags may name a store that has nothing to do with the cluster of the kubeconfig.
    mayClaim: found !== undefined,
    cooldownOf: network => (network === access.network ? access.cooldown : (cooldowns.get(network) ?? 0)),
    grace: durationOf(args, 'grace') ?? defaultGrace,
    nodeGrace: durationOf(args, 'node-grace') ?? defaultNodeGrace,
    embedded: access.store.kind === 'embedded',
    dryRun: given(args, 'dry-run'),
  };
}

/** Seconds, by network: other networks than the chosen one may share its address space. */
function cooldownsIn(folder: string): ReadonlyMap<string, number> {
  const found = readConfFolder(folder).networks.flatMap(({ name, conf }): [string, number][] => {
    try {
      return [[name, readAccessConfig(conf).cooldown]];
    } catch (error) {
      if (!(error instanceof FailureError)) throw error;
      return [];
    }
  });
  return new Map(found);
}

/** A kubeconfig, or nothing inside of a pod: its account may more than that of the plugin, which the network names. */
function sourceOf(args: Args, io: CliIo, { network }: StoreChoice) {
  const context = text(args, 'context');
  const isPod = io.env.KUBERNETES_SERVICE_HOST !== undefined;
  const configured = network && readNetworkConfig(network.conf, String(network.conf.cniVersion ?? '')).kubeConfig;
  const kubeconfig = text(args, 'kubeconfig') ?? (isPod ? undefined : configured);
  if (kubeconfig === undefined && !isPod) {
    throw new NotConfiguredError(
      'gc asks the Kubernetes API which pods live: name a kubeconfig with --kubeconfig (the network configuration has none), or say --local',
    );
  }
  return { ...(kubeconfig !== undefined && { kubeconfig }), ...(context !== undefined && { context }) };
}

/** What the first look has done or found already is told; what it only suspects is left to the second. */
async function lookTwice(
  io: CliIo,
  { around, access, node }: OpenStore,
  client: Client,
  options: SweepOptions,
): Promise<readonly Finding[]> {
  const sweeper = new Sweeper();
  const sweep = { around, api: new ClientGcApi(client), options };
  const scope = { node, kubeNode: nodeNameOf(access.nodeName), reach: 'all' as const };
  const first = await collected(sweeper.scan(sweep, scope));
  if (first.every(({ outcome }) => outcome !== 'suspect')) return first;
  await waitFor(io, options.grace);
  const done: readonly Outcome[] = ['freed', 'changed', ...(options.dryRun ? [] : (['mended'] as const))];
  const second = await collected(sweeper.scan(sweep, scope));
  return [...first.filter(({ outcome }) => done.includes(outcome)), ...second];
}

async function collected(findings: AsyncIterable<Finding>): Promise<readonly Finding[]> {
  const all: Finding[] = [];
  for await (const finding of findings) all.push(finding);
  return all;
}

async function waitFor(io: CliIo, ms: number): Promise<void> {
  const progress = progressOf(io, 'seconds until the second look');
  for (const begun = performance.now(); performance.now() - begun < ms; ) {
    const left = ms - (performance.now() - begun);
    progress.step(Math.ceil(left / 1000), Math.ceil(ms / 1000));
    await sleep(Math.min(1000, left));
  }
  progress.end();
}

/** In a dry run nothing has happened. */
const words: Readonly<Record<Outcome, string>> = {
  suspect: 'seems dead',
  freed: 'freed',
  dead: 'would be freed',
  changed: 'in use again',
  orphan: 'kept',
  left: 'kept',
  mended: 'mended',
  unanswered: 'not known',
};

function print(args: Args, io: CliIo, findings: readonly Finding[], dryRun: boolean): void {
  const format = formatOf(args);
  const count = (...outcomes: Outcome[]) => findings.filter(({ outcome }) => outcomes.includes(outcome)).length;
  const [freed, kept] = [count('freed', 'dead'), count('orphan', 'left', 'unanswered')];
  if (!isForPeople(format)) {
    printValue(io, format, { dryRun, freed: dryRun ? 0 : freed, kept, findings: findings.map(asObject) });
    return;
  }
  const table = new Table<Finding>(
    io,
    [
      { title: 'RESULT', cell: ({ outcome }) => (dryRun && outcome === 'mended' ? 'would be mended' : words[outcome]) },
      { title: 'ADDRESS', cell: ({ addresses }) => describeAddresses(addresses) },
      { title: 'NODE', cell: ({ id }) => id?.node ?? '' },
      { title: 'OWNER', cell: ownerOf },
      { title: 'CONTAINER', cell: ({ id }) => id?.containerID.slice(0, format === 'wide' ? undefined : 13) ?? '' },
      { title: 'IF', cell: ({ id }) => id?.ifname ?? '' },
      { title: 'WHY', cell: ({ why }) => why },
    ],
    painter(args, io),
  );
  table.rows(findings);
  const verb = dryRun ? 'would be freed' : 'freed';
  const rest = kept === 0 ? '' : `, ${kept} dead and kept`;
  io.writeStdout(`${counted(freed, 'attachment or workload', 'attachments or workloads')} ${verb}${rest}\n`);
}

function ownerOf({ pod, workload }: Finding): string {
  if (workload !== undefined) return `${workload.kind} ${workload.namespace}/${workload.name}`;
  return pod === undefined ? '' : describePod(pod);
}

function asObject({ outcome, addresses, id, pod, workload, why, age }: Finding): object {
  const seconds = Math.round(age / 1000);
  return { outcome, addresses: addresses.map(formatIp), ...id, pod, workload, why, deadForSeconds: seconds };
}
