// gc: frees what the Kubernetes API calls dead in two scans, a grace apart. What may live is told, and never touched.
import type { Pod as KubePod } from '../../kube/objects.ts';
import type { Ip } from '../../net/ip.ts';
import type { AttachmentId } from '../../store/keys.ts';
import { afterPrefix, type Entry } from '../../store/kv.ts';
import { describeAddresses, describePod } from '../describe.ts';
import { holderOfPod, isReplaced, type Subject, whyDead, whyUntouchable } from '../gc.ts';
import type { Holder, Pod, Workload } from '../model.ts';
import type { GcApi } from '../ports.ts';
import { DistantFate, type Fate, OurFate } from './fate.ts';
import { ipOfKey } from './look.ts';
import { type PatientSurroundings, scanAll } from './patience.ts';
import { type HeldAttachment, readEarlierBoots, releaseRead, subjectOf, withRecords } from './release.ts';
import type { Suspects } from './suspects.ts';

/**
 * `suspect`: seen dead, and not yet for as long as the grace; `freed`; `dead`: would be freed, in a dry run; `changed`:
 * it moved at the last moment, and was left alone; `orphan`: its network namespace is still on this node; `left`: dead
 * on a node that is not gone, whose own agent frees it; `mended`: a record got back the attachment that it had lost;
 * `unanswered`: the API did not say whether its workload lives.
 */
export const outcomes = ['suspect', 'freed', 'dead', 'changed', 'orphan', 'left', 'mended', 'unanswered'] as const;
export type Outcome = (typeof outcomes)[number];

/** One attachment or workload that gc had something to say about. */
export interface Finding {
  readonly outcome: Outcome;
  readonly addresses: readonly Ip[];
  /** Absent for a workload, which has no place. */
  readonly id?: AttachmentId;
  readonly pod?: Pod;
  readonly workload?: Workload;
  readonly why: string;
  /** Milliseconds since this scanner first saw it dead. */
  readonly age: number;
}

export interface SweepOptions {
  readonly cluster: string;
  /** Whether the cluster may be recorded as the owner of its name, where nobody is yet. */
  readonly mayClaim: boolean;
  /** Seconds for which addresses that a network releases are held for their former owners. */
  cooldownOf(network: string): number;
  /** Milliseconds between the first look and the one that frees. */
  readonly grace: number;
  /** Milliseconds for which a node may be not ready before what ran there counts as lost. */
  readonly nodeGrace: number;
  /** Everything in the store is this machine's. */
  readonly embedded: boolean;
  readonly dryRun: boolean;
}

/** What one scan works with. */
export interface Sweep {
  readonly around: PatientSurroundings;
  readonly api: GcApi;
  readonly options: SweepOptions;
}

/** A node by its two names. */
export interface NodeNames {
  /** In the store. */
  readonly node: string;
  /** In the API. */
  readonly kubeNode: string;
}

/** Attachments that are judged together. */
const pageSize = 2000;

/** Up to so many pods are asked for one by one: a list of a node's pods is larger than they. */
const fewPods = 5;

/** GETs that are under way at the same time. */
const atOnce = 8;

/** Rule (e): what this machine left behind when it was started again. No API is asked, and one look is proof. */
export async function* sweepEarlierBoots(
  around: PatientSurroundings,
  node: string,
  { cluster, dryRun }: Pick<SweepOptions, 'cluster' | 'dryRun'>,
): AsyncIterable<Finding> {
  around.deadline.renew();
  for (const held of await readEarlierBoots(around, node, cluster)) {
    const one = { held, subject: subjectOf(held), why: 'this machine was started again since it was written' };
    yield { ...describe(one), outcome: await free(around, one, 0, dryRun), why: one.why, age: 0 };
  }
}

/** A node's attachments by rules (a) to (d). `isOurs`: the node that this runs on. Throws what store and API throw. */
export async function* sweepNode(
  sweep: Sweep,
  names: NodeNames,
  isOurs: boolean,
  suspects: Suspects,
): AsyncIterable<Finding> {
  const { around } = sweep;
  const prefix = around.keys.attachments(names.node);
  const entries: Entry[] = [];
  for await (const page of scanAll(around, prefix, afterPrefix(prefix))) entries.push(...page);
  const fate = isOurs ? new OurFate(sweep, names) : new DistantFate(sweep, names);
  suspects.begin();
  for (const page of chunks(entries, pageSize)) {
    around.deadline.renew();
    yield* sweepPage(sweep, names, await withRecords(around, page), suspects, fate);
  }
  suspects.end();
}

/** An attachment that a pod of Kubernetes has or had. */
export interface Judged {
  readonly held: HeldAttachment;
  readonly subject: Subject;
  readonly holder: Holder;
}

interface Dead extends Judged {
  /** By rule (d), which goes by the records alone. */
  readonly whyReplaced: string | undefined;
  readonly why: string;
  readonly age: number;
}

async function* sweepPage(
  sweep: Sweep,
  { kubeNode }: NodeNames,
  page: readonly HeldAttachment[],
  suspects: Suspects,
  fate: Fate,
): AsyncIterable<Finding> {
  const { around, options } = sweep;
  const judged = page.flatMap((held): Judged[] => {
    const subject = subjectOf(held);
    const holder = whyUntouchable(subject, options.cluster) === undefined ? holderOfPod(subject) : undefined;
    return holder === undefined ? [] : [{ held, subject, holder }];
  });
  // The records were read before the pods: whatever appeared in between is in the second list only.
  const pods = await readPods(sweep, kubeNode, judged);
  const replaced = replacedAmong(judged);
  const proven: Dead[] = [];
  for (const one of judged) {
    const whyReplaced = replaced.has(one) ? 'a newer sandbox of its pod has its place' : undefined;
    const why = whyDead(one.holder, pods.get(nameOf(one))) ?? whyReplaced;
    if (why === undefined) continue;
    const age = suspects.age(one.held.attachment.key, markOf(one.held));
    const dead = { ...one, whyReplaced, why, age };
    if (age > 0 && age >= options.grace) proven.push(dead);
    else yield { ...describe(one), outcome: 'suspect', why, age };
  }
  // All is asked before anything is freed: where one answer is missing, none of this page goes.
  const verdicts: { dead: Dead; doubt: string | undefined }[] = [];
  for (const dead of await confirmed(sweep, proven, suspects)) {
    verdicts.push({ dead, doubt: await fate.whyMayLive(dead) });
  }
  for (const { dead, doubt } of verdicts) {
    const common = { ...describe(dead), age: dead.age };
    if (doubt !== undefined) {
      yield { ...common, outcome: fate.doubted, why: `${dead.why}, but ${doubt}` };
      continue;
    }
    const outcome = await free(around, dead, options.cooldownOf(dead.subject.id.network), options.dryRun);
    yield { ...common, outcome, why: dead.why };
  }
}

function nameOf({ holder }: Judged): string {
  return describePod(holder.pod!);
}

/** By name, those that exist. The list of a node lacks what its pods' names stand for elsewhere: the GET has the last word. */
async function readPods(
  { around, api }: Sweep,
  kubeNode: string,
  judged: readonly Judged[],
): Promise<ReadonlyMap<string, KubePod>> {
  const wanted = new Map(judged.map(one => [nameOf(one), one]));
  const pods = new Map<string, KubePod>();
  if (wanted.size <= fewPods) {
    for (const [name, { holder }] of wanted) {
      const pod = await getPod({ around, api }, holder);
      if (pod !== undefined) pods.set(name, pod);
    }
    return pods;
  }
  for (const pod of await api.podsOn(kubeNode)) {
    const name = describePod({ namespace: pod.metadata.namespace ?? '', name: pod.metadata.name });
    if (wanted.has(name)) pods.set(name, pod);
  }
  return pods;
}

function getPod({ around, api }: Pick<Sweep, 'around' | 'api'>, { pod }: Holder): Promise<KubePod | undefined> {
  around.deadline.renew();
  return api.pod(pod!.namespace, pod!.name, around.deadline);
}

function replacedAmong(judged: readonly Judged[]): ReadonlySet<Judged> {
  const byPod = Map.groupBy(judged, ({ holder }) => holder.pod!.uid);
  const ofSamePod = [...byPod.values()].filter(({ length }) => length > 1);
  return new Set(
    ofSamePod.flatMap(some => {
      const subjects = some.map(({ subject }) => subject);
      return some.filter(({ subject }) => isReplaced(subject, subjects));
    }),
  );
}

/** Those that are dead still when each pod is asked for by its name. */
async function confirmed(sweep: Sweep, proven: readonly Dead[], suspects: Suspects): Promise<Dead[]> {
  const dead: Dead[] = [];
  for (const some of chunks(proven, atOnce)) {
    const pods = await Promise.all(some.map(({ holder }) => getPod(sweep, holder)));
    for (const [i, one] of some.entries()) {
      const why = whyDead(one.holder, pods[i]) ?? one.whyReplaced;
      if (why === undefined) suspects.clear(one.held.attachment.key);
      else dead.push({ ...one, why });
    }
  }
  return dead;
}

async function free(
  around: PatientSurroundings,
  { held, subject, why }: Pick<Dead, 'held' | 'subject' | 'why'>,
  cooldown: number,
  dryRun: boolean,
): Promise<Outcome> {
  if (dryRun) return 'dead';
  around.deadline.renew();
  if (!(await releaseRead(around, held, { cooldown }))) return 'changed';
  const { network, containerID, ifname } = subject.id;
  const { pod, addresses } = describe({ held, subject });
  around.log.info('gc', {
    network,
    containerID,
    ifname,
    ...(pod && { pod: describePod(pod) }),
    address: describeAddresses(addresses),
    why,
  });
  return 'freed';
}

function describe({ held, subject }: Pick<Judged, 'held' | 'subject'>) {
  const pod = holderOfPod(subject)?.pod;
  const addresses = held.owned.flatMap(({ entry }) => ipOfKey(entry.key) ?? []);
  return { id: subject.id, addresses, ...(pod && { pod }) };
}

/** Whoever asks again, takes over or shares one of its addresses moves a revision. */
function markOf({ attachment, owned }: HeldAttachment): string {
  return [attachment, ...owned.map(({ entry }) => entry)].map(({ revision }) => revision).join(' ');
}

export function* chunks<T>(list: readonly T[], size: number): Iterable<readonly T[]> {
  for (let start = 0; start < list.length; start += size) yield list.slice(start, start + size);
}
