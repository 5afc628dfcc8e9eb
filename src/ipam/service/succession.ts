// Who may follow whom on an address that names a holder already: the rules for taking over, and what the Kubernetes API must say first.
import { code, FailureError, messageOf } from '../../base/errors.ts';
import type { Pod as KubePod } from '../../kube/objects.ts';
import { formatIp, type Ip } from '../../net/ip.ts';
import { describeOwner, describePod } from '../describe.ts';
import { defaultNodeGrace, shareController, whyDead, whyGone } from '../gc.ts';
import { type Holder, type OwnerRecord, sameAttachment } from '../model.ts';
import type { Api, Surroundings } from '../ports.ts';
import { holdIsFor, type Owner } from '../records.ts';

/** A wanted address has a living owner; asking again helps once that has gone. */
export class HeldError extends FailureError {
  override name = 'HeldError';
  readonly ip: Ip;

  constructor(network: string, ip: Ip, holder: OwnerRecord, hint: string) {
    super(
      code.tryAgain,
      `address ${formatIp(ip)} of network ${network} is held by ${describeOwner(holder)}${hint}; see "kube-ipam show ${formatIp(ip)}"`,
    );
    this.ip = ip;
  }
}

/** The pod that wants an address, as the API has it. */
export interface Heir {
  readonly owner: Owner;
  /** Absent where no API is asked. */
  readonly pod?: KubePod;
  /** Whether the runtime said the pod's uid. Otherwise it is that of the pod which has this name in the API now. */
  readonly knownByUid: boolean;
}

/** `free`: the heir may have it, and these holders go; `sibling`: another interface of the same sandbox has it. */
export type Succession =
  | { readonly free: true; readonly gone: readonly Holder[] }
  | { readonly free: false; readonly sibling: boolean; readonly hint: string };

/**
 * Whether the heir may take an address that a record gives to somebody else, for naming it. What the API cannot answer
 * counts as no.
 */
export async function mayTakeOver(around: Surroundings, heir: Heir, record: OwnerRecord): Promise<Succession> {
  const no = (hint: string, sibling = false): Succession => ({ free: false, sibling, hint });
  const { owner } = heir;
  if (holdIsFor(record, owner)) return { free: true, gone: [] };
  const [holder] = record.holders;
  if (holder === undefined || record.kind === 'sticky') return no('');
  if (sameAttachment(holder, owner.id)) return { free: true, gone: [] };
  if (record.cluster !== owner.cluster) return no(` in cluster ${record.cluster}`);
  if (holder.node === owner.id.node && holder.containerID === owner.id.containerID) return no('', true);
  if (around.api === undefined || heir.pod === undefined) return no('');
  const fate = await fateOf(around, around.api, heir, holder);
  return fate.alive ? no(fate.hint) : { free: true, gone: [holder] };
}

/**
 * The holders of a workload's address that stay beside the heir, and those that go. Throws HeldError where a living one
 * leaves no room: one pod of a StatefulSet, two of a VM while it migrates.
 */
export async function succeed(
  around: Surroundings,
  heir: Heir,
  { mayShare }: { readonly mayShare: boolean },
  ip: Ip,
  record: OwnerRecord,
): Promise<{ readonly stay: readonly Holder[]; readonly gone: readonly Holder[] }> {
  const stay: Holder[] = [];
  const gone: Holder[] = [];
  // A pod that has it already asks again, or from a new sandbox: whoever was let in beside it stays.
  const isHolder = record.holders.some(holder => isPodOf(heir, holder));
  for (const holder of record.holders) {
    if (sameAttachment(holder, heir.owner.id)) continue;
    const fate =
      around.api === undefined
        ? { alive: true, hint: ': there is no API to ask whether it lives' }
        : await fateOf(around, around.api, heir, holder);
    if (!fate.alive) gone.push(holder);
    else if ((mayShare || isHolder) && stay.length === 0) stay.push(holder);
    else {
      throw new HeldError(heir.owner.id.network, ip, { ...record, holders: [holder] }, fate.hint);
    }
  }
  return { stay, gone };
}

/**
 * Whether the heir is the holder's pod. By its name alone it is believed on the holder's own node only: a node that was
 * lost may still start a pod of that name whose successor lives elsewhere.
 */
function isPodOf({ owner, knownByUid }: Heir, { pod, node }: Holder): boolean {
  return pod?.uid !== undefined && pod.uid === owner.pod?.uid && (knownByUid || node === owner.id.node);
}

type Fate = { readonly alive: false } | { readonly alive: true; readonly hint: string };

async function fateOf(around: Surroundings, api: Api, heir: Heir, holder: Holder): Promise<Fate> {
  // Whatever the API says, or does not say: the store is asked after it.
  const deadline = around.deadline.within(around.deadline.left() / 2);
  const alive = (hint: string): Fate => ({ alive: true, hint });
  const { pod } = holder;
  if (pod === undefined || pod.namespace === '') return alive('');
  if (isPodOf(heir, holder) && holder.ifname === heir.owner.id.ifname) return { alive: false };
  try {
    const found = await api.pod(pod.namespace, pod.name, deadline);
    if (found === undefined || whyDead(holder, found) !== undefined) return { alive: false };
    if (found.metadata.deletionTimestamp !== undefined && found.spec?.nodeName !== undefined) {
      const node = await api.node(found.spec.nodeName, deadline);
      if (whyGone(node, defaultNodeGrace) !== undefined) return { alive: false };
    }
    if (heir.pod === undefined || !shareController(heir.pod, found)) return alive('');
    return alive(': the old pod of this rollout still holds it: use strategy Recreate or maxUnavailable 1');
  } catch (error) {
    return alive(`, and whether pod ${describePod(pod)} still lives could not be asked: ${messageOf(error)}`);
  }
}
